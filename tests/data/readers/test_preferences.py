"""Pairs of answers: VLFeedback's rated completions in its lines and in tables, and files with a pair a record."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_rows import ANSWERS, IMAGE, NOISED, VLFEEDBACK, annotation, raw

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.preferences import RLAIF_V, RLHF_V, Preferences, VlFeedback
from xgenmm_jax.data.records import Preference, Turn
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet

FILES = {"merged_images/0.jpg": IMAGE}
A, B, C, D = ANSWERS


def rated(*ratings: object, answers: tuple[str, ...] = ANSWERS) -> dict:
    """VLFeedback's record with so many completions, each of whose three aspects has the rating."""
    annotations = [annotation(*[rating] * 3) for rating in ratings]
    some = list(answers[: len(ratings)])
    completions = {"model": ["m"] * len(ratings), "response": some, "annotations": annotations}
    return VLFEEDBACK | {"completions": completions}


def pairs(row: dict, which: str = "all") -> list[tuple[str, str]]:
    reader, one = VlFeedback(pairs=which), raw(row, FILES)
    records = [reader.read(one, choice) for choice in range(reader.choices(one))]
    return [(record.chosen, record.rejected) for record in records]


def opened(storage, reader: Reader):
    [path] = storage.shards()
    return storage.open(path, storage.locate(path), reader.fields, reader.optional)


def test_the_best_completion_is_chosen_and_the_worst_rejected():
    record = VlFeedback().read(raw(VLFEEDBACK, FILES), 0)
    assert isinstance(record, Preference) and isinstance(VlFeedback(), Reader)
    assert record.turns == (Turn("user", f"<image>\n{VLFEEDBACK['prompt']}"),)
    assert (record.chosen, record.rejected, record.images[0].size_px) == (B, D, (40, 30))
    assert VlFeedback().choices(raw(VLFEEDBACK, FILES)) == 1
    assert VlFeedback().fields == ("prompt", "completions", "img_path")


def test_a_mean_is_of_all_aspects():
    row = rated("1", "1")
    row["completions"]["annotations"] = [annotation("5", "1", "2"), annotation("3", "3", "3")]
    assert pairs(row) == [(B, A)]


def test_all_pairs_whose_means_differ_are_there_to_choose_from():
    assert pairs(rated("3", "5", "3", "1")) == [(B, A), (A, D), (B, C), (B, D), (C, D)]
    assert pairs(rated("3", "5", "3", "1"), "best_worst") == [(B, D)]


def test_of_equal_completions_the_first_is_taken():
    assert pairs(rated("5", "5", "1", "1"), "best_worst") == [(A, C)]
    assert pairs(rated(5, 4.5, "1"), "best_worst") == [(A, C)]


@pytest.mark.parametrize("rating", ["N/A", "", None, "nan", "inf", "four", True, [], "9" * 400, 10**400])
def test_a_rating_that_is_no_number_leaves_its_completion_out_of_every_pair(rating):
    row = rated("3", "5", "2")
    row["completions"]["annotations"][1] = annotation("5", rating, "5")
    assert pairs(row) == pairs(row, "best_worst") == [(A, C)]
    for aspects in ({}, {"Helpfulness": None}, {"Helpfulness": "5"}, {"Helpfulness": {"Rationale": "Good."}}):
        row["completions"]["annotations"][1] = aspects
        assert pairs(row) == [(A, C)]


def test_completions_may_be_a_list_of_objects():
    lists = VLFEEDBACK["completions"]
    objects = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    for which in ("all", "best_worst"):
        assert pairs(VLFEEDBACK | {"completions": objects}, which) == pairs(VLFEEDBACK, which)


def test_equal_or_empty_answers_make_no_pair():
    assert pairs(rated("5", "4", "1", answers=(A, "", A))) == [(A, "")]
    with pytest.raises(RecordError, match="no pair: .* the means are 5, 1"):
        pairs(rated("5", "1", answers=(A, A)), "best_worst")


@pytest.mark.parametrize("which", ["all", "best_worst"])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        (rated("4", "4", "4"), "no pair: wanted two answers whose mean ratings differ, the means are 4, 4"),
        (rated("4", "N/A"), "no pair"),
        (rated(), "the means are none"),
        (VLFEEDBACK | {"prompt": " "}, "the prompt is empty"),
        (VLFEEDBACK | {"prompt": "<image> or <image>?"}, "a prompt with 2 <image>"),
        (VLFEEDBACK | {"prompt": None}, "'prompt' is NoneType"),
        (VLFEEDBACK | {"img_path": "gone.jpg"}, "no file 'gone.jpg'"),
        (VLFEEDBACK | {"completions": "x"}, "'completions' is str, wanted an object of lists or a list of objects"),
        (VLFEEDBACK | {"completions": {"response": [A]}}, "'completions' has 'response'; wanted lists"),
        (VLFEEDBACK | {"completions": {"response": [A], "annotations": []}}, "of one length"),
        (VLFEEDBACK | {"completions": [{"annotations": {}}]}, "'response' 1 is NoneType, wanted text"),
        (VLFEEDBACK | {"completions": [{"response": A}]}, "'annotations' 1 is NoneType"),
        (VLFEEDBACK | {"completions": [{"response": A, "annotations": {}}] * 17}, "17 completions, more than 16"),
        ({"prompt": "x", "img_path": "x"}, "no 'completions'; it has 'prompt', 'img_path'"),
    ],
)
def test_what_has_no_pair_is_an_error_of_its_record_with_its_reason(row, said, which):
    with pytest.raises(RecordError) as error:
        pairs(row, which)
    assert said in str(error.value) and error.value.record == "rows[3]"


def test_vlfeedback_is_read_from_its_lines_and_from_tables(tmp_path):
    (tmp_path / "merged_images").mkdir()
    (tmp_path / "merged_images" / "0.jpg").write_bytes(IMAGE)
    (tmp_path / "vlfeedback_80k.jsonl").write_text(json.dumps(VLFEEDBACK) + "\n")
    wanted = VlFeedback().read(raw(VLFEEDBACK, FILES), 0)
    lines = opened(JsonFiles(str(tmp_path / "*.jsonl"), str(tmp_path)), VlFeedback())
    inside = VLFEEDBACK | {"image": {"bytes": IMAGE, "path": None}}
    pq.write_table(pa.Table.from_pylist([inside]), tmp_path / "0.parquet")
    of_table = VlFeedback(image=("image",), image_name="")
    table = opened(Parquet(str(tmp_path / "0.parquet")), of_table)
    for record in (VlFeedback().read(lines.read(0), 0), of_table.read(table.read(0), 0)):
        assert (record.turns, record.chosen, record.rejected) == (wanted.turns, wanted.chosen, wanted.rejected)
        assert record.images[0].load().size == (40, 30)


def renamed(row: dict, name: str) -> dict:
    return {f"{key}_" if key == name else key: value for key, value in row.items()}


@pytest.mark.parametrize(
    ("reader", "row"),
    [
        (VlFeedback(), VLFEEDBACK),
        (Preferences(), NOISED),
        (RLAIF_V, {"image": IMAGE, "question": "?", "chosen": "a", "rejected": "b"}),
    ],
)
def test_a_renamed_column_ends_the_run_with_those_that_are_there(tmp_path: Path, reader, row):
    for name in reader.fields:
        pq.write_table(pa.Table.from_pylist([renamed(row, name)]), tmp_path / "0.parquet")
        with pytest.raises(SourceError) as error:
            opened(Parquet(str(tmp_path / "0.parquet")), reader)
        assert f"no column '{name}'; the columns found: " in str(error.value) and f"'{name}_'" in str(error.value)


def test_rejected_answers_of_ones_own_are_pairs(tmp_path):
    (tmp_path / "0.jpg").write_bytes(IMAGE)
    rows = [NOISED | {"image": "0.jpg"}, NOISED | {"image": "0.jpg", "prompt": "Is <image> a bus?"}]
    (tmp_path / "noised.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shard = opened(JsonFiles(str(tmp_path / "noised.jsonl"), str(tmp_path)), Preferences())
    first, second = (Preferences().read(shard.read(number), 0) for number in range(2))
    assert (first.chosen, first.rejected) == (NOISED["chosen"], NOISED["rejected"])
    assert first.turns == (Turn("user", f"<image>\n{NOISED['prompt']}"),)
    assert second.turns == (Turn("user", "Is <image> a bus?"),) and second.images[0].load().size == (40, 30)


def test_published_pairs_have_the_image_in_the_table():
    said = {"question": "What is it?", "chosen": "A bus.", "rejected": "A car."}
    image = {"bytes": IMAGE, "path": "a.jpg"}
    wanted = ((Turn("user", "<image>\nWhat is it?"),), "A bus.", "A car.")
    for reader, row in ((RLAIF_V, said), (RLHF_V, {"text": json.dumps(said), "idx": 0})):
        record = reader.read(raw(row | {"image": image}), 0)
        assert (record.turns, record.chosen, record.rejected) == wanted


@pytest.mark.parametrize(
    ("reader", "row", "said"),
    [
        (Preferences(), NOISED | {"chosen": ""}, "'chosen' is empty"),
        (Preferences(), NOISED | {"rejected": " \n"}, "'rejected' is empty"),
        (Preferences(), NOISED | {"rejected": NOISED["chosen"]}, "'chosen' and 'rejected' are the same"),
        (Preferences(), NOISED | {"prompt": 3}, "'prompt' is int, wanted text"),
        (Preferences(), NOISED | {"image": None}, "'image' is NoneType, wanted text"),
        (Preferences(), NOISED | {"image": "../x.jpg"}, "no file '../x.jpg'"),
        (Preferences(), {"image": "x", "prompt": "y", "chosen": "z"}, "no 'rejected'; it has 'image', 'prompt'"),
        (RLHF_V, {"image": IMAGE, "text": "[]"}, "'text' holds list, wanted an object"),
        (RLHF_V, {"image": IMAGE, "text": "{"}, "'text' is not JSON"),
        (RLHF_V, {"image": IMAGE, "text": '{"question": "?"}'}, "no 'chosen'; it has 'question'"),
    ],
)
def test_a_pair_of_another_form_is_an_error_of_its_record(reader, row, said):
    with pytest.raises(RecordError) as error:
        reader.read(raw(row), 0)
    assert said in str(error.value)


def test_an_unknown_option_is_refused(unchecked_signatures):
    with pytest.raises(ValueError, match="pairs='worst'.*wanted 'best_worst' or 'all'"):
        VlFeedback(pairs="worst")
