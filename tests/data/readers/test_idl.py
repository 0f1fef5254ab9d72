"""Documents of pixparse/idl-wds: a page is drawn, its image is the TIFF's page, its text the page's lines."""

import io
import json
import struct

import numpy as np
import PIL.Image
import pytest
from tar_files import write_tar

from xgenmm_jax.data.errors import LOST_PAGE, RecordError
from xgenmm_jax.data.image_files import tiff_pages
from xgenmm_jax.data.index.checking import check
from xgenmm_jax.data.index.indexing import index_source
from xgenmm_jax.data.index.measure import Measurer, measure_shard
from xgenmm_jax.data.index.workers import Measuring
from xgenmm_jax.data.pack import pack_source
from xgenmm_jax.data.readers.idl import Idl
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.tars import Tars
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import train_tokenizer

SIZES = ((40, 56), (60, 44), (20, 30))


def tiff(count: int) -> bytes:
    """Scanned pages: black and white, in group 4, each with as many dark columns as its number."""
    pages = []
    for number in range(count):
        bits = np.full((SIZES[number][1], SIZES[number][0]), 255, np.uint8)
        bits[:, : number + 1] = 0
        pages.append(PIL.Image.fromarray(bits).convert("1"))
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], compression="group4")
    return file.getvalue()


def page(*lines: str) -> dict:
    """Lines with left, top, width and height in parts of the page, as the annotation has them."""
    boxes = [[0.1, 0.1 * number, 0.5, 0.05] for number in range(len(lines))]
    corners = [[{"X": box[0], "Y": box[1]}] * 4 for box in boxes]
    return {"text": list(lines), "bbox": boxes, "poly": corners, "score": [0.99] * len(lines)}


PAGES = [page("MEMORANDUM", "To: Dr. Smith"), page(), page("2.", " ", "Yours", "<image>")]


def members(pages: object = PAGES, count: int = 3, **changed) -> dict:
    fields = {"json": json.dumps({"pages": pages}).encode(), "ocr": b"{}", "pdf": b"%PDF-1.5", "tif": tiff(count)}
    return {name: value for name, value in (fields | changed).items() if value is not ...}


def pages_of(raw: Raw, between_lines: str = "\n") -> list[tuple[str, str, tuple[int, int], int]]:
    """Of each page to choose from: id, text, size, dark columns."""
    reader = Idl(between_lines)
    records = [reader.read(raw, choice) for choice in range(reader.choices(raw))]
    assert all(record.image.load().size == record.image.size_px for record in records)
    dark = [int((np.asarray(record.image.load())[0, :, 0] == 0).sum()) for record in records]
    return [(one.id, one.text, one.image.size_px, count) for one, count in zip(records, dark, strict=True)]


def test_each_page_with_text_can_be_drawn():
    first = ("0.tar/ffbf0023[page 1]", "MEMORANDUM\nTo: Dr. Smith", SIZES[0], 1)
    third = ("0.tar/ffbf0023[page 3]", "2.\n \nYours\n<image>", SIZES[2], 3)
    assert pages_of(Raw("0.tar/ffbf0023", members())) == [first, third]
    assert pages_of(Raw("0.tar/ffbf0023", members()), " ")[0][1] == "MEMORANDUM To: Dr. Smith"


def test_pages_beyond_the_shorter_of_image_and_annotation_are_left_out():
    assert [one[0] for one in pages_of(Raw("x", members(count=2)))] == ["x[page 1]"]
    assert [one[0] for one in pages_of(Raw("x", members(PAGES[:1])))] == ["x[page 1]"]
    assert [one[0] for one in pages_of(Raw("x", members(tiff=tiff(1), tif=...)))] == ["x[page 1]"]


def test_documents_are_read_from_their_tar(tmp_path):
    tar = write_tar(tmp_path / "idl-train-00000.tar", [("ffbf0023", members()), ("fgbf0023", members(PAGES[:1]))])
    records = ShardedSource(Tars(str(tar)), Idl()).open()
    drawn = {records.record(0, np.random.default_rng(seed)).id for seed in range(20)}
    assert drawn == {f"idl-train-00000.tar/ffbf0023[page {number}]" for number in (1, 3)}
    assert records.record(1, np.random.default_rng(0)).image.size_px == SIZES[0] and len(records) == 2


def test_what_has_no_page_to_draw_is_counted_with_its_reason(tmp_path):
    """Sizes are kept for each page that can be drawn."""
    samples = [("a", members()), ("b", members(tif=...)), ("c", members(PAGES[:1]))]
    storage = Tars(str(write_tar(tmp_path / "0.tar", samples)))
    [path] = storage.shards()
    shard = storage.open(path, storage.locate(path), Idl().fields, Idl().optional)
    tokenizer = train_tokenizer(["MEMORANDUM To: Dr. Smith"] * 9, tmp_path / "small.model", pieces=400)
    sizes = measure_shard(shard, Idl(), Measurer(tokenizer, chat.PHI3_STYLE))
    [(number, (_, detail))] = sizes.bad.items()
    assert number == 1 and "0.tar/b: a PDF, which is not rendered here" in detail
    assert sizes.shapes.image_px.tolist() == [[*SIZES[0]], [*SIZES[2]], [*SIZES[0]]]


def damaged(*numbers: int) -> bytes:
    """The pages, of which those of these numbers say that they are 0 pixels wide."""
    data = bytearray(tiff(3))
    for number in numbers:
        offset = tiff_pages(bytes(data))[number - 1].offset
        at = data.index(struct.pack("<H", 256), offset)  # the tag of the width
        data[at + 8 : at + 12] = bytes(4)
    return bytes(data)


def test_a_damaged_page_costs_that_page_alone(tmp_path, caplog):
    """It cost the whole document, in the index as in a run."""
    fields = members([page("a"), page("b"), page("c")], tif=damaged(2))
    assert [one[0] for one in pages_of(Raw("x", fields))] == ["x[page 1]", "x[page 3]"]
    [why] = Idl().read(Raw("x", fields), 0).lost
    assert "x, page 2," in why
    with pytest.raises(RecordError, match="none of its 2 pages with text .* the first: image: x is TIFF, damaged"):
        Idl().read(Raw("x", members(PAGES, tif=damaged(1, 3))), 0)
    # The index counts it, a check and a packed copy name it.
    source = ShardedSource(Tars(str(write_tar(tmp_path / "0.tar", [("a", fields), ("b", members())]))), Idl())
    words = str(tmp_path / "small.model")
    train_tokenizer(["a b c MEMORANDUM To: Dr. Smith"] * 9, words, pieces=400)
    indexed = index_source(source, Measuring(words, chat.PHI3_STYLE))
    assert (indexed.counts.samples, indexed.counts.dropped_images, indexed.counts.bad) == (4, 1, {})
    assert "pages that cannot be opened are left out of records, the first: image: 0.tar/a, page 2," in caplog.text
    checked = check(source.storage, 9, source.reader)
    [((reason, cause), count)] = checked.bad.items()
    assert (reason, count, checked.kinds) == (LOST_PAGE, 1, {"Caption": 2}) and "page 2" in cause
    packed = pack_source(source, tmp_path / "packed")
    assert packed.records == 2 and packed.bad[LOST_PAGE][0] == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (members(tif=...), "a PDF, which is not rendered here, and no TIFF"),
        (members(tif=..., pdf=...), "no TIFF of its pages; it has 'json', 'ocr'"),
        (members(json=...), "no 'json'; it has 'ocr', 'pdf', 'tif'"),
        (members(json=b"{"), "'json' is not JSON"),
        (members(json=b"[]"), "'json' has no 'pages'; it has list"),
        (members(json=b'{"page": []}'), "'json' has no 'pages'; it has 'page'"),
        (members({}), "'pages' is dict, wanted a list"),
        (members([{"lines": {"text": ["a"]}}]), "'text' of page 1 is None; wanted a list of lines"),
        (members([page("a"), page("a") | {"text": "a"}]), "'text' of page 2 is a; wanted a list of lines"),
        (members([page("a") | {"text": [None]}]), "'text' of page 1 is [None]; wanted a list of lines"),
        (members([]), "no text on any of its pages, 0 in 'json', 3 in the image"),
        (members([page(), page(" "), page()]), "no text on any of its pages, 3 in 'json', 3 in the image"),
        (members([page(), page("a")], count=1), "no text on any of its pages, 2 in 'json', 1 in the image"),
        (members(tif=b""), "is empty"),
        (members(tif=b"<html>"), "is a web page"),
        (members(tif=tiff(3)[:-40]), "copy it again"),
    ],
)
def test_a_document_of_another_form_is_an_error_of_its_record(fields, said):
    with pytest.raises(ValueError) as error:
        pages_of(Raw("0.tar/ffbf0023", fields))
    assert said in str(error.value) and "0.tar/ffbf0023" in str(error.value) and "\n" not in str(error.value)
