"""A user's own source made of any data set with items by number: grain's, or a list."""

import contextlib
import dataclasses
import itertools
from typing import Any

import grain
import numpy as np
import PIL.Image
import pytest
import tiny_run

from xgenmm_jax.data.errors import UNREADABLE, RecordError, SourceError
from xgenmm_jax.data.images import open_image
from xgenmm_jax.data.records import Caption, Conversation, Turn
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.source import Records, Source, records_of

RNG = np.random.default_rng(0)
COLORS = ("red", "blue", "green", "black", "white")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """As a user writes it: rows of a table, mapped by grain."""

    folder: str
    epochs: int | None = 1

    def open(self) -> Records:
        def caption(row: dict[str, Any]) -> Caption:
            return Caption(f"pictures/{row['n']}", open_image(f"{self.folder}/{row['n']}.png"), f"a {row['color']} one")

        rows = [{"n": n, "color": color} for n, color in enumerate(COLORS)]
        return records_of(grain.MapDataset.source(rows).map(caption).repeat(self.epochs), "pictures")

    def files(self):
        return []


@pytest.fixture
def pictures(tmp_path) -> Pictures:
    for number, color in enumerate(COLORS):
        PIL.Image.new("RGB", (30, 20), color).save(tmp_path / f"{number}.png")
    return Pictures(str(tmp_path))


def take(source: Source, folder, batches: int = 4):
    data = dataclasses.replace(tiny_run.data(tiny_run.tokenizer(folder), ((source, 1.0),), rows=2), window=10)
    row = dataclasses.replace(data.row, length=64)
    iterator = loader.batches(dataclasses.replace(data, row=row, max_bad_rate=1.0), 7)
    with contextlib.closing(iterator):
        return list(itertools.islice(iterator, batches))


def test_a_map_dataset_of_grain_is_a_source(pictures, tmp_path):
    opened = pictures.open()
    assert isinstance(pictures, Source) and isinstance(opened, Records)
    assert (len(opened), opened.name) == (5, "pictures")
    record = opened.record(2, RNG)
    assert (record.id, record.text, record.image.size_px) == ("pictures/2", "a green one", (30, 20))
    ids = {id_ for one in take(pictures, tmp_path) for row in one.sample_ids for id_ in row.split(" + ")}
    assert ids == {f"pictures/{n}" for n in range(5)}


def test_rows_are_those_of_the_same_records_in_a_list(pictures, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Listed:
        def open(self):
            of_grain = pictures.open()
            return records_of([of_grain.record(n, RNG) for n in range(len(of_grain))], "pictures")

        def files(self):
            return []

    for one, other in zip(take(pictures, tmp_path), take(Listed(), tmp_path), strict=True):
        assert one.sample_ids == other.sample_ids
        for left, right in zip(one.batch, other.batch, strict=True):
            np.testing.assert_array_equal(left, right)


def test_an_item_that_is_no_record_costs_itself(tmp_path):
    """`filter` of a MapDataset gives None in place of what it leaves out; so would a map that forgets its return."""

    @dataclasses.dataclass(frozen=True)
    class Filtered:
        def open(self):
            turns = (Turn("user", "red?"), Turn("assistant", "red"))
            records = [Conversation(f"turns/{n}", (), turns) for n in range(6)]
            kept = grain.MapDataset.source(records).filter(lambda record: record.id != "turns/3")
            return records_of(kept, "turns")

        def files(self):
            return []

    with pytest.raises(RecordError, match="turns.3.: it is a NoneType, wanted one of Caption, Document, Conv"):
        Filtered().open().record(3, RNG)
    batches = take(Filtered(), tmp_path)
    skips = {(skip.source, skip.reason) for one in batches for skip in one.skipped}
    assert skips == {("turns", UNREADABLE)}
    assert "turns/3" not in "".join(row for one in batches for row in one.sample_ids)


def test_what_has_no_items_by_number_is_refused(pictures):
    with pytest.raises(ValueError, match="'pictures' repeats for ever; leave repeat.. out"):
        dataclasses.replace(pictures, epochs=None).open()
    with pytest.raises(ValueError, match="'a' is a .*IterDataset, whose items .* MapDataset before to_iter_dataset"):
        records_of(grain.MapDataset.source([1, 2]).to_iter_dataset(), "a")
    with pytest.raises(ValueError, match="'b' is a generator, whose items cannot be had by number"):
        records_of((n for n in range(3)), "b")
    with pytest.raises(SourceError, match="'c' has no items"):
        records_of([], "c")
