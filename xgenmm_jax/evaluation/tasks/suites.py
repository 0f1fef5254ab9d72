"""Benchmarks by name, and those of each of the paper's tables."""

from collections.abc import Iterable, Sequence
import difflib

from xgenmm_jax.evaluation.tasks.benchmark import Benchmark
from xgenmm_jax.evaluation.tasks.chartqa import CHARTQA
from xgenmm_jax.evaluation.tasks.docvqa import DOCVQA
from xgenmm_jax.evaluation.tasks.hallusionbench import HALLUSIONBENCH
from xgenmm_jax.evaluation.tasks.mme import MME
from xgenmm_jax.evaluation.tasks.mmstar import MMSTAR
from xgenmm_jax.evaluation.tasks.ocrbench import OCRBENCH
from xgenmm_jax.evaluation.tasks.pope import POPE
from xgenmm_jax.evaluation.tasks.textvqa import TEXTVQA
from xgenmm_jax.evaluation.tasks.vlguard import VLGUARD

BENCHMARKS: tuple[Benchmark, ...] = (MMSTAR, MME, TEXTVQA, OCRBENCH, POPE, HALLUSIONBENCH, CHARTQA, DOCVQA, VLGUARD)

TABLES: dict[str, tuple[str, ...]] = {
    "table1": (
        "seed_image", "mmbench", "mmstar", "mme", "realworldqa", "mmvet", "mmmu", "mathvista", "textvqa", "ocrbench",
        "pope", "hallusionbench",
    ),
    "table2": ("blink", "qbench2", "mantis", "muirbench"),
}  # fmt: skip
"""Names that stand for several benchmarks: the paper's tables, in the order of their columns."""


def named(names: Iterable[str], shots: Sequence[int] = ()) -> list[Benchmark]:
    """Benchmarks by their names and by those of TABLES, each once. Raises ValueError that names the nearest."""
    by_name = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    found: dict[str, Benchmark] = {}
    for name in names:
        for one in TABLES.get(name, (name,)):
            if one not in by_name:
                near = difflib.get_close_matches(name, [*TABLES, *by_name], 3)
                wanted = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join([*TABLES, *by_name])}"
                raise ValueError(f"tasks: no benchmark '{name}'; {wanted}")
            found[one] = by_name[one]
    return list(found.values())
