"""What a run's time went into, summed over its restarts: steps, and what is none (compiling, waiting for rows, ...).

Told by what the loop tells the watchdog, on host 0's clock: no device is asked. Time between a kill and the next start
is nobody's, and in no sum.
"""

from collections.abc import Callable, Mapping
import time

from xgenmm_jax.paths import Path
from xgenmm_jax.training.metrics import GOODPUT, METRICS_FILE, Row, is_row_of_any_kind
from xgenmm_jax.training.runs.side_files import read_rows

KINDS = ("opening", "compiling", "reading", "stepping", "evaluating", "saving", "lost")
"""Opening: data, weights, a checkpoint. Compiling: the first call of the step. Reading: devices were done and waited
for rows. Stepping: all other time between steps. Saving: until a copy of the state is
on the host, and at the end until it is on the disk. Lost: steps behind the checkpoint that a killed process left,
computed again, as far as it had logged them."""

_KIND = {
    "starting": "opening",
    "opening data": "opening",
    "reading rows": "reading",
    "starting the step": "stepping",
    "waiting for the devices": "stepping",
    "evaluating": "evaluating",
    "saving": "saving",
}
"""By what the watchdog is told."""


class Goodput:
    """Seconds of each of KINDS since the run began. clock: for tests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._since = clock, clock()
        self._kind = "opening"
        self._has_compiled = False
        self._seconds = dict.fromkeys(KINDS, 0.0)

    def at(self, doing: str) -> None:
        """The loop begins to do something, one of the watchdog's DOING."""
        self._add()
        self._kind = _KIND[doing]
        if doing == "starting the step" and not self._has_compiled:
            self._kind, self._has_compiled = "compiling", True

    def hide_reading(self) -> None:
        """The rows that were just read were there before the devices were done: reading cost nothing."""
        if self._kind == "reading":
            self._kind = "stepping"

    def go_on(self, run: Path, step: int, seconds: float) -> bool:
        """Adds what earlier processes of a run have spent; call it before later rows are dropped from its metrics.

        step, seconds: of the checkpoint that it goes on from, with its seconds of training. Gives whether steps were
        lost.
        """
        rows = read_rows(run / METRICS_FILE, is_row_of_any_kind)
        before = [row for row in rows if GOODPUT in row and row["step"] <= step]
        for kind in KINDS if before else ():
            self._seconds[kind] += before[-1].get(f"{GOODPUT}/{kind}/seconds", 0.0)
        lost = [row["seconds"] - seconds for row in rows if row["step"] > step and "seconds" in row]
        self._seconds["lost"] += max(lost, default=0.0)
        return any(second > 0 for second in lost)

    def row(self, step: int) -> Row:
        """{"step": 500, "goodput": 0.91, "goodput/seconds": 1280.4, "goodput/stepping/seconds": 1165.2,
        "goodput/stepping/share": 0.91, ...}: "goodput" is the share of stepping."""
        self._add()
        total = sum(self._seconds.values())
        shares = {kind: second / total if total else 0.0 for kind, second in self._seconds.items()}
        row: Row = {"step": step, GOODPUT: shares["stepping"], f"{GOODPUT}/seconds": total}
        for kind in KINDS:
            row |= {f"{GOODPUT}/{kind}/seconds": self._seconds[kind], f"{GOODPUT}/{kind}/share": shares[kind]}
        return row

    def _add(self) -> None:
        now = self._clock()
        self._seconds[self._kind] += now - self._since
        self._since = now


def in_words(row: Mapping[str, int | float]) -> str:
    """"goodput 91 % of 1,280 s: stepping 1,165 s, opening 60 s (5 %), ...", the largest first, without what is 0."""
    seconds = {kind: row[f"{GOODPUT}/{kind}/seconds"] for kind in KINDS if kind != "stepping"}
    others = [
        f"{kind} {seconds[kind]:,.0f} s ({row[f'{GOODPUT}/{kind}/share']:.0%})"
        for kind in sorted(seconds, key=seconds.get, reverse=True)
        if seconds[kind] >= 0.5
    ]
    stepping = f"stepping {row[f'{GOODPUT}/stepping/seconds']:,.0f} s"
    return f"goodput {row[GOODPUT]:.0%} of {row[f'{GOODPUT}/seconds']:,.0f} s: {', '.join([stepping, *others])}"
