"""Paths as people type them: `~` for the home folder, quoted or in a config; none where a shell variable is unset."""

import os
from pathlib import Path
import pwd
import reprlib


def home() -> Path | None:
    """The user's home folder: HOME, or that of the system's list of users; None where neither says one.

    A container's user often has neither (`docker run --user 1234`).
    """
    value = os.environ.get("HOME", "")
    if not os.path.isabs(value):
        try:
            value = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(value) if os.path.isabs(value) else None


def user_path(value: str | os.PathLike | object, what: str) -> Path:
    """The path that a user gave, with their home folder for a `~` and another's for `~name`.

    what: what errors call it, as "--workdir". A `~name` of nobody is a file of that name; `./~` is always one.

    Raises ValueError where it is empty, holds a zero byte, or no home folder is known.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ValueError(f"{what}: got a {type(value).__name__}, wanted a path, as text.")
    if not text.strip():
        raise ValueError(f"{what}: got the empty path {text!r}; give one (was a variable of the shell unset?).")
    if "\0" in text:
        raise ValueError(f"{what}: got {reprlib.repr(text)} with a zero byte, which no path has; check it.")
    user, _, rest = text.partition("/")
    if user == "~":
        folder = home()
        if folder is None:
            raise ValueError(f"{what}: got '{text}', but no home folder is known (HOME is not set); write it out.")
        return folder / rest.lstrip("/")
    if user.startswith("~"):
        try:
            return Path(pwd.getpwnam(user[1:]).pw_dir) / rest.lstrip("/")
        except (KeyError, UnicodeEncodeError):
            return Path(text)
    return Path(text)


def run_path(value: str | os.PathLike | object, what: str) -> Path:
    """As `user_path`, for a folder that holds checkpoints or will: its name must be UTF-8, where files go by any bytes.

    Raises ValueError where it is not, with those of the folders that it lies in.
    """
    path = user_path(value, what)
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what}: the name of '{ascii(str(path))[1:-1]}', or of a folder that it lies in, is not UTF-8, which "
            "checkpoints need; rename it."
        ) from error
    return path
