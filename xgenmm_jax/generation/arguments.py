"""Checks of numbers and ids that users pass, before anything runs."""

import math
import operator
import reprlib
from typing import Any

from jaxtyping import Int32
import numpy as np


def whole(name: str, value: Any, least: int | None = None) -> int:
    """A whole number, at least `least`. Raises ValueError for other numbers, and for what is none."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"generation: got {name} {shown(value)}; give a whole number.") from error
    if least is not None and number < least:
        raise ValueError(f"generation: got {name} {number}; give {least} or more.")
    return number


def real(name: str, value: Any) -> float:
    """A finite number. Raises ValueError for what is none."""
    try:
        if isinstance(value, bool | str | bytes) or np.ndim(value):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"generation: got {name} {shown(value)}; give a number.") from error
    if not math.isfinite(number):
        raise ValueError(f"generation: got {name} {number}; give a finite number.")
    return number


def token_ids(ids: Any, count: int, what: str) -> Int32[np.ndarray, " n"]:
    """A row of ids: a list or an array of any kind of integers.

    count: of the model's ids. what: the row in words, for errors, as "generation: prompt 2".

    Raises ValueError where it is no row, holds no id, or one outside of 0 .. count - 1.
    """
    remedy = f"give a list of ids, whole numbers from 0 to {count - 1}"
    try:
        array = np.asarray(ids)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of unequal length; another library's refusal
        raise ValueError(f"{what} is {shown(ids)}; {remedy}.") from error
    if array.ndim != 1:
        raise ValueError(f"{what} is {shown(ids)}; {remedy}.")
    if not array.size:
        raise ValueError(f"{what} is empty; give one token or more.")
    if array.dtype.kind not in "iu":  # Python's integers of any size are objects
        bad = [id_ for id_ in array.tolist() if not isinstance(id_, int) or isinstance(id_, bool)]
        if bad:
            raise ValueError(f"{what} holds {shown(bad[0])}; {remedy}.")
    outside = np.flatnonzero((array < 0) | (array >= count))
    if outside.size:
        index = outside[0]
        raise ValueError(f"{what} has the id {array[index]} at {index}; the model's ids are 0 to {count - 1}.")
    return array.astype(np.int32)


def stop_ids(ids: Any, count: int) -> tuple[int, ...]:
    """The ids that end an answer, each once: of one id, or of several or none.

    Raises ValueError for what is no id of the model.
    """
    if isinstance(ids, set | frozenset | tuple | list):
        ids = list(ids)
        if not ids:
            return ()
    elif not isinstance(ids, str) and getattr(ids, "ndim", 0) == 0:
        ids = [ids]
    return tuple(dict.fromkeys(token_ids(ids, count, "generation: stop_ids").tolist()))


def shown(value: Any) -> str:
    """A value, for an error's one line."""
    if value is None or isinstance(value, int | float | str | bytes):
        return reprlib.repr(value)
    if getattr(value, "ndim", 0) or isinstance(value, np.ndarray):
        return f"an array of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple) and value:
        return f"a {type(value).__name__} that begins with {shown(value[0])}"
    return f"a {type(value).__name__}"
