"""Benchmarks by name, and those of each of the paper's tables."""

from collections.abc import Iterable, Sequence
import difflib

from xgenmm_jax.evaluation.tasks.ai2d import AI2D
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark
from xgenmm_jax.evaluation.tasks.mathvista import MATHVISTA
from xgenmm_jax.evaluation.tasks.mmbench import MMBENCH
from xgenmm_jax.evaluation.tasks.mmmu import MMMU
from xgenmm_jax.evaluation.tasks.mmstar import MMSTAR
from xgenmm_jax.evaluation.tasks.mmvet import MMVET
from xgenmm_jax.evaluation.tasks.realworldqa import REALWORLDQA
from xgenmm_jax.evaluation.tasks.seed_image import SEED_IMAGE

BENCHMARKS: tuple[Benchmark, ...] = (MMSTAR, SEED_IMAGE, MMBENCH, REALWORLDQA, AI2D, MMMU, MATHVISTA, MMVET)

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
