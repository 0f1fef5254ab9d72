"""What the heads of experiments say of a step, against the packing that their runs do."""

import importlib
import importlib.util
from pathlib import Path
import re

import numpy as np
import pytest

from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.training.objectives.next_token import NextToken

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("step_sizes", ROOT / "tools" / "step_sizes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.WINDOWS = 3
    return module


def samples_a_step(data, windows) -> float:
    return sum(len(sizes) for sizes, _ in windows) * data.batch_rows / sum(rows for _, rows in windows)


@pytest.mark.parametrize(
    ("stage", "told_in", "told"),
    [
        ("sft_single", "experiments/sft_single.py", r"some (\d+) by `python tools/step_sizes.py sft_single`"),
        ("sft_single", "experiments/recipes.py", r"some (\d+) of one image"),
        ("sft_multi", "experiments/recipes.py", r"and some (\d+) where half\s+have two to four"),
        ("sft_multi", "experiments/sft_multi.py", r"holds some (\d+), `python tools/step_sizes.py sft_multi`"),
        ("dpo", "experiments/dpo.py", r"Some (\d+)\s+# pairs a step"),
    ],
)
def test_samples_of_a_step_are_those_that_the_head_tells(tool, stage, told_in, told):
    """The heads said that a step is nearly always the published 64: rows of three or two samples were not counted."""
    data = importlib.import_module(f"experiments.{stage}").config().data
    samples = samples_a_step(data, tool.assumed_windows(stage, data))
    said = re.search(told, (ROOT / told_in).read_text(encoding="utf-8"))
    assert said and abs(samples - int(said[1])) < 1 and samples <= 64


@pytest.mark.parametrize(("stage", "positions", "crops"), [("stage1", 0.98, 0.90), ("stage2", 0.93, 0.91)])
def test_rows_of_pretraining_are_as_full_as_the_budget_assumes(tool, stage, positions, crops):
    """Steps are counted from the fills of recipes: emptier rows would end a run short of its tokens."""
    data = importlib.import_module(f"experiments.{stage}").config().data
    windows = tool.assumed_windows(stage, data)
    rows = sum(count for _, count in windows)
    used = [sum(getattr(size, name) for sizes, _ in windows for size in sizes) for name in ("positions", "crops")]
    assert used[0] / rows / data.row.length == pytest.approx(positions, abs=0.02)
    assert used[1] / rows / data.row.crops == pytest.approx(crops, abs=0.02)
    recipes = importlib.import_module("experiments.recipes")
    fill = {"stage1": recipes.FILL, "stage2": recipes.FILL_HIGH_RESOLUTION}[stage]
    assert used[0] / rows / data.row.length == pytest.approx(fill, abs=0.025)


@pytest.mark.slow
def test_nanos_steps_are_counted_from_their_own_data(tool):
    """As many samples and positions a step as its batches hold, but for the rows that a window leaves over."""
    data = importlib.import_module("experiments.nano.sft_multi").config().data
    tool_windows = tool.own_windows(data)
    batches = loader.batches(data, 0)
    counted = [NextToken().count(next(batches).batch) for _ in range(40)]
    batches.close()
    assert samples_a_step(data, tool_windows) == pytest.approx(sum(size.samples for size in counted) / 40, rel=0.05)
    line = tool.line("nano/sft_multi", data, tool_windows)
    assert re.search(r"2\d\.\d samples and +1,\d{3} positions a step of 6 rows", line)


def test_captions_of_the_nano_tower_are_cut_as_rarely_as_it_says(tool):
    """It said one in twenty."""
    config = importlib.import_module("experiments.nano.starting_weights.vision_tower").config()
    words = Tokenizer.load(config.data.tokenizer)
    longer = []
    for source, weight in config.data.mixture:
        opened = source.open()
        texts = [opened.record(number, np.random.default_rng(number)).text for number in range(1500)]
        longer.append(weight * sum(len(words.encode(text)) + 1 > config.data.tokens for text in texts) / len(texts))
    assert sum(longer) == pytest.approx(1 / 13, abs=0.015)
