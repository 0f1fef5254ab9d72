"""Figures of README and docs/usage.md that follow from other files are those of these files."""

from pathlib import Path
import re

import pytest

from experiments.nano.starting_weights import (
    language_model,
    language_model_finding,
    language_model_naming,
    vision_tower,
    vision_tower_reading,
    vision_tower_small_text,
)
from tools import plan_table
from xgenmm_jax.cli.experiment_files import load_experiment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", plan_table.STAGES)
def test_the_readme_has_the_chip_hours_of_the_table_of_pods(stage: str):
    cells = plan_table.lines_of(plan_table.DOCUMENT.read_text(encoding="utf-8"))
    line = next(line for line in README.splitlines() if line.startswith("|") and f"(`{stage}`)" in line)
    for (topology, chips), text in zip(
        (("v5e:16x16", 256), ("v6e:16x16", 256), ("v5p:4x4x8", 128)), line.split("|")[3:6], strict=True
    ):
        planned = cells[plan_table.head_of(("4b", stage, topology, 1))].split("|")[-2].strip()
        hours, chip_hours = re.match(r" fits; ([\d.]+) h, ([\d,]+)", text).groups()
        assert chip_hours == planned
        assert float(hours) == pytest.approx(int(planned.replace(",", "")) / chips, rel=0.35, abs=0.05)


def test_the_images_that_the_starting_tower_saw_are_counted_from_its_recipe():
    configs = [part.config() for part in (vision_tower, vision_tower_reading, vision_tower_small_text)]
    seen = sum(config.steps * config.data.batch_rows for config in configs)
    assert f"{seen:,} drawn images with captions" in USAGE
    assert f"{seen / 1e6:.2f} million captioned images" in README


def test_the_steps_of_the_starting_language_model_are_those_of_its_recipe():
    steps = [part.config().steps for part in (language_model, language_model_finding, language_model_naming)]
    assert " + ".join(f"{n:,}" for n in steps) in USAGE
    assert f"{sum(steps):,} steps" in README


def test_the_readme_stays_short_and_says_first_what_was_not_done():
    """A stranger read 27 rows about a drawn world before the sentence that no 4B model was trained."""
    lines = README.splitlines()
    assert len(lines) <= 110
    first_screen = " ".join(lines[:25])
    for claim in ("No 4B model was trained", "no TPU has run this code", "none of the paper's data sets is read"):
        assert claim in first_screen


def test_the_experiment_on_own_data_in_usage_is_one(tmp_path: Path):
    """A reader copies it: names that have moved would fail in their hands."""
    (code,) = re.findall(r"## Your own data.*?```python\n(.*?)```", USAGE, re.DOTALL)
    file = tmp_path / "mine.py"
    file.write_text(code, encoding="utf-8")
    config = load_experiment(file)
    ((source, weight),) = config.data.mixture
    assert (config.name, source.files(), weight) == ("mine", [Path("data/mine.json")], 1.0)
