"""An index that was edited, torn or damaged is told and made again; what stops measuring says at which record."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sharded_data import captions, small_tokenizer
from tar_files import caption_tar, write_tar

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.index.checking import check
from xgenmm_jax.data.index.indexing import index_source
from xgenmm_jax.data.index.workers import Measuring
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.text.chat import ChatStyle


@pytest.fixture(scope="module")
def measuring(tmp_path_factory) -> Measuring:
    return Measuring(small_tokenizer(tmp_path_factory.mktemp("tokenizer")), ChatStyle(system=None))


@pytest.fixture
def folder(tmp_path, measuring) -> Path:
    for shard in range(3):
        caption_tar(tmp_path / "tars" / f"{shard}.tar", 5 + shard, seed=shard)
    index_source(captions(tmp_path / "tars"), measuring)
    return tmp_path / "tars"


def use(folder: Path, measuring: Measuring) -> int:
    """Plans all records and reads them."""
    opened = captions(folder).open()
    records, generator = np.arange(len(opened)), np.random.default_rng(0)
    opened.shapes_of(records, lambda place: generator, measuring.measurer())
    for record in records.tolist():
        opened.record(record, generator)
    return len(opened)


@pytest.mark.parametrize(
    ("edit", "told", "again"),
    [
        (lambda shards: shards[0].__setitem__(1, 7), "'.*0.tar' has 5 records and 7 in the manifest", True),
        (
            lambda shards: shards[0].__setitem__(1, 3),
            "5 records and 3 in the manifest .*`xgenmm data index --again`",
            True,
        ),
        (lambda shards: shards.reverse(), "stand there twice or in another order", False),
        (lambda shards: shards.append(shards[0]), "stand there twice or in another order", False),
        (lambda shards: shards[0].__setitem__(1, float("inf")), "is no manifest", False),
        (lambda shards: shards[0].__setitem__(3, {"a link": "many"}), "is no manifest", False),
    ],
)
def test_an_edited_manifest_is_told_and_made_again(folder, measuring, edit, told, again):
    path = folder / ".index" / "image_captions" / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest["shards"])
    path.write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match=told):
        use(folder, measuring)
    index_source(captions(folder), measuring, again=again)
    assert use(folder, measuring) == 5 + 6 + 7


@pytest.mark.parametrize("kind", ["sizes", "located"])
def test_any_damage_to_a_file_of_the_index_is_an_error_of_the_source(folder, measuring, kind):
    """Bits that say "encrypted" or "compressed by another method" ended in a traceback."""
    path = folder / ".index" / "image_captions" / f"0.tar.{kind}.npz"
    whole = path.read_bytes()
    for bits in (b"PK\1\2", b"PK\3\4"):
        for place, value in ((4, 0xF0), (6, 0xF0), (8, 0x01), (10, 0x0E), (8, 0x20)):
            damaged = bytearray(whole)
            start = damaged.index(bits)
            damaged[start + place] = value
            path.write_bytes(damaged)
            try:
                use(folder, measuring)
            except SourceError as error:
                assert "index its source again" in str(error)
    path.write_bytes(whole)
    assert use(folder, measuring) == 5 + 6 + 7


def test_what_cannot_be_used_is_told_by_its_shard_record_and_reason(folder, measuring, caplog):
    write_tar(folder / "0.tar", [("a", {"txt": b"x"}), ("b", {"txt": b"x", "jpg": b"GIF89a"})])
    index_source(captions(folder), measuring)
    assert "0.tar has 2 records that cannot be used, the first 0.tar[0]: unreadable record: " in caplog.text


def test_an_error_that_is_of_no_record_says_where_it_was_raised(folder, measuring, monkeypatch):
    def broken(self, raw, choice):
        raise MemoryError(raw.key)

    monkeypatch.setattr(ImageCaptions, "read", broken)
    with pytest.raises(MemoryError) as raised:
        index_source(captions(folder), measuring, again=True)
    assert raised.value.__notes__[0] == "Raised at record 0, read by ImageCaptions."
    assert raised.value.__notes__[1].endswith("0.tar' was measured.")


def test_a_check_that_lacks_a_field_names_the_reader(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "0.parquet")
    with pytest.raises(SourceError, match=r"columns found: 'text'; the ones wanted: 'txt'.*read by ImageCaptions"):
        check(Parquet(f"{tmp_path}/*.parquet"), 1, ImageCaptions())
