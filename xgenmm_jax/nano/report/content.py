"""What the report shows, as plain data that JSON can hold, and report.json."""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import Any, Literal

State = Literal["waiting", "training", "evaluating", "done"]

STAGE_TITLES = {
    "stage1": (
        "Pre-training", "base resolution",
        "Captions, words to read, questions about one thing of several, documents; one view an image.",
    ),
    "stage2": ("Pre-training", "high resolution", "The same, images cut into a view and a grid of crops."),
    "sft_single": ("Fine-tuning", "one image", "Questions and answers about single images."),
    "sft_multi": ("Fine-tuning", "several images", "Questions about two images or more, mixed with single ones."),
    "dpo": (
        "Preference tuning", "DPO", "Pairs: a grounded answer over an invented one, a refusal over a harmful answer.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Seconds:
    """Wall time of a stage, summed over restarts, work that was lost to kills included.

    compile: the compiler's part of the two others.
    """

    training: float = 0.0
    evaluation: float = 0.0
    compile: float = 0.0

    @property
    def total(self) -> float:
        return self.training + self.evaluation


@dataclass(frozen=True)
class StageContent:
    """One stage as far as it has come.

    curve: rows of its metrics.jsonl. gallery: what `demo_steps.evaluate` gave after it,
    None before.
    """

    name: str
    steps: int
    state: State = "waiting"
    curve: tuple[Mapping[str, float | int], ...] = ()
    gallery: Mapping[str, Any] | None = None
    seconds: Seconds = Seconds()

    def last(self, name: str) -> float | int:
        """A figure of the curve's last row; 0 where there is no row, or it lacks the figure, as in a damaged file."""
        value = self.curve[-1].get(name, 0) if self.curve else 0
        return value if math.isfinite(value) else 0

    @property
    def step(self) -> int:
        return int(self.last("step"))

    @property
    def tokens(self) -> int:
        return int(self.last("tokens"))

    @property
    def samples(self) -> int:
        return int(self.last("samples"))

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.gallery["metrics"] if self.gallery else {}

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """By metric, by name: what constant answers and the reference answers score."""
        return self.gallery.get("baselines", {}) if self.gallery else {}


@dataclass(frozen=True)
class ReportContent:
    """Everything on the page.

    workdir: as the user typed it, for the commands on the page. running: a process is at work, the page reloads itself.
    peak_memory_mib: most memory of the driver and its child processes together.
    """

    stages: tuple[StageContent, ...]
    workdir: str
    parameters: int
    machine: Mapping[str, Any]
    commit: str
    running: bool
    peak_memory_mib: float = 0.0

    @property
    def seconds(self) -> float:
        return sum(stage.seconds.total for stage in self.stages)

    @property
    def latest(self) -> StageContent | None:
        """The last stage that was evaluated."""
        return next((stage for stage in reversed(self.stages) if stage.metrics), None)


def report_json(content: ReportContent) -> dict[str, Any]:
    """The figures of the page. Stages appear as they begin, their metrics as they end."""
    stages = {
        stage.name: {
            "metrics": dict(stage.metrics),
            "baselines": dict(stage.baselines),
            "seconds": round(stage.seconds.total, 1),
            "tokens": stage.tokens,
            "samples": stage.samples,
            "steps": stage.step,
            "seconds_of": {
                "training": round(stage.seconds.training, 1),
                "evaluation": round(stage.seconds.evaluation, 1),
                "compile": round(stage.seconds.compile, 1),
            },
        }
        for stage in content.stages
        if stage.state != "waiting"
    }
    return {
        "stages": stages,
        "seconds": round(content.seconds, 1),
        "peak_memory_mib": round(content.peak_memory_mib),
        "machine": dict(content.machine),
        "commit": content.commit,
    }
