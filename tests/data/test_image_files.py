"""Any file is an image or one sentence that says what it is: never another error, a bomb, or a program that runs."""

import io
from pathlib import Path
import random
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import PIL.features
import PIL.Image
import PIL.TiffImagePlugin
import pytest

from xgenmm_jax.data import images
from xgenmm_jax.data.image_files import FORMATS, PNG_MARK

# Pillow warns of damaged metadata; under pytest these would be errors inside Pillow.
pytestmark = pytest.mark.filterwarnings("ignore")

PIL.Image.init()
HAS_AVIF = "AVIF" in PIL.Image.OPEN and PIL.features.check("avif")
NOISE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 4)).astype(np.uint8))
RGB, GRAY = NOISE.convert("RGB"), NOISE.convert("L")
PALETTE = RGB.quantize(16)
EXIF = PIL.Image.Exif()
EXIF[0x0112], EXIF[0x010F], EXIF[0x011A] = 6, "maker", PIL.TiffImagePlugin.IFDRational(72, 1)
EXIF.get_ifd(0x8769)[0x829A] = PIL.TiffImagePlugin.IFDRational(1, 60)
EXIF.load(EXIF.tobytes())


def encoded(image: PIL.Image.Image, format_: str, frames: int = 1, **options) -> bytes:
    file = io.BytesIO()
    if frames > 1:
        options |= {"save_all": True, "append_images": [image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)]}
    image.copy().save(file, format_, **options)  # JPEG leaves its encoder's options in the image
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


SMALL = {
    "PNG": [
        encoded(RGB, "PNG", exif=EXIF),
        encoded(NOISE, "PNG"),
        encoded(PALETTE, "PNG", transparency=3),
        encoded(PIL.Image.fromarray(np.uint16(GRAY) * 257), "PNG", icc_profile=b"x" * 200),
        encoded(GRAY.convert("1"), "PNG"),
        encoded(RGB, "PNG", frames=2),
    ],
    "JPEG": [
        encoded(RGB, "JPEG", exif=EXIF),
        encoded(GRAY, "JPEG", progressive=True),
        encoded(RGB.convert("CMYK"), "JPEG"),
        encoded(RGB, "MPO", exif=EXIF, frames=2),
    ],
    "WEBP": [encoded(RGB, "WEBP", exif=EXIF), encoded(NOISE, "WEBP", lossless=True), encoded(RGB, "WEBP", frames=2)],
    "GIF": [encoded(PALETTE, "GIF", transparency=2), encoded(PALETTE, "GIF", frames=2)],
    "BMP": [encoded(RGB, "BMP"), encoded(PALETTE, "BMP"), encoded(NOISE, "BMP")],
    "TIFF": [
        encoded(RGB, "TIFF", exif=EXIF),
        encoded(NOISE, "TIFF", compression="tiff_lzw"),
        encoded(PIL.Image.fromarray(np.float32(GRAY)), "TIFF"),
        encoded(PIL.Image.fromarray(np.int32(GRAY) * 99), "TIFF", compression="packbits"),
        encoded(GRAY.convert("1"), "TIFF", compression="group4"),
        encoded(RGB.convert("LAB"), "TIFF"),
        encoded(RGB, "TIFF", compression="tiff_adobe_deflate", frames=2),
    ],
    "PPM": [
        encoded(RGB, "PPM"),
        encoded(GRAY.convert("1"), "PPM"),
        encoded(PIL.Image.fromarray(np.float32(GRAY)), "PPM"),
        b"P3\n3 2\n255\n" + b"1 2 3 4 5 6 7 8 9 " * 2,
        b"P6 2 1 1000 " + bytes(12),
    ],
    "JPEG2000": [encoded(NOISE, "JPEG2000"), encoded(PIL.Image.fromarray(np.uint16(GRAY) * 257), "JPEG2000")],
    "AVIF": [encoded(RGB, "AVIF", exif=EXIF), encoded(NOISE, "AVIF")] if HAS_AVIF else [],
    "DDS": [encoded(NOISE, "DDS"), encoded(RGB, "DDS"), encoded(NOISE, "DDS", pixel_format="DXT5")],
    "ICO": [encoded(NOISE, "ICO", sizes=[(16, 16), (20, 20)])],
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut, or with some bytes changed, most of them in the header."""
    if rng.random() < 0.1:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    end = min(len(data), 200) if rng.random() < 0.6 else len(data)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        offset = rng.randrange(end)
        changed[offset] = rng.choice((0, 255, 127, 128, rng.randrange(256), changed[offset] ^ 1 << rng.randrange(8)))
    return bytes(changed)


@pytest.mark.parametrize("format_", SMALL)
def test_damaged_files_are_images_or_one_sentence(format_):
    """Decoders raise struct.error, RuntimeError, NotImplementedError and more, which ended a run with a traceback."""
    outcomes = set()
    for number, data in enumerate(SMALL[format_]):
        for seed in range(60):
            official = seed % 2 == 0
            try:
                bad = damaged(data, random.Random(f"{format_} {number} {seed}"))
                opened = images.image_from_bytes(bad, "it", max_pixels=1_000_000, official=official)
                image = opened.load()
                assert image.size == opened.size_px and image.mode == "RGB"
                outcomes.add("read")
            except ValueError as error:
                assert str(error).startswith("image: it ") and "\n" not in str(error) and len(str(error)) < 400
                outcomes.add("refused")
    assert outcomes == ({"read", "refused"} if format_ in FORMATS and SMALL[format_] else outcomes - {"read"})


@pytest.mark.parametrize("format_", [name for name in FORMATS if SMALL[name]])
def test_a_truncated_file_is_refused_or_has_all_its_pixels(format_):
    """What is added to repair a file must not make half an image a whole one."""
    data = SMALL[format_][0]
    whole = np.asarray(images.image_from_bytes(data, "it").load())
    refused = 0
    for end in (*range(0, len(data), max(1, len(data) // 150)), *range(max(0, len(data) - 64), len(data))):
        try:
            got = images.image_from_bytes(data[:end], "it").load()
        except ValueError as error:
            assert "image: it " in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(np.asarray(got), whole)
    assert refused > 100


NAMED = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "is HEIC.*convert it to JPEG"),
    "HEIF by its brands": (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafheix" + bytes(40), "is HEIC"),
    "a burst": (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1iso8" + bytes(40), "is HEIF"),
    "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(40), "AVIF"),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "is JPEG XL.*convert"),
    "SVG": (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "is SVG.*convert"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is EPS"),
    "PDF": (b"%PDF-1.7\n", "is PDF.*pages"),
    "PSD": (b"8BPS\0\1" + bytes(60), "is a Photoshop file"),
    "DDS": (SMALL["DDS"][0], "is DDS"),
    "ICO": (SMALL["ICO"][0], "is an icon"),
    "a page": (b"\n<!DOCTYPE html><html><title>404", "is a web page.*download"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a pointer of Git LFS.*git lfs pull"),
    "MP4": (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(40), "is a video"),
    "zip": (b"PK\3\4" + bytes(40), "is an archive"),
    "nothing": (b"", "is empty"),
    "text": (b"cat", "is not an image"),
    "a header alone": (PNG_MARK, "is PNG, damaged"),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_file_that_is_not_read_is_called_by_its_name(name, tmp_path):
    data, said = NAMED[name]
    (tmp_path / "IMG_1.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        images.open_image(tmp_path / "IMG_1.jpg")
    with pytest.raises(ValueError, match=f"^image: the upload .*{said}"):
        images.image_from_bytes(data, "the upload")


def test_no_other_program_and_no_unlisted_format_opens_a_file(tmp_path, monkeypatch):
    """EPS would be given to Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was started"))
    for format_ in ("EPS", "PCX", "SGI", "TGA", "IM", "ICNS", "PDF", "QOI" if PIL.__version__ >= "12" else "PCX"):
        (tmp_path / "it").write_bytes(encoded(RGB.resize((64, 64)), format_))
        with pytest.raises(ValueError, match="image: "):
            images.open_image(tmp_path / "it").load()


def bomb_tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, height)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


SIDE = 9_500  # 90 million pixels, below Pillow's own error
BOMBS = {
    "PNG": PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"x"),
    "GIF of frames": b"GIF89a" + struct.pack("<HH", SIDE, SIDE) + encoded(PALETTE, "GIF", frames=2)[10:],
    "GIF whose frame is larger": encoded(PALETTE, "GIF").replace(
        b"," + struct.pack("<HHHH", 0, 0, *RGB.size), b"," + struct.pack("<HHHH", 0, 0, SIDE, SIDE)
    ),
    "WebP, animated": encoded(RGB, "WEBP", frames=2).replace(
        struct.pack("<I", 23)[:3] + struct.pack("<I", 19)[:3], struct.pack("<I", SIDE - 1)[:3] * 2, 1
    ),
    "TIFF": bomb_tiff(SIDE, SIDE),
    "PPM": b"P6 %d %d 255\n" % (SIDE, SIDE),
    "BMP": b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, SIDE, SIDE, 1, 24, 0) + bytes(20),
    "JPEG": encoded(RGB, "JPEG").replace(
        struct.pack(">HBHH", 17, 8, 20, 24), struct.pack(">HBHH", 17, 8, SIDE, SIDE), 1
    ),
    "JPEG 2000": encoded(NOISE, "JPEG2000", no_jp2=True).replace(
        struct.pack(">II", 24, 20), struct.pack(">II", SIDE, SIDE)
    ),
    "gigantic PNG": PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 1, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header(name):
    start = time.perf_counter()
    for official in (False, True):
        with pytest.raises(ValueError, match="9500 x 9500 pixels, more than 89,000,000|is gigantic"):
            images.image_from_bytes(BOMBS[name], "it", official=official)
    assert time.perf_counter() - start < 2


def test_a_file_that_grew_after_it_was_opened_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "it.png").write_bytes(SMALL["PNG"][0])
    image = images.open_image(tmp_path / "it.png")
    (tmp_path / "it.png").write_bytes(BOMBS["PNG"])
    with pytest.raises(ValueError, match="9500 x 9500 pixels and its header said 20 x 24"):
        image.load()
    (tmp_path / "it.png").unlink()
    with pytest.raises(ValueError, match="cannot be opened .No such file"):
        image.load()


PLAIN = encoded(RGB, "PNG")
BODY = PLAIN[33:]
HEAD = PLAIN[:33]
MUCH = zlib.compress(bytes(5_000_000))
METADATA = {
    "a profile of 5 MB": chunk(b"iCCP", b"name\0\0" + MUCH),
    "a text of 5 MB": chunk(b"zTXt", b"Comment\0\0" + MUCH),
    "an international text of 5 MB": chunk(b"iTXt", b"Comment\0\1\0\0\0" + MUCH),
    "texts of 70 MB": b"".join(chunk(b"tEXt", b"k%d\0" % i + b"x" * 10_000_000) for i in range(7)),
    "an unknown compression": chunk(b"zTXt", b"Comment\0\7" + MUCH),
    "a text with a wrong checksum": chunk(b"tEXt", b"a\0b")[:-1] + b"?",
    "a short pHYs": chunk(b"pHYs", b"\0\1"),
    "a broken EXIF": chunk(b"eXIf", b"MM\0*\0\0"),
    "an EXIF with a wrong checksum": chunk(b"eXIf", EXIF.tobytes()[6:])[:-1] + b"?",
}


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("name", METADATA)
def test_a_png_is_read_whatever_its_metadata_are(name, where):
    """Photoshop's and scanners' profiles and texts are often above 1 MB, which Pillow takes for an attack."""
    end = len(BODY) - 12
    data = HEAD + (METADATA[name] + BODY if where == "before" else BODY[:end] + METADATA[name] + BODY[end:])
    for official in (False, True):
        got = images.image_from_bytes(data, "it", official=official).load()
        np.testing.assert_array_equal(np.asarray(got), np.asarray(RGB))


def test_a_bomb_among_texts_is_never_unpacked():
    """Three profiles of 330 KB that unpack to 330 MB each."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 24)
    profile = b"".join(packer.compress(block) for _ in range(20)) + packer.flush()
    data = HEAD + chunk(b"iCCP", b"name\0\0" + profile) * 3 + BODY
    code = (
        "import resource, sys; from xgenmm_jax.data.images import image_from_bytes\n"
        "data = sys.stdin.buffer.read(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert image_from_bytes(data, 'it').load().size == (24, 20)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert int(done.stdout) < 100_000  # KB


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_that_is_damaged_never_costs_the_image(format_):
    """A zero denominator, offsets beyond the end, other types: the image is read, turned or not."""
    if not SMALL[format_]:
        pytest.skip("Pillow without AVIF")
    data = SMALL[format_][0]
    payload = EXIF.tobytes()[6:]
    if format_ == "TIFF":
        with PIL.Image.open(io.BytesIO(data)) as image:
            first, last = image.tag_v2[0x8769], image.tag_v2[0x8769] + 26
    else:
        first = data.index(payload[:8])
        last = first + len(payload) - 14  # AVIF's is shorter by the orientation, which it holds elsewhere
    for seed in range(120):
        rng, changed = random.Random(seed), bytearray(data)
        for _ in range(rng.choice((1, 2, 6, 20))):
            changed[rng.randrange(first, last)] = rng.choice((0, 255, rng.randrange(256)))
        if format_ == "PNG" and seed % 2:
            end = data.index(b"eXIf") + 4 + len(payload)
            changed[end : end + 4] = struct.pack(">I", zlib.crc32(changed[end - 4 - len(payload) : end]))
        opened = images.image_from_bytes(bytes(changed), "it")
        assert opened.load().size == opened.size_px and sorted(opened.size_px) == [20, 24]


def test_metadata_of_a_tiff_that_are_damaged_never_cost_the_image():
    """Pillow turns TIFF by itself, and failed on XMP of another type and on resolutions of 0 / 0."""
    for tag, kind, value in (
        (700, 3, 7),
        (700, 2, "<x/>"),
        (282, 5, PIL.TiffImagePlugin.IFDRational(0, 0)),
        (274, 2, "6"),
    ):
        info = PIL.TiffImagePlugin.ImageFileDirectory_v2()
        info.tagtype[tag], info[tag] = kind, value
        data = encoded(RGB, "TIFF", tiffinfo=info)
        for official in (False, True):
            got = images.image_from_bytes(data, "it", official=official).load()
            np.testing.assert_array_equal(np.asarray(got), np.asarray(RGB))


def test_names_that_no_file_can_have_are_one_sentence(tmp_path):
    """A data URI given for a path ended in OSError: File name too long."""
    with pytest.raises(ValueError, match="image: 'data:image/png;base64,AAAA.*cannot be opened .File name too long"):
        images.open_image("data:image/png;base64," + "A" * 5000)
    with pytest.raises(ValueError, match="no file 'https:/"):
        images.open_image("https://example.org/a.png")
    with pytest.raises(ValueError, match="no file"):
        images.open_image("a\0b.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="no file"):
        images.open_image(Path(tmp_path / "link.png"))
