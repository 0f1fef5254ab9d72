"""Benchmarks by name, and those of each of the paper's tables."""

from collections.abc import Iterable, Mapping
import difflib

from xgenmm_jax.evaluation.tasks.ai2d import AI2D
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark
from xgenmm_jax.evaluation.tasks.blink import BLINK
from xgenmm_jax.evaluation.tasks.chartqa import CHARTQA
from xgenmm_jax.evaluation.tasks.docvqa import DOCVQA
from xgenmm_jax.evaluation.tasks.few_shot import FewShotOptions
from xgenmm_jax.evaluation.tasks.few_shot_sets import FEW_SHOT
from xgenmm_jax.evaluation.tasks.hallusionbench import HALLUSIONBENCH
from xgenmm_jax.evaluation.tasks.mantis import MANTIS
from xgenmm_jax.evaluation.tasks.mathvista import MATHVISTA
from xgenmm_jax.evaluation.tasks.mmbench import MMBENCH
from xgenmm_jax.evaluation.tasks.mme import MME
from xgenmm_jax.evaluation.tasks.mmmu import MMMU
from xgenmm_jax.evaluation.tasks.mmstar import MMSTAR
from xgenmm_jax.evaluation.tasks.mmvet import MMVET
from xgenmm_jax.evaluation.tasks.muirbench import MUIRBENCH
from xgenmm_jax.evaluation.tasks.ocrbench import OCRBENCH
from xgenmm_jax.evaluation.tasks.pope import POPE
from xgenmm_jax.evaluation.tasks.qbench import QBENCH1, QBENCH2
from xgenmm_jax.evaluation.tasks.realworldqa import REALWORLDQA
from xgenmm_jax.evaluation.tasks.seed_image import SEED_IMAGE
from xgenmm_jax.evaluation.tasks.textvqa import TEXTVQA
from xgenmm_jax.evaluation.tasks.vlguard import VLGUARD
from xgenmm_jax.evaluation.tasks.zero_shot import ZERO_SHOT

BENCHMARKS: tuple[Benchmark, ...] = (
    SEED_IMAGE, MMBENCH, MMSTAR, MME, REALWORLDQA, MMVET, MMMU, MATHVISTA, TEXTVQA, OCRBENCH, POPE, HALLUSIONBENCH,
    BLINK, QBENCH2, MUIRBENCH, MANTIS,
    AI2D, CHARTQA, DOCVQA, QBENCH1, VLGUARD, *ZERO_SHOT,
)  # fmt: skip
"""Those of the paper's tables in the order of their columns, then others."""

TABLES: dict[str, tuple[str, ...]] = {
    "table1": (
        "seed_image", "mmbench", "mmstar", "mme", "realworldqa", "mmvet", "mmmu", "mathvista", "textvqa", "ocrbench",
        "pope", "hallusionbench",
    ),
    "table2": ("blink", "qbench2", "muirbench", "mantis"),
    "blip2": tuple(benchmark.name for benchmark in ZERO_SHOT),
}  # fmt: skip
"""Names that stand for several benchmarks: the papers' tables, in the order of their columns."""


FEW_SHOT_TABLE = "fewshot"
"""Stands for all of `few_shot_sets.FEW_SHOT`, each behind every number of shots."""


def named(names: Iterable[str], options: FewShotOptions = FewShotOptions()) -> list[Benchmark]:  # noqa: B008 - frozen
    """Benchmarks by their names and by those of tables, each once.

    "coco" is COCO's captions behind each number of shots of the options, "coco_4" behind 4; "textvqa" is Table 1's
    benchmark and "textvqa_4" the few-shot one. Raises ValueError that names the nearest.
    """
    by_name = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    few_shot = {benchmark.name: benchmark for benchmark in FEW_SHOT}
    selected: dict[str, Benchmark] = {}
    for name in names:
        base, _, shots = name.rpartition("_")
        if base in few_shot and shots.isdecimal():
            chosen: list[Benchmark] = [few_shot[base].with_shots(int(shots), options)]
        elif name == FEW_SHOT_TABLE or (name in few_shot and name not in by_name):
            sets = few_shot.values() if name == FEW_SHOT_TABLE else (few_shot[name],)
            chosen = [one.with_shots(shots, options) for one in sets for shots in options.shots]
        else:
            chosen = [_one(each, by_name, few_shot) for each in TABLES.get(name, (name,))]
        selected |= {benchmark.name: benchmark for benchmark in chosen}
    return list(selected.values())


def is_benchmark(name: str) -> bool:
    """Whether a task's name is that of a published benchmark, whose scores are in its own units."""
    base, _, shots = name.rpartition("_")
    few_shot = {benchmark.name for benchmark in FEW_SHOT}
    return name in {benchmark.name for benchmark in BENCHMARKS} or (base in few_shot and shots.isdecimal())


def _one(name: str, by_name: Mapping[str, Benchmark], few_shot: Mapping[str, Benchmark]) -> Benchmark:
    if name in by_name:
        return by_name[name]
    there = [*TABLES, FEW_SHOT_TABLE, *by_name, *few_shot]
    near = difflib.get_close_matches(name, there, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(there)}."
    raise ValueError(f"tasks: no benchmark '{name}'; {hint}")
