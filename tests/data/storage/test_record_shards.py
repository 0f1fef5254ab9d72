"""Record files by number: the same records as their old source gives, counted by their note."""

import io

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.records import ProjectRecords, RecordFiles, write_records
from xgenmm_jax.data.records import Caption, Conversation, Document, LazyImage, Preference, Turn, images_of
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage import array_record
from xgenmm_jax.data.storage.base import Located, Storage
from xgenmm_jax.data.storage.record_shards import ArrayRecords

TURNS = (Turn("user", "<image> What?"), Turn("assistant", "That."))


def png(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (9 + seed, 7, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def every_kind(start: int) -> list:
    blank = LazyImage((1, 1), lambda: PIL.Image.new("RGB", (1, 1)))
    return [
        (Caption(f"caption{start}", blank, "a"), [png(start)]),
        (Document(f"document{start}", ("a", blank, "b", blank)), [png(start + 1), png(start + 2)]),
        (Conversation(f"conversation{start}", (blank,), TURNS), [png(start + 3)]),
        (Preference(f"preference{start}", (), TURNS[:1], "yes", "no"), []),
    ]


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        write_records(tmp_path / f"a-{number}.array_record", every_kind(10 * number))
    return tmp_path


def shards_of(storage: ArrayRecords) -> list:
    return [storage.open(shard, storage.locate(shard), ("data",)) for shard in storage.shards()]


def test_records_are_those_of_the_old_source(folder):
    storage, reader = ArrayRecords(f"{folder}/*.array_record"), ProjectRecords()
    assert isinstance(storage, Storage) and isinstance(reader, Reader)
    old = RecordFiles(storage.pattern).open()
    raws = [shard.read(index) for shard in shards_of(storage) for index in range(len(shard))]
    assert len(raws) == len(old) == 12 and len({raw.key for raw in raws}) == 12
    for index, raw in enumerate(raws):
        new, before = reader.read(raw, 0), old.record(index, np.random.default_rng(0))
        assert (type(new), new.id, reader.choices(raw)) == (type(before), before.id, 1)
        for image, other in zip(images_of(new), images_of(before), strict=True):
            assert image.size_px == other.size_px and image.load().tobytes() == other.load().tobytes()


def test_a_sharded_source_reads_them(folder):
    source = ShardedSource(ArrayRecords(f"{folder}/*.array_record"), ProjectRecords()).open()
    old = RecordFiles(f"{folder}/*.array_record").open()
    ids = [[records.record(index, np.random.default_rng(0)).id for index in range(12)] for records in (source, old)]
    assert len(source) == 12 and ids[0] == ids[1]


def test_noted_files_are_located_without_being_opened(folder, monkeypatch):
    storage = ArrayRecords(f"{folder}/*.array_record")
    with monkeypatch.context() as patch:
        patch.setattr(array_record, "_open", lambda path: pytest.fail(f"opened {path}"))
        assert [len(shard) for shard in shards_of(storage)] == [4, 4, 4]
    # The note is read again where it has changed.
    write_records(folder / "a-1.array_record", every_kind(0)[:2])
    assert [storage.locate(shard).records for shard in storage.shards()] == [4, 2, 4]
    array_record.note(folder / "a-1.array_record", 3)
    with pytest.raises(SourceError, match="a-1.array_record' holds 2 records"):
        shards_of(storage)[1].read(0)


def test_files_without_a_note_are_counted(folder):
    (folder / array_record.NOTE_FILE).unlink()
    storage = ArrayRecords(f"{folder}/*.array_record")
    assert [storage.locate(shard).records for shard in storage.shards()] == [4, 4, 4]
    path = folder / "a-2.array_record"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SourceError, match="a-2.array_record.*not a whole"):
        storage.locate(str(path))


def test_files_that_are_not_those_of_the_note_are_named(folder):
    path = folder / "a-2.array_record"
    storage = ArrayRecords(f"{folder}/*.array_record")
    path.write_bytes(path.read_bytes()[:-1])
    for ask in (storage.shards, lambda: storage.locate(str(path))):
        with pytest.raises(SourceError, match="a-2.array_record' has .* bytes"):
            ask()
    path.unlink()
    with pytest.raises(SourceError, match="a-2.array_record' is missing"):
        storage.shards()
    with pytest.raises(SourceError, match="no file .*a-2.array_record"):
        storage.size(str(path))


def test_a_damaged_record_costs_that_record(folder):
    [shard, *_] = shards_of(ArrayRecords(f"{folder}/*.array_record"))
    path = folder / "a-0.array_record"
    data = bytearray(path.read_bytes())
    place = data.index(b'"document0"')
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)
    assert ProjectRecords().read(shard.read(0), 0).id == "caption0"
    with pytest.raises(RecordError, match="a-0.array_record/1"):
        ProjectRecords().read(shard.read(1), 0)


def test_a_closed_shard_opens_again_and_an_unknown_field_is_named(folder):
    storage = ArrayRecords(f"{folder}/a-0.array_record")
    [shard] = shards_of(storage)
    before = shard.read(2).fields
    shard.close()
    assert shard.read(2).fields == before
    with pytest.raises(SourceError, match="no 'txt'.*'data' alone"):
        storage.open(storage.shards()[0], Located(4, {}), ("data", "txt"))


def test_a_url_is_refused_with_the_remedy():
    storage, url = ArrayRecords("gs://bucket/*.array_record"), "gs://bucket/a.array_record"
    for ask in (
        storage.shards, lambda: storage.size(url), lambda: storage.locate(url),
        lambda: storage.open(url, Located(1, {}), ()),
    ):  # fmt: skip
        with pytest.raises(SourceError, match=r"gs://bucket/.*mount the bucket"):
            ask()
