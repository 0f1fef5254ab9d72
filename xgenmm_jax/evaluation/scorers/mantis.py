"""Mantis-Eval's answers, by its own script and lmms-eval, which takes it over.

Source: TIGER-AI-Lab/Mantis mantis/benchmark/eval.py (3 January 2026); lmms-eval 0.7.3 tasks/mantis/utils.py.
docs/reference/evaluation.md, Table 2.
"""

from collections.abc import Sequence
import re
from typing import NamedTuple

_MARKERS = ("final answer:", "the answer is", "answer:")
_WRITTEN = re.compile("Answer: ([A-Z])")


class Reading(NamedTuple):
    """text: a letter, or what the answer says; letter: an option's, None where none is read."""

    text: str
    letter: str | None
    is_right: bool


def read_choice(answer: str, gold: str, options: Sequence[str]) -> Reading:
    """The first letter of the final answer, as a capital: "Both" is B, "the left one" T, "1" nothing.

    gold: "B" or "(B)". options: as published, "(A) a cat". Where that is no option's letter, the answer is right if it
    is the right option's text.

    Raises: ValueError where gold has no letter.
    """
    right = _letter(gold)
    written = _WRITTEN.match(final := final_answer(answer))
    letter = written[1] if written else next((one.upper() for one in final if one.isalpha()), "")
    if len(letter) == 1 and ord(letter) - ord("A") < len(options):
        return Reading(letter, letter, letter == right.upper())
    number = ord(right.upper()) - ord("A")
    if number >= len(options):
        return Reading(answer, None, False)
    text = options[number]
    for prefix in (f"{right}.", f"{right}:", f"({right})"):
        if text.startswith(prefix):
            text = text[len(prefix) :]
            break
    return Reading(answer, None, answer.strip() == text.strip())


def read_short(answer: str, gold: str) -> Reading:
    """The final answer, right where it is the gold one but for case: "7." is not "7"."""
    text = final_answer(answer)
    return Reading(text, None, text.lower() == gold.strip("()\n ").lower())


def final_answer(answer: str) -> str:
    """What stands behind the first "final answer:", else "the answer is", else "answer:"; all of it where none does."""
    lower = answer.lower()
    for marker in _MARKERS:
        if (at := lower.find(marker)) >= 0:
            return answer[at + len(marker) :].strip()
    return answer


def _letter(gold: str) -> str:
    text = gold.strip("()\n ")
    letter = text if len(text) == 1 else next((one for one in text if one.isalpha()), "")
    if not letter:
        raise ValueError(f"mantis: got the right answer {gold!r}; wanted an option's letter, 'B' or '(B)'.")
    return letter
