"""LLaVA's form as files in the wild have it: what is not of the form is left out and counted, and nothing else is."""

import json

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.errors import RecordError, SourceError, is_of_a_record
from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.data.records import Turn
from xgenmm_jax.data.rows import quarantine
from xgenmm_jax.data.source import Mapped, Source

RNG = np.random.default_rng(0)
HUMAN, GPT = {"from": "human", "value": "Red?"}, {"from": "gpt", "value": "Yes."}
GOOD = {"id": "good", "conversations": [HUMAN, GPT]}


@pytest.fixture
def folder(tmp_path):
    PIL.Image.new("RGB", (12, 8), "red").save(tmp_path / "red.png")
    return tmp_path


def opened(folder, rows: list, **options) -> Source:
    (folder / "data.json").write_text(json.dumps(rows))
    return LlavaJson(str(folder / "data.json"), str(folder), **options).open()


def talk(*roles: str, **extra) -> dict:
    names = {"u": "human", "a": "gpt", "s": "system"}
    turns = [{"from": names.get(role, role), "value": f"{role}{number}"} for number, role in enumerate(roles)]
    return {"id": "bad", "conversations": turns, **extra}


@pytest.mark.parametrize("image", [None, "", [], [""], [None], "  ", float("nan"), [None, ""]])
@pytest.mark.parametrize("key", ["image", "images"])
def test_no_image_in_any_spelling_is_text_alone(folder, key, image):
    """pandas and datasets write null, NaN or "" on rows without an image; such a file ended the run."""
    source = opened(folder, [GOOD | {key: image}])
    assert (len(source), source.left_out) == (1, ()) and source.record(0, RNG).images == ()


@pytest.mark.parametrize(
    "images",
    [{"images": ["red.png"]}, {"image": ["red.png"], "images": ["red.png"]}, {"image": "", "images": "red.png"}],
)
def test_images_under_either_name(folder, images):
    """Under "images" they were passed over, and the conversation was trained on without its image."""
    record = opened(folder, [GOOD | images]).record(0, RNG)
    assert len(record.images) == 1 and record.turns[0].text == "<image>\nRed?"


def test_a_changed_source_says_what_its_source_leaves_out(folder):
    """`Mapped` hid it: a run over squashed images did not say that half of the entries were of another form."""
    opened(folder, [GOOD, {"id": "x"}])
    mapped = Mapped(LlavaJson(str(folder / "data.json"), str(folder)), lambda record: record).open()
    assert [(skip.record, skip.count) for skip in quarantine.at_opening([mapped])] == [("llava/data/x", 1)]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (7, "no object", "7"),
        (None, "no object", "None"),
        (["a"], "no object", "['a']"),
        ({"id": "bad"}, "without a 'conversations' list", "'bad'"),
        ({"id": "bad", "conversations": {"from": "human"}}, "without a 'conversations' list", "human"),
        ({"id": "bad", "conversations": "Hi"}, "without a 'conversations' list", "Hi"),
        ({"id": "bad", "conversations": [HUMAN, 3]}, "a turn whose 'value' is no text", "3"),
        ({"id": "bad", "conversations": [HUMAN, GPT | {"value": None}]}, "a turn whose 'value' is no text", "None"),
        ({"id": "bad", "conversations": [HUMAN | {"value": 2.5}, GPT]}, "a turn whose 'value' is no text", "2.5"),
        ({"id": "bad", "conversations": [HUMAN | {"value": ["a"]}, GPT]}, "a turn whose 'value' is no text", "['a']"),
        ({"id": "bad", "conversations": [HUMAN, {"from": "gpt"}]}, "a turn whose 'value' is no text", "gpt"),
        (talk("u", "bing"), "a turn that is not 'from' system, human, gpt", "bing"),
        ({"id": "bad", "conversations": [HUMAN | {"from": ["human"]}, GPT]}, "a turn that is not 'from'", "['human']"),
        (talk(), "turns out of order", "no assistant"),
        (talk("a"), "turns out of order", "no assistant"),
        (talk("u", "u", "a"), "turns out of order", "[user, user, assistant]"),
        (talk("u", "a", "a"), "turns out of order", "[user, assistant, assistant]"),
        (talk("a", "a", "u", "a"), "turns out of order", "[assistant, user, assistant]"),
        (talk("u", "a", "s", "u", "a"), "turns out of order", "system"),
        (talk("u", "a", "u"), "turns out of order", "the last one the assistant's"),
        (talk("u", "a", image=["red.png"] * 5), "more than 4 images", "5"),
        (talk("u", "a", image=12), "'image' is neither a path nor a list of paths", "12"),
        (talk("u", "a", image={"bytes": "x"}), "'image' is neither a path nor a list of paths", "bytes"),
        (talk("u", "a", image=["red.png", None]), "'image' is neither a path nor a list of paths", "None"),
        (talk("u", "a", images=[["red.png"]]), "'image' is neither a path nor a list of paths", "red.png"),
        (talk("u", "a", image="red.png", images="x"), "'image' is neither a path nor a list of paths", "'images'"),
        ({"id": "bad", "conversations": [HUMAN | {"value": "<image>?"}, GPT]}, "<image> without an image", "'image'"),
    ],
)
def test_what_is_not_of_the_form_is_left_out_and_counted(folder, row, reason, detail):
    """It ended the run where it was drawn, at each start again, or was left out unseen."""
    source = opened(folder, [GOOD, row, GOOD, row])
    assert (len(source), sum(skip.count for skip in source.left_out)) == (2, 2)
    [skip] = source.left_out
    assert skip.reason.startswith(reason) and detail in skip.detail and skip.count == 2 and skip.at_opening
    assert skip.record == ("llava/data/bad" if isinstance(row, dict) else "llava/data/1")
    assert all(source.record(i, RNG).turns == (Turn("user", "Red?"), Turn("assistant", "Yes.")) for i in range(2))


@pytest.mark.parametrize(
    ("roles", "used"), [("aua", "ua"), ("saua", "sua"), ("auaua", "uaua"), ("sua", "sua"), ("uaua", "uaua")]
)
def test_an_answer_before_the_first_question_is_skipped(folder, roles, used):
    """As LLaVA's own preprocess does; it was supervised."""
    turns = opened(folder, [talk(*roles)]).record(0, RNG).turns
    assert "".join(turn.role[0] for turn in turns) == used
    assert [turn.text[0] for turn in turns] == list(used)


def test_reasons_are_counted_by_kind_with_the_first_entry(folder):
    source = opened(folder, [talk("u"), GOOD, talk("u", "u"), 5, talk("u", "a", image=["a"] * 9)])
    counts = {(skip.source, skip.reason): skip.count for skip in source.left_out}
    assert counts == {
        ("llava/data", "turns out of order"): 2,
        ("llava/data", "no object"): 1,
        ("llava/data", "more than 4 images"): 1,
    }
    assert "2 turns out of order (first: llava/data/bad: " in quarantine.in_words(source.left_out)


def test_nothing_usable_says_why(folder):
    with pytest.raises(ValueError, match="has 3 entries and none is usable .*2 turns out of order .*1 no object"):
        opened(folder, [talk("u"), talk("a"), "x"])
    with pytest.raises(ValueError, match="has 0 entries and none is usable"):
        opened(folder, [])


@pytest.mark.parametrize("id_", [None, ["a"], {"a": 1}, True, float("nan")])
def test_an_id_that_is_no_name_is_the_entrys_number(folder, id_):
    assert opened(folder, [GOOD, GOOD | {"id": id_}]).record(1, RNG).id == "llava/data/1"


def test_ids_may_be_numbers_and_repeat(folder):
    source = opened(folder, [GOOD | {"id": 12}, GOOD | {"id": 12}, GOOD | {"id": 1.5}])
    assert [source.record(i, RNG).id for i in range(3)] == ["llava/data/12", "llava/data/12", "llava/data/1.5"]


@pytest.mark.parametrize("image", ["../red.png", "gone.png", "a\0b.png", "x" * 400 + ".png", "data.json", "/etc/hosts"])
def test_an_image_that_cannot_be_opened_names_the_record(folder, image):
    """A missing file of a published mixture was told without saying which entry names it."""
    source = opened(folder, [GOOD | {"id": "r37", "image": image}])
    with pytest.raises(RecordError, match="r37") as error:
        source.record(0, RNG)
    assert is_of_a_record(error.value)


def lines(folder, data: bytes, name: str = "data.jsonl") -> Source:
    (folder / name).write_bytes(data)
    return LlavaJson(str(folder / name), str(folder)).open()


@pytest.mark.parametrize("name", ["data.jsonl", "data.ndjson", "data.JSONL"])
def test_lines_end_at_a_newline_alone(folder, name):
    """U+2028 stands inside strings of JSON lines, where `str.splitlines` cut; files from Windows begin with a mark."""
    row = json.dumps({"id": "1", "conversations": [HUMAN | {"value": "a\u2028b\x85c"}, GPT]}, ensure_ascii=False)
    source = lines(folder, b"\xef\xbb\xbf" + f"{row}\r\n\r\n{row}\r\n".encode(), name)
    assert len(source) == 2 and source.record(1, RNG).turns[0].text == "a\u2028b\x85c"


def test_lone_surrogates_become_text(folder):
    """A text that UTF-8 cannot hold ended the tokenizer."""
    row = json.dumps(GOOD | {"conversations": [HUMAN | {"value": "cut \ud83d"}, GPT]})
    assert lines(folder, row.encode()).record(0, RNG).turns[0].text == "cut \ufffd"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1}\n{"b"', "line 2 is not JSON"),
        ("[1]".encode("utf-16"), "is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_files_that_are_no_json_are_one_sentence(folder, data, said):
    with pytest.raises(SourceError, match=said):
        lines(folder, data)


def test_a_json_file_that_is_no_list_is_one_sentence(folder):
    (folder / "data.json").write_text('{"data": []}')
    with pytest.raises(SourceError, match="holds a dict; wanted a list"):
        LlavaJson(str(folder / "data.json"), str(folder)).open()


def test_folders_with_brackets_and_home(folder, monkeypatch):
    (folder / "a[b] c").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    (folder / "a[b] c" / "data.json").write_text(json.dumps([GOOD | {"image": "red.png"}]))
    source = LlavaJson("~/a[b] c/data.json", "~").open()
    assert source.record(0, RNG).images[0].size_px == (12, 8)
