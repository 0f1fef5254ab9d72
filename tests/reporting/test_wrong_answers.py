"""The page of answers that are not right: bounded, escaped, and filtered in a browser that may run nothing else."""

import base64
from dataclasses import replace
import hashlib
import html
import io
import re

from browser import browse, needs_chromium
import PIL.Image
import pytest

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation import results
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.tasks.benchmark import Choice
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.mmstar import MMSTAR
from xgenmm_jax.reporting import wrong_answers

HOSTILE = """</style></script><script>console.error('ran')</script><img src=x onerror="alert(1)">"' &amp; {{ 7*7 }}"""
CHECK = """
const items = [...document.querySelectorAll('.items > article')];
const left = () => items.filter(i => !i.hidden).map(i => i.querySelector('header span').textContent).join(' ');
const said = [left()];
function choose(name, value) {
  const control = document.querySelector(name);
  control.value = value;
  control.dispatchEvent(new Event(name === '#search' ? 'input' : 'change'));
  said.push(left());
}
choose('select[name=kind]', 'unparsed');
choose('select[name=kind]', '');
const values = [...document.querySelector('select[name=field0]').options].map(option => option.value);
choose('select[name=field0]', values[1]);
choose('select[name=field0]', values[2]);
choose('select[name=field0]', values[3]);
choose('select[name=field0]', '');
choose('#search', '  ONERROR="alert(1)" ');
choose('#search', '');
said.push([...document.images].every(i => i.complete && i.naturalWidth > 0));
said.push(document.documentElement.scrollWidth > innerWidth);
document.title = said.join('|');
"""
"""Uses each filter and tells in the title which items were left."""


def image_of(width: int, height: int) -> LazyImage:
    return LazyImage((width, height), lambda: PIL.Image.new("RGB", (width, height), (200, 90, 20)))


def broken() -> PIL.Image.Image:
    raise ValueError("image: 'a.png' is cut short.")


def prediction(id_: str, text: str, score: float, extracted: str | None, **example) -> Prediction:
    values = {"images": (image_of(900, 300),), "question": "Which?", "answers": ("B",), "options": {"A": "x", "B": "y"}}
    values |= {"fields": {"category": "logic"}, **example}
    return Prediction("mmstar", Example(id_, **values), text, score, extracted=extracted)


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    return [
        prediction("right", "B", 1.0, "B"),
        prediction("plain", "A", 0.0, "A"),
        prediction(
            "hostile", HOSTILE, 0.0, HOSTILE, question=HOSTILE, answers=(HOSTILE,), options={"A": HOSTILE, "B": "y"},
            fields={"category": HOSTILE, "a\u202eb": "c"},
        ),
        prediction("guessed", "?", 1.0, None),
        prediction("partly", "half", 0.3, "half", options={}, fields={"category": ""}),
        prediction("gone", "", 0.0, None, images=(), unreadable="picture: 'x.png' is no image"),
        prediction("damaged", "A", 0.0, "A", images=(LazyImage((50, 40), broken), image_of(9, 9))),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def result(predictions) -> Result:
    return results.result_of(MMSTAR, predictions, Choice(), model="runs/mine step 400")


@pytest.fixture(scope="module")
def page(result, predictions) -> str:
    return wrong_answers.render(result, predictions, has_pictures=True)


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", "", page.partition("</head>")[2])))


def policy_of(page: str) -> str:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    return policy


def test_all_that_is_not_right_is_shown_with_its_reason(page):
    assert re.findall(r'<article[^>]* data-kind="(\w+)".*?<header><span>(\w+)</span>', page, re.DOTALL) == [
        ("wrong", "plain"), ("wrong", "hostile"), ("unparsed", "guessed"), ("partly", "partly"), ("unreadable", "gone"),
        ("wrong", "damaged"),
    ]  # fmt: skip
    words = words_of(page)
    for text in (
        "6 of 7 answers", "partly right, 30 %", "picture unreadable", "picture: 'x.png' is no image", "not asked",
        "nothing could be read", "Unreadable: image: 'a.png' is cut short.", "a⟨U+202E⟩b", "profile paper, careful",
        "runs/mine step 400", "900 × 300",
    ):  # fmt: skip
        assert text in words, text


def test_the_right_option_is_marked_and_the_one_that_was_taken(page):
    plain = page[page.index("<span>plain</span>") : page.index("<span>hostile</span>")]
    assert re.search(r'class="right">\s*<span[^>]*aria-label="right">✓</span>\s*<b>B</b>', plain)
    assert re.search(r'class=" taken">\s*<span[^>]*aria-label="wrong">✕</span>\s*<b>A</b>', plain)


def test_texts_of_a_benchmark_are_neither_markup_nor_script(page):
    assert page.count("<script>") == 1 and page.count("</style>") == 1 and page.count("<img ") == 5
    assert 'onerror="' not in page and "{{" not in page.replace("{{ 7*7 }}", "") and "49" not in words_of(page)
    assert words_of(page).count(HOSTILE) >= 5
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page) and "url(" not in page and "@import" not in page


def test_the_policy_names_the_page_s_own_script_and_style_alone(page):
    policy = policy_of(page)
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert page.index("Content-Security-Policy") < min(map(page.index, ("<style", "<title", "<script")))


def test_pictures_are_small_jpegs():
    for width, height, shown in ((900, 300, (320, 107)), (300, 1200, (80, 320)), (40, 20, (40, 20))):
        data = wrong_answers.thumbnail_uri(image_of(width, height)).partition("base64,")[2]
        image = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
        assert (image.format, image.size) == ("JPEG", shown)


@pytest.mark.parametrize(
    "wrong, unparsed, most, shown",
    [
        (1000, 4, 200, (196, 4)),
        (1000, 1000, 200, (100, 100)),
        (3, 5, 200, (3, 5)),
        (0, 1000, 200, (0, 200)),
        (0, 0, 9, (0, 0)),
    ],
)
def test_the_chosen_are_spread_evenly_and_a_rare_kind_is_whole(wrong, unparsed, most, shown):
    kinds = ["wrong"] * wrong + [""] * 7 + ["unparsed"] * unparsed
    chosen = wrong_answers.chosen_of(kinds, most)
    assert chosen == sorted(set(chosen)) and all(kinds[index] for index in chosen)
    assert tuple(sum(kinds[index] == kind for index in chosen) for kind in ("wrong", "unparsed")) == shown
    gaps = [after - before for before, after in zip(chosen[: shown[0]], chosen[1 : shown[0]], strict=False)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_the_page_is_bounded_and_says_what_it_leaves_out(result, monkeypatch):
    many = [
        prediction(
            str(number), "p" * 9999, 0.0, "A", question="q" * 9999, answers=("r" * 9999,) * 20,
            images=(image_of(400, 400),) * 10, fields={f"f{n}": str(number) for n in range(30)},
        )
        for number in range(450)
    ]  # fmt: skip
    monkeypatch.setattr(wrong_answers, "MOST_IMAGE_BYTES", 50_000)
    monkeypatch.setattr(wrong_answers, "MOST_ITEMS", 60)
    page = wrong_answers.render(result, many, has_pictures=True)
    assert page.count("<article") == 60 and "60 of them are here" in page and "390 are not" in words_of(page)
    assert sum(map(len, re.findall('src="([^"]*)"', page))) <= 50_000
    for text in ("2 more pictures", "10 more pictures", "and 8 more", "and 6 more fields"):
        assert text in page
    assert "q" * 2000 + "…" in page and "q" * 2001 not in page and "p" * 2001 not in page
    assert 'name="field0"' not in page, "a filter whose every value is one item"


def test_without_files_the_page_says_so_and_a_page_of_right_answers_is_short(result, predictions):
    alone = [replace(one, example=replace(one.example, images=())) for one in predictions]
    page = wrong_answers.render(result, alone, has_pictures=False, note="Rated by <rule>.")
    assert "the benchmark's files were not given" in words_of(page) and "Rated by <rule>." in words_of(page)
    assert "<img " not in page
    assert "Every answer is right." in wrong_answers.render(result, predictions[:1], has_pictures=True)


@needs_chromium
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_filters_by_kind_by_field_and_by_text(page, tmp_path, width):
    digest = base64.b64encode(hashlib.sha256(CHECK.encode()).digest()).decode()
    checked = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    document, console = browse(checked.replace("</body>", f"<script>{CHECK}</script></body>"), tmp_path, width)
    assert console == []
    title = html.unescape(re.findall("<title>(.*?)</title>", document, re.DOTALL)[0])
    everything = "plain hostile guessed partly gone damaged"
    # The categories, in order: a blank one, the hostile one, "logic".
    assert title.split("|") == [
        everything, "guessed", everything, "partly", "hostile", "plain guessed gone damaged", everything, "hostile",
        everything, "true", "false",
    ]  # fmt: skip


@needs_chromium
def test_a_browser_runs_no_other_script_even_if_one_got_into_the_page(page, tmp_path):
    broken_page = page.replace("</body>", "<script>document.title = 'ran'</script></body>")
    document, console = browse(broken_page, tmp_path, 900)
    assert "<title>ran" not in document and any("Content Security Policy" in line for line in console)
