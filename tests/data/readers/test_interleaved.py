"""What of a document is trained on, by the options that all readers of documents have."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import FEW_IMAGES, LAST_IMAGE, NOT_BAD, ONE_IMAGE, LeftOut, RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.index.measure import Measurer, measure_shard
from xgenmm_jax.data.index.shapes import tokens_of
from xgenmm_jax.data.readers.obelics import Obelics
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import train_tokenizer

SIZES = {"a": (40, 30), "b": (16, 24), "c": (90, 30), "small": (9, 50)}
FILES = {name: jpeg(size) for name, size in SIZES.items()}
OPENED: list[str] = []


def image(name: str) -> LazyImage:
    OPENED.append(name)
    if name not in FILES:
        raise ValueError(f"image: no file '{name}'")
    return image_from_bytes(FILES[name], name, official=True)


def raw(*parts: str, key: str = "0.parquet[0]") -> Raw:
    """A row of OBELICS; parts that begin with "/" are images."""
    images = [part[1:] if part.startswith("/") else None for part in parts]
    texts = [None if part.startswith("/") else part for part in parts]
    OPENED.clear()
    return Raw(key, {"images": images, "texts": texts}, image)


def shown(record: Document) -> list[str]:
    names = {size: f"/{name}" for name, size in SIZES.items()}
    return [names[part.size_px] if isinstance(part, LazyImage) else part for part in record.parts]


def read(parts: list[str], choice: int = 0, **options) -> tuple[list[str], int]:
    record = Obelics(**options).read(raw(*parts), choice)
    return shown(record), record.dropped


def test_all_is_kept_as_published():
    assert read(["one", "/a", "two", "/small", "/b"]) == (["one", "/a", "two", "/small", "/b"], 0)


def test_images_are_chosen_by_the_sizes_in_their_headers():
    parts = ["/a", "one", "/small", "/b", "two", "/c"]
    assert read(parts, least_side_px=16) == (["/a", "one", "/b", "two", "/c"], 1)
    assert read(parts, most_aspect=2.0) == (["/a", "one", "/b", "two"], 2)
    assert read(parts, most_aspect=3.0, least_side_px=17) == (["/a", "one", "two", "/c"], 2)


def test_the_first_images_are_kept_and_no_more_are_opened():
    parts = ["/small", "/a", "one", "/gone", "/b", "two", "/c", "three"]
    assert read(parts, most_images=2, least_side_px=16) == (["/a", "one", "/b", "two", "three"], 3)
    assert OPENED == ["small", "a", "gone", "b"]


def test_text_before_the_first_image_may_be_left_out():
    parts = ["one", "two", "/small", "three", "/a", "four"]
    assert read(parts, lead_text=False) == (["/small", "three", "/a", "four"], 0)
    # The first image that is used is meant.
    assert read(parts, lead_text=False, least_side_px=16) == (["/a", "four"], 1)
    assert read(parts, lead_text=False, shift="always") == (["/small", "one", "two", "/a", "three", "four"], 0)


@pytest.mark.parametrize(
    ("parts", "moved", "dropped"),
    [
        # The two examples in open_flamingo's words, docs/reference/training.md#openflamingo-pre-training.
        (["0", "0.5", "/a", "1", "/b", "2", "/c", "3"], ["/a", "0", "0.5", "/b", "1", "/c", "2", "3"], 0),
        (["/a", "1", "1.5", "/b", "2"], ["/b", "1", "1.5", "2"], 1),
        (["0", "/a", "/b", "1", "/c"], ["/a", "/b", "0", "/c", "1"], 0),
        (["/a", "0"], ["/a", "0"], 0),
    ],
)
def test_images_may_stand_where_the_one_before_stood(parts, moved, dropped):
    assert read(parts, shift="always") == (moved, dropped)
    assert read(parts, 0, shift="drawn") == (parts, 0)
    assert read(parts, 1, shift="drawn") == (moved, dropped)


def test_of_images_that_move_the_first_are_kept():
    """open_flamingo moves first and counts then, so that the one that is left out does not count."""
    assert read(["/a", "1", "/b", "2", "/c"], shift="always", most_images=1) == (["/b", "1", "2"], 2)


def test_where_moving_would_leave_too_little_images_stay():
    options = {"least_images": 2, "shift": "drawn"}
    assert read(["/a", "1", "/b", "2"], 1, **options) == (["/a", "1", "/b", "2"], 0)


@pytest.mark.parametrize(
    ("parts", "options", "reason", "said"),
    [
        (["/small", "one"], {"least_side_px": 16}, FEW_IMAGES, r"0 of its 1 images are left, fewer than 1"),
        (["/a", "one", "/gone"], {"least_images": 2}, FEW_IMAGES, r"1 of its 2 images .* 2 \(least_images\)"),
        (["one", "/a", " \n"], {"lone_last_image": False}, LAST_IMAGE, "no text stands behind its only image"),
        (["/a", "one"], {"single_images": 0.0}, ONE_IMAGE, "0 of the documents with one image are kept"),
    ],
)
def test_documents_are_left_out_for_a_reason_that_is_not_bad(parts, options, reason, said):
    with pytest.raises(LeftOut, match=rf"parquet\[0\]: {said}") as error:
        Obelics(**options).read(raw(*parts), 0)
    assert error.value.reason == reason in NOT_BAD
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.reason, str(again), again.record) == (reason, str(error.value), error.value.record)


def test_a_document_whose_images_are_all_missing_is_bad():
    with pytest.raises(RecordError, match="none of its 2 images can be had") as error:
        Obelics(least_images=2).read(raw("/gone", "one", "/lost"), 0)
    assert not isinstance(error.value, LeftOut)


def test_a_share_of_those_with_one_image_is_kept_always_the_same():
    def kept(share: float) -> set[int]:
        reader, found = Obelics(single_images=share), set()
        for number in range(300):
            try:
                reader.read(raw("/a", "one", key=f"0.parquet[{number}]"), 0)
            except LeftOut:
                continue
            found.add(number)
        return found

    half = kept(0.5)
    assert 120 < len(half) < 180 and half == kept(0.5) and kept(0.25) < half < kept(0.75)
    assert len(kept(1.0)) == 300
    assert read(["/a", "one", "/b"], single_images=0.0)[1] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shift": "later"}, "wanted 'never' or 'always' or 'drawn'"),
        ({"missing": "skip"}, "wanted 'leave_out' or 'error'"),
        ({"least_images": 0}, "least_images=0"),
        ({"most_images": 1, "least_images": 2}, "not less than that"),
        ({"single_images": 1.5}, "wanted 0 to 1"),
        ({"most_aspect": 0.5}, "1 or more"),
        ({"most_aspect": float("nan")}, "1 or more"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said, unchecked_signatures):
    with pytest.raises(ValueError, match=said):
        Obelics(**options)


class Rows:
    """A shard of rows."""

    def __init__(self, *rows: list[str]):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Raw:
        return raw(*self._rows[index], key=f"0.parquet[{index}]")

    def close(self) -> None:
        pass


def test_the_index_has_both_shifts_and_counts_what_is_lost(tmp_path):
    tokenizer = train_tokenizer(["one two three"] * 9, tmp_path / "small.model", pieces=400)
    shard = Rows(["/a", "one", "/b", "two two two"], ["/small", "one"], ["/gone", "one"], ["one", "/a", "/gone"])
    reader = Obelics(shift="drawn", least_side_px=16)
    sizes = measure_shard(shard, reader, Measurer(tokenizer, ChatStyle()))
    assert np.diff(sizes.choice_ends, prepend=0).tolist() == [2, 1, 1, 2]
    # As published two images, moved the second alone; then two bad records; then one image either way.
    assert np.diff(sizes.shapes.image_ends, prepend=0).tolist() == [2, 1, 0, 0, 1, 1]
    assert {number: reason for number, (reason, _) in sizes.bad.items()} == {1: FEW_IMAGES, 2: "unreadable record"}
    assert sizes.dropped == 2


def test_the_shift_that_the_index_planned_is_the_one_that_is_read(tmp_path):
    """A draw's generator says which; a row that was planned for the other would lose the document."""
    tokenizer = train_tokenizer(["one two three"] * 9, tmp_path / "small.model", pieces=400)
    parts = ["/a", "one", "/b", "two two two", "/c"]
    rows = [raw(*parts[: number + 2]).fields for number in range(3)]
    for row in rows:
        row["image_bytes"] = [FILES[name] if name else None for name in row["images"]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "0.parquet")
    reader = Obelics(shift="drawn", lead_text=False)
    records = ShardedSource(Parquet(str(tmp_path / "0.parquet")), reader).open()
    drawn = np.arange(60, dtype=np.int64) % 3
    measurer = Measurer(tokenizer, ChatStyle())
    shapes, skips = records.shapes_of(drawn, np.random.default_rng, measurer)
    seen = set()
    for place, number in enumerate(drawn.tolist()):
        record = records.record(number, np.random.default_rng(place))
        sample = chat.sample(record, tokenizer)
        assert tokens_of(shapes)[place] == len(sample.token_ids)
        assert shapes.take(np.array([place])).image_px.tolist() == [list(image.size_px) for image in sample.images]
        seen.add((number, tuple(shown(record))))
    assert not skips and len(seen) == 5
