"""A judge model behind an address of OpenAI's form: asked, asked again where it does not answer, its replies kept.

    XGENMM_JUDGE_KEY=... xgenmm evaluate RUN --tasks mmvet,mmstar --data DIR --judge https://api.openai.com/v1 \\
        --judge-model gpt-4-turbo
    xgenmm score RUN/evaluation/paper/mmvet.jsonl --judge http://127.0.0.1:8000/v1 --judge-model NAME

Any server that takes POST .../chat/completions will do, one of your own too, which needs no key. What judges are asked
is in `tasks.judging`. The key is an argument alone: it stands in no file and in no message. Replies lie in
NAME.judge.jsonl beside the predictions, scores in NAME.judged.scores.json beside those by rules.

Judges differ: the same answers to MM-Vet got 42 from one and 50 from another. So the model's name and the prompt's
fingerprint stand beside each number. docs/reference/evaluation.md, Judges.
"""

from collections.abc import Callable, Iterable, Sequence
import concurrent.futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
import hashlib
import http.client
import json
import os
import random
import ssl
import threading
import time
from typing import Any, TypeVar
import urllib.error
import urllib.parse
import urllib.request

from xgenmm_jax import appending, files
from xgenmm_jax.paths import Path, is_in_bucket

TIMEOUT_S = 60.0
"""Seconds of one try, after which it is given up."""
TRIES = 5
BACKOFF_S = 1.0
"""Seconds before the second try, before each further one twice as many; hosts wait between half and 1.5 times that."""
LONGEST_WAIT_S = 60.0
"""However long a server asks to be left alone."""
MOST_SENT, MOST_READ = 2**18, 2**22
"""Characters of a prompt, bytes of a reply."""
MOST_TOKENS = 512
"""Of a reply; what is asked for is a number, a letter or a word."""
THREADS = 8
"""Requests at once."""

_PATH = "/chat/completions"
_AGAIN = {408, 409, 425, 429}
"""Refusals, beside those from 500 on, that another try may not meet."""
_SHOWN = 200
"""Characters of a server's own words in a message."""
_jitter = random.Random()

T = TypeVar("T")
R = TypeVar("R")


class JudgeError(ValueError):
    """The judge cannot be asked; the message is one sentence with the remedy."""


class _Failed(Exception):
    """A try without a reply that another try may bring. wait_s: as long as the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0):
        super().__init__(reason)
        self.wait_s = wait_s


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would ask the other address without the prompt, and tell it the key."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


@dataclass(frozen=True)
class Server:
    """Where a judge model is asked.

    url: up to `/v1` or to `/chat/completions`, http or https. model: its name there. key: sent as a bearer token, ""
    sends none. Raises ValueError for an address or a key that cannot be one.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = TIMEOUT_S
    tries: int = TRIES
    backoff_s: float = BACKOFF_S

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            has_password = parts.username is not None or parts.password is not None
        except ValueError:
            is_address = has_password = False
        if has_password:  # and the message does not repeat it
            raise ValueError("judge: the address holds a name or password; give the key by its variable.")
        if not is_address or any(character <= " " or character > "~" for character in self.url):
            raise ValueError(f"judge: got the address {self.url!r}; wanted one as http://127.0.0.1:8000/v1.")
        if not self.model:
            raise ValueError("judge: got no model; give the name that the server knows it by.")
        # http.client would put a key that is no header into its error.
        if any(not "!" <= character <= "~" for character in self.key):
            raise ValueError("judge: the key has a space, a line end or another character that no key has.")

    @property
    def address(self) -> str:
        """Where requests go."""
        parts = urllib.parse.urlsplit(self.url)
        path = parts.path.rstrip("/")
        return parts._replace(path=path if path.endswith(_PATH) else path + _PATH, fragment="").geturl()

    @property
    def shown(self) -> str:
        """The address in messages, without what stands behind a question mark."""
        return urllib.parse.urlsplit(self.address)._replace(query="").geturl()

    def ask(self, prompt: str, temperature: float, stop: threading.Event) -> str:
        """What the model replies, "" where it says nothing; it is asked up to `tries` times.

        stop: ends waits and further tries. Raises JudgeError where no try brings a reply, or the prompt is too long.
        """
        if len(prompt) > MOST_SENT:
            raise JudgeError(f"judge: a prompt has {len(prompt):,} characters, more than {MOST_SENT:,}; shorten it.")
        for number in range(self.tries):
            try:
                return self._try(prompt, temperature)
            except _Failed as failed:
                reason, asked_s = str(failed), failed.wait_s
            wait_s = max(asked_s, self.backoff_s * 2**number * _jitter.uniform(0.5, 1.5))
            if number + 1 < self.tries and stop.wait(min(wait_s, LONGEST_WAIT_S)):
                break
        raise JudgeError(
            f"judge: '{self.shown}' gives no reply ({reason}, {self.tries} tries); see that the server runs, then "
            "repeat the command: replies that came are kept."
        )

    def _try(self, prompt: str, temperature: float) -> str:
        """Raises _Failed where another try may bring a reply, else JudgeError."""
        body = json.dumps({
            "model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": temperature,
            "max_tokens": MOST_TOKENS,
        }).encode()  # fmt: skip
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.address, body, headers, method="POST")
        end = time.monotonic() + self.timeout_s
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self.timeout_s) as response:
                data = _read(response, end)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, end) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                why = _in_a_line(error.reason.verify_message)
                raise JudgeError(
                    f"judge: '{self.shown}' has no certificate that this machine trusts ({why}); correct the address, "
                    "or name its authority by SSL_CERT_FILE."
                ) from error
            raise _Failed(_in_a_line(error.reason)) from error
        except TimeoutError as error:
            raise _Failed(f"nothing for {self.timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Failed(_in_a_line(error) or type(error).__name__) from error
        return self._reply(data)

    def _reply(self, data: bytes) -> str:
        if len(data) > MOST_READ:
            raise JudgeError(f"judge: '{self.shown}' sends more than {MOST_READ:,} bytes; is it a model's address?")
        try:
            content = files.parse_json(data)["choices"][0]["message"]["content"]
            if content is not None and not isinstance(content, str):
                raise TypeError
        except (ValueError, LookupError, TypeError) as error:
            raise JudgeError(
                f"judge: '{self.shown}' answers with no chat completion ({self._words(data)}); wanted an address of "
                "OpenAI's form, that mostly ends in /v1."
            ) from error
        return content or ""

    def _refusal(self, error: urllib.error.HTTPError, end: float) -> Exception:
        """Of an answer other than 200."""
        if error.code in _AGAIN or error.code >= 500:
            asked = error.headers.get("Retry-After", "")
            return _Failed(f"status {error.code}", float(asked) if asked.isdecimal() and len(asked) < 9 else 0.0)
        try:
            data = _read(error, end)
            said = files.parse_json(data)["error"]["message"]
        except (OSError, http.client.HTTPException):
            data, said = b"", ""
        except (ValueError, LookupError, TypeError):
            said = None
        words = self._words(data if said is None else str(said).encode())
        remedy = {
            401: "give the right key by its variable",
            403: "give a key that may use the model",
            404: f"correct the address, or the model's name '{self.model}'",
        }.get(error.code, "correct the address or the model" if error.code // 100 == 3 else "see what it says")
        return JudgeError(f"judge: '{self.shown}' refuses with status {error.code} ({words}); {remedy}.")

    def _words(self, data: bytes) -> str:
        """The beginning of what a server says, without the key, which some repeat."""
        text = data[: 8 * _SHOWN + len(self.key)].decode(errors="replace")
        text = text.replace(self.key, "***") if self.key else text
        return _in_a_line(text) or "no words"


def digest_of(prompt: str, model: str, temperature: float) -> str:
    """What a reply is kept under. Of another server's model of the same name nothing is known."""
    return hashlib.sha256(json.dumps([prompt, model, temperature]).encode()).hexdigest()


class Judge:
    """A server's model whose replies are kept in a file, a JSON line each, as they come: nothing is asked twice.

    A kill loses the replies that are on their way, and of a file in a bucket those of the last seconds. The file: keys
    are digests, so it holds neither prompts nor answers.
    """

    def __init__(self, server: Server, path: Path, threads: int = THREADS):
        self.server = server
        self._path, self._threads = path, threads
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._lines = appending.Lines(path) if is_in_bucket(path) else None
        self._replies = {digest: _done(reply) for digest, reply in _read_replies(path)}

    def reply(self, prompt: str, temperature: float) -> str:
        """The model's reply, a kept one where there is one; from any thread. Raises JudgeError as `Server.ask`."""
        digest = digest_of(prompt, self.server.model, temperature)
        with self._lock:
            known = self._replies.get(digest)
            future = known or self._replies.setdefault(digest, Future())
        if known is None:  # this thread asks, others of the same question wait
            try:
                reply = self.server.ask(prompt, temperature, self._stop)
                self._keep(digest, temperature, reply)
            except BaseException as error:
                with self._lock:
                    del self._replies[digest]
                future.set_exception(error)
                raise
            future.set_result(reply)
        return future.result()

    def each(self, work: Callable[[T], R], items: Sequence[T], advance: Callable[[int], None]) -> list[R]:
        """What `work`, which asks this judge, makes of each item, in their order. advance: is told how many are done.

        Raises the first error, when the requests on their way have ended and are kept.
        """
        self._stop.clear()
        try:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="judge") as pool:
                futures = [pool.submit(work, item) for item in items]
                try:
                    for future in concurrent.futures.as_completed(futures):
                        future.result()
                        advance(1)
                except BaseException:
                    self._stop.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            appending.send_all()  # what a bucket has not got yet
        return [future.result() for future in futures]

    def _keep(self, digest: str, temperature: float, reply: str) -> None:
        line = json.dumps({"key": digest, "model": self.server.model, "temperature": temperature, "reply": reply})
        if self._lines is not None:
            self._lines.write(f"{line}\n")
            return
        with self._lock, self._path.open("a+b") as file:
            # What a kill left of a line stays a line of its own.
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            torn = file.read(1) not in (b"", b"\n")
            file.write((b"\n" if torn else b"") + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _read_replies(path: Path) -> Iterable[tuple[str, str]]:
    """Digests and replies of a file, if it is there; a line that a kill has torn is none."""
    for value in files.whole_json_lines(path):
        match value:
            case {"key": str(digest), "reply": str(reply)}:
                yield digest, reply


def _done(reply: str) -> "Future[str]":
    future: Future[str] = Future()
    future.set_result(reply)
    return future


def _read(response: Any, end: float) -> bytes:
    """The body, one byte more than MOST_READ at most. end: of the monotonic clock.

    Raises: TimeoutError there, IncompleteRead where the connection ends before the body.
    """
    parts, size = [], 0
    while size <= MOST_READ and (part := response.read1(min(2**16, MOST_READ + 1 - size))):
        if time.monotonic() > end:
            raise TimeoutError
        parts.append(part)
        size += len(part)
    if response.length and size <= MOST_READ:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(parts)


def _in_a_line(words: object) -> str:
    return " ".join(str(words).split())[:_SHOWN].rstrip(".")
