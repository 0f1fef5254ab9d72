"""Which option of a multiple-choice question an answer names, by VLMEvalKit's rules without a judge.

Docs: docs/reference/evaluation.md, Option extraction.
"""

from collections.abc import Hashable, Iterable, Mapping
import re

from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile, refuse_profile

NONE_OF_THEM = "Z"
"""What is read out of a refusal, and out of an answer "Z": none of the options. Such an answer is parsed, and wrong."""

_FAILED_REQUEST = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS_TO_SPACES = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# No boundary behind the letter: "the answer is blue" says B.
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
_LAST_WORDS = 4
"""A letter must stand among as many last words, but in `paper`."""
_LONGEST_ANSWER = 2
"""As many times the options' characters, beyond which `fork` and `latest` look for no option's text."""


def infer_choice(answer: str, options: Mapping[str, str], profile: Profile) -> str | None:
    """The letter that an answer names: by the letter as a word of its own, else by the text of just one option.

    options: letter to text. Returns one of the letters, "Z" for a refusal (see NONE_OF_THEM), None where nothing can be
    read: such an answer is wrong, and counted as unparsed.

    The article "A" is read as option A; a lower-case letter is not read; an option's text counts inside of words too.

    Raises: ValueError for a profile that is not one of VLMEvalKit.
    """
    if profile not in VLMEVALKIT:
        raise refuse_profile("option letters by VLMEvalKit's rules", profile, VLMEVALKIT)
    return _by_letter(answer, options, profile) or _by_text(answer, options, profile)


def group_hits(rows: Iterable[tuple[Hashable, str | None, str]]) -> dict[Hashable, bool]:
    """By group whether all of its rows are right, as MMBench counts the rotations of a question.

    rows: (group, letter that was read, right letter). An unparsed row makes its group wrong.
    """
    hits: dict[Hashable, bool] = {}
    for group, letter, gold in rows:
        hits[group] = hits.get(group, True) and letter == gold
    return hits


def _by_letter(answer: str, options: Mapping[str, str], profile: Profile) -> str | None:
    if _FAILED_REQUEST in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return NONE_OF_THEM
    words = answer.translate(_MARKS_TO_SPACES).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and (profile == "paper" or words.index(named[0]) >= len(words) - _LAST_WORDS):
        return named[0]
    if not named and NONE_OF_THEM in words:
        return NONE_OF_THEM
    if profile == "latest" and (said := _ANSWER_IS.search(answer)) and said[1].upper() in options:
        return said[1].upper()
    return None


def _by_text(answer: str, options: Mapping[str, str], profile: Profile) -> str | None:
    lower = answer.lower()
    if profile != "paper" and len(lower) > _LONGEST_ANSWER * sum(map(len, options.values())):
        return None
    named = [letter for letter, text in options.items() if text.lower() in lower]
    return named[0] if len(named) == 1 else None
