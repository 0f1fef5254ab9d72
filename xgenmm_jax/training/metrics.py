"""Where a run's figures go: JSON lines, TensorBoard, and the progress bar."""

import json
import time
from types import TracebackType
from typing import Any

import jax
import rich.console
import rich.progress
import tensorboardX

from xgenmm_jax import files
from xgenmm_jax.appending import FolderCopy, Lines
from xgenmm_jax.paths import Path
from xgenmm_jax.training.runs.side_files import has_step, keep_rows, make_room, read_rows

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
EVALUATION = "evaluation"
"""Before the names of metrics of an evaluation in training, "evaluation/caption/exact"; its row has no loss."""
HELD_OUT = "held_out"
"""Before the names of figures of the held-out loss, "held_out/loss"; their row has no loss either."""

GOODPUT = "goodput"
"""Key of a row that says what the run's time went into (`goodput.py`), and before its names; it has no loss."""

Row = dict[str, int | float]
"""One step's figures; "step" says which."""


class MetricsLog:
    """Appends rows to metrics.jsonl and to TensorBoard's event file in the run folder.

    start_step: rows of later steps are dropped first: a killed run wrote them, and the resumed one writes them again.
    """

    def __init__(self, run: Path, start_step: int):
        self._lines = self._events = self._folder = None
        if jax.process_index() > 0:
            return  # the first host writes for all
        rows = keep_rows(run / METRICS_FILE, is_row_of_any_kind, start_step)
        self._lines = Lines(run / METRICS_FILE, stays_open=True)
        # Written anew from the rows that stay, so TensorBoard shows one line and no doubles.
        make_room(run / TENSORBOARD_FOLDER, for_folder=True)
        files.delete_tree(run / TENSORBOARD_FOLDER)
        self._folder = FolderCopy(run / TENSORBOARD_FOLDER)
        self._events = tensorboardX.SummaryWriter(str(self._folder.local), flush_secs=self._folder.flush_s)
        for row in rows:
            self._write_events(row)

    def write(self, row: Row) -> None:
        """One step's figures; row["step"] says which."""
        if self._lines:
            self._lines.write(json.dumps(row) + "\n")
            self._write_events(row)

    def _write_events(self, row: Row) -> None:
        for name, value in row.items():
            if name != "step":
                self._events.add_scalar(name, value, row["step"])
        self._folder.changed()

    def close(self) -> None:
        if self._lines:
            self._lines.close()
            self._events.close()
            self._folder.close()


def read_metrics(run: Path) -> list[Row]:
    """The rows of a run's steps, oldest first.

    Rows of evaluations, of the held-out loss and of goodput are left out, and lines that are no rows, as of a kill.
    """
    return read_rows(run / METRICS_FILE, _is_row)


def _is_row(value: Any) -> bool:
    return is_row_of_any_kind(value) and "loss" in value


def is_row_of_any_kind(value: Any) -> bool:
    """Whether a line is the row of a step, of an evaluation, of the held-out loss or of goodput."""
    if not has_step(value) or not all(type(number) in (int, float) for number in value.values()):
        return False
    names = (f"{EVALUATION}/", f"{HELD_OUT}/")
    return "loss" in value or GOODPUT in value or any(name.startswith(names) for name in value)


def left_out_in_words(row: Row) -> str:
    """What a row says about data that the run leaves out, the largest numbers by source and reason; "" if nothing.

    Example: "  skipped 1,234 (1,200 llava/a/unreadable image, 30 llava/b/unusable record, ...)".
    """
    text = ""
    for kind, title in (("skipped", "skipped"), ("left_out", "left out at opening")):
        counts = {name.removeprefix(f"{kind}/"): n for name, n in row.items() if name.startswith(f"{kind}/")}
        largest = sorted(counts, key=counts.get, reverse=True)
        parts = [f"{counts[name]:,} {name}" for name in largest[:2]] + ["..."] * (len(largest) > 2)
        if total := row.get(kind, sum(counts.values())):
            text += f"  {title} {total:,}" + (f" ({', '.join(parts)})" if parts else "")
    return text


class ProgressBar:
    """Loss, tokens per second, fill, data left out, time left: a bar on a terminal, else a line every half minute."""

    LINE_EVERY_S = 30.0

    def __init__(self, name: str, start_step: int, steps: int):
        self._name, self._start, self._steps = name, start_step, steps
        self._text, self._held_out = "compiling", ""
        self._began = self._last_line = time.monotonic()
        console = rich.console.Console(stderr=True)
        self._console = console
        self._bar = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", style="bold", markup=False),  # a name is no markup
                rich.progress.BarColumn(bar_width=None),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[text]}"),
                rich.progress.TimeRemainingColumn(),
                console=console,
                refresh_per_second=2,
            )
            self._task = self._bar.add_task(name, total=steps, completed=start_step, text=self._text)

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self._bar:
            self._bar.update(self._task, completed=step, text=self._text)

    def show(self, row: Row) -> None:
        """The figures of a row of metrics."""
        self._text = f"loss {row['loss']:.3f}{self._held_out}  {row['tokens_per_second']:,.0f} tokens/s"
        self._text += f"  fill {row['fill']:.0%}"
        self._text += left_out_in_words(row)
        now, step = time.monotonic(), int(row["step"])
        if self._bar:
            self.advance(step)
        elif now - self._last_line >= self.LINE_EVERY_S or step == self._steps:
            self._last_line = now
            left_s = (now - self._began) / max(step - self._start, 1) * (self._steps - step)
            line = f"{self._name} {step}/{self._steps}  {self._text}  left {left_s:,.0f} s"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def show_line(self, text: str) -> None:
        """A line of its own behind the run's name."""
        self._console.print(f"{self._name} {text}", highlight=False, markup=False, soft_wrap=True)

    def show_evaluation(self, row: Row) -> None:
        """A line of its own with the step, means if there are some, else the first metrics of an evaluation.

        A held-out loss stands beside the loss of the lines that follow, too.
        """
        is_held_out = f"{HELD_OUT}/seconds" in row
        kind = HELD_OUT if is_held_out else EVALUATION
        figures = {name.removeprefix(f"{kind}/"): value for name, value in row.items() if name != "step"}
        seconds = figures.pop("seconds")
        if is_held_out:
            self._held_out = f" (held out {figures['loss']:.3f})" if "loss" in figures else ""
        means = {name: value for name, value in figures.items() if name.endswith("/mean")} or figures
        text = "  ".join(f"{name} {value:.3f}" for name, value in list(means.items())[: 2 if is_held_out else 4])
        what = "held-out loss" if is_held_out else "evaluated"
        self.show_line(f"{what} at step {row['step']} in {seconds:,.0f} s: {text}")
