"""Engines that read text: what they give, and the sentence where one is missing."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from xgenmm_jax.curation import text_engines
from xgenmm_jax.curation.text_engines import RapidOcr, Tesseract, lines_of_tsv, with_margin

HEAD = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"
TSV = f"""{HEAD}
1\t1\t0\t0\t0\t0\t0\t0\t600\t200\t-1\t
5\t1\t1\t1\t1\t1\t20\t24\t60\t18\t96.5\tHello
5\t1\t1\t1\t1\t2\t90\t22\t70\t20\t90.5\tWorld
5\t1\t1\t1\t2\t1\t20\t60\t40\t18\t30\t"quoted"
5\t1\t1\t1\t2\t2\t70\t60\t40\t18\t95\t \n"""


def test_words_of_tesseract_are_joined_by_lines():
    first, second = lines_of_tsv(TSV)
    assert first.text == "Hello World" and first.confidence == pytest.approx(0.935)
    assert first.quad == ((20, 22), (160, 22), (160, 42), (20, 42))
    assert second.text == '"quoted"' and second.confidence == 0.3


def test_a_missing_engine_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ValueError, match=r"rapidocr is missing; `pip install -e .\[curation\]"):
        RapidOcr().check()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="no program 'tesseract'; install it .Debian: tesseract-ocr"):
        Tesseract().check()


def test_a_missing_language_of_tesseract_is_named(monkeypatch):
    monkeypatch.setattr(text_engines.shutil, "which", lambda name: name)
    monkeypatch.setattr(text_engines, "_run", lambda *_: b"List of available languages (2):\neng\nosd\n")
    Tesseract("eng").check()
    with pytest.raises(ValueError, match="has no language 'deu'"):
        Tesseract("eng+deu").check()


@pytest.fixture
def page() -> PIL.Image.Image:
    matplotlib = pytest.importorskip("matplotlib", reason="its wheel holds the fonts")
    image = PIL.Image.new("RGB", (420, 150), (250, 250, 245))
    font = PIL.ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 24)
    draw = PIL.ImageDraw.Draw(image)
    for number, text in enumerate(("Orange station 42", "river window")):
        draw.text((20, 20 + 60 * number), text, (160, 30, 20), font)
    return image


def check_read(lines) -> None:
    assert [line.text for line in lines] == ["Orange station 42", "river window"]
    for number, line in enumerate(lines):
        xs, ys = zip(*line.quad, strict=True)
        assert 10 < min(xs) < 25 and max(xs) < 320 and min(line.confidence, 0.8) == 0.8
        assert 10 + 60 * number < min(ys) < max(ys) < 60 + 60 * number


def test_rapidocr_reads_a_page(page):
    pytest.importorskip("rapidocr", reason="pip install -e .[curation]")
    RapidOcr().check()
    check_read(RapidOcr().open()(page))
    assert RapidOcr().open()(PIL.Image.new("RGB", (64, 64), "white")) == []


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((3, 900), (150, 900)),
        ((100, 1600), (267, 1600)),
        ((900, 3), (900, 22)),
        ((2000, 1), (2000, 48)),
        ((5000, 30), (5000, 120)),
        ((1, 1), (1, 1)),
        ((100, 20), (100, 20)),
        ((100, 600), (100, 600)),
        ((1600, 100), (1600, 100)),
    ],
)
def test_thin_images_get_a_margin_and_others_stay(size, shown):
    """One of 3 x 900 px was enlarged to 736 x 220,800 px: its worker was killed for memory, each time again."""
    image = PIL.Image.new("RGB", size, "white")
    margin = with_margin(image, 2000)
    assert margin.size == shown and margin.crop((0, 0, *size)).tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("size", "read_at", "quad"),
    [
        ((10, 12_000), (334, 2000), ((0, 600), (10, 600), (10, 1200), (0, 1200))),
        ((12_000, 30), (2000, 48), ((0, 30), (1200, 30), (1200, 30), (0, 30))),
        ((3000, 2000), (3000, 2000), ((0, 100), (200, 100), (200, 200), (0, 200))),
    ],
)
def test_the_margin_is_of_the_scaled_image(monkeypatch, size, read_at, quad):
    """One of 10 x 50,000 px was read as 8,334 x 50,000 px; boxes are those of the image as it was given."""
    shapes = []

    def read(pixels):
        shapes.append(pixels.shape)
        box = ((0, 100), (200, 100), (200, 200), (0, 200))
        return SimpleNamespace(boxes=np.array([box], np.float32), txts=("text",), scores=(0.9,))

    module = ModuleType("rapidocr")
    module.RapidOCR = lambda params: read
    monkeypatch.setitem(sys.modules, "rapidocr", module)
    (line,) = RapidOcr().open()(PIL.Image.new("RGB", size, "white"))
    assert shapes == [(*read_at[::-1], 3)] and np.allclose(line.quad, quad)


def test_rapidocr_reads_a_tall_strip_and_its_boxes_end_at_its_edge(page):
    pytest.importorskip("rapidocr", reason="pip install -e .[curation]")
    strip = PIL.Image.new("RGB", (120, 1100), "white")
    strip.paste(page.crop((20, 20, 112, 60)), (0, 500))
    (line,) = RapidOcr().open()(strip)
    xs, ys = zip(*line.quad, strict=True)
    assert line.text == "Orange" and max(xs) <= 120 and 490 < min(ys) < max(ys) < 560


@pytest.mark.skipif(text_engines.shutil.which("tesseract") is None, reason="no program tesseract is installed")
def test_tesseract_reads_a_page(page):
    check_read(Tesseract().open()(page))
    assert Tesseract().described()["version"].startswith("tesseract")
