"""What `xgenmm demo` runs: all stages, one after the other, each evaluated, and the page about them.

One process for all stages: the programs that evaluation compiles serve every stage, and the memory of five small models
one after the other is that of one.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
from dataclasses import dataclass
import json
from pathlib import Path
import shlex
import sys
import threading
import time
from typing import Any, Literal

from xgenmm_jax import files
from xgenmm_jax.nano.report.content import ReportContent, Seconds, StageContent
from xgenmm_jax.nano.report.page import write_report
from xgenmm_jax.reporting.machine import memory_mib
from xgenmm_jax.reporting.page import minutes
from xgenmm_jax.training.config import read_object
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs.run_folder import COMMIT_FILE

GALLERY_FILE = "gallery.json"
"""In a stage's folder, written last: what the page shows of it. A stage that has it is done."""
SECONDS_FILE = "seconds.json"
REFRESH_S = 20.0
SAMPLE_MEMORY_S = 4.0

Activity = Literal["training", "evaluation"]
Train = Callable[[Any, Path], int | None]
"""(config, run folder) -> the signal that ended it early, None at the last step; a second call continues."""
Evaluate = Callable[[Path], dict[str, Any]]
"""run folder -> what `gallery.collect` gives."""


@dataclass(frozen=True)
class Stage:
    """config: its TrainConfig. steps: of the whole stage."""

    name: str
    config: Any
    steps: int


@dataclass(frozen=True)
class ReportFacts:
    """What the page says of model, and of this process: its machine and code.

    Of work that another process did, the page says that one's (`Reporter`).
    """

    parameters: int
    machine: dict[str, Any]
    commit: str


def run_demo(
    stages: Sequence[Stage],
    workdir: Path,
    facts: ReportFacts,
    train: Train,
    evaluate: Evaluate,
    on_compilation: Callable[[Callable[[float], None]], None] = lambda spent: None,
    refresh_s: float = REFRESH_S,
) -> int:
    """Trains and evaluates what is not done, rewriting the report after each and every `refresh_s` seconds.

    on_compilation: is given a function to call with the seconds of every compilation.
    Gives the exit code: 0, or 128 and the signal that ended a stage's training.
    """
    page = workdir / "report.html"
    with Reporter(stages, workdir, facts, refresh_s) as reporter:
        on_compilation(reporter.add_compilation)
        print(f"xgenmm demo: open {page} now, it fills up while the stages train.", flush=True)
        for stage in stages:
            folder = workdir / stage.name
            # The gallery is written last: where it is, the stage is done.
            if (folder / GALLERY_FILE).is_file():
                continue
            with reporter.doing(stage.name, "training"):
                number = train(stage.config, folder)
            if number is not None:
                print("xgenmm demo: saved; the same command continues.", file=sys.stderr)
                return 128 + number
            with reporter.doing(stage.name, "evaluation"):
                gallery = evaluate(folder)
                _write_json(folder / GALLERY_FILE, gallery)
            # One line a stage, with the metric that stands first on the page.
            mean = gallery["metrics"].get("questions/mean")
            right = "" if mean is None else f"  questions {100 * mean:.1f} %"
            print(f"xgenmm demo: {stage.name} done in {minutes(reporter.seconds(stage.name).total)}{right}", flush=True)
    last = shlex.quote(str(workdir / stages[-1].name))
    print(f'\nThe report:  {page}\nAsk it:      xgenmm generate {last} --image my.png "How many red shapes are there?"')
    return 0


class Reporter:
    """Keeps report.html, report.json and the count of seconds up to date while it is entered.

    A thread rewrites them; seconds are written at least as often, so a kill loses only a few of them.
    The machine stays that of the process that last trained or evaluated, the commit that of the stages' runs.
    """

    def __init__(self, stages: Sequence[Stage], workdir: Path, facts: ReportFacts, refresh_s: float):
        self._stages, self._workdir, self._facts, self._refresh_s = stages, workdir, facts, refresh_s
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="report", daemon=True)
        self._now: tuple[str, Activity] | None = None
        self._since = time.monotonic()
        self._done: dict[str, StageContent] = {}
        self._seconds: dict[str, dict[str, float]] = {}
        self._peak_mib = 0.0
        self._machine = facts.machine

    def __enter__(self) -> "Reporter":
        self._workdir.mkdir(parents=True, exist_ok=True)
        file = self._workdir / SECONDS_FILE
        if file.is_file():
            fields = {"stages": dict, "peak_memory_mib": int | float}
            state = read_object(file, fields, "delete it, and seconds are counted from here on")
            # A stage whose folder was removed is trained again, and its seconds count from there.
            stages = state["stages"].items()
            self._seconds = {name: spent for name, spent in stages if (self._workdir / name).is_dir()}
            self._peak_mib = state["peak_memory_mib"]
            self._machine = state.get("machine", self._machine)
        self.write(running=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.write(running=False)

    @contextlib.contextmanager
    def doing(self, name: str, activity: Activity) -> Iterator[None]:
        """Counts the seconds inside as this stage's."""
        with self._lock:
            self._now, self._since = (name, activity), time.monotonic()
            self._machine = self._facts.machine
        self.write(running=True)
        try:
            yield
        finally:
            self._count()
            with self._lock:
                self._now = None
            self.write(running=True)

    def add_compilation(self, seconds: float) -> None:
        """Called by JAX, from whatever thread compiles."""
        with self._lock:
            if self._now is not None:
                self._add(self._now[0], "compile", seconds)

    def seconds(self, name: str) -> Seconds:
        return Seconds(**self._seconds.get(name, {}))

    def write(self, running: bool) -> None:
        """Rewrites the report from what lies in the folders."""
        with self._lock:
            self._count()
            self._peak_mib = max(self._peak_mib, memory_mib())
            state = {"stages": self._seconds, "peak_memory_mib": self._peak_mib, "machine": self._machine}
            content = self._content(running)  # refuses damaged files before any is written
            _write_json(self._workdir / SECONDS_FILE, state)
            write_report(content, self._workdir)

    def _keep_writing(self) -> None:
        written = time.monotonic()
        while not self._stop.wait(min(SAMPLE_MEMORY_S, self._refresh_s)):
            self._peak_mib = max(self._peak_mib, memory_mib())
            if time.monotonic() - written >= self._refresh_s:
                with contextlib.suppress(OSError):  # a full disk: the work in progress meets it too, and reports it
                    self.write(running=True)
                written = time.monotonic()

    def _count(self) -> None:
        with self._lock:
            now = time.monotonic()
            if self._now is not None:
                self._add(*self._now, now - self._since)
            self._since = now

    def _add(self, name: str, what: str, seconds: float) -> None:
        stage = self._seconds.setdefault(name, {"training": 0.0, "evaluation": 0.0, "compile": 0.0})
        stage[what] += seconds

    def _content(self, running: bool) -> ReportContent:
        return ReportContent(
            tuple(self._stage(stage) for stage in self._stages),
            workdir=str(self._workdir),
            parameters=self._facts.parameters,
            machine=self._machine,
            commit=self._commit(),
            running=running,
            peak_memory_mib=self._peak_mib,
        )

    def _commit(self) -> str:
        """That of the stages' runs, of each where they differ: "4f3a.. (stage1, stage2), 77c0.. (dpo)"."""
        stages_of: dict[str, list[str]] = {}
        for stage in self._stages:
            file = self._workdir / stage.name / COMMIT_FILE
            if file.is_file():
                stages_of.setdefault(files.read_text(file).strip(), []).append(stage.name)
        if len(stages_of) > 1:
            return ", ".join(f"{commit} ({', '.join(names)})" for commit, names in stages_of.items())
        return next(iter(stages_of), self._facts.commit)

    def _stage(self, stage: Stage) -> StageContent:
        if stage.name in self._done:
            return self._done[stage.name]
        folder = self._workdir / stage.name
        content = StageContent(
            stage.name, stage.steps, curve=tuple(read_metrics(folder)), seconds=self.seconds(stage.name)
        )
        file = folder / GALLERY_FILE
        if file.is_file():
            fields = {"metrics": dict, "examples": list}
            gallery = read_object(file, fields, "delete it, and the stage is evaluated again")
            content = dataclasses.replace(content, state="done", gallery=gallery)
            if self._now is None or self._now[0] != stage.name:
                self._done[stage.name] = content
            return content
        is_at_work = self._now is not None and self._now[0] == stage.name
        if content.step >= stage.steps or (is_at_work and self._now[1] == "evaluation"):
            return dataclasses.replace(content, state="evaluating")
        return dataclasses.replace(content, state="training" if is_at_work or content.curve else "waiting")


def _write_json(path: Path, value: Any) -> None:
    files.write_whole(path, json.dumps(value) + "\n")
