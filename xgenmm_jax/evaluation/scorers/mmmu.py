"""MMMU's own rules for what an answer says, which lmms-eval and MuirBench's script take over with changes.

The published code draws an option at random where it reads none: here nothing is read.

Source: MMMU-Benchmark/MMMU mmmu/utils/eval_utils.py (19 May 2025); muirbench/MuirBench eval/utils/postprocess.py, the
same; lmms-eval 0.7.3 tasks/_task_utils/mmmu_mcq_utils.py. docs/reference/evaluation.md, MMMU.
"""

from collections.abc import Mapping, Sequence
import re

from xgenmm_jax.evaluation.profiles import Profile, refuse_profile

_MARKS = ",.!?;:'"
"""Taken off the ends of an answer one after the other."""
# (form of a letter that is looked for, form whose last place decides between several letters)
_FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "official": (("({})", "({})"), (" {} ", " {} ")),
    "lmms": (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")),
}
_SHORT_ANSWER = 5
"""Words up to which an answer's text is not searched for options."""
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NO_VALUE = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
"""With commas, with an exponent, plain; "12,970" has 12,970 and 970."""


def read_choice(answer: str, options: Mapping[str, str], profile: Profile) -> str | None:
    """The letter of an answer to a multiple-choice question: the last "(B)", else the last "B", else an option's text.

    options: letter to text. profile: "official" or "lmms"; lmms-eval also takes the end of a word ("NASA is" gives A)
    and "B.". A text is looked for in answers of more than five words. None where nothing can be read.

    Raises: ValueError for another profile.
    """
    if profile not in _FORMS:
        raise refuse_profile("option letters by MMMU's rules", profile, tuple(_FORMS))
    text = answer
    for mark in _MARKS:
        text = text.strip(mark)
    text = f" {text} "
    for form, decides in _FORMS[profile]:
        if named := [letter for letter in options if form.format(letter) in text]:
            return _last(named, [text.rfind(decides.format(letter)) for letter in named])
    lower = text.lower()
    if len(text.split()) > _SHORT_ANSWER:
        if named := [letter for letter, option in options.items() if option.lower() in lower]:
            return _last(named, [lower.rfind(options[letter].lower()) for letter in named])
    return None


def read_open(answer: str) -> tuple[str | float, ...]:
    """What an answer to an open question may say: "So x = 1.06 m" gives ("1.06 m", 1.06).

    Of each line the shortest text behind "is", "so", "answer" and the like, in the last line also behind "="; the whole
    answer where there is none; and all numbers in these. Numbers are rounded to 2 decimals, texts in lower case; a text
    of one character comes with a space before and one behind.
    """
    parts = _key_parts(answer)
    parts += [number for part in tuple(parts) for pattern in _NUMBERS for number in pattern.findall(part)]
    return tuple(dict.fromkeys(value for part in parts for value in _normalized(part)))


def is_open_answer_right(read: Sequence[str | float], golds: Sequence[str]) -> bool:
    """Whether a number that was read is one of the right ones, or a text holds a right text.

    read: from `read_open`. golds: the right answers as published.
    """
    right = [value for gold in golds for value in _normalized(gold)]
    texts = [value for value in right if isinstance(value, str)]
    return any(any(text in value for text in texts) if isinstance(value, str) else value in right for value in read)


def _last(letters: Sequence[str], positions: Sequence[int]) -> str:
    """The letter of the highest position, of equals the first."""
    return letters[positions.index(max(positions))]


def _key_parts(answer: str) -> list[str]:
    whole = answer.strip().strip(".").lower()
    lines = whole.split("\n")
    parts = []
    for number, line in enumerate(lines):
        shortest = ""
        for key in (*_KEYS, "=") if number == len(lines) - 1 else _KEYS:
            if key in line:
                part = line.split(key)[-1].strip()
                # An empty part gives way to whatever comes next, as in the published code.
                if not shortest or len(part) < len(shortest):
                    shortest = part
        if shortest and shortest not in _NO_VALUE:
            parts.append(shortest)
    return parts or [whole]


def _normalized(text: str) -> tuple[str | float, ...]:
    text = text.strip()
    try:
        return (round(float(text.replace(",", "")), 2),)
    except ValueError:
        text = text.lower()
    return (f" {text}", f"{text} ") if len(text) == 1 else (text,)
