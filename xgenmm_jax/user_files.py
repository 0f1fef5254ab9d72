"""Python files of a user's own: loaded by path, known by their bytes, and loaded again in worker processes."""

from collections.abc import Iterable, Iterator
import dataclasses
import hashlib
from importlib.machinery import SourceFileLoader
import importlib.util
from pathlib import Path
import sys
import types
from types import ModuleType
from typing import Any, NamedTuple


class UserFile(NamedTuple):
    """A module's file. sha256: of the bytes that were executed, in hexadecimal."""

    module: str
    path: str
    sha256: str


class _Loader(SourceFileLoader):
    """Executes the very bytes whose checksum it keeps: no cached bytecode, which Python finds by times.

    expected: the checksum without which nothing is executed.
    """

    def __init__(self, name: str, path: str, expected: str | None = None):
        super().__init__(name, path)
        self.sha256, self._expected = "", expected

    def get_code(self, fullname: str) -> types.CodeType:
        data = self.get_data(self.path)
        self.sha256 = hashlib.sha256(data).hexdigest()
        if self._expected not in (None, self.sha256):
            raise ValueError(
                f"'{self.path}' changed while the run was starting (sha256 {self._expected[:12]} before, "
                f"{self.sha256[:12]} now); start the command again."
            )
        return self.source_to_code(data, self.path)


def load(name: str, path: Path, sha256: str | None = None) -> ModuleType:
    """Executes a Python file as the module `name`, which it stays until another file is loaded under that name.

    Raises ValueError, before anything is executed, where a checksum is wanted and the file has another.
    """
    loader = _Loader(name, str(path), sha256)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def load_again(files: Iterable[UserFile]) -> None:
    """In another process: the modules that `loaded_for` named, before anything that needs them is unpickled."""
    for file in files:
        load(file.module, Path(file.path), file.sha256)


def file_of(thing: Any) -> UserFile:
    """The file in which a class or function stands, as it was loaded, or, if Python imported it, as it lies there now.

    Raises ValueError where it stands in none, as what was typed into an interpreter.
    """
    module = sys.modules.get(thing.__module__)
    loader = getattr(module, "__loader__", None)
    if isinstance(loader, _Loader):
        return UserFile(thing.__module__, loader.path, loader.sha256)
    path = getattr(module, "__file__", None)
    if path is None or not Path(path).is_file():
        raise ValueError(
            f"config: {thing.__qualname__} of '{thing.__module__}' stands in no file, so that a run could not be "
            "continued; write it into the experiment's file, or into one beside it."
        )
    return UserFile(thing.__module__, path, hashlib.sha256(Path(path).read_bytes()).hexdigest())


def loaded_for(value: Any) -> tuple[UserFile, ...]:
    """The files that were loaded by path and whose classes or functions stand anywhere in a config."""
    modules = {thing.__module__: thing for thing in _code_in(value)}
    by_path = [name for name in modules if isinstance(getattr(sys.modules.get(name), "__loader__", None), _Loader)]
    return tuple(file_of(modules[name]) for name in by_path)


def _code_in(value: Any) -> Iterator[Any]:
    """Classes and functions of a config's values."""
    if isinstance(value, type | types.FunctionType):
        yield value
        return
    yield type(value)
    parts: Iterable[Any] = ()
    if dataclasses.is_dataclass(value):
        parts = (getattr(value, field.name) for field in dataclasses.fields(value))
    elif isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, dict):
        parts = value.values()
    for part in parts:
        yield from _code_in(part)
