"""Random crops and flips: what torchvision's draw may give, from the draw's generator alone."""

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.random_crops import RandomCrops
from xgenmm_jax.data.records import Caption, Document, LazyImage
from xgenmm_jax.data.rows.order import Draw
from xgenmm_jax.data.source import Mapped, records_of

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
IMAGE = LazyImage((90, 60), lambda: PIL.Image.fromarray(PIXELS))
CAPTION = Caption("a", IMAGE, "a dog")


class Captions:
    """A source of ten captions of one image."""

    def open(self):
        return records_of([CAPTION] * 10, "captions")

    def files(self):
        return []


def test_crops_are_as_large_and_as_wide_as_asked():
    rng = np.random.default_rng(1)
    boxes = np.array([RandomCrops().box((90, 60), rng) for _ in range(3000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() == 0 and boxes[:, 2].max() == 90 and boxes[:, 3].max() == 60
    area, shape = width * height / 5400, width / height
    assert area.min() > 0.48 and area.max() < 0.93  # a crop of the whole height is 80 of 90 wide at most
    assert shape.min() > 0.72 and shape.max() < 1.37
    # Wherever it lies: mean of the space that is left beside it.
    assert abs(np.mean(boxes[:, 0] / np.maximum(90 - width, 1)) - 0.5) < 0.03


def test_a_strip_gives_the_largest_crop_in_its_middle():
    """No crop of half the area has an allowed shape."""
    assert RandomCrops().box((400, 30), np.random.default_rng(0)) == (180, 0, 220, 30)
    assert RandomCrops().box((30, 400), np.random.default_rng(0)) == (0, 180, 30, 220)
    assert RandomCrops(1.0, 1.0, 1.5, 1.5).box((90, 60), np.random.default_rng(0)) == (0, 0, 90, 60)


def test_a_crop_is_a_part_of_the_image_half_of_them_turned():
    rng, turned = np.random.default_rng(2), 0
    for _ in range(60):
        state = rng.bit_generator.state
        image = RandomCrops()(CAPTION, rng).image
        again = np.random.default_rng()
        again.bit_generator.state = state
        left, top, right, bottom = RandomCrops().box((90, 60), again)
        got, part = np.asarray(image.load()), PIXELS[top:bottom, left:right]
        assert image.size_px == got.shape[1::-1] == (right - left, bottom - top)
        is_turned = not np.array_equal(got, part)
        assert np.array_equal(got, part[:, ::-1] if is_turned else part)
        turned += is_turned
    assert 18 < turned < 42


def test_a_draw_follows_from_seed_record_and_epoch():
    records = Mapped(Captions(), RandomCrops()).open()

    def crop(record, epoch, seed=5):
        image = records.record(record, Draw(0, record, epoch).rng(seed)).image
        return np.asarray(image.load()).tobytes()

    drawn = [crop(3, 0), crop(3, 1), crop(4, 0), crop(3, 0, seed=6)]
    assert len(set(drawn)) == 4 and crop(3, 0) == drawn[0]
    assert records.name == "captions/crops"


def test_what_is_no_caption_or_no_share_is_told():
    with pytest.raises(RecordError, match="a Document, wanted a Caption"):
        RandomCrops()(Document("a", ("text",)), np.random.default_rng(0))
    for settings in ({"least": 0.0}, {"least": 0.9, "most": 0.5}, {"flip": 2.0}, {"narrowest": 2.0}):
        with pytest.raises(ValueError, match="data: RandomCrops has areas"):
            RandomCrops(**settings)
