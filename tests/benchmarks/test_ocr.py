"""The benchmark of engines that read text: what counts as exact, whole and spurious."""

import numpy as np
import pytest

from benchmarks import ocr
from benchmarks.ocr import Score, Truth
from xgenmm_jax.curation.text_engines import Line

pytest.importorskip("matplotlib", reason="its wheel holds the fonts")
TRUTHS = (Truth("one two", (0.0, 0.0, 100.0, 20.0)), Truth("three", (0.0, 30.0, 100.0, 50.0)))


def piece(text: str, left: float, top: float) -> Line:
    return Line(text, ((left, top), (left + 20, top), (left + 20, top + 10), (left, top + 10)), 0.9)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([piece("one  two", 5, 5), piece("three", 5, 35)], (2, 2, 0)),
        ([piece("two", 50, 5), piece("one", 5, 5), piece("three", 5, 35)], (2, 1, 0)),
        ([piece("one two", 5, 5), piece("Three", 5, 35)], (1, 1, 0)),
        ([piece("one two", 5, 5), piece("dust", 70, 60)], (1, 1, 1)),
        ([piece("one two", 5, 5), piece("I", 80, 5)], (0, 0, 0)),
        ([], (0, 0, 0)),
    ],
)
def test_lines_are_exact_where_their_box_holds_just_their_text(pieces, expected):
    assert ocr.counts(TRUTHS, pieces) == expected


@pytest.mark.parametrize("layout", ocr.LAYOUTS)
def test_a_page_is_the_same_for_a_seed_and_its_lines_lie_on_it_apart(layout):
    page = ocr.page(layout, "DejaVuSerif", 20, seed=3)
    again = ocr.page(layout, "DejaVuSerif", 20, seed=3)
    assert page.lines == again.lines and (np.asarray(page.image) == np.asarray(again.image)).all()
    assert ocr.page(layout, "DejaVuSerif", 20, seed=4).lines != page.lines
    width, height = page.image.size
    for number, (text, (x1, y1, x2, y2)) in enumerate(page.lines):
        assert text and 0 < x1 < x2 < width and 0 < y1 < y2 < height
        ink = np.asarray(page.image.crop((int(x1), int(y1), int(x2) + 1, int(y2) + 1)).convert("L"))
        assert ink.min() < 120
        for _, other in page.lines[:number]:
            assert x2 <= other[0] or other[2] <= x1 or y2 <= other[1] or other[3] <= y1


def test_small_print_is_not_bounded():
    def score(size_px: int, exact: int, spurious: int = 0) -> Score:
        return Score("rapidocr", "lines", "DejaVuSans", size_px, 100, exact, exact, spurious, 1.0)

    assert ocr.passes([score(12, 50), score(16, 98, 2)])
    assert not ocr.passes([score(16, 97)]) and not ocr.passes([score(16, 100, 3)])
    assert ocr.summed([score(12, 50), score(16, 100)], "layout") == [
        ("rapidocr, lines", "200", "75.0%", "75.0%", "0.0%", "1.00")
    ]
