"""The page of packed rows: escaped, bounded, and whole in a browser."""

import html
import re

from browser import browse, needs_chromium
import numpy as np
import pytest

from xgenmm_jax.data.errors import Skip
from xgenmm_jax.reporting import data_page
from xgenmm_jax.reporting.data_page import visible
from xgenmm_jax.reporting.window_rows import WindowRows, window_rows

CHECK = """<script>
const images = [...document.images];
const wide = document.documentElement.scrollWidth > innerWidth;
console.log('checked');
document.title = [images.length, images.filter(i => i.complete && i.naturalWidth > 0).length, wide].join(' ');
</script>"""
"""Told in the title: images, those that are decoded, and whether anything lies beyond the window's right edge."""


@pytest.fixture(scope="module")
def rows(photographs) -> WindowRows:
    return window_rows(photographs, 0, 0, 9)


@pytest.fixture(scope="module")
def page(rows) -> str:
    return data_page.render("<b>mine</b>", rows)


def test_data_are_escaped_and_nothing_is_loaded_or_run(page):
    assert "<script" not in page and "<b>mine" not in page and "&lt;b&gt;mine&lt;/b&gt;: window 0" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page) and "url(" not in page and "@import" not in page


def test_every_part_of_a_row_is_there(page):
    text = re.sub(r"[ \n]+", " ", html.unescape(re.sub("<[^>]*>", "", page)))
    for words in (
        "What is <script>console.error('ran')</script>?",
        "a⟨U+202E⟩b⟨U+0007⟩c⟨U+2028⟩d 🙂→end <|end|> <image placeholder>",
        "image 1 40 vision tokens",
        "1000\u00a0×\u00a0300\u00a0px, global view and 3 × 1 crops",
        "Padding: unreadable image.",
        "1 unreadable record, 1 unreadable image",
        "176 × 176 of their 384 × 384 pixels",
    ):
        assert words in text, words
    assert "it is script" in "".join(re.findall(r"<b>([^<]*)</b>", page))
    assert page.count('<span class="damaged') == 2 and page.count('href="#row1-image1"') == 1


def test_a_crop_lies_where_the_grid_has_it(rows):
    """The page's views are the row's crops, in their order."""
    image = rows.shown[0].samples[0].images[0]
    shown = data_page._image(image, data_page.Bounds())
    assert (shown["columns"], shown["rows"], shown["more"]) == (2, 2, 0)
    assert shown["views"] == [data_page.view_uri(crop) for crop in image.crops]
    assert data_page.view_uri(np.zeros((64, 64, 3), np.uint8)).startswith("data:image/png")
    assert shown["views"][0].startswith("data:image/jpeg")


def test_the_page_is_bounded(rows, monkeypatch):
    bounds = {"MOST_VIEWS": 7, "MOST_PIECES": 40, "MOST_LISTED": 3, "MOST_GROUPS": 2, "MOST_DETAIL": 50}
    for name, value in bounds.items():
        monkeypatch.setattr(data_page, name, value)
    many = [Skip("s" * 9999, f"record {n}", "unreadable record", "d" * 9999) for n in range(100)]
    many += [Skip("t", "a", f"reason {n}", "x", 9 - n) for n in range(4)]
    page = data_page.render("n" * 9999, rows._replace(skipped=many))
    assert page.count("data:image/") == 7 and len(page) < 100_000
    assert page.count("positions, which this page has no room for") > 1
    assert "3 of 5 not shown, the page has no more room" in page and "The first 3 of 100 records." in page
    assert page.count("<details") == 2 and "And 21 samples of 3 more sources and reasons" in page
    assert "100 unreadable record" in page and "d" * 50 + "…" in page and "d" * 51 not in page
    monkeypatch.setattr(data_page, "MOST_VIEWS", 600)
    monkeypatch.setattr(data_page, "MOST_IMAGE_BYTES", 30_000)
    page = data_page.render("n", rows)
    assert 0 < page.count("data:image/") and sum(map(len, re.findall('src="([^"]*)"', page))) <= 30_000


def test_what_was_left_out_is_folded_by_source_and_reason(rows):
    """A window of the paper's documents leaves out hundreds, which stood above its rows one by one."""
    reasons = ("too few images", "unusable record")
    few = [Skip("pages", f"p{n}", reason, "no text") for reason in reasons for n in (1, 2)]
    page = data_page.render("mine", rows._replace(skipped=few))
    assert page.count("<details") == page.count('<details class="left-out" open>') == 2
    many = [*few, *(Skip("pages", f"q{n}", "too long for a row", "x") for n in range(500))]
    many.append(Skip("pages", "0.tar", "a link", "in '0.tar'", 700, True, "0.tar"))
    page = data_page.render("mine", rows._replace(skipped=many))
    text = re.sub(r"[ \n]+", " ", html.unescape(re.sub("<[^>]*>", "", page)))
    counts = ("pages a link, at opening 700", "pages too long for a row 500", "pages too few images 2")
    assert sorted(counts, key=text.index) == list(counts)
    assert " open>" not in page and "The first 10 of 500 records." in text and "q9" in page and "q10" not in page


def test_a_window_without_rows_has_a_page(rows):
    page = data_page.render("mine", rows._replace(rows=0, shown=[], skipped=[]))
    assert "This window has no row." in page and "Nothing: each sample" in page


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a\nb", "a\nb"),
        ("\x00\x1b[31m", "⟨U+0000⟩⟨U+001B⟩[31m"),
        ("\ud800", "⟨U+D800⟩"),
        ("é\u200dx\ufeff", "é⟨U+200D⟩x⟨U+FEFF⟩"),
        ("x" * 11, "x" * 10 + "…"),
    ],
)
def test_nothing_of_a_text_is_hidden(text, shown):
    assert visible(text, 10) == shown


@needs_chromium
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_shows_all_of_it_and_complains_of_nothing(page, tmp_path, width):
    document, console = browse(page.replace("</body>", f"{CHECK}</body>"), tmp_path, width)
    assert len(console) == 1 and "checked" in console[0]
    count = page.count("<img ")
    assert f"<title>{count} {count} false</title>" in document
    text = html.unescape(re.sub("<[^>]*>", "", document))
    assert "Row 4 4 samples" in text and "What is <script>console.error('ran')</script>?" in text
