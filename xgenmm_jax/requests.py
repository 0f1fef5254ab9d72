"""Requests through fsspec's file systems that end: with an answer, or with an error after a time.

A request is over after TRIES tries, or TIMEOUT_S seconds for all of them. Where nothing answers, the thread that waits
is left behind. fsspec's threads do not survive a fork: processes that read must be spawned.
"""

from collections.abc import Callable
from concurrent.futures import Future
import os
import random
import threading
import time
from typing import Any, NamedTuple, TypeVar

TIMEOUT_S = 60.0
"""Seconds after which a request is given up, with all its tries and the waits between them."""

TRIES = 3

BACKOFF_S = 1.0
"""Seconds before the second try; before each further one twice as many. Hosts wait between half and 1.5 times that."""

BUCKETS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs"}
"""Protocols for which the extra `buckets` has the package."""

T = TypeVar("T")
_jitter = random.Random()


class RequestError(ValueError):
    """What is wrong with a request, in one sentence; no further try is made."""


class FailedError(Exception):
    """No try gave an answer; the message is the last cause."""


_FILE_SYSTEMS: dict[tuple[int, str, str], Any] = {}
_opening = threading.Lock()


class Request(NamedTuple):
    """An object's file system and its path there, for one try of some seconds."""

    file_system: Any
    path: str
    seconds: float

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """What a method of the file system says of the path."""
        fs = self.file_system
        if fs.async_impl and hasattr(fs, f"_{method}"):
            return self.call(f"_{method}", self.path, *arguments, **options)
        return getattr(fs, method)(self.path, *arguments, **options)

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """What an asynchronous method says. It runs in fsspec's event loop, and is cancelled when its time is over."""
        import fsspec.asyn

        fs = self.file_system
        return fsspec.asyn.sync(fs.loop, getattr(fs, method), *arguments, timeout=self.seconds, **options)


def answer(url: str, question: Callable[[Request], T], doing: str = "read", seconds: float | None = None) -> T:
    """What `question` gives; one try may take all of the time. seconds: other than TIMEOUT_S for all tries.

    Raises FileNotFoundError, and RequestError where no try gives an answer.
    """
    seconds = TIMEOUT_S if seconds is None else seconds
    try:
        return tried(url, question, seconds, seconds, TRIES)
    except FailedError as error:
        raise unanswered(url, doing, str(error)) from error


def tried(url: str, question: Callable[[Request], T], total_s: float, try_s: float, tries: int) -> T:
    """What `question` gives in one of so many tries; each takes `try_s` at most, all of them `total_s`.

    Raises FileNotFoundError, RequestError where a package is missing, and FailedError where no try gives an answer.
    """
    started, cause = time.monotonic(), ""
    end = started + total_s
    for number in range(tries):
        if number:
            wait = BACKOFF_S * 2 ** (number - 1) * _jitter.uniform(0.5, 1.5)
            time.sleep(max(0.0, min(wait, end - time.monotonic())))
        seconds = min(try_s, end - time.monotonic())
        if seconds <= 0:
            break
        try:
            return _within(seconds, url, question)
        except (FileNotFoundError, RequestError, MemoryError):
            raise
        except TimeoutError:
            cause = ""
        except Exception as error:
            cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
            if _is_refusal(error):
                break
    raise FailedError(cause or f"no answer in {time.monotonic() - started:.3g} s")


def unanswered(url: str, doing: str, cause: str) -> RequestError:
    """The error of a request without an answer."""
    return RequestError(f"'{url}' cannot be {doing} ({cause}); check the network, the permissions and the name.")


def _within(seconds: float, url: str, question: Callable[[Request], T]) -> T:
    """The answer of a thread that is left behind when its time is over. Raises TimeoutError."""
    given: Future[T] = Future()

    def run() -> None:
        try:
            fs = _file_system(url)
            given.set_result(question(Request(fs, fs._strip_protocol(url), seconds)))
        except BaseException as error:
            given.set_exception(error)

    threading.Thread(target=run, daemon=True, name=f"request {url[:60]}").start()
    return given.result(seconds)


def _file_system(url: str) -> Any:
    """fsspec's file system of a URL, one a process: fsspec itself would make one a thread."""
    import fsspec  # here, and in `call`: it takes a third of a second, which is nobody's who has no bucket
    import fsspec.utils

    protocol = fsspec.utils.get_protocol(url)
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise RequestError(f"no package reads '{url}' ({error}); wanted gs://, s3:// or a path.") from error
    except ImportError as error:
        if protocol in BUCKETS:
            remedy = f"{BUCKETS[protocol]} is not installed: pip install xgenmm_jax[buckets]"
        else:
            remedy = f"a package is not installed ({error})"
        raise RequestError(f"'{url}' cannot be opened, {remedy}.") from error
    options = kind._get_kwargs_from_urls(url)
    key = (os.getpid(), protocol, repr(sorted(options.items())))
    with _opening:
        if key not in _FILE_SYSTEMS:
            # Listings are kept by `remote`, with a bound.
            _FILE_SYSTEMS[key] = kind(**options, use_listings_cache=False, skip_instance_cache=True)
        return _FILE_SYSTEMS[key]


def _is_refusal(error: Exception) -> bool:
    """Whether the same request would be refused again: no permission, behind the end, not of the form wanted."""
    code = str(getattr(error, "code", ""))
    is_denied = (
        isinstance(error, PermissionError) or code in ("401", "403", "416") or str(error).startswith("Forbidden")
    )
    return is_denied or isinstance(error, ValueError | TypeError | NotImplementedError)
