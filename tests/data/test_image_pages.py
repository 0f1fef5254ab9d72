"""Pages of a TIFF: each opened by its header as if it were a file of its own."""

import io
import struct

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data import image_files, images

SIZES = ((40, 30), (16, 24), (31, 7))


def pixels(number: int, mode: str = "RGB") -> PIL.Image.Image:
    width, height = SIZES[number % 3]
    noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
    return PIL.Image.fromarray(noise).convert(mode)


def tiff(*pages: PIL.Image.Image, **options) -> bytes:
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"compression": "tiff_lzw"}),
        ("RGB", {"compression": "tiff_adobe_deflate"}),
        ("RGB", {"compression": "jpeg"}),
        ("RGBA", {"compression": "packbits"}),
        ("L", {"big_tiff": True}),
        ("1", {"compression": "group4"}),
    ],
    ids=lambda option: str(option)[:40],
)
def test_a_page_is_what_pillow_reads_of_its_frame(mode, options):
    data = tiff(*(pixels(number, mode) for number in range(5)), **options)
    assert len(images.page_openers(data, "scan.tif")) == 5
    for number in (4, 0, 2):
        image = images.image_from_bytes(data, "scan.tif", official=True, page=number)
        assert image.size_px == SIZES[number % 3]
        with PIL.Image.open(io.BytesIO(data)) as file:
            file.seek(number)
            np.testing.assert_array_equal(np.asarray(image.load()), np.asarray(file.convert("RGB")))


def test_pages_of_mixed_modes_are_read():
    data = tiff(pixels(0, "1"), pixels(1, "RGB"), pixels(2, "L"))
    sizes = [images.image_from_bytes(data, "x", page=number).load().size for number in range(3)]
    assert sizes == list(SIZES)


def test_pages_of_a_file_with_the_high_byte_first_are_read():
    data = bytearray(struct.pack(">2sHI", b"MM", 42, 8))
    for number in range(2):
        # Width, height, bits, no compression, black is zero, one strip: where it stands, its rows and bytes.
        start, tags = len(data), ((256, 2), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (278, 1), (279, 2))
        strip = start + 2 + 12 * len(tags) + 4
        data += struct.pack(">H", len(tags))
        for tag, value in tags:
            data += struct.pack(">HHII", tag, 4, 1, strip if tag == 273 else value)
        data += struct.pack(">I", 0 if number else strip + 2) + bytes((number, 250))
    assert len(images.page_openers(bytes(data), "x")) == 2
    rows = [np.asarray(images.image_from_bytes(bytes(data), "x", page=number).load())[0, :, 0] for number in range(2)]
    assert [row.tolist() for row in rows] == [[0, 250], [1, 250]]


def test_a_file_of_another_format_is_one_page():
    file = io.BytesIO()
    pixels(0).save(file, "PNG")
    assert len(images.page_openers(file.getvalue(), "a.tif")) == len(images.page_openers(b"", "a.tif")) == 1
    with pytest.raises(ValueError, match=r"a.tif has 1 pages, got page 1; wanted 0 to 0\."):
        images.image_from_bytes(file.getvalue(), "a.tif", page=1)


def test_a_page_is_refused_as_a_file_is():
    data = tiff(pixels(0), pixels(1))
    with pytest.raises(ValueError, match="'a.tif', page 2, has 16 x 24 pixels, more than 100"):
        images.image_from_bytes(data, "'a.tif'", 100, page=1)
    for page in (2, -1):
        with pytest.raises(ValueError, match=rf"has 2 pages, got page {page}; wanted 0 to 1"):
            images.image_from_bytes(data, "'a.tif'", page=page)
    second = image_files.tiff_pages(data)[1].offset
    cut = data[: second + 8] + bytes(len(data) - second - 8)
    with pytest.raises(ValueError, match="'a.tif', page 2,|ends before page"):
        images.image_from_bytes(cut, "'a.tif'", page=1)


def chain(*offsets: int, size: int = 100) -> bytes:
    """A TIFF of empty directories at these places, each naming the next."""
    data = bytearray(size)
    data[:8] = struct.pack("<2sHI", b"II", 42, offsets[0])
    for here, behind in zip(offsets[:-1], offsets[1:], strict=True):
        data[here : here + 6] = struct.pack("<HI", 0, behind)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (chain(8, 14, 8), "has the same page twice, as 3 again"),
        (chain(8, 14, 4_000_000_000), "ends before page 3"),
        (chain(8, 14, 0)[:17], "ends before page 3"),
        (b"II*\0", "ends before page 1"),
        (b"MM\0+" + bytes(4), "ends before page 1"),
        (chain(*range(8, 8 + 6 * 10_002, 6), size=60_100), "has more than 10,000 pages"),
    ],
)
def test_a_chain_of_pages_that_does_not_end_is_one_sentence(data, said):
    with pytest.raises(ValueError, match=f"^image: scan.tif {said}.*; (copy|cut) it"):
        images.page_openers(data, "scan.tif")
    assert len(images.page_openers(chain(8, 14, 20, 0), "scan.tif")) == 3
