"""The shares of a mixture, counted from what came out: with bad records among them, and after a change of weights."""

from collections import Counter
import contextlib
from dataclasses import dataclass
import re
from typing import ClassVar

import mixed_sources
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg, write_tar

from experiments import mixtures
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.errors import BAD_IMAGE, CUT_SHORT, NO_ROW, UNREADABLE, RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.readers.records import RecordFiles, write_records
from xgenmm_jax.data.records import Conversation, Document, LazyImage, Turn
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import DataConfig, LoaderConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.tars import Tars

SEED, SAMPLES, WINDOW = 7, 8_000, 250
SHARD_RECORDS = 100
LATER = {**mixtures.STAGE2_KEPT, "blip3_ocr_200m": 0.0}
"""Weights of the same sources from a window on."""
IN_TABLES, IN_RECORD_FILES = ("obelics", "mint1t_html"), ("mint1t_pdf", "mint1t_arxiv")
JPEG = jpeg((8, 8))
NO_JPEG, CUT_JPEG = b"<html>", JPEG[:-60]
WORDS = "a red circle and the blue square"


@dataclass(frozen=True)
class Interleaved(OneChoice):
    """Texts and images of a row, one after the other."""

    label: ClassVar[str] = "interleaved"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("texts", "images")

    def read(self, raw: Raw, choice: int) -> Document:
        texts, images = raw.fields["texts"], raw.fields["images"]
        if not any(texts):
            raise RecordError(raw.key, "'texts' is empty")
        pairs = zip(images, texts, strict=True)
        return Document(
            raw.key, tuple(part for image, text in pairs for part in (image_from_bytes(image, raw.key), text))
        )


def numbers(name: str) -> int:
    """Records of a source: more draws than records for some, so that epochs end; few for the small ones."""
    return 300 + 50 * (len(name) % 5) if mixtures.STAGE1[name] > 2 else 60


def bad(name: str) -> dict[int, str]:
    """What is wrong with which records, at most three of 300; captions and documents that are too long are cut."""
    if numbers(name) < 300:
        return {}
    return {11: "unreadable", 150: "empty", 277: "too long"}


def write(folder, name: str):
    """A source of 8 x 8 pixel images."""
    count, is_bad = numbers(name), bad(name)
    shards = [range(first, min(count, first + SHARD_RECORDS)) for first in range(0, count, SHARD_RECORDS)]
    paths = [folder / name / f"{name}-{shard}" for shard in range(len(shards))]
    texts = {n: {"empty": "", "too long": WORDS * 30}.get(is_bad.get(n), f"{WORDS} {n}") for n in range(count)}
    images = {n: {"unreadable": NO_JPEG}.get(is_bad.get(n), JPEG) for n in range(count)}
    (folder / name).mkdir()
    if name in IN_TABLES:
        for path, shard in zip(paths, shards, strict=True):
            table = {"texts": [[texts[n]] for n in shard], "images": [[images[n]] for n in shard]}
            pq.write_table(pa.table(table), f"{path}.parquet", row_group_size=25)
        return ShardedSource(Parquet(f"{folder}/{name}/*.parquet"), Interleaved(), name)
    if name in IN_RECORD_FILES:
        write_records(folder / name / f"{name}-0.array_record", map(lambda n: _record(name, n), range(count)))
        return RecordFiles(f"{folder}/{name}/*.array_record")
    for path, shard in zip(paths, shards, strict=True):
        write_tar(path.with_suffix(".tar"), ((f"{n}", {"jpg": images[n], "txt": texts[n].encode()}) for n in shard))
    return ShardedSource(Tars(f"{folder}/{name}/*.tar"), ImageCaptions(), name)


def _record(name: str, number: int):
    """A question that fills a row is the one thing that is never cut."""
    what, image = bad(name).get(number), LazyImage((8, 8), lambda: None)
    id_ = f"{name}-0/{number}"
    if what == "too long":
        return Conversation(id_, (image,), (Turn("user", f"<image>{WORDS * 30}"), Turn("assistant", "a"))), [JPEG]
    blob = CUT_JPEG if what == "unreadable" else JPEG
    return Document(id_, (image, f"{WORDS} {number}")), [blob]


def place_of(text: str) -> tuple[str, int]:
    """The source and number of a record by its label or id: "obelics-1.parquet[7]" -> 107, "cc3m-1.tar/107"."""
    if labeled := re.fullmatch(r"(\w+)-(\d+)\.\w+\[(\d+)\]", text):
        name, shard, number = labeled.groups()
        return name, int(shard) * SHARD_RECORDS + int(number)
    name, number = re.fullmatch(r"(\w+)-\d+(?:\.tar)?/(\d+)", text).groups()
    return name, int(number)


class Window:
    """What a window gave: samples of its rows, and records that it left out, each by source and number."""

    def __init__(self):
        self.samples: Counter[tuple[str, int]] = Counter()
        self.left_out: Counter[tuple[str, int]] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, one: loader.HostBatch) -> None:
        self.samples.update(place_of(id_) for row in one.sample_ids for id_ in row.split(" + ") if id_)
        for skip in one.skipped:
            self.reasons[skip.reason] += skip.count
            if skip.reason != CUT_SHORT:  # those are in the rows
                self.left_out[place_of(skip.record)] += skip.count


@pytest.mark.slow
def test_sources_come_out_in_their_shares_and_epochs_go_on_over_a_change_of_weights(tmp_path):
    mixed_sources.tokenizer(tmp_path)
    sources = {name: write(tmp_path, name) for name in mixtures.STAGE1}
    change = SAMPLES // WINDOW + int(np.random.default_rng(0).integers(1, 8))
    config = DataConfig(
        mixture=tuple((source, LATER[name]) for name, source in sources.items()),
        tokenizer=str(tmp_path / "small.model"),
        row=RowConfig(length=96, crops=16, images=16, vision_tokens=1, too_long="drop"),
        anyres=AnyRes(grids=(), view_px=8, view_cells=1),
        batch_rows=1,
        window=WINDOW,
        loader=LoaderConfig(threads=2, ahead=8),
        phases=((0, tuple(mixtures.STAGE1.values())), (change, tuple(LATER[name] for name in sources))),
    )
    windows = [Window() for _ in range(change + SAMPLES // WINDOW)]
    at = 0
    with contextlib.closing(loader.batches(config, SEED)) as batches:
        while at < len(windows):
            one = next(batches)
            windows[at].add(one)
            at = one.state.window  # a batch is a row
    reasons = sum((one.reasons for one in windows), Counter())
    assert reasons.keys() == {UNREADABLE, BAD_IMAGE, NO_ROW, CUT_SHORT}
    assert all(one.samples.total() + one.left_out.total() == WINDOW for one in windows)
    # Shares, of the samples that came out.
    count = SAMPLES // WINDOW
    for part, weights in ((windows[:count], mixtures.STAGE1), (windows[change:], LATER)):
        counts: Counter[str] = Counter()
        for one in part:
            for (name, _), times in one.samples.items():
                counts[name] += times
        for name, weight in weights.items():
            assert abs(counts[name] / counts.total() - weight / sum(weights.values())) < 0.005, name
            assert weight or not counts[name]
        if weights is mixtures.STAGE1:
            interleaved = sum(counts[name] for name in mixtures.INTERLEAVED) / counts.total()
            assert abs(interleaved - 0.5) < 0.005
    # Epochs: at the change and at the end each record was drawn as often as any other of its source, or once more.
    for stop in (count, change, change + 1, len(windows)):
        drawn = sum((one.samples + one.left_out for one in windows[:stop]), Counter())
        assert drawn.total() == stop * WINDOW
        for name in sources:
            times = [drawn[name, number] for number in range(numbers(name))]
            assert sum(times) == sum(more for (source, _), more in drawn.items() if source == name), "no other record"
            assert max(times) - min(times) <= 1, name
    unusable = {(name, number) for name in sources for number in bad(name)}
    unreadable = {(name, number) for name, number in unusable if bad(name)[number] == "unreadable"}
    left_out = {place for one in windows for place in one.left_out}
    assert left_out <= unusable and len(left_out & unreadable) > 4
    assert not any((left_out | unreadable) & one.samples.keys() for one in windows)
