"""The option that an answer names, by lmms-eval's rules."""

from collections.abc import Iterable, Sequence

LETTERS = "ABCDEFGH"

_PHRASES = (
    "the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is", "best answer is",
    "the correct option is", "correct option is", "the best option is", "best option is", "the choice is", "choice is",
    "the correct choice is", "correct choice is", "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip


def extract_letter(answer: str, letters: Sequence[str] = LETTERS) -> str | None:
    """The letter that an answer gives in the surest form, None where it holds none.

    Forms, surest first: the answer begins with it, ends with it, it stands behind a phrase ("the answer is"), "(A)",
    "A.", "A:", "A)", "A " and, where there is none of these, anywhere, inside a word too. Of two in one form the later
    one is taken, at one place the first of `letters`.

    Source: lmms-eval 0.7.3, tasks/_task_utils/mcq_extract.py.
    """
    if not answer.strip():
        return None
    text = answer.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    text = f" {text} "
    found = list(_candidates(text, letters))
    if not found:
        found = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    if not found:
        return None
    return max(found, key=lambda candidate: candidate[:2])[2]


def _candidates(text: str, letters: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    """(sureness, place, letter) in the order in which equals are preferred."""
    for sureness, before, after in ((6, "(", ")"), (5, "", "."), (4, "", ":"), (3, "", ")"), (2, "", " ")):
        for letter in letters:
            if (place := text.rfind(f"{before}{letter}{after}")) >= 0:
                yield sureness, place, letter
    lower = text.lower()
    for phrase in _PHRASES:
        start = lower.find(phrase)
        for letter in letters if start >= 0 else ():
            if (place := text.find(letter, start + len(phrase))) >= 0:
                yield 7, place, letter
    bare = text.strip()
    for letter in letters:
        if bare.startswith(letter) and (len(bare) == 1 or not bare[1].isalpha()):
            yield 10, 0, letter
        if bare.endswith(letter) and (len(bare) == 1 or not bare[-2].isalpha()):
            yield 9, len(text) - 1, letter
