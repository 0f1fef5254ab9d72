"""Sources with an index: planned without reading a record, refused where the index is of other data."""

import contextlib
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from sharded_data import captions, data, small_tokenizer
from tar_files import caption_tar, jpeg, write_tar

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.errors import BAD_IMAGE, NOT_AS_INDEXED, UNREADABLE, SourceError
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.loader import HostBatch
from xgenmm_jax.data.rows.window import measurer_of, open_sources, plan_window
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.tars import Tars, TarShard
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import train_tokenizer

SHARDS, RECORDS = 5, 12


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def folder(tmp_path) -> Path:
    for shard in range(SHARDS):
        caption_tar(tmp_path / "tars" / f"{shard:04}.tar", RECORDS, seed=shard)
    return tmp_path / "tars"


def take(config: DataConfig, count: int = 6, state=(0, 0)) -> list[HostBatch]:
    with contextlib.closing(loader.batches(config, 7, state)) as iterator:
        return list(itertools.islice(iterator, count))


def test_records_are_numbered_over_all_shards(folder):
    opened = captions(folder).open()
    assert len(opened) == SHARDS * RECORDS and opened.position(RECORDS) == (1, 0)
    record = opened.record(2 * RECORDS + 3, np.random.default_rng(0))
    assert record.id == "0002.tar/000000003" and opened.label_of(2 * RECORDS + 3) == "0002.tar[3]"


def test_planning_reads_no_record_and_each_is_read_once(folder, words, monkeypatch):
    config = data(words, captions(folder))
    sources, measurer = open_sources(config), measurer_of(config)
    plan_window(config, sources, measurer, 7, 0)  # measures the shards
    reads = []
    read = TarShard.read
    monkeypatch.setattr(TarShard, "read", lambda self, index: reads.append((self._path, index)) or read(self, index))
    again = plan_window(config, open_sources(config), measurer, 7, 0)
    assert again == plan_window(config, sources, measurer, 7, 0) and not reads
    batches = take(config, 3)
    rows = sum(len(one.sample_ids) for one in batches)
    assert rows == 12 and batches[-1].state.window > 0
    assert len(reads) == len(set(reads)) >= sum(len(row.split(" + ")) for one in batches for row in one.sample_ids)


def test_rows_are_those_of_the_records_themselves(folder, words):
    """An index only says what reading every record would: the rows of both are equal."""

    @dataclasses.dataclass(frozen=True)
    class WithoutSizes:
        source: ShardedSource

        def open(self):
            opened = self.source.open()

            class Plain:
                name, record = opened.name, staticmethod(opened.record)
                __len__ = lambda self: len(opened)  # noqa: E731

            return Plain()

        def files(self):
            return []

    config = data(words, captions(folder))
    plain = dataclasses.replace(config, mixture=((WithoutSizes(captions(folder)), 1.0),))
    for one, other in zip(take(config, 8), take(plain, 8), strict=True):
        assert (one.sample_ids, one.state) == (other.sample_ids, other.state)
        for name, left, right in zip(Batch._fields, one.batch, other.batch, strict=True):
            np.testing.assert_array_equal(left, right, err_msg=name)


def test_an_index_is_written_once_and_beside_the_shards(folder, words):
    config = data(words, captions(folder))
    take(config, 1)
    index = folder / ".index" / "image_captions"
    before = {path.name: path.stat().st_mtime_ns for path in index.iterdir()}
    assert {"manifest.json", "0000.tar.located.npz", "0000.tar.sizes.npz"} <= before.keys()
    take(config, 1)
    assert {path.name: path.stat().st_mtime_ns for path in index.iterdir()} == before


def test_an_index_may_lie_in_another_folder(folder, words, tmp_path):
    take(data(words, captions(folder, index=str(tmp_path / "elsewhere"))), 1)
    assert (tmp_path / "elsewhere" / "manifest.json").is_file() and not (folder / ".index").exists()


def test_an_index_of_other_data_or_options_is_refused(folder, words, tmp_path):
    config = data(words, captions(folder))
    take(config, 1)
    other = tmp_path / "other.model"
    train_tokenizer(["a red circle"] * 9, other, pieces=380)
    with pytest.raises(SourceError, match=r"measured by something else: tokenizer was .* data index"):
        take(dataclasses.replace(config, tokenizer=str(other)), 1)
    with pytest.raises(SourceError, match=r"measured by something else: chat was"):
        take(dataclasses.replace(config, chat=ChatStyle(system="be brief")), 1)
    with pytest.raises(SourceError, match=r"reader caption was \"txt\" and is \"json\""):
        take(data(words, ShardedSource(Tars(f"{folder}/*.tar"), ImageCaptions(caption="json"))), 1)
    (folder / "0004.tar").rename(folder / "0009.tar")
    with pytest.raises(SourceError, match="'0004.tar' is gone"):
        take(config, 1)
    (folder / "0009.tar").rename(folder / "0004.tar")
    caption_tar(folder / "0004.tar", RECORDS + 20, seed=4)
    with pytest.raises(SourceError, match=r"'0004.tar' has .* bytes, before"):
        take(config, 1)


def test_records_that_cannot_be_used_are_counted_by_shard_and_reason(folder, words):
    samples = [(f"{n:04}", {"jpg": jpeg(seed=n), "txt": b"a red circle"}) for n in range(RECORDS)]
    samples[3][1]["txt"] = b" "
    samples[5][1]["jpg"] = b"GIF89a"
    write_tar(folder / "0002.tar", samples)
    skipped = [skip for one in take(data(words, captions(folder), max_bad_rate=1.0), 12) for skip in one.skipped]
    bad = {(skip.record, skip.reason, skip.shard) for skip in skipped}
    assert bad == {(f"0002.tar[{n}]", UNREADABLE, "0002.tar") for n in (3, 5)}


def test_damage_behind_the_index_changes_its_own_segments_alone(folder, words):
    """A shard that goes away and an image that is damaged or replaced leave padding; no other sample moves."""
    config = data(words, captions(folder), max_bad_rate=1.0)
    whole = take(config, 8)
    opened = captions(folder).open()
    located = opened._index.located(1).arrays
    content = bytearray((folder / "0001.tar").read_bytes())
    start = int(located["offset"][4])
    content[start + 700 : start + 900] = bytes(200)  # inside a JPEG of noise, behind its header
    (folder / "0001.tar").write_bytes(content)
    with contextlib.closing(loader.batches(config, 7)) as iterator:
        first = next(iterator)
        (folder / "0003.tar").unlink()
        damaged = [first, *itertools.islice(iterator, 7)]
    lost = {skip.record for one in damaged for skip in one.skipped}
    assert lost and {skip.reason for one in damaged for skip in one.skipped} <= {BAD_IMAGE, UNREADABLE, NOT_AS_INDEXED}
    for one, other in zip(whole, damaged, strict=True):
        assert one.state == other.state
        is_gone = (one.batch.segment_ids > 0) & (other.batch.segment_ids == 0)
        np.testing.assert_array_equal(np.where(is_gone, 0, one.batch.segment_ids), other.batch.segment_ids)
        np.testing.assert_array_equal(one.batch.slot[~is_gone], other.batch.slot[~is_gone])
        crops = other.batch.crop_segment > 0
        np.testing.assert_array_equal(one.batch.pixels[crops], other.batch.pixels[crops])
        assert is_gone.any() == bool(other.skipped)


def test_a_run_stops_where_too_much_of_a_source_is_bad(folder, words, monkeypatch):
    from xgenmm_jax.data.rows import quarantine

    monkeypatch.setattr(quarantine, "LAST", 100)
    samples = [(f"{n:04}", {"jpg": jpeg(seed=n), "txt": b"a red circle" if n % 4 else b" "}) for n in range(RECORDS)]
    write_tar(folder / "0002.tar", samples)
    take(data(words, captions(folder), max_bad_rate=0.2), 30)
    with pytest.raises(SourceError, match=r"of the last .* samples of image_captions cannot be used, more than 3.0%"):
        take(data(words, captions(folder), max_bad_rate=0.03), 30)


def test_cut_and_missing_shards_are_errors_before_the_first_step(folder, words):
    path = folder / "0001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SourceError, match=r"0001.tar.*copy it again"):
        take(data(words, captions(folder)), 1)
    with pytest.raises(SourceError, match="no file matches"):
        take(data(words, captions(folder / "nowhere")), 1)


def test_a_bucket_gives_the_rows_of_a_disk(folder, words):
    """Shards, manifest and sizes by URL; an object of fsspec's own memory stands for a bucket's."""
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        memory.pipe_file(f"/sharded/{path.name}", path.read_bytes())
    bucket = ShardedSource(Tars("memory://sharded/{0000..0004}.tar"), ImageCaptions())
    for one, other in zip(take(data(words, captions(folder))), take(data(words, bucket)), strict=True):
        assert one.sample_ids == other.sample_ids
        np.testing.assert_array_equal(one.batch.pixels, other.batch.pixels)
    assert memory.exists("/sharded/.index/image_captions/manifest.json")
    assert bucket.source_index().measured().all()
