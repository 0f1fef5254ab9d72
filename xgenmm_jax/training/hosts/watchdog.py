"""What every host of a run is doing, told in files, so that one which hangs or dies can be named by the others."""

from collections.abc import Callable, Mapping
import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from typing import NamedTuple

import jax

from xgenmm_jax import files
from xgenmm_jax.paths import Path, is_in_bucket
from xgenmm_jax.training.hosts.activity import Activity
from xgenmm_jax.training.runs.side_files import has_step, make_room

FOLDER = "heartbeats"
INTERVAL_S = 5.0
"""Longest time between two beats of a host."""
BUCKET_INTERVAL_S = 15.0
"""The same in a bucket, which takes money for each."""
EXIT_CODE = 75
"""Of a host that ends because another one hangs or is gone: sysexits' "temporary failure", start all hosts again."""


OPENING = "opening data"
DOING = ("starting", OPENING, "reading rows", "starting the step", "waiting for the devices", "evaluating", "saving")
"""What a host does for a step, in this order."""


class Beat(NamedTuple):
    """What a host said last."""

    count: int
    """Beats so far: unchanged, the process is gone or stopped. Clocks of hosts are never compared."""
    step: int
    doing: str
    opened: int = 0
    """Intervals in which it worked while it opened data."""


Beats = Mapping[int, Beat]
"""By host; those that never said anything are missing."""


class Watchdog:
    """Beats for this host while it is entered, and ends the process when no host gets any further.

    A host gets further with every call of `at`; the whole run stops when one does not, because every step needs all.
    With a timeout and no call for so long, the hosts that hold up the others are named, every thread's stack is
    written to stderr and the process exits with EXIT_CODE.

    Opening the data may take as long as it needs where they have many files, or no index yet: there a host gets further
    as long as it works (`activity.py`), and others wait for it as long. If it does not for so long, it hangs.

    timeout_s: longer than compilation and saving take; 0: never. on_doing: is given every `doing` too. clock, end,
    is_active: for tests.
    """

    def __init__(
        self,
        run: Path,
        timeout_s: float,
        *,
        host: int | None = None,
        hosts: int | None = None,
        on_doing: Callable[[str], object] = lambda doing: None,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[int], object] = os._exit,
        is_active: Callable[[], bool] | None = None,
    ):
        self._folder = run / FOLDER
        self._host = jax.process_index() if host is None else host
        self._hosts = jax.process_count() if hosts is None else hosts
        self._timeout_s, self._clock, self._end, self._on_doing = timeout_s, clock, end, on_doing
        self._is_active = Activity().is_active if is_active is None else is_active
        longest_s = BUCKET_INTERVAL_S if is_in_bucket(run) else INTERVAL_S
        self.interval_s = min(longest_s, timeout_s / 10) if timeout_s else longest_s
        self._step, self._doing = 0, DOING[0]
        self._count = self._opened = 0
        self._seen_opening: dict[int, int] = {}
        self._moved_at = clock()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._hosts > 1 or self._timeout_s:
            make_room(self._folder, for_folder=True)
            files.make_folder(self._folder)
            self._write()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def at(self, step: int, doing: str) -> None:
        """This host begins to do something for a step, one of DOING."""
        assert doing in DOING, doing
        self._step, self._doing = step, doing
        self._moved_at = self._clock()
        self._on_doing(doing)

    def beat(self) -> None:
        """Says that this host lives."""
        with self._lock:
            self._count += 1
            self._write()

    def check(self) -> None:
        """Ends the process if nothing has moved for too long."""
        if self._doing == OPENING and self._is_active():
            self._opened += 1
            self._moved_at = self._clock()
        still_s = self._clock() - self._moved_at
        if not self._timeout_s or still_s < self._timeout_s or self._others_open():
            return
        try:
            cause = self.find_cause()
        except (OSError, ValueError) as error:  # the folder does not answer either
            cause = f"what the others do is not known ({error})"
        sys.stderr.write(
            f"xgenmm: host {self._host} of {self._hosts} has been {self._doing} for step {self._step} for "
            f"{still_s:.0f} s (watchdog_seconds {self._timeout_s:g}): {cause}. Start all hosts again: the run goes on "
            "from its newest checkpoint. What every thread of this host does:\n"
        )
        sys.stderr.flush()
        with contextlib.suppress(OSError, ValueError):  # stderr is no file in notebooks
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
        if self._host == 0 and self._hosts > 1:
            time.sleep(2 * self.interval_s)  # its end takes the coordination service away: the others speak first
        self._end(EXIT_CODE)

    def find_cause(self) -> str:
        """Who holds up the run."""
        return describe(*self._look_twice(), self._hosts, self._host)

    def _others_open(self) -> bool:
        """Whether another host has opened more data since this was last asked; that one is then waited for anew."""
        beats = read_beats(self._folder) if self._hosts > 1 else {}
        opening = {
            host: beat.opened
            for host, beat in beats.items()
            if host != self._host and host < self._hosts and beat.doing == OPENING
        }
        before, self._seen_opening = self._seen_opening, opening
        is_going_on = any(opened > before.get(host, 0) for host, opened in opening.items())
        if is_going_on:
            self._moved_at = self._clock()
        return is_going_on

    def silent_hosts(self) -> dict[int, Beat | None]:
        """Hosts that gave no sign of life for two intervals and a half, with what they said last."""
        return silent(*self._look_twice(), self._hosts, self._host)

    def _look_twice(self) -> tuple[Beats, Beats]:
        """All beats, now and some intervals later; this host goes on beating, for others may be looking too."""
        first = read_beats(self._folder)
        for _ in range(3):
            time.sleep(0.85 * self.interval_s)
            self.beat()
        return first, read_beats(self._folder)

    def _watch(self) -> None:
        while not self._closed.wait(self.interval_s):
            with contextlib.suppress(OSError, ValueError):  # a full disk, a bucket in trouble must not end the watch
                self.beat()
            self.check()

    def _write(self) -> None:
        beat = Beat(self._count, self._step, self._doing, self._opened)
        files.write_whole(self._folder / f"{self._host}.json", json.dumps(beat._asdict()))


def read_beats(folder: Path) -> dict[int, Beat]:
    """The last beat of every host that has a file; what is none is left out."""
    beats = {}
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):  # just being replaced
            said = files.read_json(path)
            counts = (said.get("count"), said.get("opened", 0)) if has_step(said) else (None, None)
            if all(type(count) is int for count in counts) and said.get("doing") in DOING:
                beats[int(path.stem)] = Beat(counts[0], said["step"], said["doing"], counts[1])
    return beats


def silent(first: Beats, later: Beats, hosts: int, this_host: int) -> dict[int, Beat | None]:
    """Hosts that never beat, and those but this one whose count stood still between two looks."""
    return {
        host: later.get(host)
        for host in range(hosts)
        if host not in later or (host != this_host and (host not in first or first[host].count == later[host].count))
    }


def describe(first: Beats, later: Beats, hosts: int, this_host: int) -> str:
    """One clause that names the hosts which hold up the run.

    Those without a sign of life; else those that are furthest behind, by step and by what they do for it; else
    the devices.
    """
    quiet = silent(first, later, hosts, this_host)
    if quiet:
        return say_silent(quiet)
    if hosts == 1:
        return "see below where it stands"
    groups: dict[tuple[int, str], list[int]] = {}
    for host in range(hosts):  # the folder may hold beats of a run with more hosts
        beat = later[host]
        groups.setdefault((beat.step, beat.doing), []).append(host)
    latest = max(step for step, _ in groups)
    if len(groups) == 1:
        return f"all hosts have reached step {latest} and live: the devices or the network between them hang"
    (step, doing), behind = min(groups.items(), key=lambda group: (group[0][0], DOING.index(group[0][1])))
    named = f"host {behind[0]} is" if len(behind) == 1 else f"hosts {', '.join(map(str, behind))} are"
    at_step = "" if latest == step else f" at step {latest}"
    return f"{named} {doing} for step {step} while others wait for it{at_step}"


def say_silent(quiet: Mapping[int, Beat | None]) -> str:
    """One clause about hosts without a sign of life."""
    return ", ".join(
        f"host {host} never began" if beat is None
        else f"host {host} gives no sign of life, last heard of {beat.doing} for step {beat.step}"
        for host, beat in sorted(quiet.items())
    )  # fmt: skip
