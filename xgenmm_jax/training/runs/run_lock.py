"""One process at a time in a run folder: a file says who holds it, and a count in it that its holder lives.

Nothing rests on flock, which some shared file systems lack, nor on clocks, which differ from host to host. On the
holder's machine the system tells whether it lives; elsewhere it does where its count moves between two looks.
"""

import contextlib
import functools
import json
import os
import pathlib
import socket
import threading
import time
from typing import NamedTuple
import uuid

from xgenmm_jax import buckets, files
from xgenmm_jax.paths import Path, is_in_bucket
from xgenmm_jax.requests import RequestError

LOCK_FILE = "run.lock"
EVALUATION_LOCK_FILE = "evaluation.lock"
"""Beside a run's own: an evaluation that writes into the folder does not disturb training."""

BEAT_S = 2.0
"""Time between two counts of a holder."""
SILENT_S = 10.0
"""How long a count on another machine stands still until its holder is held for dead."""
SETTLE_S = 1.0
"""Several may take over from one dead holder at the same moment; after so long the one who wrote last is known."""

_LOOK_S = 0.05
_TRIES = 100


class Pace(NamedTuple):
    """Seconds: BEAT_S, SILENT_S, and the time between two looks at a count."""

    beat_s: float
    silent_s: float
    look_s: float


BUCKET_PACE = Pace(10.0, 60.0, 2.0)
"""A bucket takes money for each beat, and a moment of the network is no death: beats have half of the silence."""


class Holder(NamedTuple):
    """What stands in the file."""

    host: str
    machine: str
    """Where `pid` means a process: `machine()` there."""
    pid: int
    started: str
    """Of the process, as its machine counts: a number is given to another process some day."""
    since: str
    """For people."""
    token: str
    """No two are alike."""
    count: int


class RunLock:
    """Held while it is entered, or from `acquire` to `release`. Makes its folder, which goes again if it stays empty.

    Of several that start at the same moment in a new folder, one may make it and another hold it: then it stays.

    In a bucket the file is an object that is made where there is none, and replaced where nobody else has replaced it
    meanwhile: the bucket itself says who was first.

    A process that is killed leaves the file and blocks nobody: the next one on its machine takes over at once, one on
    another machine after its silence. Of several that start at the same moment one succeeds.

    remedy: the end of the sentence that refuses.
    """

    def __init__(self, folder: Path, name: str = LOCK_FILE, remedy: str = "choose another --workdir"):
        self._said, self._folder, self._remedy = folder, folder.absolute(), remedy
        self._path = self._folder / name
        self._pace = BUCKET_PACE if is_in_bucket(folder) else Pace(BEAT_S, SILENT_S, _LOOK_S)
        self._own = Holder(
            host=socket.gethostname(),
            machine=machine(),
            pid=os.getpid(),
            started=process_start(os.getpid()) or "",
            since=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            token=uuid.uuid4().hex,
            count=0,
        )
        self._made: list[Path] = []
        self._lost_to: Holder | None = None
        self._looked_at = 0.0
        self._turn = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Raises ValueError where another process holds the folder; it says which."""
        try:
            self._take()
        except BaseException:
            self._remove_folders()
            raise
        self._looked_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep_beating, name="run lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Gives the folder back; nothing where it is not held."""
        if self._thread is None or os.getpid() != self._own.pid:
            return
        self._closed.set()
        self._thread.join()
        self._thread = None
        with contextlib.suppress(OSError, RequestError):
            holder = parse(self._read())
            if holder is not None and holder.token == self._own.token:
                self._path.unlink(missing_ok=True)
        self._remove_folders()

    def check(self) -> None:
        """Raises ValueError where another process has taken the folder over, which held this one for dead."""
        if self._thread is not None and time.monotonic() - self._looked_at > 2 * self._pace.beat_s:  # stopped
            with contextlib.suppress(OSError, RequestError):
                self._beat()
        if self._lost_to is not None:
            raise ValueError(
                f"run folder: another process {_named(self._lost_to)} has taken over '{self._said}', for this one "
                f"{_named(self._own)} gave no sign of life for {self._pace.silent_s:.0f} s; this one stops, the other "
                "goes on."
            )

    def _take(self) -> None:
        for number in range(_TRIES):
            time.sleep(_LOOK_S if number else 0.0)
            self._make_folder()
            said = self._read()
            if said is None:
                if self._create():
                    return
                continue
            holder = parse(said)
            if holder is not None and holder.token == self._own.token:
                return  # a share that lost its answer to `_create`
            living = None if holder is None else is_living(holder)
            if living is None:
                later = self._wait_for_change(said)
                living = later != said
                if living and (holder is None or _token(later) != holder.token):
                    continue  # released, or somebody else's by now
            if living:
                raise ValueError(
                    f"run folder: another process is at work in '{self._said}' {_named(holder)}; wait for it or end "
                    f"it, or {self._remedy}."
                )
            if self._take_over(said):
                return
        raise ValueError(f"run folder: '{self._path}' is no file that can be written or read; delete it.")

    def _create(self) -> bool:
        """Writes the file where there is none: exactly one of several processes can, on whatever machines."""
        if is_in_bucket(self._path):
            return buckets.write_if(self._path, _content(self._own), None) is not None
        beside = self._beside()
        try:
            beside.write_bytes(_content(self._own))
            try:
                os.link(beside, self._path)
            except (FileExistsError, FileNotFoundError):
                raise
            except OSError:  # no hard links here: a reader may meet the empty file, and looks twice at it
                with self._path.open("xb") as file:
                    file.write(_content(self._own))
                # Where writing took longer than SILENT_S, another one may have replaced the empty file.
                return _token(self._read()) == self._own.token
        except (FileExistsError, FileNotFoundError):  # another one was first, or took its empty folder away
            return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def _take_over(self, said: bytes) -> bool:
        """Replaces what a dead holder said; whether it was this process that did so last."""
        if is_in_bucket(self._path):
            return self._replace(said)
        beside = self._beside()
        try:
            beside.write_bytes(_content(self._own))
            if self._read() != said:
                return False
            beside.replace(self._path)
        finally:
            beside.unlink(missing_ok=True)
        time.sleep(SETTLE_S)
        if _token(self._read()) != self._own.token:
            return False
        for left in self._folder.glob(f"{self._path.name}.*.partial"):  # of processes that were killed
            left.unlink(missing_ok=True)
        return True

    def _wait_for_change(self, said: bytes) -> bytes | None:
        """What the file says as soon as it says something else, at the latest after the silence of a dead holder."""
        until = time.monotonic() + self._pace.silent_s
        later: bytes | None = said
        while later == said and time.monotonic() < until:
            time.sleep(self._pace.look_s)
            later = self._read()
        return later

    def _keep_beating(self) -> None:
        while self._lost_to is None and not self._closed.wait(self._pace.beat_s):
            with contextlib.suppress(OSError, RequestError):  # a full disk, a share or bucket that does not answer
                self._beat()

    def _beat(self) -> None:
        with self._turn:
            said = self._read()
            holder = parse(said)
            if holder is not None and holder.token != self._own.token:
                self._lost_to = holder
                return
            self._own = self._own._replace(count=self._own.count + 1)
            if said is None:
                self._create()  # somebody deleted it; if another process is faster, the next look tells
            elif is_in_bucket(self._path):
                self._replace(said)  # if another process is faster, the next look tells
            else:
                files.write_whole(self._path, _content(self._own))
            self._looked_at = time.monotonic()

    def _beside(self) -> Path:
        return self._path.with_name(f"{self._path.name}.{self._own.token}.partial")

    def _replace(self, said: bytes) -> bool:
        """Writes to a bucket what this process says where that still is what it says."""
        version = buckets.read_version(self._path, self._pace.silent_s / 4)
        if version is None or version[0] != said:
            return False
        return buckets.write_if(self._path, _content(self._own), version[1], self._pace.silent_s / 4) is not None

    def _read(self) -> bytes | None:
        if is_in_bucket(self._path):
            return buckets.read(self._path)
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def _make_folder(self) -> None:
        if is_in_bucket(self._folder):
            return
        missing = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made += [path for path in missing if path not in self._made]

    def _remove_folders(self) -> None:
        """Those that this process made and nothing was written into: a start that fails leaves nothing behind."""
        with contextlib.suppress(OSError):
            for path in self._made:  # the innermost first
                path.rmdir()


def parse(said: bytes | None) -> Holder | None:
    """The holder in a lock's file; None where there is none, or something else stands there."""
    try:
        value = files.parse_json(said or b"")
    except ValueError:
        return None
    kinds = Holder.__annotations__
    if not isinstance(value, dict) or value.keys() != kinds.keys():
        return None
    if not all(type(value[name]) is kind for name, kind in kinds.items()) or value["pid"] < 1:
        return None
    return Holder(**value)


def is_living(holder: Holder) -> bool | None:
    """Whether a holder's process lives; None where this machine does not tell."""
    if holder.machine != machine():
        return None
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    started = process_start(holder.pid)
    return started == holder.started if started is not None and holder.started else None


@functools.cache
def machine() -> str:
    """Names this machine since it was switched on, and the space of process numbers there, which containers have."""
    host = socket.gethostname()
    try:
        boot = files.read_text(pathlib.Path("/proc/sys/kernel/random/boot_id")).strip()
        return f"{host} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return host


def process_start(pid: int) -> str | None:
    """When a process started, as its machine counts; "" of one that has ended and was not waited for. None: unknown."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # from field 3 of proc(5) on; the name before may hold brackets
    return "" if fields[0] in (b"Z", b"X") else fields[22 - 3].decode()


def _content(holder: Holder) -> bytes:
    return json.dumps(holder._asdict()).encode() + b"\n"


def _token(said: bytes | None) -> str | None:
    holder = parse(said)
    return None if holder is None else holder.token


def _named(holder: Holder) -> str:
    return f"(host {holder.host}, pid {holder.pid}, since {holder.since.strip()})"
