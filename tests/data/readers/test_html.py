"""Pages of HTML and stamps with captions, as documents and captions."""

import random
import time

import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import FEW_IMAGES, NO_LANGUAGE, LeftOut, RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.html import MOST_BYTES, Html
from xgenmm_jax.data.readers.tux_paint import Stamps
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.storage.base import Raw

SIZES = {"a.jpg": (40, 30), "icon.png": (9, 9), "a b.jpg": (16, 24)}


def image(name: str) -> LazyImage:
    if name not in SIZES:
        raise ValueError(f"image: no file '{name}'")
    return image_from_bytes(jpeg(SIZES[name]), name, official=True)


def read(page: str | bytes, **options):
    data = page if isinstance(page, bytes) else page.encode()
    record = Html(**options).read(Raw("a.html", {"path": "a.html", "data": data}, image), 0)
    names = {size: name for name, size in SIZES.items()}
    return [names[p.size_px].join("<>") if isinstance(p, LazyImage) else p for p in record.parts], record.dropped


def text_of(page: str | bytes, **options) -> str:
    [text, _], _ = read(page + (b"<img src=a.jpg>" if isinstance(page, bytes) else "<img src=a.jpg>"), **options)
    return text


def test_a_page_is_its_texts_and_images_in_their_order():
    page = """<!DOCTYPE html><html><head><title>Fish</title><style>p {}</style></head><body><nav>Home</nav>
    <h1>Two  fish</h1><p>One\n &amp; <em>a</em>nother:</p><img src="a.jpg" alt="x > y"><p>Then<br>more.
    <script>if (a < b) "</p>"</script><!-- <img src="b"> --><img src='a%20b.jpg?v=1'></p></body></html>"""
    assert read(page) == (["Fish\n\nTwo fish\n\nOne & another:", "<a.jpg>", "Then\nmore.", "<a b.jpg>"], 0)


def test_whitespace_is_collapsed_as_a_browser_does():
    assert text_of("<p>a <b> b</b>c\n\n<i> </i>d</p> <p>e&nbsp;f</p>") == "a bc d\n\ne f"
    assert text_of("<pre>a\n  b</pre><p>c") == "a\n  b\n\nc"
    assert text_of("<table><tr><td>a<td>b<tr><td>c</td></table>") == "a\tb\nc"


def test_a_title_that_the_first_heading_repeats_stands_once():
    assert text_of("<title>Fish</title><h2><a></a>Fish</h2>swim") == "Fish\n\nswim"


def test_urls_and_data_are_dropped_and_small_images_by_option():
    page = "x<img src='http://x.org/a.jpg'><img src='data:image/png;base64,AA'><img src='//x/a'><img src=a.jpg>y"
    assert read(page + "<img src=icon.png>z<img src=gone.jpg>", least_side_px=16) == (["x", "<a.jpg>", "y", "z"], 5)


def test_elements_of_a_class_and_hidden_ones_are_left_out():
    page = "<div class='a navheader'><div>x</div>y</div>kept<p hidden>z</p>"
    assert text_of(page, without_classes=("navheader",)) == "kept"


def test_a_page_without_images_is_left_out_and_a_too_long_one_bad():
    for page in ("<p>text", "", "<img src='http://x.org/a.jpg'>"):
        with pytest.raises(LeftOut) as error:
            read(page)
        assert error.value.reason == FEW_IMAGES
    with pytest.raises(RecordError, match="more than"):
        read(b" " * (MOST_BYTES + 1))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"<meta charset=latin-9><p>\xc3\xa9", "é"), (b"<meta charset='iso-8859-1'>\xe9\x93", "é“"),
        (b"<meta content='text/html; charset=cp1251'>\xe9", "й"), (b"\xef\xbb\xbf<p>\xff", "\ufffd"),
        (b"<meta charset=iso-8859-99>a", "a"),
    ],
)  # fmt: skip
def test_the_encoding_is_the_one_that_the_page_names(data, text):
    assert text_of(data) == text


@pytest.mark.parametrize(
    "seed",
    [
        "<!--", "<![", "<![CDATA[", "</a ", "<a ", "<a b='", "<a a=", "<?", "<", "&", "<p>", "<script>", "<nav>", "<b",
        "=", "<a x= ", "<div class='", "<pre>", "<td>", "<script></script", "<img src=>",
    ],
)  # fmt: skip
def test_malformed_pages_take_no_time_and_crash_nothing(seed):
    begun = time.process_time()
    read("<img src=a.jpg>" + seed * (200_000 // len(seed)))
    assert time.process_time() - begun < 3


def test_damaged_pages_are_read_or_left_out():
    rng = random.Random(0)
    page = b"<html><title>t</title><p class='x'>a &lt; b<img src='a.jpg'><pre>x</pre><table><tr><td>1</table></html>"
    for _ in range(2000):
        data = bytearray(page)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read(bytes(data))
        except RecordError:
            pass


def caption(text: str, **options):
    raw = Raw("a.png", {"path": "a.png", "data": jpeg((40, 30)), "txt": text.encode()})
    reader = Stamps(**options)
    return [reader.read(raw, choice).text for choice in range(reader.choices(raw))]


def test_a_stamps_caption_is_the_line_of_a_language():
    text = "A fish.\nde.utf8=Ein Fisch.\nfr.utf8=Un = poisson.\n\n"
    assert caption(text) == ["A fish."]
    assert caption(text, languages=("fr", "xx", "en")) == ["Un = poisson.", "A fish."]
    with pytest.raises(LeftOut) as error:
        caption(text, languages=("xx",))
    assert error.value.reason == NO_LANGUAGE
    with pytest.raises(RecordError, match="no text in its first line"):
        caption("\nde.utf8=x")
