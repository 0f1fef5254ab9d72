"""What a run leaves out of its data, in its folder: which record of which source, why, and at which step."""

from collections import Counter
from collections.abc import Iterable
import json
from typing import Any

import jax

from xgenmm_jax.appending import Lines
from xgenmm_jax.data.errors import Skip
from xgenmm_jax.paths import Path
from xgenmm_jax.training.runs.side_files import drop_later, read_rows


def skipped_file(host: int) -> str:
    """Name in the run folder. The first host tells of records; each host of images in its own rows."""
    return "skipped.jsonl" if host == 0 else f"skipped.{host}.jsonl"


class SkippedLog:
    """Writes a line for every record that is left out, each time that it is.

    What sources leave out when they are opened stands at step 0, once: it is never drawn.

    start_step: what an earlier, killed process wrote about later steps is dropped: it comes again.
    """

    def __init__(self, run: Path, start_step: int):
        path = run / skipped_file(jax.process_index())
        rows = drop_later(path, _is_row, start_step)
        self._lines = Lines(path)
        self._opened = [row for row in rows if row["step"] == 0]
        self._counts: Counter[str] = Counter()
        for row in rows:
            self._count(row)

    @property
    def figures(self) -> dict[str, int]:
        """How much was left out until now, over restarts, for a row of metrics; nothing where it is nothing.

        Samples that were drawn in all, by source and reason, and what sources left out when they were opened:
        {"skipped": 3, "skipped/llava/a/unreadable image": 3, "left_out/llava/a/turns out of order": 17}.
        """
        return dict(sorted(self._counts.items()))

    def _count(self, row: dict[str, Any]) -> None:
        name = f"{row.get('source')}/{row.get('reason')}"
        if row["step"] == 0:
            self._counts[f"left_out/{name}"] += row["count"]
        else:
            self._counts["skipped"] += row["count"]
            self._counts[f"skipped/{name}"] += row["count"]

    def add(self, step: int, skipped: Iterable[Skip]) -> None:
        """What was left out of a step's batch."""
        rows = []
        for skip in skipped:
            row = skip._asdict()
            row = {"step": 0 if row.pop("at_opening") else step, **row}
            if row["step"] == 0 and row in self._opened:
                continue
            self._opened += [row] if row["step"] == 0 else []
            self._count(row)
            rows.append(row)
        if rows:
            self._lines.write("".join(json.dumps(row) + "\n" for row in rows))


def read_skipped(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file, oldest first; what a kill has torn is left out."""
    return read_rows(path, _is_row)


def _is_row(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("step"), int) and isinstance(value.get("count"), int)
