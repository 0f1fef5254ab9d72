"""Records to samples: templates, ids and loss masks; and prompts to generate from.

Special strings inside data are cut out, except `<image>` in user turns: text cannot forge a turn or a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xgenmm_jax.data.records import Caption, Conversation, Crops, Document, Picture, Preference, Record, Sample, Turn
from xgenmm_jax.data.tokenizer import Tokenizer

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
IMAGE = "<image>"
END_OF_CHUNK = "<|endofchunk|>"
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class ChatStyle:
    """How conversations are written.

    system: first turn where a conversation brings none; None leaves it away.
    """

    system: str | None = SYSTEM_PROMPT


@dataclass(frozen=True)
class Prompt:
    """What to answer: one `<image>` id per picture, not yet expanded."""

    token_ids: tuple[int, ...]
    pictures: tuple[Picture | Crops, ...]


@dataclass(frozen=True)
class Demonstration:
    """A worked example of a few-shot prompt. question None: a caption."""

    picture: Picture
    question: str | None
    answer: str


def sample(record: Record, tokenizer: Tokenizer, style: ChatStyle = ChatStyle()) -> Sample:
    """The tokenised form of a record.

    Raises:
        ValueError: `<image>` markers and pictures differ in number, turns are out of order, nothing is supervised.
    """
    if isinstance(record, Caption):
        return _document(Document(record.id, (record.picture, record.text)), tokenizer)
    if isinstance(record, Document):
        return _document(record, tokenizer)
    if isinstance(record, Conversation):
        ids = np.array(tokenizer.encode(render(record.turns, tokenizer, style)), np.int32)
        _check_pictures(record.id, ids, record.pictures, tokenizer)
        return Sample(record.id, ids, _answer_mask(record.id, ids, tokenizer), record.pictures)
    return _preference(record, tokenizer, style)


def render(turns: Sequence[Turn], tokenizer: Tokenizer, style: ChatStyle = ChatStyle()) -> str:
    """Turns in Phi-3's chat template.

    Example: "<|system|>\\n{SYS}<|end|>\\n<|user|>\\n<image>\\nHow many?<|end|>\\n<|assistant|>\\nTwo<|end|>\\n"
    """
    if style.system is not None and (not turns or turns[0].role != "system"):
        turns = (Turn("system", style.system), *turns)
    parts = []
    for turn in turns:
        keep = (IMAGE,) if turn.role == "user" else ()
        parts.append(f"<|{turn.role}|>\n{tokenizer.without_specials(turn.text, keep)}<|end|>\n")
    return "".join(parts)


def chat_prompt(
    turns: Sequence[Turn], pictures: Sequence[Picture], tokenizer: Tokenizer, style: ChatStyle = ChatStyle()
) -> Prompt:
    """The prompt of a conversation that ends with a user turn; stop generation on `tokenizer.end_id`."""
    if not turns or turns[-1].role != "user":
        raise ValueError("prompt: the last turn must be the user's; give the question to answer.")
    ids = tokenizer.encode(render(turns, tokenizer, style) + "<|assistant|>\n")
    _check_pictures("prompt", np.array(ids), pictures, tokenizer)
    return Prompt(tuple(ids), tuple(pictures))


def few_shot_prompt(
    demonstrations: Sequence[Demonstration],
    picture: Picture,
    question: str | None,
    tokenizer: Tokenizer,
    text_only: bool = False,
) -> Prompt:
    """OpenFlamingo's prompt (spec/evaluation.md 3); stop on `tokenizer.end_of_chunk_id` or `eos_id`.

    question None asks for a caption. text_only: the demonstrations lose their pictures, as the two that "0-shot"
    carries. Example, one shot:
    "<image>Question:how many? Short answer:2<|endofchunk|>\\n<image>Question:what color? Short answer:"
    """
    lines = [
        ("" if text_only else IMAGE) + query(demonstration.question, tokenizer)
        + tokenizer.without_specials(demonstration.answer) + END_OF_CHUNK
        for demonstration in demonstrations
    ]  # fmt: skip
    text = "\n".join((*lines, IMAGE + query(question, tokenizer)))
    pictures = () if text_only else tuple(demonstration.picture for demonstration in demonstrations)
    return Prompt(tuple(tokenizer.encode(text)), (*pictures, picture))


CAPTION_INSTRUCTION = "A short description of this image in one sentence:"
SHORT_ANSWER = "Answer the question using a single word or phrase."


def base_prompt(
    demonstrations: Sequence[Demonstration], picture: Picture | Crops, question: str | None, tokenizer: Tokenizer
) -> Prompt:
    """The prompt of the released base model's own examples; stop on `tokenizer.end_of_chunk_id` or `eos_id`.

    question None asks for a caption. Example, one shot, captions:
    "<image>A short description of this image in one sentence:a bus<|endofchunk|>\
    <image>A short description of this image in one sentence:"

    The released prompt follows each `<image>` with 127 `<image placeholder>`, which its code replaces: the same
    vision tokens (spec/blip3.md 4.2).
    """

    def instruction(question: str | None) -> str:
        if question is None:
            return IMAGE + CAPTION_INSTRUCTION
        return f"{IMAGE}{tokenizer.without_specials(question)}\n{SHORT_ANSWER}"

    shots = [
        instruction(shown.question) + tokenizer.without_specials(shown.answer) + END_OF_CHUNK
        for shown in demonstrations
    ]
    ids = tokenizer.encode("".join((*shots, instruction(question))))
    return Prompt(tuple(ids), (*(shown.picture for shown in demonstrations), picture))


def query(question: str | None, tokenizer: Tokenizer) -> str:
    """What stands behind a picture in `few_shot_prompt`: "Question:how many? Short answer:"; "Output:" for None."""
    return "Output:" if question is None else f"Question:{tokenizer.without_specials(question)} Short answer:"


def _document(record: Document, tokenizer: Tokenizer) -> Sample:
    """Text and `<image>` in their order; every token but `<image>` is a target, the end tokens too.

    Example: (picture, "a cat", picture, "a dog") ->
    "<image>a cat<|endofchunk|><image>a dog<|endofchunk|><|endoftext|>"
    """
    pieces: list[str] = []
    pictures: list[Picture] = []
    for part in record.parts:
        if isinstance(part, Picture):
            pieces.append(END_OF_CHUNK + record.separator + IMAGE if pictures else IMAGE)
            pictures.append(part)
        elif text := tokenizer.without_specials(part).strip():
            pieces.append(" " + text if pieces and not pieces[-1].endswith(IMAGE) else text)
    if pictures:
        pieces.append(END_OF_CHUNK)
    ids = np.array(tokenizer.encode("".join((*pieces, END_OF_TEXT))), np.int32)
    loss_mask = ids != tokenizer.image_id
    loss_mask[0] = False  # nothing comes before it
    return Sample(record.id, ids, loss_mask, tuple(pictures))


def _answer_mask(id_: str, ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """True on every assistant answer and its `<|end|>`: the official label mask."""
    opens, closes = ids == tokenizer.assistant_id, ids == tokenizer.end_id
    last_mark = np.maximum.accumulate(np.where(opens | closes, np.arange(len(ids)), 0))
    loss_mask = np.zeros(len(ids), bool)
    loss_mask[1:] = opens[last_mark[:-1]]
    if not loss_mask.any():
        raise ValueError(f"chat: {id_} has no assistant turn, so nothing is supervised; leave it out of the data.")
    return loss_mask


def _preference(record: Preference, tokenizer: Tokenizer, style: ChatStyle) -> Sample:
    if not record.turns or record.turns[-1].role != "user":
        raise ValueError(f"chat: {record.id} must end with a user turn before its chosen and rejected answers.")
    ids, masks = [], []
    for answer in (record.chosen, record.rejected):
        answer_ids = np.array(
            tokenizer.encode(render((*record.turns, Turn("assistant", answer)), tokenizer, style)), np.int32
        )
        start = np.flatnonzero(answer_ids == tokenizer.assistant_id)[-1] + 1
        ids.append(answer_ids)
        masks.append(np.arange(len(answer_ids)) >= start)
    _check_pictures(record.id, ids[0], record.pictures, tokenizer)
    return Sample(record.id, ids[0], masks[0], record.pictures, ids[1], masks[1])


def _check_pictures(id_: str, ids: np.ndarray, pictures: Sequence[Picture], tokenizer: Tokenizer) -> None:
    markers = int(np.sum(ids == tokenizer.image_id))
    if markers != len(pictures):
        raise ValueError(
            f"chat: {id_} has {markers} {IMAGE} in its user turns and {len(pictures)} pictures; make them equal."
        )
