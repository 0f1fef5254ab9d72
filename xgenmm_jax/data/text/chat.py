"""Records to samples: templates, ids and loss masks. Prompts to generate from: `prompts.py`.

Templates give special ids, data never does (`Tokenizer.encode_parts`): text cannot forge a turn or an image, and
keeps its characters. `<image>` in the user turns of a record that has images says where they stand; anywhere else it
is text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int32
import numpy as np

from xgenmm_jax.data.records import (
    Caption,
    Conversation,
    Document,
    LazyImage,
    Preference,
    Record,
    Sample,
    TextToImage,
    Turn,
)
from xgenmm_jax.data.text.tokenizer import Template, Tokenizer

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
IMAGE = Template("<image>")
END_OF_CHUNK = Template("<|endofchunk|>")


@dataclass(frozen=True)
class ChatStyle:
    """How conversations are written.

    system: first turn where a conversation brings none; None leaves it away. header, footer: what a template writes
    before and behind a turn's text, "{role}" for its role; each begins with a special string of the tokenizer.
    trimmed: whether white space around the text of a turn is left away.

    Raises ValueError where the header names no role.
    """

    system: str | None = SYSTEM_PROMPT
    header: str = "<|{role}|>\n"
    footer: str = "<|end|>\n"
    trimmed: bool = False

    def __post_init__(self):
        if ROLE not in self.header:
            raise ValueError(f"chat.header: got {self.header!r}, wanted {ROLE} in it, where a turn's role stands.")

    def described(self) -> dict[str, str | bool | None]:
        """As an index keeps it: the fields that differ from Phi-3's, and `system`."""
        default = ChatStyle()
        fields = {name: value for name, value in vars(self).items() if value != getattr(default, name)}
        return {"system": self.system, **fields}

    def opening(self, role: str) -> Template:
        """What begins a turn: "<|user|>\\n"."""
        return Template(self.header.replace(ROLE, role))

    def turn(self, role: str, content: Sequence[str]) -> list[str]:
        """A turn as parts for `Tokenizer.encode_parts`. content: its text, in parts."""
        parts = list(content)
        if self.trimmed and parts:
            parts[0] = type(parts[0])(parts[0].lstrip())
            parts[-1] = type(parts[-1])(parts[-1].rstrip())
        return [self.opening(role), *parts, Template(self.footer)]


ROLE = "{role}"
PHI3_STYLE = ChatStyle()
LLAMA3_STYLE = ChatStyle(None, "<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>", trimmed=True)
"""Llama 3's; its tokenizer begins every text with `<|begin_of_text|>`.

Source: docs/reference/tokens.md#other-templates."""
CHATML_STYLE = ChatStyle("You are a helpful assistant.", "<|im_start|>{role}\n", "<|im_end|>\n")
"""Qwen's, with the system turn of Qwen2. Source: docs/reference/tokens.md#other-templates."""


def check_style(style: ChatStyle, tokenizer: Tokenizer, option: str = "data.chat") -> None:
    """Raises ValueError where turns do not begin and end with special ids of the tokenizer, so that none is trained on
    or generation does not stop. option: what gives the style, for the error."""
    tokenizer.marker(style.opening("assistant"), option)
    if tokenizer.marker(style.footer, option)[0] != tokenizer.end_id:
        raise ValueError(
            f"{option}.footer: got {style.footer!r}, the tokenizer's turns end with "
            f"{tokenizer.piece(tokenizer.end_id)!r}; choose the model's chat style ({option})."
        )


def sample(record: Record, tokenizer: Tokenizer, style: ChatStyle = PHI3_STYLE) -> Sample:
    """The tokenised form of a record.

    Raises:
        ValueError: `<image>` markers and images differ in number, turns are out of order, nothing is supervised.
    """
    if isinstance(record, Caption):
        return _document(Document(record.id, (record.image, record.text)), tokenizer)
    if isinstance(record, Document):
        return _document(record, tokenizer)
    if isinstance(record, Conversation):
        check_turns(record.id, record.turns, last="assistant")
        parts = render(record.turns, len(record.images), style)
        ids = np.array(tokenizer.encode_parts(parts), np.int32)
        _check_images(record.id, ids, record.images, tokenizer)
        answers = sum(turn.role == "assistant" for turn in record.turns)
        return Sample(record.id, ids, _answer_mask(record.id, ids, tokenizer, style, answers), record.images)
    if isinstance(record, TextToImage):
        ids, query = drawing_ids(record.prompt, record.queries, tokenizer, style)
        return Sample(record.id, ids, np.zeros(len(ids), bool), (), query=query, target=record.image)
    return _preference(record, tokenizer, style)


def drawing_ids(
    prompt: str, queries: int, tokenizer: Tokenizer, style: ChatStyle = PHI3_STYLE
) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """Ids and `DrawingBatch.query` of a user's turn that asks for an image; training and drawing write the same.

    Behind the opening of the assistant's turn stand the vector that begins an image and the queries, with pads as ids.

    Raises ValueError where the prompt is blank.
    """
    if not prompt.strip():
        raise ValueError("draw: the prompt is empty; say what to draw.")
    text = tokenizer.encode_parts([*render((Turn("user", prompt),), 0, style), style.opening("assistant")])
    ids = np.array([*text, *[tokenizer.pad_id] * (1 + queries)], np.int32)
    query = np.full(len(ids), -1, np.int32)
    query[len(text) :] = np.arange(1 + queries)
    return ids, query


def check_turns(id_: str, turns: Sequence[Turn], last: str) -> None:
    """Raises ValueError unless users and assistants alternate, a user first, behind at most one system turn.

    last: whose the last turn must be, "user" or "assistant".
    """
    roles = [turn.role for turn in turns]
    if last == "assistant" and "assistant" not in roles:
        raise ValueError(f"chat: {id_} has no assistant turn, so nothing is supervised; leave it out of the data.")
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    alternating = [("user", "assistant")[number % 2] for number in range(len(spoken))]
    if not spoken or spoken != alternating or spoken[-1] != last:
        shown = ", ".join(map(str, roles[:8])) + (", ..." if len(roles) > 8 else "")
        raise ValueError(
            f"chat: {id_} has the turns [{shown}]; wanted user and assistant in turn, at most a system turn before "
            f"them, the last one the {last}'s; leave it out of the data."
        )


def render(turns: Sequence[Turn], images: int, style: ChatStyle = PHI3_STYLE) -> list[str]:
    """Turns in a chat template, as parts for `Tokenizer.encode_parts`.

    images: how many the conversation has; without any, `<image>` is text in user turns too.

    Example, Phi-3's, joined:
    "<|system|>\\n{SYS}<|end|>\\n<|user|>\\n<image>\\nHow many?<|end|>\\n<|assistant|>\\nTwo<|end|>\\n"
    """
    if style.system is not None and (not turns or turns[0].role != "system"):
        turns = (Turn("system", style.system), *turns)
    parts: list[str] = []
    for turn in turns:
        text = _with_images(turn.text) if images and turn.role == "user" else [turn.text]
        parts += style.turn(turn.role, text)
    return parts


def _with_images(text: str) -> list[str]:
    """The text with its `<image>` as the template's: "<image>\\nHow many?" -> ["", IMAGE, "\\nHow many?"]."""
    first, *rest = text.split(IMAGE)
    return [first, *(part for text in rest for part in (IMAGE, text))]


def _document(record: Document, tokenizer: Tokenizer) -> Sample:
    """Text and `<image>` in their order; every token but `<image>` is a target, the end tokens too.

    Example: (image, "a cat", image, "a dog") ->
    "<image>a cat<|endofchunk|><image>a dog<|endofchunk|><|endoftext|>"
    """
    parts: list[str] = []
    images: list[LazyImage] = []
    for part in record.parts:
        if isinstance(part, LazyImage):
            parts += (END_OF_CHUNK, Template(record.separator), IMAGE) if images else (IMAGE,)
            images.append(part)
        elif text := part.strip():
            parts.append(" " + text if parts and parts[-1] is not IMAGE else text)
    if images:
        parts.append(END_OF_CHUNK)
    ids = np.array(tokenizer.encode_parts((*parts, tokenizer.end_of_text)), np.int32)
    loss_mask = ids != tokenizer.image_id
    loss_mask[0] = False  # nothing comes before it
    if not loss_mask.any():
        raise ValueError(f"chat: {record.id} has neither text nor images, so nothing is supervised; leave it out.")
    return Sample(record.id, ids, loss_mask, tuple(images))


def _openings(id_: str, ids: np.ndarray, tokenizer: Tokenizer, style: ChatStyle, answers: int) -> np.ndarray:
    """True on the last id of what begins an assistant's turn. Raises ValueError where these are not `answers`."""
    opens = np.ones(len(ids), bool)
    for back, expected in enumerate(reversed(tokenizer.marker(style.opening("assistant")))):
        opens[:back] = False
        opens[back:] &= ids[: len(ids) - back] == expected
    if opens.sum() != answers:
        raise ValueError(
            f"chat: {id_} has {answers} assistant turns and {opens.sum()} of the header's ids: the tokenizer joins "
            "text to the header; trim turns (chat.trimmed), or end chat.header with a special string."
        )
    return opens


def _answer_mask(id_: str, ids: np.ndarray, tokenizer: Tokenizer, style: ChatStyle, answers: int) -> np.ndarray:
    """True on every assistant answer and the id that ends it: the official label mask."""
    opens, closes = _openings(id_, ids, tokenizer, style, answers), ids == tokenizer.end_id
    last_mark = np.maximum.accumulate(np.where(opens | closes, np.arange(len(ids)), 0))
    loss_mask = np.zeros(len(ids), bool)
    loss_mask[1:] = opens[last_mark[:-1]]
    if not loss_mask.any():
        raise ValueError(f"chat: {id_} has no assistant turn, so nothing is supervised; leave it out of the data.")
    return loss_mask


def _preference(record: Preference, tokenizer: Tokenizer, style: ChatStyle) -> Sample:
    check_turns(record.id, record.turns, last="user")
    ids, masks = [], []
    for answer in (record.chosen, record.rejected):
        parts = render((*record.turns, Turn("assistant", answer)), len(record.images), style)
        answer_ids = np.array(tokenizer.encode_parts(parts), np.int32)
        answers = 1 + sum(turn.role == "assistant" for turn in record.turns)
        start = np.flatnonzero(_openings(record.id, answer_ids, tokenizer, style, answers))[-1] + 1
        ids.append(answer_ids)
        masks.append(np.arange(len(answer_ids)) >= start)
        _check_images(record.id, answer_ids, record.images, tokenizer)
    return Sample(record.id, ids[0], masks[0], record.images, ids[1], masks[1])


def _check_images(id_: str, ids: np.ndarray, images: Sequence[LazyImage], tokenizer: Tokenizer) -> None:
    markers = int(np.sum(ids == tokenizer.image_id))
    if markers != len(images):
        raise ValueError(unequal_images(id_, markers, len(images)))


def unequal_images(id_: str, markers: int, images: int) -> str:
    """The error of a conversation that has another number of `<image>` than of images."""
    return f"chat: {id_} has {markers} {IMAGE} in its user turns and {images} images; make them equal."
