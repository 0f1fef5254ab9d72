"""The JSON form of configs: frozen data and the names of their classes, read without executing a user's file."""

import dataclasses
import enum
import importlib
import json
from pathlib import Path
import types
import typing
from typing import Any

from xgenmm_jax import user_files
from xgenmm_jax.data.source import Source, UnloadedSource
from xgenmm_jax.evaluation.tasks.suite import Suite, UnloadedSuite

PACKAGE = "xgenmm_jax"

FILE_KEY = "from"
"""Beside a class, function or enum that is not of this package: {"file": name, "sha256"} of the file in which it
stands. A word of Python's, so that no field has this name."""
CODE_KEYS = ("class", "function", "enum")

_UNLOADED = {Source: UnloadedSource, Suite: UnloadedSuite}
"""What stands for a value of this type whose class, or one within it, is of a user's own file."""


def to_json(value: Any) -> Any:
    """Plain JSON of configs: dataclasses, enums and functions go by "module:name", tuples become lists.

    One that is not of this package has its file beside it, as FILE_KEY. Raises ValueError where a value is none of
    these, or stands in no file.
    """
    if isinstance(value, UnloadedSource | UnloadedSuite):
        return dict(value.settings)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"class": _reference(type(value)), **_file_of(type(value)), **fields}
    if isinstance(value, enum.Enum):
        return {"enum": _reference(type(value)), **_file_of(type(value)), "name": value.name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: to_json(item) for key, item in value.items()}}
    if isinstance(value, types.FunctionType) and "<" not in value.__qualname__:
        return {"function": _reference(value), **_file_of(value)}
    raise ValueError(
        f"config: got a value of type {type(value).__name__}; wanted dataclasses, enums, tuples, numbers, strings or "
        "functions of a module."
    )


def from_json(value: Any, hint: Any) -> Any:
    """The inverse of `to_json`. Only names of this package are resolved, and no file is ever loaded.

    A source that is, or has within, a class of another file is an `UnloadedSource`, such a suite an `UnloadedSuite`.

    hint: the type that a field is annotated with. Raises ValueError where `to_json` gave no such value, or another
    value than a source or a suite is not of this package.
    """
    try:
        return _from_json(value, hint)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"config: got {brief(value, 70)} ({type(error).__name__}: {error}), wanted what a run of this version "
            "writes; copy config.json again, or use the commit beside it."
        ) from error


def _from_json(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        inner = typing.get_args(hint)
        item_hint = inner[0] if inner else Any
        return tuple(from_json(item, item_hint) for item in value)
    if not isinstance(value, dict):
        if isinstance(value, str) and hint is Path:
            return Path(value)
        return value
    if hint in _UNLOADED and not _is_of_package(value):
        return _UNLOADED[hint](value)
    if "dict" in value:
        return {key: from_json(item, Any) for key, item in value["dict"].items()}
    if "function" in value:
        return _resolve(value["function"])
    if "enum" in value:
        return _resolve(value["enum"])[value["name"]]
    cls = _resolve(value["class"])
    known = {f.name for f in dataclasses.fields(cls)}
    spare = set(value) - known - {"class"}
    if spare:
        raise ValueError(
            f"config: {cls.__name__} has no field {', '.join(sorted(spare))}; the run was written by another version, "
            "see the commit beside its config.json."
        )
    hints = typing.get_type_hints(cls)
    return cls(**{name: from_json(item, hints[name]) for name, item in value.items() if name != "class"})


def default_of(reference: str | None, name: str) -> Any:
    """JSON of a field's default; None where it has none, or the class is not of this package."""
    if reference is None or not reference.startswith(PACKAGE):
        return None
    default = {f.name: f.default for f in dataclasses.fields(_resolve(reference))}.get(name, dataclasses.MISSING)
    return None if default is dataclasses.MISSING else to_json(default)


def path_fields_of(reference: str | None) -> tuple[str, ...]:
    """Fields of a source, by the name of its class, that say where its files lie: its `PATH_FIELDS`."""
    if reference is None or not reference.startswith(PACKAGE):
        return ()
    return getattr(_resolve(reference), "PATH_FIELDS", ())


def brief(value: Any, most: int = 40) -> str:
    """JSON of a value for a sentence, cut to so many characters."""
    text = json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def _reference(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _file_of(thing: Any) -> dict[str, dict[str, str]]:
    """The file of a class or function that is not of this package, as `to_json` writes it."""
    if thing.__module__.split(".")[0] == PACKAGE:
        return {}
    file = user_files.file_of(thing)
    return {FILE_KEY: {"file": Path(file.path).name, "sha256": file.sha256}}


def _is_of_package(value: Any) -> bool:
    """Whether `from_json` can resolve every name in a value of `to_json`."""
    if isinstance(value, list):
        return all(map(_is_of_package, value))
    if not isinstance(value, dict):
        return True
    if "dict" in value:
        return all(map(_is_of_package, value["dict"].values()))
    names = [value[key] for key in CODE_KEYS if isinstance(value.get(key), str)]
    return all(name.partition(":")[0].split(".")[0] == PACKAGE for name in names) and all(
        map(_is_of_package, value.values())
    )


def _resolve(reference: str) -> Any:
    module_name, _, name = reference.partition(":")
    if module_name.split(".")[0] != PACKAGE:
        raise ValueError(f"config: '{reference}' is not part of {PACKAGE}; move it into the package to reload the run.")
    try:
        thing = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"config: '{reference}' is not there any more; use the commit beside the run's config.json."
        ) from error
    return thing
