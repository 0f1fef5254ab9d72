"""Questions with options of which one is right: AI2D, ScienceQA, A-OKVQA, and the rows of ProVision.

`vqa_sets.py` has the options of published sets. Source: docs/reference/data.md#fine-tuning-records
"""

from dataclasses import dataclass
import string
from typing import ClassVar, Literal

from xgenmm_jax.data.errors import RecordError, shown
from xgenmm_jax.data.readers.base import AllNeeded, text_of, texts_in
from xgenmm_jax.data.readers.images import image_fields, image_of
from xgenmm_jax.data.readers.questions import text_list
from xgenmm_jax.data.readers.turns import QUESTION, check_prompt, conversation, filled
from xgenmm_jax.data.records import Conversation
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.text.chat import IMAGE

LETTER_ANSWER = "Answer with the option's letter from the given choices directly."
"""As LLaVA asks. Source: docs/reference/evaluation.md#prompts"""

OPTIONS = "{options}"
LETTER_PROMPT = f"{QUESTION}\n{OPTIONS}\n{LETTER_ANSWER}"

AnswerIs = Literal["index", "letter", "text"]


@dataclass(frozen=True)
class MultipleChoice(AllNeeded):
    """A `Conversation` of one question, its options and the right one.

    image, image_file: as of `ImageQuestions`. needs_image: False where a record whose image is null is text alone.
    answer_is: how the right option is given: its "index" from 0, as a number or in digits; its "letter"; its "text".
    prompt: with "{question}" and "{options}", which are lines "A. red". answer_by: what is answered, the "letter" or
        the "text"; the prompt says which.
    context: field of a text that stands before the question in a line "Context: ...", where it is not blank; "" for
        none.
    reasons: fields of explanations that are said before the answer, each in a line, blank ones left out, and behind
        them "The answer is B.", as ScienceQA's authors write it. Of a field that is a list, A-OKVQA's three
        "rationales", one is drawn each time the record is.
    """

    image: str = "image"
    question: str = "question"
    options: str = "options"
    answer: str = "answer"
    answer_is: AnswerIs = "index"
    prompt: str = LETTER_PROMPT
    answer_by: Literal["letter", "text"] = "letter"
    image_file: str = ""
    needs_image: bool = True
    context: str = ""
    reasons: tuple[str, ...] = ()

    label: ClassVar[str] = "multiple_choice"

    def __post_init__(self):
        check_options(self.answer_is, self.answer_by)
        check_prompt(self.prompt, QUESTION, OPTIONS)
        image_fields(self.image, self.image_file)

    @property
    def fields(self) -> tuple[str, ...]:
        more = ((self.context,) if self.context else ()) + self.reasons
        return (*image_fields(self.image, self.image_file), self.question, self.options, self.answer, *more)

    def choices(self, raw: Raw) -> int:
        """The longest list of explanations; 1 where there is none."""
        lists = (raw.fields.get(name) for name in self.reasons)
        return max((len(value) for value in lists if isinstance(value, list)), default=1) or 1

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where a text is empty or no option is the right one, ValueError for no image."""
        question = text_of(raw, self.question)
        options = text_list(raw, self.options)
        right = right_option(raw, options, self.answer, self.answer_is)
        if self.context and (context := " ".join(texts_in(raw, self.context))):
            question = f"Context: {context}\n{question}"
        asked = filled(self.prompt, question=question, options=lettered(raw, options))
        answer = options[right] if self.answer_by == "text" else string.ascii_uppercase[right]
        reasons = [texts[choice % len(texts)] for name in self.reasons if (texts := texts_in(raw, name))]
        if reasons:
            answer = "\n".join((*reasons, f"The answer is {answer}."))
        is_null = any(raw.value(name) is None for name in image_fields(self.image, self.image_file))
        images = [] if is_null and not self.needs_image else [image_of(raw, self.image, self.image_file)]
        return conversation(raw, images, [(asked, answer)])


@dataclass(frozen=True)
class ProVision(AllNeeded):
    """A `Conversation` of a row of ProVision-10M: one or several images by name, a question, and options in some rows.

    image_position: the images stand "before" the question or "behind" it, joined by a space; "drawn", as its authors
        do, one of the two each time the record is. prompt, answer_by: of rows with options, as of `MultipleChoice`.
    answer_is: how rows with options give the right one. max_images: rows with more are errors of their record.
    """

    images: str = "data_path"
    image_position: Literal["drawn", "before", "behind"] = "drawn"
    prompt: str = LETTER_PROMPT
    answer_by: Literal["letter", "text"] = "letter"
    answer_is: AnswerIs = "text"
    max_images: int = 4

    label: ClassVar[str] = "provision"

    def __post_init__(self):
        if self.image_position not in ("drawn", "before", "behind"):
            raise ValueError(f"data: image_position={self.image_position!r}; wanted 'drawn', 'before' or 'behind'.")
        check_options(self.answer_is, self.answer_by)
        check_prompt(self.prompt, QUESTION, OPTIONS)

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.images, "question", "answer", "options")

    def choices(self, raw: Raw) -> int:
        return 2 if self.image_position == "drawn" else 1

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where a text is empty or no option is the right one, ValueError for no image."""
        names = text_list(raw, self.images)
        if not 0 < len(names) <= self.max_images:
            raise RecordError(raw.key, f"{len(names)} images; wanted 1 to {self.max_images}")
        asked, answer = text_of(raw, "question"), text_of(raw, "answer")
        if IMAGE in asked:
            raise RecordError(raw.key, f"'question' has {IMAGE} of its own")
        if raw.value("options"):
            options = text_list(raw, "options")
            right = right_option(raw, options, "answer", self.answer_is)
            answer = options[right] if self.answer_by == "text" else string.ascii_uppercase[right]
            asked = filled(self.prompt, question=asked, options=lettered(raw, options))
        markers = " ".join([IMAGE] * len(names))
        is_before = self.image_position == "before" or (self.image_position == "drawn" and choice == 0)
        asked = f"{markers}\n{asked}" if is_before else f"{asked}\n{markers}"
        return conversation(raw, [raw.image(name) for name in names], [(asked, answer)])


def check_options(answer_is: str, answer_by: str) -> None:
    if answer_is not in ("index", "letter", "text") or answer_by not in ("letter", "text"):
        raise ValueError(
            f"data: answer_is={answer_is!r}, answer_by={answer_by!r}; wanted 'index', 'letter' or 'text', and 'letter' "
            "or 'text'."
        )


def lettered(raw: Raw, options: list[str]) -> str:
    """["red", "blue"] -> "A. red\\nB. blue". Raises RecordError where there are more options than letters."""
    if len(options) > len(string.ascii_uppercase):
        raise RecordError(raw.key, f"{len(options)} options; wanted at most {len(string.ascii_uppercase)}")
    return "\n".join(f"{letter}. {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False))


def right_option(raw: Raw, options: list[str], name: str, answer_is: AnswerIs) -> int:
    """The number, from 0, of the option that a field gives. Raises RecordError where it gives none, or two."""
    value = raw.value(name)
    is_text = isinstance(value, str)
    number = None
    if answer_is == "text" and is_text:
        same = [at for at, option in enumerate(options) if option.strip() == value.strip()]
        number = same[0] if len(same) == 1 else None
    elif answer_is == "letter" and is_text and len(value.strip()) == 1:
        number = string.ascii_uppercase.find(value.strip())
    elif answer_is == "index" and is_text and value.strip().isascii() and value.strip().isdecimal():
        number = int(value)
    elif answer_is == "index" and isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or not 0 <= number < len(options):
        raise RecordError(
            raw.key, f"'{name}' is {shown(value)!r}, which is the {answer_is} of none of the {len(options)} options"
        )
    return number
