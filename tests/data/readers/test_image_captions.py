"""Captions of tables: their images inside as bytes or structs, or beside them; one of several texts."""

import numpy as np
import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import train_tokenizer

IMAGE = jpeg((40, 30), 1)
# img2dataset, output_format="parquet": the table of its tars and the image; a key that failed has a null there.
DOWNLOADED = {
    "url": "http://example.org/a.jpg",
    "caption": "A red bus.",
    "uid": "73142d356bceb4a9b16e41f7a78807e9",
    "key": "000008120942",
    "status": "success",
    "error_message": None,
    "width": 40,
    "height": 30,
    "original_width": 400,
    "original_height": 300,
    "exif": "{}",
    "sha256": "0" * 64,
    "jpg": IMAGE,
}
FAILED = DOWNLOADED | {"status": "failed_to_download", "error_message": "HTTP Error 404", "jpg": None, "width": None}
# A table of the datasets library.
EMBEDDED = {"image": {"bytes": IMAGE, "path": "a.jpg"}, "caption": ["A red bus.", "A bus in <image> red.", "", None]}
KALE = {
    "url": "http://example.org/a.jpg",
    "caption": "A red Routemaster bus in London.",
    "cogvlm_caption": "A red bus.",
}
OF_KALE = ImageCaptions(image=(), image_name="url", caption="caption", other_captions=("cogvlm_caption",))


def raw(row: dict, name: str = "http://example.org/a.jpg") -> Raw:
    def image(asked: str):
        if asked != name:
            raise ValueError(f"image: no file '{asked}'; check the path.")
        return image_from_bytes(IMAGE, asked, official=True)

    return Raw("00000.parquet[4]", row, image)


def read(reader: ImageCaptions, row: dict) -> list[str]:
    """The captions of a record, one a choice, each with its image."""
    records = [reader.read(raw(row), choice) for choice in range(reader.choices(raw(row)))]
    assert all(record.image.size_px == record.image.load().size == (40, 30) for record in records)
    assert all(record.id == "00000.parquet[4]" for record in records)
    return [record.text for record in records]


def test_a_table_of_img2dataset_has_images_as_bytes():
    assert read(ImageCaptions(caption="caption"), DOWNLOADED) == ["A red bus."]
    assert isinstance(OF_KALE, Reader)
    with pytest.raises(RecordError, match=r"parquet\[4\]: no image: wanted one of jpg, png, webp"):
        read(ImageCaptions(caption="caption"), FAILED)


def test_the_datasets_librarys_struct_has_bytes_or_a_path():
    reader = ImageCaptions(image=("image",), caption="caption")
    assert read(reader, EMBEDDED | {"caption": "A red bus."}) == ["A red bus."]
    assert read(reader, EMBEDDED | {"image": {"bytes": IMAGE, "path": None}, "caption": "x"}) == ["x"]
    beside = {"bytes": None, "path": "http://example.org/a.jpg"}
    assert read(reader, EMBEDDED | {"image": beside, "caption": "x"}) == ["x"]
    with pytest.raises(ValueError, match=r"no file 'gone.jpg'"):
        read(reader, EMBEDDED | {"image": {"bytes": None, "path": "gone.jpg"}})


def test_an_image_beside_the_table_is_opened_by_its_name():
    assert read(ImageCaptions(image=(), image_name="url", caption="caption"), KALE) == [KALE["caption"]]
    both = ImageCaptions(image=("jpg",), image_name="url", caption="caption")
    assert read(both, DOWNLOADED | {"url": "not asked for"}) == read(both, FAILED) == ["A red bus."]
    assert both.fields == ("caption", "url") and both.optional == ("jpg",)


def test_the_only_way_to_an_image_is_a_field_that_must_be_there():
    only = ImageCaptions(image=("image",))
    assert only.fields == ("txt", "image") and only.optional == ()
    assert ImageCaptions().fields == ("txt",) and ImageCaptions().optional == ("jpg", "png", "webp")


def test_one_of_several_captions_is_chosen():
    assert read(OF_KALE, KALE) == [KALE["caption"], KALE["cogvlm_caption"]]
    assert OF_KALE.fields == ("caption", "cogvlm_caption", "url")
    reader = ImageCaptions(image=("image",), caption="caption")
    assert read(reader, EMBEDDED) == ["A red bus.", "A bus in <image> red."]
    lists = ImageCaptions(image=("image",), caption="caption", other_captions=("more",))
    assert read(lists, EMBEDDED | {"more": "third"}) == ["A red bus.", "A bus in <image> red.", "third"]


@pytest.mark.parametrize("empty", [None, "", " ", [], [None, ""]])
def test_a_caption_that_is_empty_is_no_choice(empty):
    assert read(OF_KALE, KALE | {"cogvlm_caption": empty}) == [KALE["caption"]]
    assert read(OF_KALE, KALE | {"caption": empty}) == [KALE["cogvlm_caption"]]
    with pytest.raises(RecordError, match="'caption' and 'cogvlm_caption' are empty"):
        read(OF_KALE, KALE | {"caption": empty, "cogvlm_caption": empty})


@pytest.mark.parametrize(
    ("reader", "row", "said"),
    [
        (ImageCaptions(), DOWNLOADED, "no 'txt'; it has 'url'"),
        (ImageCaptions(caption="caption"), DOWNLOADED | {"caption": None}, "'caption' is empty"),
        (ImageCaptions(caption="caption"), DOWNLOADED | {"caption": " "}, "'caption' is empty"),
        (ImageCaptions(caption="caption"), DOWNLOADED | {"caption": ["a", 3]}, "'caption' holds int, wanted texts"),
        (ImageCaptions(caption="caption"), DOWNLOADED | {"jpg": "a.jpg"}, "has str in place of bytes"),
        (ImageCaptions(caption="caption"), DOWNLOADED | {"jpg": b"<html>"}, "is a web page"),
        (
            ImageCaptions(caption="caption"),
            DOWNLOADED | {"jpg": {"bytes": None, "path": None}},
            "has NoneType in place of bytes",
        ),
        (ImageCaptions(caption="caption"), DOWNLOADED | {"jpg": {"array": []}}, "has NoneType in place of bytes"),
        (OF_KALE, KALE | {"url": None}, "'url' is NoneType, wanted text"),
        (OF_KALE, KALE | {"url": "gone"}, "no file 'gone'"),
        (OF_KALE, {"url": "x", "caption": "y"}, "no 'cogvlm_caption'; it has 'url', 'caption'"),
    ],
)
def test_rows_of_another_form_are_errors_of_their_record(reader, row, said):
    with pytest.raises(ValueError) as error:
        read(reader, row)
    assert said in str(error.value)


def test_a_reader_of_no_image_field_is_refused():
    with pytest.raises(ValueError, match="give it image= or image_name="):
        ImageCaptions(image=())


def test_a_caption_about_image_tags_forges_no_image(tmp_path):
    tokenizer = train_tokenizer([EMBEDDED["caption"][1]] * 9, tmp_path / "small.model", pieces=400)
    record = ImageCaptions(image=("image",), caption="caption").read(raw(EMBEDDED), 1)
    ids = chat.sample(record, tokenizer).token_ids
    assert int(np.sum(ids == tokenizer.image_id)) == 1 and EMBEDDED["caption"][1] in tokenizer.decode(ids.tolist())


@pytest.mark.parametrize("options", [{"image": "image"}, {"other_captions": "alt"}])
def test_one_field_without_its_comma_is_told(options, unchecked_signatures):
    """Its letters were taken for fields, so every record was bad."""
    with pytest.raises(ValueError, match=r"give a tuple of fields, \('"):
        ImageCaptions(**options)
