"""Ctrl-C: one line and exit code 130, wherever a command is.

A KeyboardInterrupt that Python raises in a callback of its garbage collector is lost, and JAX has such a callback:
about one of four was lost while JAX was imported, and the command went on; others became errors of numpy's or ended the
process in C++. So a command that has nothing to put away ends in the handler, and raises nothing.
"""

from collections.abc import Iterator
import contextlib
import functools
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

EXIT_CODE = 128 + signal.SIGINT
AGAIN_S = 0.2
"""Until a KeyboardInterrupt that nothing has begun to handle is raised once more."""
_SHOW_CURSOR = b"\x1b[?25h"  # progress bars hide it


def end_on_interrupt(name: str) -> None:
    """From here on Ctrl-C ends the process, for the program's own use: the handler stays until its very end.

    A Ctrl-C that was ignored before, as in the background of a script, stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, functools.partial(_end, name))


def _end(name: str, number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + f"{name}: interrupted.\n".encode())
    os._exit(EXIT_CODE)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Ctrl-C inside raises KeyboardInterrupt, again and again until a block that puts things away has begun.

    What leaves this because of it is a KeyboardInterrupt, whatever a library made of it.
    """
    before = signal.getsignal(signal.SIGINT)
    is_ours = before is signal.default_int_handler or isinstance(before, functools.partial) and before.func is _end
    if threading.current_thread() is not threading.main_thread() or not is_ours:
        yield
        return
    alarm, hook = signal.signal(signal.SIGALRM, _again), sys.unraisablehook
    came = threading.Event()
    sys.unraisablehook = functools.partial(_pass_over_interrupts, hook)
    signal.signal(signal.SIGINT, functools.partial(_first, came))
    try:
        yield
    except Exception:
        if came.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGALRM, alarm)
        sys.unraisablehook = hook


def _first(came: threading.Event, number: int, frame: FrameType | None) -> None:
    came.set()
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S, AGAIN_S)
    raise KeyboardInterrupt


def _again(number: int, frame: FrameType | None) -> None:
    if not _is_handled(sys.exception()):
        raise KeyboardInterrupt


def _is_handled(error: BaseException | None) -> bool:
    """Whether a KeyboardInterrupt is on its way up: blocks that put things away run, and are left alone."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _pass_over_interrupts(hook: Any, unraisable: Any) -> None:
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        hook(unraisable)
