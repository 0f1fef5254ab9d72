"""Prompts to generate from: a conversation, OpenFlamingo's few-shot prompt, the released base model's own."""

from collections.abc import Sequence
from dataclasses import dataclass

from xgenmm_jax.data.records import Crops, LazyImage, Turn
from xgenmm_jax.data.text.chat import END_OF_CHUNK, IMAGE, PHI3_STYLE, ChatStyle, render, unequal_images
from xgenmm_jax.data.text.tokenizer import Template, Tokenizer

CAPTION_INSTRUCTION = "A short description of this image in one sentence:"
SHORT_ANSWER = "Answer the question using a single word or phrase."


@dataclass(frozen=True)
class Prompt:
    """What to answer: one `<image>` id per image, not yet expanded."""

    token_ids: tuple[int, ...]
    images: tuple[LazyImage | Crops, ...]


@dataclass(frozen=True)
class Demonstration:
    """A worked example of a few-shot prompt. question None: a caption."""

    image: LazyImage
    question: str | None
    answer: str


def chat_prompt(
    turns: Sequence[Turn], images: Sequence[LazyImage], tokenizer: Tokenizer, style: ChatStyle = PHI3_STYLE
) -> Prompt:
    """The prompt of a conversation that ends with a user turn; stop generation on `tokenizer.end_id`."""
    if not turns or turns[-1].role != "user":
        raise ValueError("prompt: the last turn must be the user's; give the question to answer.")
    markers = sum(turn.text.count(IMAGE) for turn in turns if turn.role == "user")
    if markers != len(images):
        raise ValueError(unequal_images("prompt", markers, len(images)))
    ids = tokenizer.encode_parts([*render(turns, len(images), style), style.opening("assistant")])
    return Prompt(tuple(ids), tuple(images))


def message_prompt(
    parts: Sequence[str | int], images: Sequence[LazyImage], tokenizer: Tokenizer, style: ChatStyle = PHI3_STYLE
) -> Prompt:
    """One user turn of texts and images in any order, as benchmarks and their toolkits send it.

    parts: a text, or the index of an image among `images`; one may come twice or not at all. Texts are data: an
    `<image>` in them is text. An image is `<image>` and a space, as in VLMEvalKit's adapter of the released model.

    Raises ValueError for an index that is none of an image.
    """
    wrong = [part for part in parts if isinstance(part, int) and not 0 <= part < len(images)]
    if wrong:
        raise ValueError(f"prompt: got image {wrong[0]} of {len(images)} images; give indices from 0.")
    content = [item for part in parts for item in ((IMAGE, Template(" ")) if isinstance(part, int) else (part,))]
    system = () if style.system is None else style.turn("system", (style.system,))
    ids = tokenizer.encode_parts([*system, *style.turn("user", content), style.opening("assistant")])
    return Prompt(tuple(ids), tuple(images[part] for part in parts if isinstance(part, int)))


def few_shot_prompt(
    demonstrations: Sequence[Demonstration],
    image: LazyImage,
    question: str | None,
    tokenizer: Tokenizer,
    text_only: bool = False,
) -> Prompt:
    """OpenFlamingo's prompt; stop on `tokenizer.end_of_chunk_id` or `eos_id`.

    Source: docs/reference/tokens.md#few-shot-prompts.

    question None asks for a caption. text_only: the demonstrations lose their images, as the two that "0-shot"
    carries. Example, one shot:
    "<image>Question:how many? Short answer:2<|endofchunk|>\\n<image>Question:what color? Short answer:"
    """
    parts: list[str] = []
    for shown in demonstrations:
        marker = () if text_only else (IMAGE,)
        parts += (*marker, *query(shown.question), shown.answer, END_OF_CHUNK, Template("\n"))
    parts += (IMAGE, *query(question))
    images = () if text_only else tuple(shown.image for shown in demonstrations)
    return Prompt(tuple(tokenizer.encode_parts(parts)), (*images, image))


def base_prompt(
    demonstrations: Sequence[Demonstration], image: LazyImage | Crops, question: str | None, tokenizer: Tokenizer
) -> Prompt:
    """The prompt of the released base model's own examples; stop on `tokenizer.end_of_chunk_id` or `eos_id`.

    question None asks for a caption. Example, one shot, captions:
    "<image>A short description of this image in one sentence:a bus<|endofchunk|>\
    <image>A short description of this image in one sentence:"

    The released prompt follows each `<image>` with 127 `<image placeholder>`, which its code replaces: the same
    vision tokens (docs/reference/tokens.md#base-prompts).
    """

    def instruction(question: str | None) -> tuple[str, ...]:
        if question is None:
            return IMAGE, Template(CAPTION_INSTRUCTION)
        return IMAGE, question, Template(f"\n{SHORT_ANSWER}")

    shots = [(*instruction(shown.question), shown.answer, END_OF_CHUNK) for shown in demonstrations]
    ids = tokenizer.encode_parts(part for parts in (*shots, instruction(question)) for part in parts)
    return Prompt(tuple(ids), (*(shown.image for shown in demonstrations), image))


def query(question: str | None) -> tuple[str, ...]:
    """What stands behind an image in `few_shot_prompt`, in parts: "Question:how many? Short answer:"; "Output:" for
    None."""
    if question is None:
        return (Template("Output:"),)
    return Template("Question:"), question, Template(" Short answer:")
