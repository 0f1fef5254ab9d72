import blip3o_goldens as goldens
import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.center_crop import center_crop

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_pixels_are_those_of_the_official_processor(number):
    """91 x 70, 60 x 133 and 64 x 64: scaled down, up and not at all; the golden's pixels are normalised bytes."""
    picture = PIL.Image.fromarray(goldens.outputs()[f"pictures/{number}"])
    official = goldens.channels_last("pixel_values")[number]
    np.testing.assert_array_equal(center_crop(picture, 64), np.rint((official * STD + MEAN) * 255))


def test_a_border_of_odd_width_goes_to_the_even_side():
    """Columns 0 to 66 of 67: 1.5 columns too many on either side are 2 on the left; of 65, half a column is none."""
    for width, left in ((67, 2), (65, 0)):
        columns = np.arange(width, dtype=np.uint8)
        image = PIL.Image.fromarray(np.broadcast_to(columns[None, :, None], (64, width, 3)).copy())
        np.testing.assert_array_equal(center_crop(image, 64)[0, :, 0], columns[left : left + 64])


def test_gray_becomes_rgb_and_a_line_is_refused():
    assert center_crop(PIL.Image.new("L", (10, 20), 7), 8).shape == (8, 8, 3)
    with pytest.raises(ValueError, match="1 x 100000 px would become 448 x 44800000"):
        center_crop(PIL.Image.new("RGB", (1, 100_000)), 448)
