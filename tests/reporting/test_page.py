"""The shell of a page and its parts."""

import jinja2
import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.reporting import images, page

CARD = {"pictures": ["data:,"], "labels": [], "question": "<script>", "truth_words": "<b>", "grade": ""}
CARD |= {"answers": [{"text": "<i>", "score": 1.0, "stage": "<u>"}]}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a page of its own, as a data page or a page of wrong answers will be."""
    templates = tmp_path / "some_pages" / "templates"
    templates.mkdir(parents=True)
    (templates.parent / "__init__.py").touch()
    (templates / "cards.html").write_text(
        '{% extends "page.html" %}{% from "parts.html" import example_card %}{% block title %}{{ name }}{% endblock %}'
        "{% block content %}{{ example_card(item) }}{% endblock %}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "some_pages"


def test_a_page_of_another_package_escapes_every_text(package):
    text = page.render_template(package, "cards.html", name="<title>", item=CARD, refresh_s=0)
    assert "<title>&lt;title&gt;</title>" in text and ":root {" in text
    assert not any(tag in text for tag in ("<script>", "<b>", "<i>", "<u>", "http-equiv"))
    assert "&lt;script&gt;" in text and 'aria-label="right"' in text


def test_a_value_that_a_page_reads_and_does_not_get_is_an_error(package):
    with pytest.raises(jinja2.UndefinedError, match="refresh_s"):
        page.render_template(package, "cards.html", name="x", item=CARD)


def test_images_inside_a_page_are_data():
    image = PIL.Image.fromarray(np.zeros((2, 2, 4), np.uint8))
    assert images.png_uri(image).startswith("data:image/png;base64,iVBOR")
    assert images.jpeg_uri(image).startswith("data:image/jpeg;base64,/9j/")


def test_minutes():
    assert [page.minutes(s) for s in (45.2, 200.0, 240.0, 4020.0)] == ["45 s", "3 min 20 s", "4 min", "1 h 7 min"]


def test_counts_are_words_up_to_nine():
    assert [page.count_in_words(number) for number in (0, 5, 9, 10)] == ["none", "five", "nine", "10"]
