"""Sources with an index: planned without reading a record, refused where the index is of other data."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sharded_data import assert_same_batches, captions, data, take, write_tars
from tar_files import caption_tar

from xgenmm_jax.data import processes
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.identity import identity
from xgenmm_jax.data.index.source_index import SourceIndex
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.rows.config import LoaderConfig
from xgenmm_jax.data.rows.window import measurer_of, open_sources, plan_window
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.data.storage.tars import Tars, TarShard
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import train_tokenizer

SHARDS, RECORDS = 5, 12


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_tars(tmp_path / "tars", SHARDS, RECORDS)


def test_records_are_numbered_over_all_shards(folder):
    opened = captions(folder).open()
    assert len(opened) == SHARDS * RECORDS and opened.position(RECORDS) == (1, 0)
    record = opened.record(2 * RECORDS + 3, np.random.default_rng(0))
    assert record.id == "0002.tar/000000003" and opened.label_of(2 * RECORDS + 3) == "0002.tar[3]"


@dataclasses.dataclass(frozen=True)
class OwnTars(Tars):
    """A user's storage, which calls something else than a folder `images`."""

    def images(self) -> int:
        return RECORDS


def test_a_storage_may_call_its_own_things_images(folder):
    assert len(ShardedSource(OwnTars(f"{folder}/*.tar"), ImageCaptions()).open()) == SHARDS * RECORDS


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
    assert_same_batches(take(config, 8), take(plain, 8))


def test_changed_records_of_an_index_keep_its_order_its_held_out_shards_and_its_identity(folder, words, caplog):
    """`Mapped` hid the shards: what was held out was trained on, and other bytes went unseen when a run went on."""

    @dataclasses.dataclass(frozen=True)
    class Same:
        def __call__(self, record):
            return record

    source = captions(folder, group_shards=2, held_out_shards=2)
    plain, mapped = data(words, source), data(words, Mapped(source, Same()))
    batches = take(mapped, 8)
    line = "changes records of an index, so each is read to plan its window too"
    assert caplog.text.count(line) == 1 and "'image_captions/Same'" in caplog.text
    assert [one.sample_ids for one in batches] == [one.sample_ids for one in take(plain, 8)]
    assert not any(f"000{shard}.tar" in row for one in batches for row in one.sample_ids for shard in (3, 4))
    assert caplog.text.count(line) == 1, "not said of a source that is planned from its index"
    ((one,), (other,)) = (identity(config.mixture) for config in (plain, mapped))
    assert one["files"] == other["files"] and one["files"][0]["of"] == "manifest"


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


def test_shards_of_two_folders_have_files_of_their_own_in_the_index(tmp_path, words):
    """"a/b.tar" and "a__b.tar" shared one."""
    caption_tar(tmp_path / "tars" / "a" / "b.tar", 5, seed=1)
    caption_tar(tmp_path / "tars" / "a__b.tar", 5, seed=2)
    index = SourceIndex(Tars(f"{tmp_path}/tars/**/*b.tar"), ImageCaptions(), "captions", str(tmp_path / "index"))
    names = {index._name(name, "sizes") for name in ("a/b.tar", "a__b.tar", "a%2Fb.tar")}
    assert len(names) == 3 and not any("/" in name for name in names)


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "/tmp/a", "..", "a\0b", "x" * 201])
def test_a_name_that_is_no_plain_one_is_refused(folder, name):
    """Its index was written outside of the folder of indexes."""
    with pytest.raises(ValueError, match="give a plain name, without '/'"):
        captions(folder, name=name)


def test_a_worker_that_finds_a_shard_gone_names_it(folder, words, monkeypatch):
    """It said that a worker process ended, killed for memory perhaps; the shard stood in a traceback above."""
    config = data(words, captions(folder), loader=LoaderConfig(threads=1, workers=1, ahead=1))
    submit = processes.submit

    def gone_before_it_starts(*arguments):
        (folder / "0003.tar").unlink(missing_ok=True)
        return submit(*arguments)

    monkeypatch.setattr(processes, "submit", gone_before_it_starts)
    said = r"^data: the index in '.*' is not of this source: '0003.tar' is gone\. "
    with pytest.raises(SourceError, match=said) as error:
        take(config, 1)
    assert "\n" not in str(error.value)
