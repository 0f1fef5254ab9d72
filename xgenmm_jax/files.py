"""Text files read alike on every machine, and files and folders that appear whole or not at all.

Nothing here depends on the locale: text is UTF-8, with or without a byte order mark, and a line ends at a newline alone
(`str.splitlines` also cuts at U+2028, U+0085 and form feeds, which stand inside JSON strings).
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import os
from pathlib import Path
import re
import shutil
import socket
import threading
from typing import Any


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of a UTF-8 file, without its byte order mark; line ends stay as they are.

    errors: "strict", or "replace" to read U+FFFD where bytes are no UTF-8.

    Raises ValueError that names the file and the first wrong byte.
    """
    data = Path(path).read_bytes()
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


def whole_json_lines(path: Path) -> list[Any]:
    """The values of a file of JSON lines that a kill may have torn: lines that are no JSON are left out."""
    values = []
    for line in read_lines(path, errors="replace"):
        try:
            values.append(parse_json(line))
        except ValueError:
            continue
    return values


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


def write_whole(path: Path, content: str | bytes | Callable[[Path], Any]) -> None:
    """Writes a file beside its place and renames it, so that a reader or a kill never meets half of it.

    content: text, written as UTF-8 with U+FFFD for lone surrogates; bytes; or a function that is given the path beside
    to write to. What is no file, /dev/stdout or a pipe, is written to and stays what it is.
    """
    path = Path(path)
    beside = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.partial")
    is_device = path.exists() and not path.is_file() and not path.is_dir()
    try:
        if callable(content):
            content(path if is_device else beside)
        else:
            with open(path if is_device else beside, "wb") as file:
                file.write(without_surrogates(content).encode() if isinstance(content, str) else content)
        if not is_device:
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def delete_unfinished(folder: Path) -> None:
    """Deletes what killed processes of this machine have left of `write_whole` in a folder."""
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

    replace: what lies at the path, and what a kill left beside it, is deleted. Otherwise the path must be free, and a
    folder beside it raises FileExistsError: another process may be writing into it.
    """
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


def partial_folder(path: Path) -> Path:
    """Where `whole_folder` writes."""
    return path.with_name(path.name + ".partial")
