"""Rows of BLIP3-OCR-200M: their captions made anew from the strings that were read, or taken as released."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg, write_tar

from xgenmm_jax.data.captions import ocr
from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.ocr import Ocr
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.tars import Tars

ROW0 = json.loads((Path(__file__).parents[2] / "goldens" / "ocr" / "row0.json").read_text())
ALT = "2020 Honda Fit LX CVT"
METADATA = {"length": 2, "entries": ROW0["entries_shown"], "uid": "datacomp_ocr_73142d356bceb4a9b16e41f7a78807e9"}
ROW = {
    "uid": "73142d356bceb4a9b16e41f7a78807e9",
    "face_bboxes": [],
    "url": "http://example.org/a.jpg",
    "key": "000008120942",
    "captions": json.dumps(ROW0["captions"]),
    "metadata": json.dumps(METADATA),
    "__index_level_0__": 7,
}
IMAGE = jpeg((40, 30), 1)


def raw(**changed) -> Raw:
    row = {name: value for name, value in (ROW | {"jpg": IMAGE} | changed).items() if value is not ...}
    return Raw("001.parquet[0]", row)


def text(reader: Ocr, **changed) -> str:
    return reader.read(raw(**changed), 0).text


def entry(text: str, *points: float) -> dict:
    """An entry whose box reaches from the first two numbers to the last two."""
    x1, y1, x2, y2 = points
    return {"text": text, "confidence": 0.9, "bbox": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]}


def metadata(*entries) -> str:
    return json.dumps(METADATA | {"entries": entries})


@pytest.mark.parametrize("caption", ROW0["captions"], ids=lambda one: one["text"][-60:])
def test_released_captions_are_made_of_their_entries_to_the_letter(caption):
    options = {"granularity": caption["granularity"], "raw_caption": caption["include_datacomp_raw_cap"]}
    assert text(Ocr(**options, filler=True)) == caption["text"]
    assert text(Ocr(**options, filler=True, source="captions"), metadata=...) == caption["text"]
    if options["raw_caption"]:
        reader = Ocr(**options, filler=True, raw_caption_field="text")
        assert text(reader, text=ALT, captions=...) == caption["text"]


def test_training_reads_text_without_boxes_and_fillers():
    assert text(Ocr(), captions=...) == '"BOCH", "20 Year / 200,000 Mile Warranty"'
    assert text(Ocr(raw_caption=True)) == f'{ALT}. "BOCH", "20 Year / 200,000 Mile Warranty"'
    assert text(Ocr(granularity=1)).startswith('"BOCH" located at the bottom left corner, ')
    assert text(Ocr(granularity=5)).startswith("<ocr>BOCH</ocr><bbox>[0.074, 0.906][0.201, 0.987]</bbox>, ")


def test_the_words_of_a_string_are_never_taken_for_fillers():
    said = metadata(entry('The image contains the text "x", the <ocr>', 0, 0, 1, 1))
    assert text(Ocr(), metadata=said) == '"The image contains the text "x", the <ocr>"'


@pytest.mark.parametrize(
    ("box", "cell", "corners"),
    [
        ((0.0, 0.0, 1.0, 1.0), "in the center", "[0.0, 0.0][1.0, 1.0]"),
        ((0.0004, 0.0005, 0.6662, 0.66), "at the top left corner", "[0.0, 0.001][0.666, 0.66]"),
        ((1 / 3, 1 / 3, 1 / 3, 1 / 3), "in the center", "[0.333, 0.333][0.333, 0.333]"),
        ((2 / 3, 0.5, 2 / 3, 0.5), "to the right of the center", "[0.667, 0.5][0.667, 0.5]"),
        # The engine's boxes may leave the image; the place is still told by thirds.
        ((-2.5, -1.25, -1.5, 0.25), "at the top left corner", "[-2.5, -1.25][-1.5, 0.25]"),
        ((1.5, 0.9, 2.5, 1.1), "at the bottom right corner", "[1.5, 0.9][2.5, 1.1]"),
    ],
)
def test_places_are_told_by_thirds_and_rounded_numbers(box, cell, corners):
    said = metadata(entry("T", *box))
    assert text(Ocr(granularity=1), metadata=said) == f'"T" located {cell}'
    assert text(Ocr(granularity=5), metadata=said) == f"<ocr>T</ocr><bbox>{corners}</bbox>"


def test_fractions_have_at_most_20_parts_and_the_height_first():
    said = metadata(entry("T", 0, 0.89, 0.28, 1))
    assert text(Ocr(granularity=2), metadata=said) == (
        '"T" located at 17/18 of the image from top to bottom and 1/7 of the image from left to right'
    )
    assert ocr.caption([("T", (0.0, 0.0, 2.0, 0.0))], 2, filler=False).startswith('"T" located at 0 of')
    assert text(Ocr(granularity=3), metadata=metadata(entry("T", 0.25, 0.35, 0.05, 1))) == (
        '"T" approximately starts at [0.2, 0.3] and extends upto [0.1, 1.0]'
    )


def test_an_empty_alt_text_is_kept_to_the_letter_where_fillers_are():
    reader = Ocr(raw_caption=True, raw_caption_field="text")
    said = metadata(entry("T", 0, 0, 1, 1))
    assert text(reader, text=" ", metadata=said) == '"T"'
    reader = Ocr(raw_caption=True, raw_caption_field="text", filler=True)
    assert text(reader, text="", metadata=said) == '. The image contains the text "T"'


@pytest.mark.parametrize(
    ("reader", "changed", "said"),
    [
        (Ocr(), {"metadata": ...}, "no 'metadata'; it has 'uid', 'face_bboxes', 'url'"),
        (Ocr(), {"metadata": None}, "'metadata' is NoneType, wanted text"),
        (Ocr(), {"metadata": "{"}, "'metadata' is not JSON"),
        (Ocr(), {"metadata": "[" * 100_000}, "nested too deeply"),
        (Ocr(), {"metadata": "[]"}, "'metadata' is list, wanted an object"),
        (Ocr(), {"metadata": '{"length": 2}'}, "'metadata' has no 'entries'; it has 'length'"),
        (Ocr(), {"metadata": '{"entries": {}}'}, "'entries' is dict, wanted a list"),
        (Ocr(), {"metadata": metadata()}, "no text that stands in the image"),
        (Ocr(), {"metadata": metadata(entry(" ", 0, 0, 1, 1))}, "no text that stands in the image"),
        (Ocr(), {"metadata": metadata("BOCH")}, "entry 0 of 'metadata' is BOCH; wanted its 'text'"),
        (Ocr(), {"metadata": metadata({"text": "x"})}, "'bbox' of entry 0 is None; wanted four points"),
        (Ocr(), {"metadata": metadata({"text": "x", "bbox": [[0, 0], [1, 1]]})}, "wanted four points"),
        (Ocr(), {"metadata": metadata(entry("x", 0, 0, 1, float("nan")))}, "wanted four points"),
        (Ocr(), {"metadata": metadata(entry("x", 0, 0, 1, 10**400))}, "wanted four points"),
        (Ocr(), {"metadata": metadata(entry("x", 0, 0, 1, True))}, "wanted four points"),
        (Ocr(raw_caption=True), {"captions": ...}, "no 'captions'; it has 'uid'"),
        (Ocr(raw_caption=True), {"captions": json.dumps(ROW0["captions"][:6])}, "none of granularity 0 with the raw"),
        (
            Ocr(raw_caption=True),
            {"captions": json.dumps([ROW0["captions"][0], ROW0["captions"][7]])},
            "none of granularity 0 with the raw",
        ),
        (
            Ocr(raw_caption=True),
            {"captions": json.dumps([ROW0["captions"][0], ROW0["captions"][6] | {"text": "x"}])},
            "its alt text is not known",
        ),
        (Ocr(raw_caption=True, raw_caption_field="text"), {}, "no 'text'; it has"),
        (Ocr(filler=True, source="captions"), {"captions": "{}"}, "'captions' is dict, wanted a list"),
        (Ocr(filler=True, source="captions"), {"captions": '["x"]'}, "'captions' has str, wanted objects"),
        (
            Ocr(filler=True, source="captions"),
            {"captions": json.dumps([ROW0["captions"][0] | {"text": 3}])},
            "is 3, wanted a text",
        ),
        # Numbers and truth values are not each other.
        (
            Ocr(filler=True, source="captions"),
            {"captions": json.dumps([ROW0["captions"][0] | {"granularity": False}])},
            "none of granularity 0 without",
        ),
        (Ocr(), {"jpg": None}, "no image: wanted one of jpg, png, webp"),
        (Ocr(image_name="path"), {"jpg": None}, "no 'path'"),
    ],
)
def test_rows_of_another_form_are_errors_of_their_record(reader, changed, said):
    with pytest.raises(RecordError) as error:
        text(reader, **changed)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": "captions"}, "give filler=True, or source='entries'"),
        ({"raw_caption_field": "text"}, "with raw_caption=True"),
        ({"image": ()}, "Ocr reads no field with an image"),
    ],
)
def test_options_that_do_not_fit_are_refused_where_they_are_written(options, said):
    with pytest.raises(ValueError, match=said):
        Ocr(**options)


# Of img2dataset: its own columns and, by save_additional_columns, the row's; `key` is its own.
DOWNLOADED = {
    "uid": ROW["uid"], "face_bboxes": [], "captions": ROW["captions"], "metadata": ROW["metadata"], "url": ROW["url"],
    "key": "000000007", "status": "success", "error_message": None, "width": 40, "height": 30, "original_width": 400,
    "original_height": 300, "exif": "{}", "sha256": "0" * 64,
}  # fmt: skip


def read_first(storage, reader: Reader):
    [shard] = storage.shards()
    opened = storage.open(shard, storage.locate(shard), reader.fields, reader.optional)
    raw = opened.read(0)
    assert reader.choices(raw) == 1
    record = reader.read(raw, 0)
    assert record.image.load().size == record.image.size_px == (40, 30)
    return record


def test_annotations_travel_with_the_images_of_a_tar(tmp_path):
    def tar(name: str, columns: dict) -> Tars:
        members = {"jpg": IMAGE, "json": json.dumps(columns, indent=4).encode()}
        return Tars(str(write_tar(tmp_path / name, [("000000007", members)])))

    record = read_first(tar("00000.tar", DOWNLOADED), Ocr())
    assert (record.id, record.text) == ("00000.tar/000000007", '"BOCH", "20 Year / 200,000 Mile Warranty"')
    renamed = {("meta" if name == "metadata" else name): value for name, value in DOWNLOADED.items()}
    with pytest.raises(RecordError, match="000000007: no 'metadata'; it has 'uid', 'face_bboxes', 'captions', 'meta'"):
        read_first(tar("00001.tar", renamed), Ocr())
    with pytest.raises(RecordError, match="'json' holds list, wanted an object"):
        read_first(tar("00002.tar", [DOWNLOADED]), Ocr())


def test_annotations_travel_with_the_images_of_a_table(tmp_path):
    """With width and height, as OCR-HD's schema has them besides."""

    def table(name: str, row: dict) -> Parquet:
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
        return Parquet(str(tmp_path / name))

    record = read_first(table("00000.parquet", DOWNLOADED | {"jpg": IMAGE}), Ocr(granularity=4, filler=True))
    assert record.text == ROW0["captions"][4]["text"]
    renamed = {("annotation" if name == "metadata" else name): value for name, value in DOWNLOADED.items()}
    with pytest.raises(SourceError, match="has no column 'metadata'; the columns found: 'uid', .*'annotation'"):
        read_first(table("00001.parquet", renamed), Ocr())


def test_images_of_a_released_table_lie_in_a_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(IMAGE)
    pq.write_table(pa.Table.from_pylist([ROW | {"url": "a.jpg"}]), tmp_path / "001.parquet")
    storage = Parquet(str(tmp_path / "001.parquet"), images=str(tmp_path / "images"))
    reader = Ocr(image=(), image_name="url")
    assert read_first(storage, reader).text.startswith('"BOCH"') and reader.fields == ("metadata", "url")
