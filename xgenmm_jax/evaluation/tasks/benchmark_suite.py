"""Published benchmarks as what a run's config names: `evaluate=(Benchmarks(("table1",), data="..."),)`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import functools

from xgenmm_jax.evaluation import benchmark_runs
from xgenmm_jax.evaluation.predictions import Metrics, Prediction
from xgenmm_jax.evaluation.profiles import Profile, Reading, Reencode
from xgenmm_jax.evaluation.tasks import suites
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark
from xgenmm_jax.evaluation.tasks.few_shot import FewShot, FewShotOptions, Order, TemplateName
from xgenmm_jax.evaluation.tasks.suite import InputFormat, Suite
from xgenmm_jax.evaluation.tasks.task import Task
from xgenmm_jax.paths import local_path


@dataclass(frozen=True)
class Benchmarks(Suite):
    """Benchmarks by name, or by a table's name, with the files below a folder.

    names: as of `xgenmm evaluate --tasks`. data: the folder, on a disk, which may begin with `~`. items: the first so
    many of each; None: all. Other fields: as the options of `xgenmm evaluate`. Demonstrations by nearness are not
    offered: they need features of a model that is still changing.

    Metrics are "NAME/SCORE" in the benchmarks' own units.
    """

    names: tuple[str, ...]
    data: str
    profile: Profile | None = None
    reading: Reading = "careful"
    reencode: Reencode = "none"
    items: int | None = None
    shots: tuple[int, ...] = (0, 4, 8)
    template: TemplateName = "openflamingo"
    name: str = "benchmarks"

    def tasks(self, model: InputFormat) -> Sequence[Task]:
        """Raises ValueError where a benchmark's files are missing or damaged: all of them, one a line."""
        order: Order = "random"
        named = suites.named(self.names, FewShotOptions(self.shots, self.template, order))
        folder = local_path(self.data, "evaluate.data")
        ready = benchmark_runs.load_all(named, folder, self.profile, self.reading, self.reencode, self.items)
        return [_task(one, model) for one in ready]


def _task(ready: benchmark_runs.Ready, model: InputFormat) -> Task:
    benchmark, loaded, choice = ready.benchmark, ready.loaded, ready.choice
    if isinstance(benchmark, FewShot):
        task = benchmark.task(loaded.examples, choice, model.chat, loaded.demonstrations)
    else:
        task = benchmark.task(loaded.examples, choice, model.chat)
    return replace(task, summarize=functools.partial(_metrics, benchmark, choice.profile))


def _metrics(benchmark: Benchmark, profile: Profile, predictions: Sequence[Prediction]) -> Metrics:
    scores = benchmark.summarize(predictions, profile)
    return {f"{benchmark.name}/{name}": estimate.value for name, estimate in scores.items()}
