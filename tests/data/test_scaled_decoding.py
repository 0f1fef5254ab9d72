"""JPEGs decoded at a fraction of their size for rows: only where asked for, near the full pixels, full sizes noted."""

import io

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_sample_image

from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.records import decode, encode
from xgenmm_jax.data.records import Caption, LazyImage, Sample
from xgenmm_jax.data.rows.build import build_rows
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer
from xgenmm_jax.training.config_json import from_json, to_json

VIEW_PX = 96
ROW = RowConfig(length=64, crops=2, images=2, vision_tokens=4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    train_tokenizer(["a red circle and the blue square"] * 9, path, pieces=400)
    return Tokenizer.load(str(path))


def encoded(format_: str, **options) -> bytes:
    """A photograph of 640 x 427 pixels."""
    file = io.BytesIO()
    PIL.Image.fromarray(load_sample_image("china.jpg")).save(file, format_, **options)
    return file.getvalue()


def row_of(image: LazyImage, tokenizer: Tokenizer, **options):
    sample = Sample("a", np.array([tokenizer.image_id, 5], np.int32), np.array([False, True]), (image,))
    config = AnyRes(grids=(), view_px=VIEW_PX, view_cells=6, **options)
    return build_rows([[sample]], ROW, config, tokenizer)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("global_view", ["squash", "pad"])
def test_rows_hold_full_pixels_by_default_and_near_ones_where_asked(tokenizer, options, global_view):
    data = encoded("JPEG", quality=88, **options)
    image = image_from_bytes(data, "photo", official=True)
    full = row_of(image, tokenizer, global_view=global_view)
    official = PIL.Image.open(io.BytesIO(data)).convert("RGB")
    want = anyres.crops(official, AnyRes(grids=(), view_px=VIEW_PX, global_view=global_view))
    np.testing.assert_array_equal(full.pixels[0, :1], want)
    scaled = row_of(image, tokenizer, global_view=global_view, scaled_decoding=True)
    difference = np.abs(np.int32(scaled.pixels[0, 0]) - full.pixels[0, 0])
    assert 0 < difference.mean() < 6
    for name in ("image_size_px", "image_valid", "image_grid", "token_ids", "slot", "loss_mask"):
        np.testing.assert_array_equal(getattr(scaled, name), getattr(full, name))
    assert scaled.image_size_px[0, 0].tolist() == [640, 427]


@pytest.mark.parametrize(
    ("least_px", "size_px"), [(50, (80, 54)), (53, (80, 54)), (54, (160, 107)), (213, (320, 214)), (214, (640, 427)),
                              (900, (640, 427))],
)  # fmt: skip
def test_no_side_becomes_shorter_than_asked(least_px, size_px):
    image = image_from_bytes(encoded("JPEG"), "photo", official=True)
    assert image.load_scaled(least_px).size == size_px and image.load().size == image.size_px == (640, 427)


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF"])
def test_other_formats_are_decoded_in_full(tokenizer, format_):
    image = image_from_bytes(encoded(format_), "photo", official=True)
    full, scaled = (row_of(image, tokenizer, scaled_decoding=on) for on in (False, True))
    np.testing.assert_array_equal(full.pixels, scaled.pixels)


def test_images_that_cannot_be_scaled_are_loaded(tokenizer):
    image = image_from_bytes(encoded("JPEG"), "photo", official=True)
    alone = LazyImage(image.size_px, image.load)
    np.testing.assert_array_equal(
        row_of(alone, tokenizer, scaled_decoding=True).pixels, row_of(image, tokenizer).pixels
    )


def test_a_rotated_photo_is_scaled_upright():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    photo = image_from_bytes(encoded("JPEG", exif=exif), "photo")
    assert photo.size_px == (427, 640) and photo.load_scaled(100).size == (107, 160)
    near = photo.load().resize((107, 160), PIL.Image.Resampling.BOX)
    assert np.abs(np.int32(near) - photo.load_scaled(100)).mean() < 6


def test_records_of_prepared_files_are_scaled_too():
    blob = encoded("JPEG")
    image = image_from_bytes(blob, "photo", official=True)
    again = decode(encode(Caption("a", image, "a house"), [blob])).image
    np.testing.assert_array_equal(again.load_scaled(100), image.load_scaled(100))
    assert again.load_scaled(100).size == (160, 107)


def test_damaged_files_are_errors_of_one_sentence():
    data = encoded("JPEG")
    image = image_from_bytes(data[: len(data) // 2], "photo", official=True)
    with pytest.raises(ValueError, match="photo is truncated or damaged"):
        image.load_scaled(100)


def test_grids_need_all_pixels():
    with pytest.raises(ValueError, match="scaled_decoding with 5 grids"):
        AnyRes(scaled_decoding=True)


def test_configs_of_older_runs_decode_in_full():
    old = to_json(AnyRes(grids=()))
    del old["scaled_decoding"]
    assert from_json(old, AnyRes) == AnyRes(grids=(), scaled_decoding=False)
