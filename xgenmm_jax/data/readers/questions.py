"""Questions about an image and their answers: one of each a record, or lists of them.

`vqa_sets.py` has the options of published sets. Source: docs/reference/data.md#fine-tuning-records,
docs/reference/data.md#builders-of-tensorflow-datasets
"""

import ast
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import AllNeeded, OneChoice, text_of, texts_of
from xgenmm_jax.data.readers.images import image_fields, image_of
from xgenmm_jax.data.readers.turns import QUESTION, check_prompt, conversation, filled
from xgenmm_jax.data.records import Conversation
from xgenmm_jax.data.storage.base import Raw

MOST_LITERAL = 100_000
"""Characters of a list that is written as a Python literal; a longer one is not read."""


@dataclass(frozen=True)
class ImageQuestions(OneChoice):
    """A `Conversation` of one question and its answer.

    image: field that holds the image, as bytes or as the datasets library's {"bytes", "path"}; "" where the image lies
        beside the records. image_file: its name there, made of fields, "{imageId}.jpg" or "{image_id:012}.jpg".
    answers: a text, or a list of which the most common is taken, upper and lower case counted as one, and the first
        of those that are equally common. TextVQA and VQA have the answers of ten people and score an answer by how
        many gave it; DocVQA lists spellings of one answer, each once, of which that is the first.
    is_literal: the answers are one text, a Python literal of a list: "['red', 'Red']".
    prompt: what the user says, with "{question}" where the question stands; the image comes before it.
    """

    image: str = "image"
    question: str = "question"
    answers: str = "answers"
    prompt: str = QUESTION
    image_file: str = ""
    is_literal: bool = False

    label: ClassVar[str] = "image_questions"

    def __post_init__(self):
        check_prompt(self.prompt, QUESTION)
        image_fields(self.image, self.image_file)

    @property
    def fields(self) -> tuple[str, ...]:
        return (*image_fields(self.image, self.image_file), self.question, self.answers)

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where there is no question or no answer, ValueError where the image is none."""
        question = text_of(raw, self.question)
        answers = literal_texts(raw, self.answers) if self.is_literal else texts_of(raw, self.answers)
        image = image_of(raw, self.image, self.image_file)
        return conversation(raw, [image], [(filled(self.prompt, question=question), most_common(answers))])


@dataclass(frozen=True)
class QuestionLists(AllNeeded):
    """A `Conversation` of the questions about one image in one field and their answers, as many, in another.

    image, image_file: as of `ImageQuestions`. turns: "all" questions follow one another in one conversation; of "one",
    one is drawn each time the record is. prompt: of the first question; next_prompt: of those behind it, which
    LLaVA's mixture asks without the first one's instruction.
    """

    image: str = "image"
    questions: str = "questions"
    answers: str = "answers"
    prompt: str = QUESTION
    next_prompt: str = QUESTION
    image_file: str = ""
    turns: Literal["all", "one"] = "all"

    label: ClassVar[str] = "question_lists"

    def __post_init__(self):
        check_turns_option(self.turns)
        check_prompt(self.prompt, QUESTION)
        check_prompt(self.next_prompt, QUESTION)
        image_fields(self.image, self.image_file)

    @property
    def fields(self) -> tuple[str, ...]:
        return (*image_fields(self.image, self.image_file), self.questions, self.answers)

    def choices(self, raw: Raw) -> int:
        """Questions of the record where one is drawn, else 1; 1 where it has none, which `read` tells."""
        questions = raw.fields.get(self.questions)
        return max(1, len(questions)) if self.turns == "one" and isinstance(questions, list) else 1

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where the lists do not fit together or have an empty text, ValueError for no image."""
        questions, answers = text_list(raw, self.questions), text_list(raw, self.answers)
        if len(questions) != len(answers):
            raise RecordError(
                raw.key,
                f"{len(questions)} '{self.questions}' and {len(answers)} '{self.answers}'; wanted one answer each",
            )
        pairs = list(zip(questions, answers, strict=True))
        if self.turns == "one":
            pairs = pairs[choice : choice + 1]
        asked = [
            (filled(self.next_prompt if number else self.prompt, question=question), answer)
            for number, (question, answer) in enumerate(pairs)
        ]
        return conversation(raw, [image_of(raw, self.image, self.image_file)], asked)


def check_turns_option(turns: str) -> None:
    if turns not in ("all", "one"):
        raise ValueError(f"data: turns={turns!r}; wanted 'all' or 'one'.")


def text_list(raw: Raw, name: str) -> list[str]:
    """A list of texts. Raises RecordError where the field holds anything else, or a blank one."""
    value = raw.value(name)
    if not isinstance(value, list):
        raise RecordError(raw.key, f"'{name}' is {type(value).__name__}, wanted a list of texts")
    for one in value:
        if not isinstance(one, str):
            raise RecordError(raw.key, f"'{name}' holds {type(one).__name__}, wanted texts")
        if not one.strip():
            raise RecordError(raw.key, f"'{name}' has an empty text")
    return value


def literal_texts(raw: Raw, name: str) -> list[str]:
    """The texts of a list that is written as a Python literal, without blank ones.

    Raises RecordError where it is something else, or holds none. Nothing in it is run.
    """
    text = raw.text(name)
    try:
        if len(text) > MOST_LITERAL:
            raise ValueError(f"{len(text):,} characters")
        value: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise RecordError(raw.key, f"'{name}' is no Python literal ({str(error)[:100]})") from error
    return texts_of(Raw(raw.key, {name: value if isinstance(value, list) else [value]}), name)


def most_common(answers: list[str]) -> str:
    """["Stop", "sign", "stop"] -> "Stop": the first spelling of what most say, or of what is said first of those."""
    first: dict[str, str] = {}
    for answer in answers:
        first.setdefault(answer.strip().casefold(), answer)
    counts = Counter(answer.strip().casefold() for answer in answers)
    return first[max(counts, key=counts.__getitem__)]
