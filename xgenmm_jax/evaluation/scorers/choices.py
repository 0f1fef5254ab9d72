"""The option that an answer to a multiple-choice question names, by VLMEvalKit's rules without a judge."""

from collections.abc import Mapping
import re

from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile, refuse_profile

REFUSED = "Z"
"""What is read from a refusal, and from an answer that is this letter."""

_FAILED_REQUEST = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.", "I can't process this file.",
    "I'm sorry, but without the image provided", "Cannot determine the answer",
)  # fmt: skip
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# No boundary behind the letter, as in the original: "the answer is blue" names B.
_STATED = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
LAST_WORDS = 4
"""`fork` and `latest` take a letter for the answer where it is among so many last words."""


def infer_choice(answer: str, options: Mapping[str, str], profile: Profile) -> str | None:
    """The letter of the option that an answer names, REFUSED, or None where none can be read.

    options: letter to text. A letter that stands alone is looked for first, then the text of an option inside the
    answer. Traps that the rules have: the article "A" is option A, a lower-case "b" is no letter, and "hot dog" names
    "dog" too, so neither.

    Raises: ValueError for a profile without this rule.
    """
    if profile not in VLMEVALKIT:
        raise refuse_profile("choices", profile, VLMEVALKIT)
    return _by_letter(answer, options, profile) or _by_text(answer, options, profile)


def _by_letter(answer: str, options: Mapping[str, str], profile: Profile) -> str | None:
    if _FAILED_REQUEST in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return REFUSED
    words = answer.translate(_SEPARATORS).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1:
        if profile == "paper" or words.index(named[0]) > len(words) - 1 - LAST_WORDS:
            return named[0]
    elif not named and REFUSED in words:
        return REFUSED
    if profile == "latest" and (stated := _STATED.search(answer)) and stated.group(1).upper() in options:
        return stated.group(1).upper()
    return None


def _by_text(answer: str, options: Mapping[str, str], profile: Profile) -> str | None:
    answer = answer.lower()
    if profile != "paper" and len(answer) > 2 * sum(map(len, options.values())):
        return None
    named = [letter for letter, text in options.items() if text.lower() in answer]
    return named[0] if len(named) == 1 else None
