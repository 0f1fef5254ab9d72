"""Pages of a TIFF of several, as MINT-1T's documents have their images."""

import io
import struct

import numpy as np
import PIL.Image
import pytest
from tar_files import jpeg, tiff

from xgenmm_jax.data import images
from xgenmm_jax.data.images import image_from_bytes

RED, BLUE = PIL.Image.new("RGB", (40, 30), (255, 0, 0)), PIL.Image.new("RGB", (16, 24), (0, 0, 255))


@pytest.mark.parametrize("compression", [None, "jpeg", "tiff_lzw", "tiff_adobe_deflate"])
def test_each_page_has_its_own_size_and_pixels(compression):
    data = tiff(RED, BLUE, RED.resize((8, 9)), compression=compression)
    pages = [image_from_bytes(data, "it", official=True, page=number) for number in range(3)]
    assert [page.size_px for page in pages] == [(40, 30), (16, 24), (8, 9)]
    middle = np.asarray(pages[1].load())[12, 8]
    np.testing.assert_allclose(middle, (0, 0, 255), atol=3)
    np.testing.assert_allclose(np.asarray(pages[2].load())[4, 4], (255, 0, 0), atol=3)


def test_pages_of_other_modes_are_rgb():
    """MINT-1T has RGBA in its TIFFs; the released code drops alpha."""
    data = tiff(RED, PIL.Image.new("RGBA", (5, 4), (1, 2, 3, 0)), PIL.Image.new("L", (4, 3), 7))
    assert image_from_bytes(data, "it", official=True, page=1).load().getpixel((0, 0)) == (1, 2, 3)
    assert image_from_bytes(data, "it", page=1).load().getpixel((0, 0)) == (255, 255, 255)
    assert image_from_bytes(data, "it", official=True, page=2).load().getpixel((0, 0)) == (7, 7, 7)


def test_no_pixel_is_read_before_load():
    """Opened by its header alone: the pixels of the last page are cut off."""
    # Pillow writes a page's pixels behind its header.
    data = tiff(RED, BLUE)[:-100]
    page = image_from_bytes(data, "it", page=1)
    assert page.size_px == (16, 24)
    with pytest.raises(ValueError, match="page 1 of it is truncated or damaged"):
        page.load()


def test_a_page_that_is_not_there_is_one_sentence():
    with pytest.raises(ValueError, match="image: page 2 of it is not there: its TIFF ends before that; copy it again"):
        image_from_bytes(tiff(RED, BLUE), "it", page=2)
    with pytest.raises(ValueError, match="page 1 of it is asked for, and it is JPEG, which has page 0 alone"):
        image_from_bytes(jpeg(), "it", page=1)
    gif = io.BytesIO()
    RED.save(gif, "GIF", save_all=True, append_images=[BLUE.resize(RED.size)])
    with pytest.raises(ValueError, match="it is GIF, which has page 0 alone"):
        image_from_bytes(gif.getvalue(), "it", page=1)


def test_pages_have_the_bounds_of_images():
    with pytest.raises(ValueError, match="page 1 of it has 16 x 24 pixels, more than 300"):
        image_from_bytes(tiff(RED.resize((10, 10)), BLUE), "it", 300, page=1)
    with pytest.raises(ValueError, match=r"page 1,000 of it is asked for, and 1,000 are read"):
        image_from_bytes(tiff(RED), "it", page=images.MOST_PAGES)


def test_a_tiff_whose_pages_go_in_circles_ends():
    """Nothing in a file may make a reader run forever."""
    data = bytearray(tiff(RED, BLUE))
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, first + 2 + 12 * count)[0]
    count = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, second + 2 + 12 * count, first)
    assert image_from_bytes(bytes(data), "it", page=1).size_px == (16, 24)
    with pytest.raises(ValueError, match="page 5 of it is not there"):
        image_from_bytes(bytes(data), "it", page=5)


@pytest.mark.parametrize("cut", [10, 60, 200, 400])
def test_damaged_tiffs_are_one_sentence(cut):
    data = tiff(RED, BLUE, compression="jpeg")
    with pytest.raises(ValueError, match="^image: page 1 of it "):
        image_from_bytes(data[:cut], "it", page=1).load()


def page_of_its_own(data: bytes, page: int) -> bytes:
    """The page in bytes that hold no other, with the same pixels."""
    image = image_from_bytes(data, "it", official=True, page=page)
    bare = images.encoded(image)
    again = image_from_bytes(bare, "it", official=True)
    assert again.size_px == image.size_px
    np.testing.assert_array_equal(np.asarray(again.load()), np.asarray(image.load()))
    with pytest.raises(ValueError, match="page 1 of it is "):
        image_from_bytes(bare, "it", page=1)
    return bare


def noise(size_px: tuple[int, int], seed: int) -> PIL.Image.Image:
    return image_from_bytes(jpeg(size_px, seed), "it").load()


@pytest.mark.parametrize("compression", [None, "jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_page_is_packed_alone_as_it_is_encoded(compression):
    """Copied as a file, each image of a document would bring all others, and be read as the first of them."""
    data = tiff(*(noise((40 + page, 31), page) for page in range(5)), compression=compression)
    for page in range(5):
        bare = page_of_its_own(data, page)
        assert bare.startswith(b"II*\0") and len(bare) < len(data) / 3


def test_pages_of_other_depths_orders_and_turns_are_packed_alone():
    bits = noise((64, 40), 1).convert("1")
    page_of_its_own(tiff(bits, bits.rotate(180), compression="group4"), 1)
    deep = PIL.Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).convert("I;16B")
    big_endian = tiff(deep, deep.transpose(PIL.Image.Transpose.ROTATE_90))
    assert page_of_its_own(big_endian, 1).startswith(b"MM\0*")
    file = io.BytesIO()
    noise((20, 10), 1).save(file, "TIFF", save_all=True, append_images=[noise((20, 12), 2)], tiffinfo={274: 6})
    page_of_its_own(file.getvalue(), 0)


def test_a_page_of_a_rare_sort_is_packed_as_png():
    file = io.BytesIO()
    noise((20, 10), 1).save(file, "TIFF", save_all=True, append_images=[noise((20, 12), 2)], big_tiff=True)
    assert page_of_its_own(file.getvalue(), 1).startswith(b"\x89PNG")


def test_a_file_of_one_page_is_packed_as_it_is():
    for data in (tiff(RED), jpeg()):
        assert images.encoded(image_from_bytes(data, "it", official=True)) == data
