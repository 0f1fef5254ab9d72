"""A page of a TIFF, packed alone."""

import io

import numpy as np
import PIL.Image
import pytest
from tar_files import jpeg, tiff

from xgenmm_jax.data import images
from xgenmm_jax.data.images import image_from_bytes


def page_of_its_own(data: bytes, page: int) -> bytes:
    """The page in bytes that hold no other, with the same pixels."""
    image = image_from_bytes(data, "it", official=True, page=page)
    bare = images.encoded(image)
    again = image_from_bytes(bare, "it", official=True)
    assert again.size_px == image.size_px
    np.testing.assert_array_equal(np.asarray(again.load()), np.asarray(image.load()))
    assert len(images.page_openers(bare, "it")) == 1
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
    for data in (tiff(noise((40, 30), 1)), jpeg()):
        assert images.encoded(image_from_bytes(data, "it", official=True)) == data


def test_a_file_whose_chain_of_pages_is_cut_is_no_file_to_copy():
    image = image_from_bytes(tiff(noise((40, 30), 1), noise((16, 24), 2))[:3700], "it", official=True)
    with pytest.raises(ValueError, match="image: it ends before page 2"):
        images.encoded(image)
