"""Every scorer against what public implementations gave (tests/goldens/evaluation)."""

import functools
import json
from pathlib import Path

import hypothesis
from hypothesis import strategies
import pytest

from xgenmm_jax.evaluation.scorers import anls, boxes, cider
from xgenmm_jax.evaluation.scorers.ptb import tokenize

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"


def cases(name: str) -> list[dict]:
    return json.loads((GOLDENS / f"{name}.json").read_text())["cases"]


@pytest.mark.parametrize("case", cases("cider"), ids=lambda case: case["name"])
def test_cider_is_that_of_coco_tools(case):
    predictions = {key: entry["pred"] for key, entry in case["corpus"].items()}
    references = {key: entry["refs"] for key, entry in case["corpus"].items()}
    for key, tokenized in case["expected"]["tokenized_refs"].items():
        assert [" ".join(tokenize(text)) for text in references[key]] == tokenized
    corpus, images = cider.cider(predictions, references)
    assert corpus == pytest.approx(case["expected"]["cider"], abs=1e-9)
    assert images == pytest.approx(case["expected"]["cider_per_image"], abs=1e-9)

    corpus, images = cider.cider(predictions, references, lambda texts: [text.split() for text in texts])
    untokenized = case["expected"]["vlmevalkit_no_tokenizer"]
    assert corpus == pytest.approx(untokenized["cider"], abs=1e-9)
    assert images == pytest.approx(untokenized["cider_per_image"], abs=1e-9)


@pytest.mark.parametrize("case", cases("anls"), ids=lambda case: case["note"])
def test_anls_is_that_of_three_toolkits(case):
    got = anls.anls(case["prediction"], case["answers"])
    assert all(got == pytest.approx(value, abs=1e-12) for value in case["expected"].values())


def test_word_accuracy_counts_edits_of_words():
    assert anls.word_accuracy("stop at the", "stop here at the") == 0.75
    assert anls.word_accuracy("one two", "one two") == 1.0
    assert anls.word_accuracy("a b c d e", "x") == 0.0
    assert anls.word_accuracy("", "") == 1.0


def edit_distance(a, b):
    """Levenshtein's definition as it is written down, by the last element of both."""

    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        substituted = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, substituted)

    return distance(len(a), len(b))


# Cases that lengthen (sharp s, dotted I), characters of four bytes, words of one character and empty texts.
TEXTS = strategies.lists(
    strategies.sampled_from(["a", "b", "A", "ab", "\u00df", "\u0130", "\U0001f600", "3.5", " ", "\n"]), max_size=12
).map("".join)


@hypothesis.given(TEXTS, strategies.lists(TEXTS, min_size=1, max_size=3))
def test_anls_is_the_definition_of_the_edit_distance(prediction, answers):
    def similarity(answer):
        longest = max(len(prediction.upper()), len(answer.upper()))
        texts = (" ".join(text.lower().split()) for text in (prediction, answer))
        return 1.0 - edit_distance(*texts) / longest if longest else 1.0

    best = max(map(similarity, answers))
    assert anls.anls(prediction, answers) == (best if best >= 0.5 else 0.0)


@hypothesis.given(TEXTS, TEXTS)
def test_word_accuracy_is_the_definition_over_words(prediction, truth):
    words, predicted = truth.split(), prediction.split()
    expected = max(0.0, 1.0 - edit_distance(words, predicted) / len(words)) if words else float(not predicted)
    assert anls.word_accuracy(prediction, truth) == expected


def test_boxes_are_read_whatever_the_brackets():
    for text in (
        "<bbox>[0.1, 0.2]<0.5, 0.6]</bbox>",
        "<object>cat 2</object><bbox>[.1,.2][.5,.6]</bbox>",
        "0.1 0.2 0.5 0.6",
    ):
        assert boxes.parse_box(text) == (0.1, 0.2, 0.5, 0.6)
    assert boxes.parse_box("[0.5, 0.6][0.1, 0.2]") == (0.1, 0.2, 0.5, 0.6)
    assert boxes.parse_box("a cat at 0.1, 0.2, 0.3") is None


@pytest.mark.parametrize(
    "text, box",
    [
        ("[1e-05, 2E-1][.5e0, 6.0E-01]", (1e-05, 0.2, 0.5, 0.6)),
        ("<bbox>[1.25e-2, 0][2.5E+3, 1]</bbox>", (0.0125, 0.0, 2500.0, 1.0)),
        ("[-0.02, 0.1][+0.5, 0.6]", (-0.02, 0.1, 0.5, 0.6)),
        ("[\u22120.25,\u2212.5][0, 1e\u22122]", (-0.25, -0.5, 0.0, 0.01)),
        ("It goes from 0.1 0.2 to 0.5, 0.6.", (0.1, 0.2, 0.5, 0.6)),
        ("Corners: 0., 0., 1., 1.", (0.0, 0.0, 1.0, 1.0)),
        ("0.1-0.2-0.5-0.6", (0.1, 0.2, 0.5, 0.6)),
        ("(0.1, 0.2)-(0.5, 0.6)", (0.1, 0.2, 0.5, 0.6)),
        ("10%, 20 %, 50% and 60.5%", (0.1, 0.2, 0.5, 0.605)),
        ("10,20,300,400", (10.0, 20.0, 300.0, 400.0)),
        ("x1=0.1, y1=0.2, x2=0.5, y2=0.6", (0.1, 0.2, 0.5, 0.6)),
        ("<bbox>[0.1, 0.2][0.5, 0.6]</bbox><bbox>[0, 0][1, 1]</bbox>", (0.1, 0.2, 0.5, 0.6)),
        ("2 cats: [0.1, 0.2][0.5, 0.6].", (0.1, 0.2, 0.5, 0.6)),
        ("-[0.1, 0.2][0.5, 0.6]", (0.1, 0.2, 0.5, 0.6)),
        ("0.1 [0.2, 0.5] 0.6", (0.1, 0.2, 0.5, 0.6)),
        ("version 1.2.3 at 0.1, 0.2", None),
        ("[0, 0][1e999, 1]", None),
        ("e-05 of -, +, . and %", None),
    ],
)
def test_numbers_of_a_box_as_models_write_them(text, box):
    """A number with an exponent was read as two, "-0.02" without its sign, and a box of 1e999 scored NaN."""
    assert boxes.parse_box(text) == (None if box is None else pytest.approx(box, abs=1e-12))


def test_iou_of_a_box_beyond_the_image_is_a_number():
    assert boxes.text_iou("[0, 0][1e999, 1e999]", "[0, 0][1, 1]") == 0.0
    assert boxes.text_iou("[-1e200, 0][1e300, 1e300]", "[0, 0][1, 1]") == 0.0
    assert boxes.text_iou("[-1, 0][1, 1]", "[0, 0][1, 1]") == 0.5


def test_iou_of_boxes():
    whole = (0.0, 0.0, 1.0, 1.0)
    assert boxes.box_iou(whole, whole) == 1.0
    assert boxes.box_iou((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)) == 0.0
    assert boxes.box_iou((0.0, 0.0, 0.75, 1.0), (0.25, 0.0, 1.0, 1.0)) == 0.5
    assert boxes.box_iou((0.0,) * 4, (0.0,) * 4) == 0.0
    assert boxes.text_iou("no box", "[0, 0][1, 1]") == 0.0
    with pytest.raises(ValueError, match="no four numbers"):
        boxes.text_iou("[0, 0][1, 1]", "nothing")
