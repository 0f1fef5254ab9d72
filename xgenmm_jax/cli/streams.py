"""stdout and stderr whatever stands behind them: a pipe whose reader has left, a terminal that is gone, nothing."""

from collections.abc import Iterator
import contextlib
import errno
import io
import os
import shutil
import signal
import sys
from typing import Any

READER_GONE = 128 + signal.SIGPIPE
"""Exit code of a command whose output is not read to its end, `xgenmm plan ... | head`: that of other programs."""


@contextlib.contextmanager
def usable(lasting: bool = False) -> Iterator[None]:
    r"""The standard streams take any text while this is entered, and stderr never ends what writes to it.

    What the terminal's encoding lacks is written as "\xe9". A stream that was closed leads nowhere. Where stdout's
    reader has left, the command ends with `READER_GONE`; with `lasting`, as a run of hours needs it, what it writes is
    dropped from there on and it goes on.

    Raises OSError at the end where stdout cannot be written, for instance to a full disk.
    """
    before = sys.stdout, sys.stderr
    out, err = (_opened(stream, number) for number, stream in enumerate(before, start=1))
    for stream in (out, err):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (_Dropping if lasting else _Ending)(out), _Dropping(err)
    try:
        yield
    finally:
        ours, sys.stdout, sys.stderr = sys.stdout, *before
        # A progress bar that was interrupted may have left its own.
        if isinstance(ours, _Dropping):
            ours.flush()


def _opened(stream: Any, number: int) -> Any:
    """The stream; for one that was closed before the process began, as by `>&-`, one into nothing.

    Its number is taken too: a file of ours that had it would get what libraries write there.
    """
    if stream is not None:
        return stream
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(number)
    except OSError:
        os.dup2(nowhere, number)
    if nowhere != number:
        os.close(nowhere)
    return open(os.devnull, "w", encoding="utf-8")


class _Dropping:
    """A stream that lets go of what it cannot write to."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fail(self, error: OSError) -> None:
        """What is still to be written, by Python's exit and by libraries too, goes nowhere."""
        try:
            number = self._stream.fileno()
        except (OSError, ValueError):  # no file of the system's: a test's, a notebook's
            raise error from None
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


class _Ending(_Dropping):
    """A stream whose command ends where nobody reads it."""

    def _fail(self, error: OSError) -> None:
        super()._fail(error)
        if error.errno == errno.EPIPE:
            raise SystemExit(READER_GONE) from None
        error.filename = "stdout"
        raise error


LEAST_COLUMNS = 40
"""Narrower terminals are written to as if they had so many: help never ends where it finds room for no word."""


def mend_size() -> None:
    """A terminal's size in the environment that is none, or too narrow, is set right; rich and tyro read it."""
    for name in ("COLUMNS", "LINES"):
        given = os.environ.get(name, "")
        if not (given.isascii() and given.isdecimal() and int(given[:9]) > 0):
            os.environ.pop(name, None)
    if shutil.get_terminal_size().columns < LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(LEAST_COLUMNS)
