"""What a person sees in a file is what the model gets: upright, on white, in the brightness that the numbers mean."""

import io
import struct
import zlib

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import PIL.TiffImagePlugin
import pytest

from xgenmm_jax.data import images
from xgenmm_jax.data.image_files import PNG_MARK

RAMP = np.linspace(0, 1, 64).reshape(4, 16)


def encoded(image: PIL.Image.Image, format_: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def read(data: bytes | PIL.Image.Image, official: bool = False) -> np.ndarray:
    if isinstance(data, bytes):
        opened = images.image_from_bytes(data, "it", official=official)
    else:
        opened = images.image_from_pil(data, official=official)
    image = opened.load()
    assert image.mode == "RGB" and image.size == opened.size_px
    return np.asarray(image)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, color: int, rows: list[bytes], width: int, *before: bytes, behind: bytes = b"") -> bytes:
    """color: 0 gray, 2 RGB. before: chunks in front of the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return PNG_MARK + chunk(b"IHDR", header) + b"".join(before) + pixels + behind + chunk(b"IEND", b"")


def tiff(numbers: np.ndarray, bits: int, sample_format: int, photometric: int | None = 1) -> bytes:
    """One uncompressed strip of gray, as Pillow cannot write all of it."""
    height, width = numbers.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1)]
    tags += [(262, 3, photometric)] if photometric is not None else []
    data = numbers.tobytes()
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format)]
    data += b"\0" * (len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


BYTES = np.uint8(np.floor(RAMP * 255.999))
SHORT = np.uint16(RAMP * 65535)
DEEP = {
    "png, 16 bits": encoded(PIL.Image.fromarray(SHORT), "PNG"),
    "tiff, 16 bits": encoded(PIL.Image.fromarray(SHORT), "TIFF", compression="tiff_lzw"),
    "tiff, 16 bits, big-endian": encoded(PIL.Image.fromarray(SHORT.astype(">u2")), "TIFF"),
    "tiff, 16 bits, white is zero": tiff(65535 - SHORT, 16, 1, 0),
    "tiff, 16 bits, without photometric": tiff(SHORT, 16, 1, None),
    "tiff, signed 16 bits": tiff(np.int16(RAMP * 32767), 16, 2),
    "tiff, 32 bits": tiff(np.uint32(RAMP * (2**32 - 1)), 32, 1),
    "tiff, signed 32 bits": tiff(np.int32(RAMP * (2**31 - 1)), 32, 2),
    "tiff, 16 bits in 32": encoded(PIL.Image.fromarray(np.int32(SHORT)), "TIFF"),
    "tiff, 8 bits in 32": encoded(PIL.Image.fromarray(np.int32(BYTES)), "TIFF"),
    "tiff, floats to 1": encoded(PIL.Image.fromarray(np.float32(RAMP)), "TIFF"),
    "tiff, floats to 255": encoded(PIL.Image.fromarray(np.float32(RAMP * 255)), "TIFF"),
    "tiff, floats to 65535": encoded(PIL.Image.fromarray(np.float32(RAMP * 65535)), "TIFF"),
    "tiff, floats, white is zero": tiff(np.float32(1 - RAMP), 32, 3, 0),
    "tiff, floats of a little above 1": encoded(PIL.Image.fromarray(np.float32(RAMP * 1.01)), "TIFF"),
    "tiff, heights": encoded(PIL.Image.fromarray(np.float32(RAMP * 3000 - 400)), "TIFF"),
    "tiff, counts to 1000": encoded(PIL.Image.fromarray(np.int32(RAMP * 1000)), "TIFF"),
    "pgm, 16 bits": b"P5 16 4 65535 " + SHORT.astype(">u2").tobytes(),
    "pgm, 10 bits": b"P2 16 4 1023 " + " ".join(str(int(v)) for v in (RAMP * 1023).ravel()).encode(),
    "pfm": b"Pf\n16 4\n-1.0\n" + np.float32(RAMP[::-1]).tobytes(),
    "jpeg 2000, 16 bits": encoded(PIL.Image.fromarray(SHORT), "JPEG2000"),
    "image, I;16": PIL.Image.fromarray(SHORT),
    "image, I;16B": PIL.Image.fromarray(SHORT.astype(">u2")),
    "image, I": PIL.Image.fromarray(np.int32(SHORT)),
    "image, F": PIL.Image.fromarray(np.float32(RAMP)),
}


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("name", DEEP)
def test_a_ramp_from_black_to_white_stays_one_in_any_depth(name, official):
    """Pillow's convert("RGB") made all above 255 white, and 0..1 black, without a word."""
    gray = read(DEEP[name], official)
    assert (gray == gray[..., :1]).all()
    np.testing.assert_allclose(gray[..., 0].astype(float), RAMP * 255, atol=1.5)


def test_gray_and_color_of_16_bits_give_the_same_bytes():
    """Rounding v / 257 beside Pillow's own high byte would move gray images by one against the same ones in RGB."""
    values = np.random.default_rng(0).integers(0, 65536, 64, dtype=np.uint16).astype(">u2")
    gray = png(16, 0, [values.tobytes()], 64)
    color = png(16, 2, [np.repeat(values, 3).tobytes()], 64)
    np.testing.assert_array_equal(read(gray), read(color))
    np.testing.assert_array_equal(read(gray)[0, :, 0], values >> 8)


def test_12_bits_are_scaled_by_their_own_white():
    """Pillow gives them as 16 bits, which would be a sixteenth of the brightness."""
    values = np.int64(RAMP[0] * 4095)
    packed = b"".join(struct.pack(">I", (a << 12 | b) << 8)[:3] for a, b in values.reshape(-1, 2))
    data = tiff(np.frombuffer(packed, np.uint8).reshape(1, -1), 12, 1)
    data = data.replace(struct.pack("<HHII", 256, 4, 1, 24), struct.pack("<HHII", 256, 4, 1, 16))
    np.testing.assert_array_equal(read(data)[0, :, 0], values >> 4)


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        (np.full((2, 2), np.nan, np.float32), "not finite"),
        (np.float32([[0, np.inf]]), "not finite"),
        (np.full((3, 2), -7, np.float32), "the number -7 alone"),
        (np.full((3, 2), 300, np.int32), "the number 300 alone"),
    ],
)
def test_numbers_that_mean_no_brightness_are_one_sentence(numbers, what):
    image = PIL.Image.fromarray(numbers)
    with pytest.raises(ValueError, match=f"image: it holds .*{what}"):
        read(encoded(image, "TIFF"))
    with pytest.raises(ValueError, match=f"image: the image holds .*{what}"):
        images.image_from_pil(image)


PHOTO = PIL.Image.fromarray(np.kron(np.arange(6).reshape(3, 2, 1), np.ones((8, 8, 3))).astype(np.uint8) * 40)


def with_orientation(value: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = value
    return exif


PIL.Image.init()
AVIF = ["AVIF"] if "AVIF" in PIL.Image.OPEN and PIL.features.check("avif") else []


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "MPO", *AVIF])
def test_a_photo_is_upright_for_a_user_and_as_it_lies_for_the_official_reading(format_):
    options = {"lossless": True} if format_ == "WEBP" else {"quality": 95} if format_ != "PNG" else {}
    for value in range(1, 9):
        options["exif"] = with_orientation(value)
        several = {"save_all": True, "append_images": [PHOTO]} if format_ == "MPO" else {}
        data = encoded(PHOTO, format_, **options, **several)
        raw = PIL.Image.open(io.BytesIO(data))
        upright = np.asarray(PIL.ImageOps.exif_transpose(raw).convert("RGB"))
        np.testing.assert_array_equal(read(data), upright)
        np.testing.assert_array_equal(read(PIL.Image.open(io.BytesIO(data))), upright)
        lying = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(read(data, official=True), lying)
        assert (lying.shape == PHOTO.size[::-1] + (3,)) or format_ == "TIFF"  # Pillow itself turns TIFF
        assert upright.shape[:2] == ((24, 16) if value < 5 else (16, 24))


def test_an_image_that_was_turned_is_not_turned_again():
    """Its EXIF stayed in `info`, so that a notebook which handed the loaded image on had it lying down again."""
    data = encoded(PHOTO, "JPEG", exif=with_orientation(6))
    once = images.image_from_bytes(data, "it").load()
    assert once.size == (24, 16) == images.image_from_pil(once).load().size


def test_an_orientation_behind_the_pixels_or_in_xmp_is_found():
    """PNG may hold EXIF behind its pixels, where Pillow learns of it after the size was told."""
    rows = [bytes([60 * x + 20 * y for x in range(4) for _ in range(3)]) for y in range(2)]
    turn = with_orientation(8).tobytes().removeprefix(b"Exif\0\0")
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<rdf:Description tiff:Orientation="6"/>'
    late = png(8, 2, rows, 4, behind=chunk(b"eXIf", turn))
    early = png(8, 2, rows, 4, chunk(b"eXIf", turn))
    np.testing.assert_array_equal(read(late), read(early))
    assert read(late).shape == (4, 2, 3)
    assert read(png(8, 2, rows, 4, behind=chunk(b"tEXt", b"date\0now") + chunk(b"iTXt", xmp))).shape == (4, 2, 3)
    assert read(late, official=True).shape == (2, 4, 3)
    info = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    info.tagtype[700] = 1
    info[700] = b'<x tiff:Orientation="5"/>'
    for official in (False, True):
        assert read(encoded(PHOTO, "TIFF", tiffinfo=info), official).shape == (16, 24, 3)


def on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


RGBA = np.random.default_rng(1).integers(0, 256, (6, 5, 4)).astype(np.uint8)
RGBA[0, :, 3], RGBA[1, :, 3] = 0, 255


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_on_white_for_a_user_and_is_dropped_by_the_official_reading(format_):
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    data = encoded(PIL.Image.fromarray(RGBA), format_, **options)
    np.testing.assert_allclose(read(data), on_white(RGBA), atol=1)
    np.testing.assert_array_equal(read(data, official=True), RGBA[..., :3])


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBa", "RGBA"])
def test_images_of_every_mode_with_alpha_lie_on_white(mode):
    image = PIL.Image.fromarray(RGBA)
    rgba = {"La": "LA"}.get(mode, mode)
    image = PIL.Image.fromarray(RGBA[..., [0, 3]]).convert(mode) if rgba in ("LA", "PA") else image.convert(mode)
    back = np.asarray((image.convert("LA") if mode == "La" else image).convert("RGBA"))
    np.testing.assert_allclose(read(image), on_white(back), atol=1)
    assert (read(image, official=True)[1] == back[1, :, :3]).all()


def test_a_transparent_color_or_index_lies_on_white():
    """Black on transparent came out black on black. PNG names the color in the file's depth, Pillow has 8 bits."""
    palette = PIL.Image.new("P", (3, 1))
    palette.putpalette([0, 0, 0, 10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1, 2])
    some = [[[255, 255, 255], [10, 20, 30], [40, 50, 60]]]
    for format_ in ("PNG", "GIF"):
        np.testing.assert_array_equal(read(encoded(palette, format_, transparency=0)), some)
        np.testing.assert_array_equal(read(encoded(palette, format_, transparency=0), True)[0, 0], [0, 0, 0])
    half = read(encoded(palette, "PNG", transparency=bytes([0, 255, 128])))
    np.testing.assert_allclose(half, [[[255, 255, 255], [10, 20, 30], [147, 152, 157]]], atol=1)
    rows = {1: b"\x40", 2: b"\x1b", 4: b"\x3c", 8: b"\0\x33", 16: b"\0\x05\x30\x39"}
    color = {1: 0, 2: 0, 4: 3, 8: 0, 16: 5}
    for depth, row in rows.items():
        data = png(depth, 0, [row], 2, chunk(b"tRNS", struct.pack(">H", color[depth])))
        assert read(data)[0, 0].tolist() == [255, 255, 255], depth
        assert read(data, official=True)[0, 0, 0] == {4: 51}.get(depth, 0)
        assert (
            read(data)[0, 1, 0] == read(data, official=True)[0, 1, 0] == {1: 255, 2: 85, 4: 204, 8: 51, 16: 48}[depth]
        )
    data = png(
        16, 2, [struct.pack(">6H", 700, 800, 900, 7, 8, 9)], 2, chunk(b"tRNS", struct.pack(">3H", 700, 800, 900))
    )
    assert read(data).tolist() == [[[255, 255, 255], [0, 0, 0]]]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "P"])
def test_images_of_other_modes_are_as_pillow_converts_them(mode):
    image = PIL.Image.fromarray(RGBA[..., :3]).convert(mode)
    for official in (False, True):
        np.testing.assert_array_equal(read(image, official), np.asarray(image.convert("RGB")))


def test_a_pil_image_is_taken_as_it_is_now():
    """Frames of an animation are one PIL image that moves on: each became the last one."""
    frames = [PIL.Image.new("P", (4, 4), value) for value in (3, 9, 27)]
    for frame in frames:
        frame.putpalette([gray for gray in range(256) for _ in range(3)])
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    taken = []
    with PIL.Image.open(io.BytesIO(data)) as moving:
        for number in range(3):
            moving.seek(number)
            taken.append(images.image_from_pil(moving))
    assert [opened.load().getpixel((0, 0))[0] for opened in taken] == [3, 9, 27]
    assert read(data)[0, 0, 0] == 3
    image = PIL.Image.new("RGB", (2, 2), "red")
    opened = images.image_from_pil(image)
    image.putpixel((0, 0), (0, 0, 255))
    assert opened.load().getpixel((0, 0)) == (255, 0, 0)
    noted = PIL.Image.new("RGB", (8, 4), "red")
    noted.getexif()[0x0112] = 6
    assert images.image_from_pil(noted).size_px == (4, 8)
    assert noted.size == (8, 4) and noted.getexif()[0x0112] == 6
