"""One sentence for what goes wrong: mistyped names, the system's refusals, devices that are not there."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import difflib
import errno
import functools
import logging
import os
import re
import sys
from typing import Any

from xgenmm_jax.paths import Path

MOST = 3
"""Names that are suggested."""

_FULL = "free some, or choose a folder on another disk"
_RIGHTS = "choose another folder, or have its rights changed"
REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "choose a folder on another disk, or raise the limit of files (ulimit -f)",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "choose a folder that can be written to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path, a part of which is a file",
    errno.EISDIR: "give a file",
    errno.EEXIST: "choose another path, or delete it",
    errno.ELOOP: "check its links, which lead to each other",
    errno.ENAMETOOLONG: "give a shorter one",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "end other programs, the system has too many open files",
    errno.EIO: "look at the disk and at the system's log",
    errno.ESTALE: "mount the network's folder again",
}
"""What to do about the system's errors."""
_OF_BUCKETS = {"gcsfs", "s3fs", "aiohttp", "google", "botocore", "aiobotocore"}
"""Packages."""
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)
"""Errors of a write, which knows no path."""
_TENSORSTORE = re.compile(r"""(?:local file |Failed \w+: )"([^"]+)".*\[os_error_code='(\d+)'\]""", re.DOTALL)
"""How tensorstore tells them, under checkpoints: as ValueErrors and others."""


def line(command: str, sentence: str) -> str:
    """What is printed of an error: "xgenmm train: data: no file ...", and of `xgenmm data` "xgenmm data: no file ...".

    A sentence whose subject is the command, or one of its own commands ("data show: ..."), names it already.
    """
    if re.match(rf"{re.escape(command)}( [a-z]+)?: ", sentence):
        return f"xgenmm {sentence}"
    return f"xgenmm {command}: {sentence}"


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Names the folder that was written to in errors of the system that name none.

    The libraries under checkpoints raise such an error, and print its trace in each of their threads too, and another
    for each write that ends behind it: raised is enough.
    """
    logger, hooks = logging.getLogger("absl"), (sys.excepthook, sys.unraisablehook)
    logger.addFilter(_has_no_trace)
    sys.excepthook = functools.partial(_pass_over_late_writes, hooks[0])
    sys.unraisablehook = functools.partial(_pass_over_late_writes, hooks[1])
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _WRITING:
            error.filename = str(folder)
        raise  # and the threads may print later yet
    logger.removeFilter(_has_no_trace)
    sys.excepthook, sys.unraisablehook = hooks


def _has_no_trace(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _pass_over_late_writes(hook: Callable[..., Any], *arguments: Any) -> None:
    """For both of Python's hooks: (type, error, trace), or an object with the error in it."""
    error = arguments[1] if len(arguments) == 3 else arguments[0].exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        hook(*arguments)


def of_the_system(error: Exception) -> OSError | None:
    """The system's error that tensorstore tells in the text of another; None where it tells none."""
    match = _TENSORSTORE.search(str(error))
    if match is None:
        return None
    return OSError(int(match[2]), os.strerror(int(match[2])), match[1])


def os_sentence(error: OSError) -> str:
    """"'runs/a/config.json': Permission denied; ..." with the remedy; other words of an error as they are."""
    if error.errno is None or error.strerror is None:
        return str(error)
    path = error.filename2 if error.filename2 is not None else error.filename
    where = "" if path is None else f"'{os.fsdecode(path) if isinstance(path, str | bytes) else path}': "
    remedy = REMEDIES.get(error.errno)
    return f"{where}{error.strerror}{'' if remedy is None else f'; {remedy}'}."


def bucket_sentence(error: Exception) -> str | None:
    """What to tell of an error of the libraries that speak with buckets; None where the error is another's."""
    if type(error).__module__.partition(".")[0] not in _OF_BUCKETS:
        return None
    reason = " ".join(str(error).split())[:300].rstrip(".")
    return f"bucket: {type(error).__name__}: {reason}; check the network, the permissions and the name."


def devices_sentence(error: Exception, seen: Sequence[Path], has_plugin: bool) -> str | None:
    """What to tell where JAX cannot use the devices that it was asked for; None where the error is another.

    seen: the nodes of accelerators in /dev. has_plugin: whether JAX has one beside the CPU's.
    """
    # With JAX_PLATFORMS=cuda and nothing of CUDA, JAX 0.10 fails in an assertion without a word.
    match = re.search(r"Unable to initialize backend .*?: (.*)|(Unknown backend.*)", str(error), re.DOTALL)
    if match is None and not (isinstance(error, AssertionError) and not str(error) and os.environ.get("JAX_PLATFORMS")):
        return None
    reason = "" if match is None else re.sub(r"\((set JAX_PLATFORMS|you may need).*", "", match[1] or match[2])
    reason = " ".join(reason.split()).rstrip(".")
    because = f" ({reason})" if reason else ""
    there = f"this machine has {', '.join(map(str, seen[:MOST]))}" if seen else "this machine shows no GPU and no TPU"
    if not has_plugin:
        there += ", and JAX is installed without CUDA"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        there += f", and CUDA_VISIBLE_DEVICES='{hidden}' hides all GPUs"
    asked = os.environ.get("JAX_PLATFORMS")
    if not asked:
        return f"devices: JAX does not start{because}; {there}; JAX_PLATFORMS=cpu computes without it."
    return (
        f"devices: JAX_PLATFORMS={asked} asks for what JAX does not find{because}; {there}; leave JAX_PLATFORMS away, "
        "or set it to cpu (JAX for GPUs or TPUs: make ACCELERATOR=cuda or tpu)."
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """"did you mean a or b", or the whole list where nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=MOST, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}"
    return f"wanted one of {', '.join(known)}"
