"""Rows of a run one after the other: windows are planned in a thread, one ahead, and cut into batches."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from xgenmm_jax.data.errors import Skip, SourceError
from xgenmm_jax.data.rows import quarantine
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.rows.window import Planned, Window, measurer_of, plan_window
from xgenmm_jax.data.source import Records

LEAST_TRIED = 32
"""Samples one after the other none of which can be used: a run gives up. A window is often more, seldom less."""


class Rows(NamedTuple):
    """The rows of a global batch, before they are read."""

    rows: list[list[Planned]]
    skipped: tuple[Skip, ...]
    """What was left out of the windows that begin in it."""
    state: State
    """After it."""


class Planner:
    """The rows of a run from a state on. One thread asks."""

    def __init__(self, config: DataConfig, seed: int, state: State, sources: list[Records]):
        self._config, self._seed, self._state, self._sources = config, seed, state, sources
        self._measurer = measurer_of(config)
        self._pool = ThreadPoolExecutor(1, "plan")
        self._windows: dict[int, Future[Window]] = {}

    def take(self, count: int) -> Rows:
        """The next rows.

        Raises SourceError where windows one after the other, of LEAST_TRIED samples or more, have no row; ValueError
        where the state lies behind its window, or a window cannot be planned.
        """
        window, row = self._state
        rows: list[list[Planned]] = []
        skipped: list[Skip] = []
        empty: list[Skip] = []
        while len(rows) < count:
            planned = self._window(window)
            if row > len(planned.rows):
                raise ValueError(
                    f"data: state ({window}, {row}) lies beyond the {len(planned.rows)} rows of its window; "
                    "resume with the data config that the run had."
                )
            if row == 0:
                skipped += planned.skipped
            # Windows without any row are counted: data that gives none is an error.
            empty = [] if planned.rows else [*empty, *planned.skipped]
            if sum(skip.count for skip in empty) >= LEAST_TRIED:
                raise SourceError(
                    f"data: none of the {sum(skip.count for skip in empty)} samples up to window {window} can be used: "
                    f"{quarantine.in_words(empty)}; mend the data, or raise row.length where they are too long."
                )
            more = planned.rows[row : row + count - len(rows)]
            rows += more
            row += len(more)
            if row == len(planned.rows):
                window, row = window + 1, 0
        self._state = State(window, row)
        return Rows(rows, tuple(skipped), self._state)

    def _window(self, number: int) -> Window:
        for one in (number, number + 1):
            if one not in self._windows:
                self._windows[one] = self._pool.submit(self._plan, one)
        result = self._windows[number].result()
        for old in [old for old in self._windows if old < number]:
            del self._windows[old]
        return result

    def _plan(self, number: int) -> Window:
        return plan_window(self._config, self._sources, self._measurer, self._seed, number)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
