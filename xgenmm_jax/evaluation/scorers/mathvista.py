"""What an answer to a MathVista problem says: as VLMEvalKit and the official script read it, and by rules of our own.

Both ask a judge where their rules read nothing. Without one VLMEvalKit counts such an answer as wrong; the official
script takes the option that is nearest to the empty text, a free guess.

Source: VLMEvalKit vlmeval/dataset/utils/mathvista.py; lupantech/MathVista evaluation/extract_answer.py and
calculate_score.py (28 September 2025). docs/reference/evaluation.md, MathVista.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import re

from rapidfuzz.distance import Levenshtein

from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.scorers.choices import infer_choice

_QUOTED = re.compile(r'The answer is "(.*)"\.')
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_STATED = re.compile(r"answer\s+is:?\s+\**\(?([A-Z])\b|\(([A-Z])\)")
_NUMBER = re.compile(r"(?<![\d.])[-\u2212]?[$€£]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_LIST = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True)
class Problem:
    """A problem's published columns.

    question_type: multi_choice or free_form. answer_type: text, integer, float or list. answer: the right one, of a
    choice its text. option: its letter. choices: the options' texts. precision: decimals of a float, None where blank.
    """

    question_type: str
    answer_type: str
    answer: str
    option: str = ""
    choices: tuple[str, ...] = ()
    precision: int | None = None

    @property
    def options(self) -> Mapping[str, str]:
        """Letter to text."""
        return {chr(ord("A") + number): text for number, text in enumerate(self.choices)}


def prefetch(answer: str, problem: Problem, profile: Profile) -> str | None:
    """What VLMEvalKit takes from an answer without asking its judge; None where it would ask.

    A letter, right or wrong; of a free-form answer only what equals the right one: `"14"`, but not `"The answer is
    14"`, nor a wrong number, nor a right 0, which Python takes for nothing.

    Raises: ValueError for a profile that is not one of VLMEvalKit.
    """
    if problem.question_type == "multi_choice":
        return infer_choice(answer, problem.options, profile)
    value = _number(answer, problem.answer_type)
    if problem.answer_type not in ("integer", "float"):
        # The text that is compared is that of Python's None.
        return "None" if problem.answer == "None" else None
    return str(value) if value and value == _number(problem.answer, problem.answer_type) else None


def is_extraction_right(extraction: str, problem: Problem, profile: Profile) -> bool:
    """Whether VLMEvalKit counts as right what its judge, or `prefetch`, made of an answer; "" where both failed."""
    if problem.question_type == "multi_choice":
        letter = infer_choice(extraction, problem.options, profile)
        return letter is not None and letter == problem.option
    if problem.answer_type not in ("integer", "float"):
        return problem.answer == "None"
    value = _number(extraction, problem.answer_type)
    return value is not None and value == _number(problem.answer, problem.answer_type)


def has_form(extraction: str, problem: Problem, profile: Profile) -> bool:
    """Whether VLMEvalKit can compare an extraction: a letter, a number; any text where the answer is another text."""
    if problem.question_type == "multi_choice":
        return infer_choice(extraction, problem.options, profile) is not None
    return problem.answer_type not in ("integer", "float") or _number(extraction, problem.answer_type) is not None


def extract_official(answer: str, problem: Problem, quick: bool = False) -> str:
    """What the official script takes from an answer before it asks its judge; "" where it would ask.

    An option's text, a number alone; with quick also the text of `The answer is "7".`.
    """
    if problem.question_type == "multi_choice" and answer in problem.choices:
        return answer
    value = _number(answer, problem.answer_type)
    if value is not None:
        return str(value)
    quoted = _QUOTED.search(answer) if quick else None
    return quoted[1] if quoted else ""


def normalize_official(extraction: str, problem: Problem) -> str | None:
    """An extraction in the form of the right answer, which it must equal; None: it has no such form.

    Of a choice: the text of the letter, else the option's text at the least edit distance, the first of equals.
    """
    if problem.question_type == "multi_choice":
        text = extraction.strip()
        if letter := _LETTER.search(text):
            text = letter[1].upper()
        if text in problem.options:
            return problem.options[text]
        return min(problem.choices, key=lambda choice: Levenshtein.distance(text, choice), default=None)
    try:
        if problem.answer_type == "integer":
            return str(int(float(extraction)))
        if problem.answer_type == "float":
            return None if problem.precision is None else str(round(float(extraction), problem.precision))
    except (ValueError, OverflowError):
        return None
    return extraction


def read_by_rule(answer: str, problem: Problem, profile: Profile) -> str | None:
    """Our own reading without a judge, of no toolkit: reported apart, and lower than a judge's scores.

    The letter that `prefetch` reads, else the last "answer is B" or "(B)"; the last number of the answer, without
    currency sign, percent sign and commas; the last list in brackets. None where there is none.
    """
    if problem.question_type == "multi_choice":
        letter = infer_choice(answer, problem.options, profile)
        stated = [one or two for one, two in _STATED.findall(answer)]
        stated = [letter for letter in stated if letter in problem.options]
        return letter or (stated[-1] if stated else None)
    if problem.answer_type == "list":
        lists = _LIST.findall(answer)
        return lists[-1] if lists else None
    numbers = _NUMBER.findall(answer)
    return re.sub("[,$€£]", "", numbers[-1]).replace("\u2212", "-") if numbers else None


def is_reading_right(reading: str, problem: Problem) -> bool:
    """Whether what `read_by_rule` gave is right: the letter, the same whole number, float (rounded), or numbers."""
    if problem.question_type == "multi_choice":
        return reading == problem.option
    if problem.answer_type == "list":
        numbers = [[float(one) for one in re.findall(r"-?\d+(?:\.\d+)?", text)] for text in (reading, problem.answer)]
        return numbers[0] == numbers[1]
    got, right = _number(reading, "float"), _number(problem.answer, "float")
    if got is None or right is None:
        return reading == problem.answer
    decimals = problem.precision
    return got == right if decimals is None else round(got, decimals) == round(right, decimals)


def _number(text: str, answer_type: str) -> int | float | None:
    """As Python reads it: " 12 ", "+2.75", "1_0" are numbers, "1,400" is none, "14.0" is no integer."""
    try:
        return int(text) if answer_type == "integer" else float(text) if answer_type == "float" else None
    except ValueError:
        return None
