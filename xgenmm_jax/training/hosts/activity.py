"""Whether a process works or hangs, by what the system counts of it: whoever's code it runs need not say so."""

import contextlib
import os
from pathlib import Path
import time
from typing import NamedTuple

PROC = Path("/proc")

LEAST_CPU_SHARE = 0.01
"""Of one core; threads that only wait, beat or poll use less."""
LEAST_BYTES = 2**16
"""Read between two looks. Who opens files on a slow mount reads them and computes next to nothing."""


class Work(NamedTuple):
    """Since processes began."""

    cpu_s: float
    bytes_read: int


class Activity:
    """Looks at this process and those it has started, as the data's workers are."""

    def __init__(self):
        self._looked_at, self._before = time.monotonic(), work_of(os.getpid())

    def is_active(self) -> bool:
        """Whether any of them has worked since the last look; True where the system counts nothing."""
        looking_cpu_s = time.thread_time()
        now, work = time.monotonic(), work_of(os.getpid())
        looking_cpu_s = time.thread_time() - looking_cpu_s  # looking is no work
        if not work:
            return True
        passed_s, self._looked_at = now - self._looked_at, now
        before, self._before = self._before, work
        cpu_s = sum(one.cpu_s - before.get(pid, Work(0.0, 0)).cpu_s for pid, one in work.items())
        read = sum(one.bytes_read - before.get(pid, Work(0.0, 0)).bytes_read for pid, one in work.items())
        return cpu_s - looking_cpu_s > LEAST_CPU_SHARE * passed_s or read > LEAST_BYTES


def work_of(pid: int, proc: Path = PROC) -> dict[int, Work]:
    """The work of a process and its descendants, by number; {} where there is no /proc."""
    stats = {}
    for path in proc.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has just ended
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])  # utime, stime
            stats[int(path.parent.name)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")
    family = {pid} & stats.keys()
    while more := {number for number, (parent, _) in stats.items() if parent in family and number not in family}:
        family |= more
    return {number: Work(stats[number][1], _bytes_read(proc / str(number) / "io")) for number in family}


def _bytes_read(path: Path) -> int:
    """From wherever: a disk, a mount, a pipe. 0 where it is not told."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(": ")
            if name == "rchar":
                return int(value)
    return 0
