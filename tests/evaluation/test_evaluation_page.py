"""docs/evaluation.md: its tables are the benchmarks and few-shot sets with their files, its example is a user's."""

from collections.abc import Sequence
from pathlib import Path
import re

import pytest

from xgenmm_jax.evaluation.profiles import PROFILES
from xgenmm_jax.evaluation.published.files import Original, Parquet, Published, Tsv
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark
from xgenmm_jax.evaluation.tasks.few_shot_sets import FEW_SHOT
from xgenmm_jax.evaluation.tasks.suites import BENCHMARKS, TABLES

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def row(benchmark: Benchmark) -> str:
    """What the page says of a benchmark."""
    profiles = ", ".join(benchmark.profiles) if benchmark.profiles != PROFILES else "all"
    containers = "; or ".join(filter(None, (files_of(one, benchmark.profiles) for one in benchmark.published)))
    return f"| `{benchmark.name}` | {benchmark.title} | {profiles} | {containers} | {benchmark.source} |"


def files_of(published: Published, profiles: Sequence[str]) -> str:
    """Its files below the user's folder, and for whose prompts they suffice where not for all of the benchmark's."""
    match published:
        case Tsv(name=name):
            names = [f"{name}.tsv"]
        case Parquet(repository=repository, pattern=pattern):
            names = [f"{repository.split('/')[-1]}/{pattern}"]
        case Original(needs=needs):
            names = list(needs)
    there = [profile for profile in profiles if profile in published.profiles]
    text = ", ".join(f"`{name}`" for name in names)
    assert all(name in published.where for name in names)
    return "" if not there else text if len(there) == len(profiles) else f"{text} ({', '.join(there)})"


@pytest.mark.parametrize("benchmark", [*BENCHMARKS, *FEW_SHOT], ids=lambda one: f"{type(one).__name__} {one.name}")
def test_the_page_has_a_row_of_it_with_its_files(benchmark):
    assert row(benchmark) in PAGE.splitlines()


def test_the_page_has_no_row_of_another_and_keeps_the_order():
    named = re.findall(r"^\| `(\w+)` \| .* \| .* \| `.* \| .* \|$", PAGE, re.MULTILINE)
    assert named == [one.name for one in (*BENCHMARKS, *FEW_SHOT)]


def test_the_page_names_every_profile_and_every_table():
    section = PAGE.partition("## Profiles")[2].partition("## ")[0]
    assert re.findall(r"^\| `(\w+)` \| [^|]* \|$", section, re.MULTILINE) == list(PROFILES)
    assert all(f"`{name}`" in PAGE for name in (*TABLES, "fewshot"))
