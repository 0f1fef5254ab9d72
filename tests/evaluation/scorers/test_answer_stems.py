"""Stems that a file's own pairs of written and stemmed answers give."""

import pytest

from xgenmm_jax.evaluation.scorers import answer_stems

PAIRS = [("Riding bikes", "ride bike"), ("buses", "bus"), ("buses", "buse"), ("ice cream", "icecream")]


def test_words_take_their_most_frequent_stem():
    stems = answer_stems.stems_of([*PAIRS, ("buses", "buse")])
    assert stems == {"riding": "ride", "bikes": "bike", "buses": "buse"}, "ice cream has no stem a word"


def test_of_equally_frequent_stems_the_order_of_answers_decides_nothing():
    assert answer_stems.stems_of(PAIRS) == answer_stems.stems_of(PAIRS[::-1])
    assert answer_stems.stems_of(PAIRS)["buses"] == "bus"


def test_only_stems_that_can_make_an_answer_right_or_wrong_are_kept():
    stems = {"riding": "ride", "bikes": "bike", "left": "leave", "dog": "dog"}
    assert answer_stems.relevant(stems, ("ride", "dog")) == {"riding": "ride"}
    assert answer_stems.relevant(stems, ("left",)) == {"left": "leave"}, "else a wrong answer became a right one"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Riding, a bike", "ride, a bike"), ("outriding", "outriding"), ("", ""), ("RIDING.", "ride.")],
)
def test_whole_words_are_replaced(text: str, expected: str):
    assert answer_stems.stemmed(text, {"riding": "ride"}) == expected
