"""What a judge model is asked about an answer, and what its reply is worth.

A judge scores MM-Vet's answers, and elsewhere reads what the rules could not: a letter, yes or no, a number. The
structure of the prompts and the tries are the published ones, the sentences are our own; `--judge-prompt` takes the
published text. A reply that has not the wanted form is asked again at a higher temperature; after the last try the
answer is wrong and counts as unparsed. No letter is ever drawn.

docs/reference/evaluation.md, Judges.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import functools
import hashlib
import re

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.scorers.choices import infer_choice
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.scorers.yes_no import extract_yes_no
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

PLACEHOLDERS = ("question", "answer", "prediction", "options")
"""Of a prompt, in braces: the question, the reference answer, the model's answer, the options a line each."""
_PLACEHOLDER = re.compile("{(" + "|".join(PLACEHOLDERS) + ")}")

LETTER_PROMPT = """\
You are given a multiple-choice question about a picture and what somebody answered. Say which option the answer means.
You do not see the picture and need not know whether the answer is right. If the answer fits none of the options, or
several equally well, write Z. Write one capital letter and nothing else.

Question: Which animal sits on the wall?
Options:
A. a heron
B. a grey cat
C. a squirrel
Answer: It seems to be a small cat.
Letter: B

Question: What is the man holding?
Options:
A. a racket
B. an umbrella
Answer: The picture is too dark to tell.
Letter: Z

Question: {question}
Options:
{options}
Answer: {prediction}
Letter:"""

YES_NO_PROMPT = """\
You are given a question that is answered by yes or no, and what somebody answered. Say which of the two the answer
means. You do not see the picture and need not know whether the answer is right. Write Yes, No, or Unknown where the
answer says neither, and nothing else.

Question: Is there a bicycle in the picture?
Answer: One leans against the fence.
Meaning: Yes

Question: Do both lines have the same length?
Answer: The upper one is longer.
Meaning: No

Question: {question}
Answer: {prediction}
Meaning:"""


@dataclass(frozen=True)
class Judging:
    """How a benchmark's answers are judged.

    prompt: text with PLACEHOLDERS in braces. temperatures: of the tries, in order. read: what a reply is worth, None
    where it has not the wanted form. example: makes it as the judge is shown it, None: as it is. scores_all: whether
    every answer is judged; else those of which the rules read nothing. summarize: where the table differs from that of
    the rules.
    profiles: implementations that have this judge.
    """

    prompt: str
    temperatures: tuple[float, ...]
    read: Callable[[str, Example, Profile], Scored | None]
    example: Callable[[Example], Example] | None = None
    scores_all: bool = False
    summarize: Callable[[Sequence[Prediction], Profile], dict[str, Estimate]] | None = None
    profiles: tuple[Profile, ...] = VLMEVALKIT

    def asks(self, prediction: Prediction, profile: Profile) -> bool:
        """Whether a judge is asked about an answer that the rules have scored.

        Of a blank answer nothing can be read, a question without options has no letter, and one whose picture could
        not be read was not asked.
        """
        if profile not in self.profiles or prediction.example.unreadable:
            return False
        if "{options}" in self.prompt and not self.shown(prediction.example).options:
            return False
        return self.scores_all or (prediction.extracted is None and bool(prediction.text.strip()))

    def shown(self, example: Example) -> Example:
        """As the judge is shown it."""
        return self.example(example) if self.example is not None else example


def filled(prompt: str, texts: Mapping[str, str]) -> str:
    """A prompt with its placeholders replaced, once: braces in the texts stay, and so do other braces of the prompt."""
    return _PLACEHOLDER.sub(lambda match: texts[match[1]], prompt)


def check_prompt(prompt: str, where: str) -> None:
    """Raises ValueError for a prompt in which the judge would not see the model's answer."""
    if "{prediction}" not in prompt:
        placeholders = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise ValueError(f"{where} has no {{prediction}}, so no answer would be judged; it may hold {placeholders}.")


def fingerprint(prompt: str) -> str:
    """Eight hexadecimal digits that stand beside judged scores."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:8]


def by_letter(example: Callable[[Example], Example] | None = None) -> Judging:
    """Of multiple-choice questions: three tries; "Z" is none of the options. example: see `Judging`."""
    return Judging(LETTER_PROMPT, (0.0, 0.5, 1.0), _read_letter, example)


def by_yes_no(scored: Callable[[str, Example, Profile], Scored]) -> Judging:
    """Of yes or no questions: five tries. scored: the benchmark's score of an answer "Yes" or "No"."""
    return Judging(YES_NO_PROMPT, (0.0, 0.5, 1.0, 1.5, 2.0), functools.partial(_read_yes_no, scored))


def _read_letter(reply: str, example: Example, profile: Profile) -> Scored | None:
    letter = infer_choice(reply, example.options, profile)
    return None if letter is None else Scored(float(letter in example.answers[:1]), letter)


def _read_yes_no(
    scored: Callable[[str, Example, Profile], Scored], reply: str, example: Example, profile: Profile
) -> Scored | None:
    label = extract_yes_no(reply, profile)
    return None if label == "Unknown" else scored(label, example, profile)
