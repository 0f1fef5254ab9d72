"""MINT-1T's three forms: a row of its tables, and tars of JSON and TIFF."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg, tiff, write_tar

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.pack import pack_source, packed_source
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.mint import MintArxiv, MintHtml, MintPdf
from xgenmm_jax.data.records import Document, LazyImage, images_of
from xgenmm_jax.data.sharded import ShardedRecords, ShardedSource
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.tars import Tars

A, B = "http://example.org/a.jpg", "https://cdn.example.org/b.png"
HTML = {
    "url": "http://example.org/page",
    "cc_dump": "CC-MAIN-2023-40",
    # Of the images alone, in an order of their own.
    "image_hashes": ["9f", "1c"],
    "images_metadata": [{"width": 1, "height": 1}, {"width": 2, "height": 2}],
    "texts": ["The hall.", None, "Its roof.", None],
    "images": [None, A, None, B],
}
ID, OTHER = "0a1b2c3d4e5f60718293a4b5c6d7e8f9", "ffffffffffffffffffffffffffffffff"


def pdf(**change) -> dict:
    sizes = [(40, 30), (16, 24)]
    return {
        "texts": ["Abstract", None, "Results", None, "End"],
        "images": [None, "page_0_image_85", None, "page_1_image_2", None],
        "image_metadata": [
            {"page": page, "xref": 85, "width": width, "height": height, "sha256": "00"}
            for page, (width, height) in enumerate(sizes)
        ],
        "language_id_whole_page_fasttext": {"en": 0.97},
        "previous_word_count": 120,
        "bff_contained_ngram_count_before_dedupe": 3,
        "url": "http://example.org/a.pdf",
        "pdf_name": "a.pdf",
    } | change


def pages(compression: str | None = "jpeg") -> bytes:
    red, blue = PIL.Image.new("RGB", (40, 30), (255, 0, 0)), PIL.Image.new("RGB", (16, 24), (0, 0, 255))
    return tiff(red, blue, compression=compression)


def tar(path: Path, *samples: tuple[str, dict, dict]) -> Tars:
    """Samples of a key, what its JSON says and its other members."""
    return Tars(
        str(write_tar(path, [(key, {"json": json.dumps(told).encode()} | rest) for key, told, rest in samples]))
    )


def opened(storage, reader: Reader) -> ShardedRecords:
    return ShardedSource(storage, reader).open()


def read(records: ShardedRecords, index: int = 0) -> Document:
    record = records.record(index, np.random.default_rng(0))
    assert isinstance(record, Document)
    return record


def shown(record: Document) -> list:
    return [part.size_px if isinstance(part, LazyImage) else part for part in record.parts]


def color(image: LazyImage) -> str:
    red, _, blue = image.load().getpixel((3, 3))
    return "red" if red > blue else "blue"


def test_web_pages_with_their_images_joined(tmp_path):
    rows = [HTML | {"image_bytes": [None, jpeg((40, 30)), None, jpeg((16, 24))]}, HTML | {"image_bytes": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "0.parquet")
    records = opened(Parquet(str(tmp_path / "0.parquet")), MintHtml())
    assert (records.name, shown(read(records))) == ("mint1t_html", ["The hall.", (40, 30), "Its roof.", (16, 24)])
    with pytest.raises(RecordError, match="none of its 2 images can be had; .* has no folder of images; give it one"):
        read(records, 1)


def test_a_table_with_other_columns_is_refused_with_those_it_has(tmp_path):
    renamed = {"text_list" if name == "texts" else name: value for name, value in HTML.items()}
    pq.write_table(pa.Table.from_pylist([renamed]), tmp_path / "0.parquet")
    with pytest.raises(
        SourceError, match=r"has no column 'texts'; the columns found: .*'text_list'.*; the ones wanted"
    ):
        read(opened(Parquet(str(tmp_path / "0.parquet")), MintHtml()))


@pytest.mark.parametrize("compression", ["jpeg", None])
def test_page_i_is_the_ith_image_that_is_not_null(tmp_path, compression):
    storage = tar(tmp_path / "CC-MAIN-2023-shard-0" / "0.tar", (ID, pdf(), {"tiff": pages(compression)}))
    record = read(opened(storage, MintPdf()))
    assert record.id == f"0.tar/{ID}"
    assert shown(record) == ["Abstract", (40, 30), "Results", (16, 24), "End"]
    assert [color(part) for part in record.parts if isinstance(part, LazyImage)] == ["red", "blue"]


def test_pages_with_transparency_are_rgb(tmp_path):
    page = PIL.Image.new("RGBA", (8, 9), (255, 0, 0, 0))
    told = pdf(texts=["x", None], images=[None, "page_0_image_1"])
    record = read(opened(tar(tmp_path / "0.tar", (ID, told, {"tiff": tiff(page)})), MintPdf()))
    assert np.asarray(record.parts[1].load()).tolist()[0][0] == [255, 0, 0]


def test_a_page_that_is_missing_costs_itself(tmp_path):
    told = pdf(texts=["x", None, None, None], images=[None, "p_0", "p_1", "p_2"])
    storage = tar(tmp_path / "0.tar", (ID, told, {"tiff": pages()}), (OTHER, pdf(), {}))
    records = opened(storage, MintPdf())
    record = read(records)
    assert (shown(record), record.dropped) == (["x", (40, 30), (16, 24)], 1)
    with pytest.raises(RecordError, match=r"none of its 2 images .* wanted a member 'tiff'; it has 'json'"):
        read(records, 1)
    with pytest.raises(RecordError, match=r"'0.tar/.*tiff' has 2 pages, got page 2; wanted 0 to 1"):
        MintPdf(missing="error").read(records._shard(0).read(0), 0)


@pytest.mark.parametrize("key", ["arXiv_src_1003_001/1003_0459", "astro-ph0405083", "1003.0459", "astro-ph.0405083v2"])
@pytest.mark.parametrize("suffix", ["tiff", "tif"])
def test_papers_by_ids_with_dots_or_without(tmp_path, key, suffix):
    latex = r"where $\alpha_{<i>} = \frac{1}{2}$ \cite{x} <image>"
    told = {"texts": [latex, None, None], "images": [None, "f1.eps", "f2.eps"]}
    storage = tar(tmp_path / "arXiv_src_1003_001_wds.tar", (key, told, {suffix: pages()}), (key + "9", told, {}))
    records = opened(storage, MintArxiv())
    assert len(records) == 2
    record = read(records)
    assert (record.id, shown(record)) == (f"arXiv_src_1003_001_wds.tar/{key}", [latex, (40, 30), (16, 24)])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_paper_whose_only_image_is_no_tiff(tmp_path, suffix):
    told = {"texts": ["x", None], "images": [None, "f1"]}
    more = {"texts": ["x", None, None], "images": [None, "f1", "f2"]}
    storage = tar(tmp_path / "0.tar", ("1", told, {suffix: jpeg()}), ("2", more, {suffix: jpeg()}))
    records = opened(storage, MintArxiv())
    assert shown(read(records)) == ["x", (40, 30)]
    assert (shown(read(records, 1)), read(records, 1).dropped) == (["x", (40, 30)], 1)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (pdf(texts=["x"]), "5 'images' and 1 'texts'"),
        (pdf(images=[None] * 5), "position 1 has neither image nor text"),
        (pdf(texts=["x"] * 5), "position 1 has an image and a text"),
        ({"texts": ["x", None]}, "no 'images'; it has 'texts'"),
        (pdf(images="page_0_image_85"), "'images' is str, wanted a list"),
        ([1], "'json' holds list, wanted an object"),
    ],
)
def test_documents_of_another_form_are_errors_of_their_record(tmp_path, told, said):
    records = opened(tar(tmp_path / "0.tar", (ID, told, {"tiff": pages()})), MintPdf())
    with pytest.raises(RecordError, match=ID) as error:
        read(records)
    assert said in str(error.value)


def test_damaged_members_are_errors_of_their_record(tmp_path):
    path = write_tar(tmp_path / "0.tar", [(ID, {"json": b"{", "tiff": pages()}), (OTHER, {"tiff": pages()})])
    records = opened(Tars(str(path)), MintPdf())
    with pytest.raises(RecordError, match="'json' is not JSON"):
        read(records)
    with pytest.raises(RecordError, match="no 'json'; it has 'tiff'"):
        read(records, 1)
    cut = tar(tmp_path / "cut" / "0.tar", (ID, pdf(), {"tiff": pages()[:30]}))
    with pytest.raises(RecordError, match="none of its 2 images can be had"):
        read(opened(cut, MintPdf()))


def test_packed_documents_have_each_their_own_pages(tmp_path):
    """A page that was copied as its whole file came back as the first page, for every image of the document."""
    source = ShardedSource(tar(tmp_path / "tars" / "0.tar", (ID, pdf(), {"tiff": pages()})), MintPdf())
    assert pack_source(source, tmp_path / "packed").records == 1
    record, packed = read(source.open()), read(packed_source(tmp_path / "packed").open())
    assert (packed.id, shown(packed)) == (record.id, shown(record))
    for one, other in zip(images_of(packed), images_of(record), strict=True):
        np.testing.assert_array_equal(np.asarray(one.load()), np.asarray(other.load()))
