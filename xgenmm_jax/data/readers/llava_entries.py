"""The rules of LLaVA's fine-tuning form: which entries are used, and their turns and images.

Source: docs/reference/training.md#fine-tuning-data
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple

from xgenmm_jax.data.errors import shown
from xgenmm_jax.data.records import LazyImage, Role, Turn
from xgenmm_jax.data.text.chat import check_turns

IMAGE = "<image>"


class Form(NamedTuple):
    """How a data set writes LLaVA's entries: names of the lists of turns and images, of what a turn has, of roles."""

    turns: str
    image: str
    role: str
    text: str
    roles: Mapping[str, Role]
    marker: str = IMAGE
    """What stands in a question for an image."""


LLAVA = Form("conversations", "image", "from", "value", {"system": "system", "human": "user", "gpt": "assistant"})


def is_path(value: Any) -> bool:
    return isinstance(value, str)


def is_path_or_image(value: Any) -> bool:
    """A path, encoded bytes, the datasets library's {"bytes", "path"} with either, or an image without its pixels."""
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        return isinstance(data, bytes) or (data is None and isinstance(path, str))
    return isinstance(value, str | bytes | LazyImage)


def why_not(
    row: Any, max_images: int | None, is_image: Callable[[Any], bool] = is_path
) -> tuple[str, str] | None:
    """Why an entry is left out: the reason, by which entries are counted, and what it has. None where it is used.

    is_image: whether a value under "image" or "images" can be one.
    """
    if not isinstance(row, dict):
        return "no object", _brief(row)
    if why := why_no_turns(row, LLAVA):
        return why
    try:
        images = images_in(row, is_image)
    except ValueError as error:
        return "'image' is neither a path nor a list of paths", str(error)
    return why_not_used(row, len(images), max_images, LLAVA)


def why_no_turns(row: dict[str, Any], form: Form) -> tuple[str, str] | None:
    """As `why_not`, of an entry that has no list of turns, or others than the form's."""
    conversations = row.get(form.turns)
    if not isinstance(conversations, list):
        return f"without a '{form.turns}' list", _brief(row)
    for turn in conversations:
        if not isinstance(turn, dict) or not isinstance(turn.get(form.text), str):
            return f"a turn whose '{form.text}' is no text", _brief(turn)
        if not isinstance(turn.get(form.role), str) or turn[form.role] not in form.roles:
            return f"a turn that is not '{form.role}' {', '.join(form.roles)}", _brief(turn)
    return None


def why_not_used(row: dict[str, Any], images: int, max_images: int | None, form: Form) -> tuple[str, str] | None:
    """As `why_not`, of an entry whose turns are of the form and that has so many images."""
    in_order = _in_order(row[form.turns], form)
    try:
        check_turns("entry", in_order, last="assistant")
    except ValueError as error:
        return "turns out of order", str(error)
    if max_images is not None and images > max_images:
        return f"more than {max_images} images", f"{images} images"
    if not images and any(form.marker in turn[form.text] for turn in row[form.turns]):
        return f"{form.marker} without an image", f"no '{form.image}'"
    return None


def images_in(row: dict[str, Any], is_image: Callable[[Any], bool] = is_path) -> list[Any]:
    """What "image" or "images" holds: nothing where they are missing, null, NaN as pandas writes it, or empty.

    Raises ValueError where they hold anything else than images, or unlike ones.
    """
    named = []
    for key in ("image", "images"):
        value = row.get(key)
        images = value if isinstance(value, list) else [value]
        if not all(_is_nothing(image) for image in images):
            named.append(images)
    if not named:
        return []
    if len(named) == 2 and named[0] != named[1]:
        raise ValueError(f"'image' {_brief(named[0])} and 'images' {_brief(named[1])}")
    for image in named[0]:
        if _is_nothing(image) or not is_image(image):
            raise ValueError(_brief(image))
    return named[0]


def _is_nothing(image: Any) -> bool:
    if isinstance(image, dict) and image.keys() == {"bytes", "path"}:  # a null of the datasets library
        return image["bytes"] is None and _is_nothing(image["path"])
    is_empty = isinstance(image, str) and not image.strip()
    return image is None or is_empty or (isinstance(image, float) and math.isnan(image))


def _in_order(turns: Sequence[dict[str, str]], form: Form) -> tuple[Turn, ...]:
    """The turns, without an answer that stands before the first question: LLaVA's own code skips it."""
    in_order = [_turn(form.roles[turn[form.role]], turn[form.text], form.marker) for turn in turns]
    first = 1 if in_order and in_order[0].role == "system" else 0
    if len(in_order) > first and in_order[first].role == "assistant":
        del in_order[first]
    return tuple(in_order)


def _turn(role: Role, text: str, marker: str) -> Turn:
    return Turn(role, text.replace(marker, IMAGE) if role == "user" else text)


def turns(row: dict[str, Any], images: int, form: Form = LLAVA) -> tuple[Turn, ...]:
    """The turns of an entry that is used and has so many images."""
    in_order = list(_in_order(row[form.turns], form))
    first = next(i for i, turn in enumerate(in_order) if turn.role == "user")
    # The official repair: one image, and not exactly one marker in the first question.
    if images == 1 and in_order[first].text.count(IMAGE) != 1:
        text = in_order[first].text.replace(IMAGE, "").strip()
        in_order[first] = Turn("user", f"{IMAGE}\n{text}")
    return tuple(in_order)


def _brief(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else shown(value, 81)
    return text if len(text) <= 80 else f"{text[:77]}..."
