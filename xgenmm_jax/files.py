"""Text files read alike on every machine, and files and folders that appear whole or not at all, on a disk or a bucket.

A bucket has neither renames nor appending, and a folder there is no more than the start of its objects' names. So an
object is written in one request; a folder holds the object UNFINISHED while it is being written (`whole_folder`).

Nothing here depends on the locale: text is UTF-8, with or without a byte order mark, and a line ends at a newline alone
(`str.splitlines` also cuts at U+2028, U+0085 and form feeds, which stand inside JSON strings).
"""

from collections.abc import Callable, Iterator
import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
import threading
from typing import Any

from xgenmm_jax import buckets
from xgenmm_jax.paths import Path, is_in_bucket

UNFINISHED = "UNFINISHED"
"""Object in a folder of a bucket that is being written, or that a kill left half-written."""

_BLOCK_BYTES = 16 * 2**20


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of a UTF-8 file, without its byte order mark; line ends stay as they are.

    errors: "strict", or "replace" to read U+FFFD where bytes are no UTF-8.

    Raises ValueError that names the file and the first wrong byte.
    """
    data = path.read_bytes() if is_in_bucket(path) else pathlib.Path(path).read_bytes()
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        coded = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        raise ValueError(
            f"'{path}' is not UTF-8 (byte 0x{data[error.start]:02x} at {error.start:,}), perhaps {coded}; save it as "
            "UTF-8, for instance with iconv."
        ) from error


def read_lines(path: Path, errors: str = "strict") -> list[str]:
    """The lines of a UTF-8 file without their ends, "\\n" or "\\r\\n"; no empty line follows the last newline."""
    lines = read_text(path, errors).split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; lone surrogates, which UTF-8 cannot hold, become U+FFFD.

    Raises ValueError where it is no JSON, or nested too deeply to be read.
    """
    # An escape is the only way for a surrogate into JSON that was UTF-8.
    marker = b"\\u" if isinstance(text, bytes) else "\\u"
    try:
        value = json.loads(text)
        # It takes more of the stack than the parser does.
        return _without_surrogates(value) if marker in text else value
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path, remedy: str = "is it truncated?") -> Any:
    """The value in a JSON file. Raises ValueError that names the file and the remedy where it holds none."""
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"'{path}' is not JSON ({error}); {remedy}") from error


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of a file of JSON lines; empty lines are passed over.

    Raises ValueError that names file and line where one is no JSON.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                raise ValueError(f"'{path}' line {number} is not JSON ({error}); is it truncated?") from error


def whole_json_lines(path: Path, joined: bool = True) -> list[Any]:
    """The values of a file of JSON lines that a kill may have torn: lines that are no JSON are left out.

    joined: with those of its other `parts`. A file that is not there has none.
    """
    values = []
    for part in parts(path) if joined else [path]:
        for line in read_lines(part, errors="replace"):
            try:
                values.append(parse_json(line))
            except ValueError:
                continue
    return values


def part(path: Path, number: int) -> Path:
    """The second part of "metrics.jsonl" is "metrics.jsonl.2"; the first is the file itself."""
    return path if number == 1 else path.with_name(f"{path.name}.{number}")


def parts(path: Path) -> list[Path]:
    """The files that a file of lines consists of, those that are there (`appending.py`)."""
    numbered = (part(path, number) for number in itertools.count(1))
    return list(itertools.takewhile(lambda one: one.is_file(), numbered))


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate; two that make a character become it."""
    if text.isascii():
        return text
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def write_whole(path: Path, content: str | bytes | Callable[[pathlib.Path], Any]) -> None:
    """Writes a file beside its place and renames it, so that a reader or a kill never meets half of it.

    content: text, written as UTF-8 with U+FFFD for lone surrogates; bytes; or a function that is given the path beside
    to write to: for a bucket one on the disk, from where it is uploaded. What is no file, /dev/stdout or a pipe, is
    written to and stays what it is.
    """
    data = without_surrogates(content).encode() if isinstance(content, str) else content
    if is_in_bucket(path):
        if callable(data):
            with tempfile.TemporaryDirectory() as folder:
                beside = pathlib.Path(folder, path.name)
                data(beside)
                buckets.upload(beside, path)
        else:
            buckets.write(path, data)
        return
    path = pathlib.Path(path)
    beside = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.partial")
    is_device = path.exists() and not path.is_file() and not path.is_dir()
    try:
        if callable(data):
            data(path if is_device else beside)
        else:
            with open(path if is_device else beside, "wb") as file:
                file.write(data)
        if not is_device:
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def delete_unfinished(folder: pathlib.Path) -> None:
    """Deletes what killed processes of this machine have left of `write_whole` in a folder; a bucket has nothing so."""
    name = re.compile(rf".*\.{re.escape(socket.gethostname())}-(\d+)-\d+\.partial")
    for path in folder.glob("*.partial"):
        if (match := name.fullmatch(path.name)) and not _is_running(int(match[1])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


@contextlib.contextmanager
def whole_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """A new folder beside a path, renamed to it at the end and deleted where something fails.

    In a bucket it is the folder itself, which holds UNFINISHED from before its first file to after its last one: who
    reads it asks `check_whole`. It is deleted where something fails, too.

    replace: what lies at the path, and what a kill left beside it, is deleted. Otherwise the path must be free, and a
    folder beside it, or objects at it, raise FileExistsError: another process may be writing there.
    """
    if is_in_bucket(path):
        with _whole_folder_in_bucket(path, replace) as folder:
            yield folder
        return
    partial = partial_folder(path)
    if replace:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def _whole_folder_in_bucket(path: Path, replace: bool) -> Iterator[Path]:
    said = f"{socket.gethostname()} pid {os.getpid()} is writing this folder, or was killed\n".encode()
    if replace:
        buckets.write(path / UNFINISHED, said)
        for name in buckets.tree(path):
            if name != UNFINISHED:
                buckets.delete(path / name)
    elif buckets.tree(path) or buckets.write_if(path / UNFINISHED, said, None) is None:
        raise FileExistsError(f"'{path}' is there already")
    try:
        yield path
        buckets.delete(path / UNFINISHED)
    except BaseException:
        buckets.delete_tree(path)
        raise


def partial_folder(path: Path) -> Path:
    """Where `whole_folder` writes."""
    return path if is_in_bucket(path) else path.with_name(path.name + ".partial")


def is_unfinished(folder: Path) -> bool:
    """Whether `whole_folder` has not come to its end in a folder of a bucket, or of a copy of one."""
    return (folder / UNFINISHED).is_file()


def check_whole(folder: Path, what: str) -> None:
    """Raises ValueError where a folder `is_unfinished`. what: what the error begins with."""
    if is_unfinished(folder):
        raise ValueError(
            f"{what}: '{folder}' was not written to its end ({UNFINISHED} lies in it); wait for it, or delete the "
            "folder and write it again."
        )


def tree(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder by its name there, "a/b.bin", sorted as paths; {} where there is no folder."""
    if is_in_bucket(folder):
        return buckets.tree(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


def size(path: Path) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    return buckets.size(path) if is_in_bucket(path) else path.stat().st_size


def blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, some 16 MiB at a time."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def are_equal(first: Path, second: Path) -> bool:
    """Whether two files hold the same bytes. Raises FileNotFoundError."""
    if size(first) != size(second):
        return False
    return all(one == other for one, other in zip(blocks(first), blocks(second), strict=True))


def copy(source: Path, target: Path) -> None:
    """A file to a place on a disk or in a bucket, where it appears whole."""
    if is_in_bucket(source) and is_in_bucket(target) and source.parts[1] == target.parts[1]:
        buckets.copy(source, target)
    elif is_in_bucket(source):
        write_whole(target, lambda beside: buckets.download(source, beside))
    elif is_in_bucket(target):
        buckets.upload(source, target)
    else:
        write_whole(target, lambda beside: shutil.copyfile(source, beside))


def make_folder(path: Path) -> None:
    """Makes a folder with those that it lies in; a bucket has none."""
    if not is_in_bucket(path):
        path.mkdir(parents=True, exist_ok=True)


def check_bucket(path: Path, what: str) -> None:
    """Raises ValueError in a minute where a bucket is not there or does not answer; a disk is not asked."""
    if is_in_bucket(path):
        buckets.check(path, what)


@contextlib.contextmanager
def on_disk(path: Path) -> Iterator[pathlib.Path]:
    """A file for what reads from a disk alone: itself, or a copy of an object that goes afterwards."""
    if not is_in_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder, path.name)
        buckets.download(path, local)
        yield local


def delete_tree(folder: Path) -> None:
    """Deletes a folder with what it holds; on a disk as far as that can be."""
    if is_in_bucket(folder):
        buckets.delete_tree(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Renames a file or a folder. In a bucket each object is copied, none deleted before all are there."""
    if not is_in_bucket(source):
        source.rename(target)
        return
    names = buckets.tree(source)
    for name in names:
        buckets.copy(source / name, target / name)
    if names:
        buckets.delete_tree(source)
    else:
        buckets.copy(source, target)
        buckets.delete(source)
