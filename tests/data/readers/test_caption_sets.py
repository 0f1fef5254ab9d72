"""The paper's sets of captions in their published containers: tables, tars, LAVIS' lists, Visual Genome."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg, write_tar

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers import caption_sets
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.visual_genome import VisualGenome
from xgenmm_jax.data.sharded import ShardedRecords, ShardedSource
from xgenmm_jax.data.storage.base import Storage
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.tars import Tars

URL = "http://example.org/a.jpg?x=1"


@pytest.fixture
def images(tmp_path) -> str:
    """An image by the hash of its URL, and one in each of Visual Genome's folders."""
    for name in (f"{hashlib.sha256(URL.encode()).hexdigest()}.jpg", "VG_100K/1.jpg", "VG_100K_2/2.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg((40, 30)))
    return str(tmp_path / "images")


def opened(storage: Storage, reader: Reader) -> ShardedRecords:
    return ShardedSource(storage, reader).open()


def texts(records: ShardedRecords, index: int = 0) -> set[str]:
    """What is drawn of a record, each time with its image."""
    drawn = [records.record(index, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.image.load().size == one.image.size_px == (40, 30) for one in drawn)
    return {one.text for one in drawn}


def table(path: Path, *rows: dict) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return str(path)


def entries(path: Path, *rows: dict) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


def test_kale_and_datacomp_are_read_from_their_own_tables(tmp_path, images):
    kale = {"url": URL, "caption": "A Routemaster.", "cogvlm_caption": "A bus.", "score": 0.5}
    path = table(tmp_path / "kale.parquet", kale, kale | {"url": "http://example.org/gone.jpg"})
    records = opened(Parquet(path, images=images), caption_sets.KALE)
    assert texts(records) == {"A Routemaster."}
    with pytest.raises(RecordError, match="no file .* of 'http://example.org/gone.jpg'"):
        texts(records, 1)
    datacomp = {"uid": "7", "url": URL, "text": "bus | eBay", "original_width": 400, "face_bboxes": [[0.1] * 4]}
    path = table(tmp_path / "datacomp.parquet", datacomp)
    assert texts(ShardedSource(Parquet(path, images=images), caption_sets.DATACOMP, "datacomp").open()) == {
        "bus | eBay"
    }


@pytest.mark.parametrize(
    ("reader", "row", "wanted"),
    [
        (caption_sets.KALE, {"url": URL, "text": "x"}, "caption"),
        (caption_sets.KALE, {"URL": URL, "caption": "x"}, "url"),
        (caption_sets.DATACOMP, {"url": URL, "caption": "x"}, "text"),
    ],
)
def test_a_renamed_column_is_told_with_those_that_are_there(tmp_path, images, reader, row, wanted):
    path = table(tmp_path / "0.parquet", row)
    found = ", ".join(f"'{name}'" for name in row)
    with pytest.raises(SourceError, match=f"has no column '{wanted}'; the columns found: {found}"):
        texts(opened(Parquet(path, images=images), reader))


def test_downloaded_images_carry_their_captions(tmp_path):
    columns = {"url": URL, "caption": "a bus", "key": "000000000", "status": "success", "width": 40, "height": 30}
    members = {"jpg": jpeg((40, 30)), "txt": b"a bus", "json": json.dumps(columns).encode()}
    tar = write_tar(tmp_path / "cc12m" / "00000.tar", [("000000000", members)])
    assert texts(opened(Tars(str(tar)), caption_sets.DOWNLOADED)) == {"a bus"}
    path = table(tmp_path / "00000.parquet", columns | {"jpg": jpeg((40, 30))})
    assert texts(opened(Parquet(path), caption_sets.DOWNLOADED_TABLE)) == {"a bus"}


def test_a_list_in_the_form_of_lavis_names_its_images(tmp_path, images):
    rows = [{"image": "VG_100K/1.jpg", "caption": "a bus", "image_id": "sbu_1"}, {"image": "../x.jpg", "caption": "x"}]
    records = opened(JsonFiles(entries(tmp_path / "sbu.json", *rows), images=images), caption_sets.LAVIS)
    assert texts(records) == {"a bus"}
    with pytest.raises(RecordError, match="outside"):
        texts(records, 1)


def region(number: int, phrase: object, image: int = 1) -> dict:
    return {"region_id": number, "image_id": image, "x": 3, "y": 4, "width": 10, "height": 9, "phrase": phrase}


def test_phrases_of_regions_are_captions_of_the_whole_image(tmp_path, images):
    one = {"id": 1, "regions": [region(1, "the clock is green"), region(2, " "), region(3, "a man.")]}
    path = entries(tmp_path / "region_descriptions.json", one, {"id": 2, "regions": [region(4, "a red car", 2)]})
    records = opened(JsonFiles(path, images=images), VisualGenome())
    assert (texts(records), texts(records, 1)) == ({"the clock is green", "a man."}, {"a red car"})
    other = ShardedSource(JsonFiles(path, images=f"{images}/VG_100K"), VisualGenome(("{id}.jpg",)), "other").open()
    assert texts(other) == {"the clock is green", "a man."}
    with pytest.raises(RecordError, match=r"json\[1\]: image: no file .*2.jpg"):
        texts(other, 1)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"id": 3, "regions": [region(1, "x")]}, "no file .*VG_100K/3.jpg.* no file .*VG_100K_2/3.jpg"),
        ({"id": "../1", "regions": [region(1, "x")]}, "'id' is '../1', wanted the number of an image"),
        ({"id": True, "regions": [region(1, "x")]}, "'id' is 'True', wanted the number"),
        ({"id": 1, "regions": {}}, "'regions' is dict, wanted a list"),
        ({"id": 1, "regions": []}, "no region has a phrase"),
        ({"id": 1, "regions": [region(1, "")]}, "no region has a phrase"),
        ({"id": 1, "regions": [region(1, None)]}, "region 0 is .*; wanted its 'phrase'"),
        ({"id": 1, "regions": ["x"]}, "region 0 is x; wanted its 'phrase'"),
        ({"id": 1, "region": []}, "no 'regions'; it has 'id', 'region'"),
        ({"regions": [region(1, "x")]}, "'id' is 'None'"),
    ],
)
def test_an_entry_of_another_form_is_an_error_of_its_record(tmp_path, images, entry, said):
    good = {"id": 1, "regions": [region(1, "x")]}
    path = entries(tmp_path / "region_descriptions.json", good, entry)
    records = opened(JsonFiles(path, images=images), VisualGenome())
    assert texts(records) == {"x"}
    with pytest.raises(RecordError, match=rf"region_descriptions.json\[1\]: .*{said}"):
        texts(records, 1)


@pytest.mark.parametrize("names", [(), ("VG_100K/1.jpg",), ("{id}/{id}.jpg",)])
def test_names_of_images_have_their_number(names):
    with pytest.raises(ValueError, match="wanted names with {id} in each"):
        VisualGenome(names)
