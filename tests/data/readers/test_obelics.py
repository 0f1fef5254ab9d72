"""OBELICS' rows, whole, as the data set's viewer shows them, with the images beside them or joined."""

import errno
import json

import numpy as np
import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.obelics import Obelics
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import train_tokenizer

A, B = "http://example.org/img/a.jpg", "https://cdn.example.org/wp-content/b.png?w=300"
TEXT, MORE = "The museum opened in 1911.\n\nIts oldest hall is free.", "A guide to <image> tags, and </s>."


def meta(url: str, width: int, height: int) -> dict:
    return {
        "document_url": "http://example.org/museum",
        "unformatted_src": url,
        "src": url,
        "formatted_filename": "a",
        "alt_text": "The hall",
        "original_width": width,
        "original_height": height,
        "format": "jpeg",
    }


ROW = {
    "images": [A, None, B, None],
    "metadata": json.dumps([meta(A, 4000, 3000), None, meta(B, 1, 1), None]),
    "general_metadata": json.dumps(
        {
            "url": "http://example.org/museum",
            "warc_filename": "crawl-data/CC-MAIN-2021-43/segments/1.warc.gz",
            "warc_record_offset": 322560850,
            "warc_record_length": 17143,
        }
    ),
    "texts": [None, TEXT, None, MORE],
}
FILES = {A: jpeg((40, 30), 1), B: jpeg((16, 24), 2)}


def raw(row: dict, files: dict = FILES) -> Raw:
    def image(url: str) -> LazyImage:
        if url not in files:
            raise ValueError(f"image: no file '{url}'; check the path.")
        return image_from_bytes(files[url], url, official=True)

    return Raw("train-00000-of-01335.parquet[17]", row, image)


def joined(*blobs: bytes | None) -> dict:
    return ROW | {"image_bytes": list(blobs)}


def shown(record: Document) -> list:
    return [part.size_px if isinstance(part, LazyImage) else part for part in record.parts]


WHOLE = [(40, 30), TEXT, (16, 24), MORE]


def test_a_row_is_a_document_of_images_and_texts_in_order():
    """The sizes are the images' own: those of the metadata are of the page that was crawled."""
    record = Obelics().read(raw(ROW), 0)
    assert (record.id, shown(record), record.dropped) == ("train-00000-of-01335.parquet[17]", WHOLE, 0)
    assert record.parts[0].load().size == (40, 30)
    assert isinstance(Obelics(), Reader) and Obelics().choices(raw(ROW)) == 1


def test_joined_bytes_are_read_and_the_storage_is_not_asked():
    assert shown(Obelics().read(raw(joined(FILES[A], None, FILES[B], None), {}), 0)) == WHOLE
    structs = [{"bytes": FILES[A], "path": None}, None, {"bytes": FILES[B], "path": "b.png"}, None]
    assert shown(Obelics().read(raw(joined(*structs), {}), 0)) == WHOLE
    other = ROW | {"fetched": [FILES[A], None, FILES[B], None]}
    assert shown(Obelics(image_bytes="fetched").read(raw(other, {}), 0)) == WHOLE


def test_a_row_without_its_list_of_bytes_is_read_by_url():
    assert shown(Obelics().read(raw(ROW | {"image_bytes": None}), 0)) == WHOLE
    assert shown(Obelics(image_bytes="").read(raw(joined(b"x", None, b"x", None)), 0)) == WHOLE


@pytest.mark.parametrize("gone", [None, b"", b"<html>404</html>", FILES[B][:20]])
def test_an_image_that_cannot_be_had_leaves_its_text_and_is_counted(gone):
    record = Obelics().read(raw(joined(FILES[A], None, gone, None)), 0)
    assert (shown(record), record.dropped) == ([(40, 30), TEXT, MORE], 1)
    record = Obelics().read(raw(ROW, {A: gone, B: FILES[B]} if gone is not None else {B: FILES[B]}), 0)
    assert (shown(record), record.dropped) == ([TEXT, (16, 24), MORE], 1)


def test_an_image_that_cannot_be_had_may_cost_its_document():
    reader = Obelics(missing="error")
    assert shown(reader.read(raw(ROW), 0)) == WHOLE
    with pytest.raises(RecordError, match=r"parquet\[17\].*no file 'https://cdn"):
        reader.read(raw(ROW, {A: FILES[A]}), 0)
    with pytest.raises(RecordError, match=r"'image_bytes' is null for 'https://cdn"):
        reader.read(raw(joined(FILES[A], None, None, None)), 0)


def test_an_unknown_option_is_refused(unchecked_signatures):
    with pytest.raises(ValueError, match="wanted 'leave_out' or 'error'"):
        Obelics(missing="skip")


def test_a_document_that_loses_all_images_is_an_error_with_the_first_cause():
    with pytest.raises(RecordError, match="none of its 2 images can be had; the first: image: no file 'http://exam"):
        Obelics().read(raw(ROW, {}), 0)
    with pytest.raises(RecordError, match="none of its 2 images .* has no folder of images; give it one"):
        Obelics().read(Raw("1", ROW), 0)


def test_a_file_system_that_does_not_answer_is_no_missing_image():
    def image(url: str) -> LazyImage:
        raise ValueError(f"image: '{url}' cannot be opened") from OSError(errno.EIO, "Input/output error")

    with pytest.raises(ValueError, match="cannot be opened") as error:
        Obelics().read(Raw("1", ROW, image), 0)
    assert not isinstance(error.value, RecordError)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"texts": [None, TEXT, None]}, "4 'images' and 3 'texts'"),
        ({"image_bytes": [FILES[A]]}, "4 'images' and 1 'image_bytes'"),
        ({"texts": [TEXT, TEXT, None, MORE]}, "position 0 has an image and a text"),
        ({"images": [A, None, None, None]}, "position 2 has neither image nor text"),
        ({"images": [None] * 4, "texts": [TEXT] * 4}, "names no image; PlainText"),
        ({"images": [], "texts": []}, "names no image"),
        ({"images": [A, None, 3, None]}, "'images' has int at position 2"),
        ({"texts": [None, TEXT, None, ["x"]]}, "'texts' has list at position 3"),
        ({"texts": TEXT}, "'texts' is str, wanted a list"),
        ({"images": None}, "'images' is NoneType, wanted a list"),
        ({"image_bytes": FILES[A]}, "'image_bytes' is bytes, wanted a list"),
        ({"image_bytes": [FILES[A], FILES[B], None, None]}, "has an image at position 1, where a text stands"),
    ],
)
def test_rows_of_another_form_are_errors_of_their_record(change, said):
    with pytest.raises(RecordError, match=r"parquet\[17\]") as error:
        Obelics().read(raw(ROW | change), 0)
    assert said in str(error.value)


def test_a_row_without_a_list_says_what_it_has():
    with pytest.raises(RecordError, match="no 'texts'; it has 'images'"):
        Obelics().read(raw({"images": [A]}), 0)


def test_text_about_image_tags_forges_no_image(tmp_path):
    tokenizer = train_tokenizer([TEXT, MORE] * 9, tmp_path / "small.model", pieces=400)
    sample = chat.sample(Obelics().read(raw(ROW), 0), tokenizer)
    assert int(np.sum(sample.token_ids == tokenizer.image_id)) == len(sample.images) == 2
    assert "A guide to <image> tags, and </s>." in tokenizer.decode(sample.token_ids.tolist())
