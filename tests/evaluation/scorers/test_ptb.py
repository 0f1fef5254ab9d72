"""Tokens of captions against those of the Java tokenizer that COCO's tools run."""

import json
from pathlib import Path

import pytest

from xgenmm_jax.evaluation.scorers.ptb import raw_tokens, tokenize
from xgenmm_jax.evaluation.scorers.ptb_characters import shape

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"


def cases(name: str) -> list[dict[str, str]]:
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", cases("ptb_tokenizer"), ids=lambda case: case["caption"])
def test_tokens_of_nasty_captions_are_those_of_java(case):
    # .split(): Java joins a phone number's groups with no-break spaces, which the scorer splits again.
    assert tokenize(case["caption"]) == case["tokenized"].split()


def test_tokens_of_random_captions_are_those_of_java():
    """One regular expression for the lexer gave other tokens for 227 of these 400 captions."""
    wrong = {case["caption"]: tokenize(case["caption"]) for case in cases("ptb_captions")}
    assert wrong == {case["caption"]: case["tokens"].split() for case in cases("ptb_captions")}


@pytest.mark.parametrize(
    "caption, tokens",
    [
        # what was reported ..
        ("5'10\" tall", "5 10 tall"),
        ("d'oh y'all ain't", "d'oh y' all ai n't"),
        ("a...b", "a. b"),
        ("dell'emilia wine", "dell 'em ilia wine"),
        # .. and others of the kind
        ("a 6'7\" centre, 7' of wall", "a 6 7 centre 7 of wall"),
        ("l'eau O'Hara c'est n'djamena", "l'eau o'hara c'est n'djamena"),
        ("y'know I'd've ma'am, 'twasn't", "y' know i 'd 've ma'am 't was n't"),
        ("who's … it..is .... so", "who 's it is so"),
        ("vitamin c. The vitamin c. dog", "vitamin c the vitamin c. dog"),
        ("Jr.A Dr.A no. 5 no.", "jr. a dr.a no. 5 no"),
        ("sant'andrea qu'il jusqu'au", "sant andrea qu'il jusqu'au"),
        ("“ ‘stop’ ” ‘’ ’90s", "stop `' ’90s"),
        ("S&Ls at&t AT&T C++ report.pdf 5.txt", "s&ls at & t at&t c++ report.pdf 5.txt"),
        ("$5m US$20 £3 20¢ ½ 1 3/4", "$ 5m us$ 20 # 3 20 cents 1/2 1 3/4"),
        ("&QUOT;a&quot; caf&EACUTE; dog&APOS;s &apos;s a&MDASH;b", "&quot; a caf&eacute; dog &apos;s 's a b"),
        ("is\xadn't \xadn't ran\xadn't", "is n't n t rann t"),
        ("rock 'n\xa0roll 'n roll 'n\u2003roll", "rock 'n roll 'n roll n roll"),
        ("(020) 7946 0958 (^_^) :-] <i>x</i>", "-lrb-020-rrb- 7946 0958 -lrb-^_^-rrb- :-] <i> x </i>"),
    ],
)
def test_tokens_of_one_kind_each(caption, tokens):
    assert tokenize(caption) == tokens.split()


def test_line_breaks_inside_a_caption_are_spaces():
    assert tokenize("a cat\r\non\x0ba\u2028mat") == ["a", "cat", "on", "a", "mat"]


def test_a_caption_of_nothing_has_no_tokens():
    assert tokenize("") == tokenize(" \t ") == tokenize("😀 \ue000\udc80") == []


def test_punctuation_is_dropped_and_runs_of_it_are_not():
    assert raw_tokens("So: (yes!) -- no!!") == ["so", ":", "-lrb-", "yes", "!", "-rrb-", "--", "no", "!!"]
    assert tokenize("So: (yes!) -- no!!") == ["so", "-lrb-", "yes", "-rrb-", "no", "!!"]


def test_characters_are_seen_by_their_class():
    assert shape("Ça ☕ 5€ α٤\u0301😀") == "éa § 5€ é٣\u0301\0"
