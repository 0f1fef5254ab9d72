"""What evaluation toolkits ask, in our terms: chat messages as parts and images, generation arguments as `Decoding`.

Imports neither toolkit nor JAX, so that a toolkit which lists its models does not wait for either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xgenmm_jax.generation.arguments import shown
from xgenmm_jax.generation.buckets import NEW_TOKEN_BUCKETS
from xgenmm_jax.generation.text.decoding import Decoding

MOST_NEW_TOKENS = NEW_TOKEN_BUCKETS[-1]
"""The longest answer; also that of a request which names no length."""

_KNOWN = frozenset(
    ("max_new_tokens", "until", "do_sample", "temperature", "top_p", "top_k", "num_beams", "length_penalty", "seed")
)
_WITHOUT_MEANING = frozenset(("image_aspect_ratio", "use_cache", "n", "num_return_sequences"))
"""Arguments that some tasks name and that change no answer of this model; the last two must be 1."""


@dataclass(frozen=True)
class UserTurn:
    """One user's turn. parts: texts, and indices of `images`, in order. system: None: the model's own.

    images: as the toolkit gave them, each once for every place where it stands.
    """

    parts: tuple[str | int, ...]
    images: tuple[Any, ...]
    system: str | None = None


@dataclass(frozen=True)
class AnswerSettings:
    """How a request wants its answer. until: texts that end it, and are no part of it.

    remarks: sentences on what the request asked for and does not get; for the log, once.
    """

    decoding: Decoding
    until: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def answer_settings(arguments: Mapping[str, Any]) -> AnswerSettings:
    """Generation arguments by Hugging Face's names, as lmms-eval's tasks write them, and `until`.

    Sampled only with a temperature above 0 and without `do_sample: false`; else greedily, or by num_beams, and
    temperature, top_p, top_k and seed mean nothing, as in Hugging Face's generate. None is the argument's default.

    Example: {"max_new_tokens": 16, "temperature": 0, "do_sample": False, "until": ["\\n\\n"]} gives
    AnswerSettings(Decoding(max_new_tokens=16), ("\\n\\n",)).

    Raises ValueError for a number out of range, and for more than one answer a request.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    remarks = []
    for name in ("n", "num_return_sequences"):
        if given.get(name, 1) != 1:
            raise ValueError(f"{name}: got {shown(given[name])}; wanted 1, a request has one answer.")
    if unknown := sorted(given.keys() - _KNOWN - _WITHOUT_MEANING):
        remarks.append(f"{', '.join(unknown)}: not known to this model and left out.")
    length = given.get("max_new_tokens", MOST_NEW_TOKENS)
    if isinstance(length, int | float) and length > MOST_NEW_TOKENS:
        remarks.append(f"max_new_tokens: got {length}; answers end after {MOST_NEW_TOKENS} tokens.")
        length = MOST_NEW_TOKENS

    # Tasks write whole numbers, as top_p: 1; a text is none, and refused by Decoding.
    real = ("temperature", "top_p", "length_penalty")
    given |= {name: float(given[name]) for name in real if type(given.get(name)) is int}
    # `do_sample` without a temperature is Hugging Face's 1.0; a temperature of 0 is greedy, whatever do_sample says.
    sampled = given.get("do_sample", given.get("temperature", 0) != 0)
    temperature = given.get("temperature", 1.0) if sampled else 0.0
    sampling = ("top_p", "top_k", "seed") if temperature else ()
    names = ("num_beams", "length_penalty", *sampling)
    chosen = {name: given[name] for name in names if name in given}
    return AnswerSettings(
        Decoding(max_new_tokens=length, temperature=temperature, **chosen),
        stop_texts(given.get("until", ())),
        tuple(remarks),
    )


def stop_texts(until: Any) -> tuple[str, ...]:
    """Texts that end an answer, of one or several. Raises ValueError for what is no text."""
    texts = (until,) if isinstance(until, str) else tuple(until)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"until: got {shown(text)}; give a text, or a list of them.")
    return tuple(text for text in texts if text)


def chat_message(messages: Sequence[Mapping[str, Any]]) -> UserTurn:
    """A chat's messages, [{"role", "content": text | [{"type": "text", "text"} | {"type": "image", "url"}]}].

    A system turn, then the user's; several user turns in a row are one. Raises ValueError for a conversation in which
    the model has spoken, for content of another type, and without any content.
    """
    system, parts, images = None, [], []
    for message in messages:
        content = message["content"]
        listed = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if message["role"] == "system" and not parts and system is None:
            system = "".join(_text(part) for part in listed)
            continue
        if message["role"] != "user":
            raise ValueError(
                f"message: got a turn of the {message['role']}; wanted a system turn at most, then the user's. "
                "Conversations are not asked."
            )
        for part in listed:
            if part["type"] == "image":
                parts.append(len(images))
                images.append(part["url"])
            else:
                parts.append(_text(part))
    if not parts:
        raise ValueError("message: got no user turn; give a text or an image.")
    return UserTurn(tuple(parts), tuple(images), system)


def _text(part: Mapping[str, Any]) -> str:
    if part["type"] != "text":
        raise ValueError(f"message: got content of type {shown(part['type'])}; wanted text or image.")
    return part["text"]


def vlmevalkit_message(items: Sequence[Mapping[str, Any]]) -> UserTurn:
    """VLMEvalKit's message, [{"type": "image", "value": path} | {"type": "text", "value": text}].

    Raises ValueError for an item of another type, and without any.
    """
    content = [
        {"type": "image", "url": item["value"]}
        if item["type"] == "image"
        else {"type": item["type"], "text": item["value"]}
        for item in items
    ]
    return chat_message([{"role": "user", "content": content}])


def batch_rows(batch_size: str | int) -> int | None:
    """The rows that lmms-eval asks for; None where it leaves them to the model: 1, its default, and "auto".

    Raises ValueError for what is neither.
    """
    text = str(batch_size)
    if text.partition(":")[0] == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"batch_size: got {batch_size!r}; give a whole number, or auto.")
    return None if int(text) == 1 else int(text)


def check_device(device: str | None, backend: str) -> None:
    """Raises ValueError where lmms-eval was asked for another kind of device than JAX computes on.

    device: "cuda:0", "cpu"; None: any. backend: "cpu", "gpu" or "tpu".
    """
    kind = None if device is None else device.partition(":")[0]
    if kind not in (None, backend, {"gpu": "cuda"}.get(backend, backend)):
        raise ValueError(
            f"device: got '{device}', JAX computes on {backend}; leave --device out, or choose by JAX_PLATFORMS."
        )
