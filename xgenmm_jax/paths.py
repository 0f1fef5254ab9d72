"""Paths as people type them: `~` for the home folder, quoted or in a config; none where a shell variable is unset.

`gs://bucket/folder` is a path too, a `BucketPath`, which has the methods of `pathlib.Path` that are used here. What
differs between a disk and a bucket is behind the functions of `files.py`.
"""

from collections.abc import Iterator
import importlib.util
import logging
import os
import pathlib
import pwd
import re
import reprlib
import stat

from etils.epath.gpath import PosixGPath

from xgenmm_jax import requests


class BucketPath(PosixGPath):
    """An `epath.Path` in a bucket, for orbax too. `pathlib.Path(path)` of one is wrong: "/gs/bucket/...".

    Questions about it end (`requests.py`): they raise RequestError, a ValueError, where the bucket does not answer.
    """

    def absolute(self) -> "BucketPath":
        return self  # epath's own is in the working directory

    def resolve(self, strict: bool = False) -> "BucketPath":
        return self

    def _type(self) -> str | None:
        """"file", "directory", or None where nothing is there; one request and not epath's three."""
        try:
            return requests.answer(str(self), lambda request: request.ask("info")["type"])
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        return self._type() is not None

    def is_file(self) -> bool:
        return self._type() == "file"

    def is_dir(self) -> bool:
        return self._type() == "directory"

    def iterdir(self) -> Iterator["BucketPath"]:
        names = requests.answer(str(self), lambda request: request.ask("ls", detail=False), "listed")
        name_of_self = str(self).partition("://")[2]
        for name in (name.rstrip("/") for name in names):
            if name != name_of_self:  # what stands for the folder itself
                yield self / name.rpartition("/")[2]

    def glob(self, pattern: str) -> Iterator["BucketPath"]:
        def question(request: requests.Request) -> list[str]:
            return request.call("_glob", f"{request.path.rstrip('/')}/{pattern}")

        protocol = str(self).partition("://")[0]
        for name in requests.answer(str(self), question, "listed"):
            yield BucketPath(f"{protocol}://{name.rstrip('/')}")

    def read_bytes(self) -> bytes:
        return requests.answer(str(self), lambda request: request.ask("cat_file"))

    def read_text(self, encoding: str | None = None) -> str:
        return self.read_bytes().decode("utf-8" if encoding is None else encoding)

    def stat(self) -> os.stat_result:
        """Its size and the second of its last change. Raises FileNotFoundError."""
        info = requests.answer(str(self), lambda request: request.ask("info"))
        kind = stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG
        changed = info.get("mtime") or info.get("LastModified")
        seconds = 0 if changed is None else int(changed.timestamp())
        return os.stat_result((kind | 0o644, 0, 0, 0, 0, 0, info["size"] or 0, 0, seconds, 0))


Path = pathlib.Path | BucketPath
"""A path on a disk or in a bucket, for annotations."""

_OTHER_REPOSITORIES = ("datasets", "spaces")
"""What a URL of the hub begins with that names no model."""

BUCKETS = {"gs": "gcsfs", "s3": "s3fs"}
"""Protocols of buckets, and the packages of the extra `buckets` that speak them."""

_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(\w[\w./-]*))?", re.ASCII)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def home() -> pathlib.Path | None:
    """The user's home folder: HOME, or that of the system's list of users; None where neither says one.

    A container's user often has neither (`docker run --user 1234`).
    """
    value = os.environ.get("HOME", "")
    if not os.path.isabs(value):
        try:
            value = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return pathlib.Path(value) if os.path.isabs(value) else None


def user_path(value: str | os.PathLike | object, what: str, is_opened: bool = True) -> Path:
    """The path that a user gave, with their home folder for a `~` and another's for `~name`; or one in a bucket.

    what: what errors call it, as "--workdir". A `~name` of nobody is a file of that name; `./~` is always one.
    is_opened: False where it is only kept, so that the package for its bucket may be missing. Whether there is such a
    bucket is asked by `files.check_bucket`.

    Raises ValueError where it is empty, holds a zero byte, or no home folder is known; and where it is a URL of another
    kind than BUCKETS, or the package for its kind is missing.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ValueError(f"{what}: got a {type(value).__name__}, wanted a path, as text.")
    if not text.strip():
        raise ValueError(f"{what}: got the empty path {text!r}; give one (was a variable of the shell unset?).")
    if "\0" in text:
        raise ValueError(f"{what}: got {reprlib.repr(text)} with a zero byte, which no path has; check it.")
    if _URL.match(text):
        return _bucket_path(text, what, is_opened)
    user, _, rest = text.partition("/")
    if user == "~":
        folder = home()
        if folder is None:
            raise ValueError(f"{what}: got '{text}', but no home folder is known (HOME is not set); write it out.")
        return folder / rest.lstrip("/")
    if user.startswith("~"):
        try:
            return pathlib.Path(pwd.getpwnam(user[1:]).pw_dir) / rest.lstrip("/")
        except (KeyError, UnicodeEncodeError):
            return pathlib.Path(text)
    return pathlib.Path(text)


def hub_name(text: str) -> tuple[str, str | None] | None:
    """Repository and revision of `org/model` or `org/model@revision` (`hub.py`); None where a text is no such name."""
    match = _HUB_NAME.fullmatch(text)
    # ".." in a revision would be one in a path of the cache; the hub itself has no such name.
    return None if match is None or ".." in text or "--" in match[1] else (match[1], match[2])


def _bucket_path(text: str, what: str, is_opened: bool) -> BucketPath:
    protocol, rest = _URL.match(text)[1], text.partition("://")[2]
    forms = " or ".join(f"{name}://BUCKET/..." for name in BUCKETS)
    named = hub_name(rest) if protocol == "hf" else None
    if named is not None and named[0].partition("/")[0] not in _OTHER_REPOSITORIES:
        repo, revision = named
        at = "" if revision is None else f" --revision {revision}"
        raise ValueError(
            f"{what}: got '{text}', a model of the hub, wanted a path; make it a folder first: xgenmm convert {text} "
            f"RUN, or hf download {repo}{at}."
        )
    if protocol not in BUCKETS:
        raise ValueError(f"{what}: got '{text}', wanted {forms}, or a path of a file system.")
    bucket, *names = rest.split("/")
    if not bucket or ".." in names:
        raise ValueError(f"{what}: got '{text}', wanted {forms}, without '..'.")
    if not is_opened:
        return BucketPath(text)
    if importlib.util.find_spec(BUCKETS[protocol]) is None:
        raise ValueError(
            f"{what}: '{text}' cannot be opened, {BUCKETS[protocol]} is not installed: pip install xgenmm_jax[buckets]"
        )
    import fsspec.config  # slow, as in `requests.py`

    # epath keeps what a folder held when it was first listed, which others change: tensorstore, and other hosts. It
    # takes TensorFlow for buckets where that happens to be installed.
    for name in ("gs", "gcs", "s3"):
        fsspec.config.conf.setdefault(name, {})["use_listings_cache"] = False
    os.environ.setdefault("EPATH_USE_TF", "false")
    # Errors are raised; these loggers write the same as a page of stack.
    for name in ("gcsfs", "google.auth"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return BucketPath(text)


def is_in_bucket(path: Path | str) -> bool:
    """Whether it is a path in a bucket, or text that `user_path` makes one of."""
    return isinstance(path, BucketPath) or isinstance(path, str) and _URL.match(path) is not None


def local_path(value: str | os.PathLike | object, what: str) -> pathlib.Path:
    """As `user_path`, for what must lie on a disk: code, and files that libraries open by themselves.

    Raises ValueError for a URL, too.
    """
    if isinstance(value, str | os.PathLike) and _URL.match(str(os.fspath(value))):
        raise ValueError(
            f"{what}: got '{os.fspath(value)}', wanted a path of a file system; copy it to a disk, or mount the bucket."
        )
    return user_path(value, what)


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
