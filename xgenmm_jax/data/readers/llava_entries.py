"""The rules of LLaVA's fine-tuning form: which entries are used, and their turns and images.

Source: docs/reference/training.md#fine-tuning-data
"""

from collections.abc import Sequence
import math
from typing import Any

from xgenmm_jax.data.records import Turn
from xgenmm_jax.data.text.chat import check_turns

ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
IMAGE = "<image>"


def why_not(row: Any, max_images: int) -> tuple[str, str] | None:
    """Why an entry is left out: the reason, by which entries are counted, and what it has. None where it is used."""
    if not isinstance(row, dict):
        return "no object", _brief(row)
    conversations = row.get("conversations")
    if not isinstance(conversations, list):
        return "without a 'conversations' list", _brief(row)
    for turn in conversations:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            return "a turn whose 'value' is no text", _brief(turn)
        if not isinstance(turn.get("from"), str) or turn["from"] not in ROLES:
            return f"a turn that is not 'from' {', '.join(ROLES)}", _brief(turn)
    try:
        images = image_paths(row)
    except ValueError as error:
        return "'image' is neither a path nor a list of paths", str(error)
    try:
        check_turns("entry", _in_order(conversations), last="assistant")
    except ValueError as error:
        return "turns out of order", str(error)
    if len(images) > max_images:
        return f"more than {max_images} images", f"{len(images)} images"
    if not images and any(IMAGE in turn["value"] for turn in conversations):
        return f"{IMAGE} without an image", "no 'image'"
    return None


def image_paths(row: dict[str, Any]) -> list[str]:
    """The paths in "image" or "images": none where they are missing, null, NaN as pandas writes it, or empty.

    Raises ValueError where they are anything else than paths.
    """
    named = []
    for key in ("image", "images"):
        value = row.get(key)
        paths = value if isinstance(value, list) else [value]
        if not all(_is_nothing(path) for path in paths):
            named.append(paths)
    if not named:
        return []
    if len(named) == 2 and named[0] != named[1]:
        raise ValueError(f"'image' {_brief(named[0])} and 'images' {_brief(named[1])}")
    for path in named[0]:
        if _is_nothing(path) or not isinstance(path, str):
            raise ValueError(_brief(path))
    return named[0]


def _is_nothing(path: Any) -> bool:
    is_empty = isinstance(path, str) and not path.strip()
    return path is None or is_empty or (isinstance(path, float) and math.isnan(path))


def _in_order(turns: Sequence[dict[str, str]]) -> tuple[Turn, ...]:
    """The turns, without an answer that stands before the first question: LLaVA's own code skips it."""
    in_order = [Turn(ROLES[turn["from"]], turn["value"]) for turn in turns]
    first = 1 if in_order and in_order[0].role == "system" else 0
    if len(in_order) > first and in_order[first].role == "assistant":
        del in_order[first]
    return tuple(in_order)


def turns(row: dict[str, Any], images: int) -> tuple[Turn, ...]:
    """The turns of an entry that is used and has so many images."""
    in_order = list(_in_order(row["conversations"]))
    first = next(i for i, turn in enumerate(in_order) if turn.role == "user")
    # The official repair: one image, and not exactly one marker in the first question.
    if images == 1 and in_order[first].text.count(IMAGE) != 1:
        text = in_order[first].text.replace(IMAGE, "").strip()
        in_order[first] = Turn("user", f"{IMAGE}\n{text}")
    return tuple(in_order)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
