"""The order of samples at the paper's size: time of a window far along a run beside the first ones, shards touched.

    python -m benchmarks.order

Twelve sources of about 2e8 records in 5e4 shards each, by formula, no files; stage 1's weights. Exits with 1 where a
bound is missed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import functools
import os
from pathlib import Path
import sys
import time

import numpy as np

from benchmarks import rounds
from experiments import mixtures
from xgenmm_jax import files
from xgenmm_jax.data.rows import order
from xgenmm_jax.data.rows.order import Phase, Shards
from xgenmm_jax.reporting.machine import describe_machine, machine_sentence

SHARDS, SHARD_RECORDS = 50_000, 4_000
WINDOW_SAMPLES = 8_192
FIRST, FAR = 0, 1_000_000
ROUNDS, WINDOWS = 20, 5
EPOCHS_APART, JUMPS = 100_000, 20
"""Windows in which the largest share goes through an epoch, and how many such epochs memory is measured over."""
MOST_RATIO, MOST_SHARDS, MOST_MB = 1.5, 400, 100.0

MB = 1e6


def sources(group_shards: int) -> list[Shards]:
    """Shards of 3,000 to 5,000 records, another sequence in each source."""
    numbers = np.arange(SHARDS, dtype=np.int64)
    sizes = [
        SHARD_RECORDS - 1000 + (numbers * 7919 + source * 104_729) % 2001 for source in range(len(mixtures.STAGE1))
    ]
    return [Shards(np.cumsum(one), None, group_shards) for one in sizes]


def resident_bytes() -> int:
    pages = files.read_text(Path("/proc/self/statm")).split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Windows:
    """A side: windows one after the other, from `first` on."""

    def __init__(self, first: int, group_shards: int = 16):
        self._before = resident_bytes()
        self._phases = [Phase(0, tuple(mixtures.STAGE1.values()))]
        self._sources, self._next = sources(group_shards), first
        self._touched: list[int] = []
        # Through many epochs first: orders of epochs that are past must not stay in memory.
        for jump in range(JUMPS):
            order.draws(self._phases, self._sources, 0, WINDOW_SAMPLES, jump * EPOCHS_APART)

    def run(self, steps: int) -> float:
        """Processor seconds a window."""
        drawn = []
        begin = time.process_time()
        for window in range(self._next, self._next + steps):
            drawn.append(order.draws(self._phases, self._sources, 0, WINDOW_SAMPLES, window))
        seconds = (time.process_time() - begin) / steps
        self._next += steps
        self._touched += map(self._shards_of, drawn)
        return seconds

    def _shards_of(self, draws: order.Draws) -> int:
        shards = [
            order.shard_of(source, draws.record[draws.component == component])[0]
            for component, source in enumerate(self._sources)
        ]
        return sum(len(np.unique(one)) for one in shards)

    def info(self) -> Mapping[str, float]:
        return {"most_shards": max(self._touched), "grown_mb": (resident_bytes() - self._before) / MB}


@dataclass(frozen=True)
class Bound:
    name: str
    got: float
    most: float

    @property
    def is_kept(self) -> bool:
        return self.got <= self.most


def bounds(timed: Mapping[str, rounds.Timed]) -> list[Bound]:
    far, first = timed["far"], timed["first"]
    infos = (far.info, first.info)
    return [
        Bound("processor time far along to that of the first", far.median / first.median, MOST_RATIO),
        Bound("most shards touched by a window", max(info["most_shards"] for info in infos), MOST_SHARDS),
        Bound("resident memory grown by, MB", max(info["grown_mb"] for info in infos), MOST_MB),
    ]


def table(timed: Mapping[str, rounds.Timed], checked: Sequence[Bound]) -> str:
    lines = [
        "| windows from | ms of processor time, median [least, most] | most shards | MB grown |",
        "|---|---|---|---|",
    ]
    for name, first in (("first", FIRST), ("far", FAR), ("one group", FIRST)):
        side = timed[name]
        low, middle, high = (1e3 * value for value in (min(side.seconds), side.median, max(side.seconds)))
        what = f"{first:,}" + (", one permutation over all records" if name == "one group" else "")
        shards, grown = side.info["most_shards"], side.info["grown_mb"]
        lines.append(f"| {what} | {middle:.1f} [{low:.1f}, {high:.1f}] | {shards:,} | {grown:.0f} |")
    lines += ["", "| bound | got | most | |", "|---|---|---|---|"]
    lines += [
        f"| {bound.name} | {bound.got:.4g} | {bound.most:g} | {'kept' if bound.is_kept else 'MISSED'} |"
        for bound in checked
    ]
    return "\n".join(lines)


def main() -> int:
    makes = {
        "first": functools.partial(Windows, FIRST),
        "far": functools.partial(Windows, FAR),
        "one group": functools.partial(Windows, FIRST, SHARDS),
    }
    tell = functools.partial(print, file=sys.stderr)
    timed, failed = rounds.alternate(makes, ROUNDS, WINDOWS, WINDOWS, apart=False, tell=tell)
    if failed:
        raise SystemExit("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    checked = bounds(timed)
    print(f"{machine_sentence(describe_machine())}\n\n{table(timed, checked)}")
    return 0 if all(bound.is_kept for bound in checked) else 1


if __name__ == "__main__":
    sys.exit(main())
