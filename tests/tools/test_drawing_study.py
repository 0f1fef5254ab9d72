"""tools/drawing_study.py: arms trained and judged, what is not done again, table, findings and plot."""

import dataclasses
import json

import drawing_cases as cases
import numpy as np
import PIL.Image
import pytest

from tools import drawing_study, drawing_table, study, study_table
from tools.drawing_study import Settings
from tools.study_table import Result
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.nano.starting_weights import PIXELS
from xgenmm_jax.training import loop
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.flow_matching import FlowMatching
from xgenmm_jax.training.optimizer import OptimizerConfig

SMALL = Settings(
    steps=2, seeds=(0,), arms=("flow",), captions=2, repeated=1, images=2, questions=1, sampling=Sampling(steps=1)
)
TRUE = {"alignment": 100.0, "valid": 100.0, "distance": 0.5}


def result(arm: str, seed: int, **figures: float) -> Result:
    return Result(arm, seed, dict.fromkeys(drawing_table.FIGURES, 1.0) | figures, flops=3e12, seconds=60.0 + seed)


def results() -> list[Result]:
    return [
        *(result("flow", seed, alignment=40.0 + seed, places=5.0, distance=2.0 + seed) for seed in (0, 2)),
        *(result("regression", seed, alignment=30.0 + seed, places=1.0) for seed in (0, 2)),
        *(result("latents", seed, alignment=50.0, distance=3.0) for seed in (0, 2)),
        result("joint", 0, alignment=41.0),
    ]


def test_a_table_has_means_and_spreads():
    lines = drawing_table.table(drawing_study.NAMES, results(), TRUE)
    flow = next(line for line in lines if line[0] == drawing_study.NAMES["flow"])
    # Of 40 and 42: mean 41, standard deviation sqrt(2).
    assert flow[1] == "41.0 ± 1.4" and flow[7] == "5.00 ± 0.00" and flow[9] == "3.000 ± 1.414"
    assert flow[-3:] == ("3.0 ± 0.0", "1.0 ± 0.0", "2")
    assert next(line for line in lines if line[0] == drawing_study.NAMES["joint"])[1] == "41.0", "one run, no spread"
    assert lines[-1][0] == "true pictures" and lines[-1][9] == "0.500" and len({len(line) for line in lines}) == 1


def test_what_was_found_stands_beside_the_paper():
    lines = drawing_table.findings(drawing_study.NAMES, results())[1:]
    found = {(line[1], line[2].split(",")[0].split(":")[0]): line for line in lines}
    assert len(found) == len(lines) == len(drawing_table.FINDINGS)
    assert found["flow matching aligns better", "alignment"][-1] == "as the paper"
    assert "41.0 ± 1.4" in found["flow matching aligns better", "alignment"][2]
    assert found["flow matching aligns better", "colors told"][-1] == "not told apart"
    assert found["features align better", "alignment"][-1] == "the other way"
    assert found["latents have the lowest distance", "feature distance"][-1] == "not told apart"
    assert found["sequential keeps understanding", "questions answered"][-1].startswith("one run")
    alone = drawing_table.findings(drawing_study.NAMES, [result("flow", 0)])
    assert len(alone) == 1, "nothing to compare"


def test_less_is_better_where_it_is():
    assert study_table.verdict([1.0, 1.2], [3.0, 3.1], sign=-1) == "as the paper"
    assert study_table.verdict([1.0, 1.2], [3.0, 3.1], sign=1) == "the other way"


def test_a_plot_shows_every_arm(tmp_path):
    drawing_table.plot(drawing_study.NAMES, results(), TRUE, tmp_path / "plot.png")
    with PIL.Image.open(tmp_path / "plot.png") as image:
        colors = {tuple(color) for color in np.asarray(image.convert("RGB")).reshape(-1, 3)}
    for line in drawing_table.LINES:
        assert tuple(bytes.fromhex(line[1:])) in colors


def test_flops_are_summed_over_intervals(tmp_path):
    rows = [
        {"step": 1, "loss": 1.0, "tokens": 100, "tokens_per_second": 10.0, "model_flops_per_second": 50.0},
        {"step": 2, "loss": 1.0, "tokens": 300, "tokens_per_second": 100.0, "model_flops_per_second": 400.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert study.flops_of(tmp_path) == 100 * 5 + 200 * 4


def test_arms_are_the_experiments_at_nano(tmp_path):
    settings = Settings(start="some/run", steps=7)
    configs = {arm: drawing_study.config_of(arm, 2, tmp_path, settings) for arm in drawing_study.EXPERIMENTS}
    assert {(one.steps, one.seed) for one in configs.values()} == {(7, 2)}
    assert configs["latents"].initialize.run == str(tmp_path / "autoencoder")
    assert configs["joint"].initialize.run == "some/run" and configs["joint"].objective.text_weight == 1
    assert all(one.initialize.pixels is None for one in configs.values()), "the run has one"
    captions = [source for config in configs.values() for source, _ in config.data.mixture[:1]]
    assert all(one == captions[0] and one.source.detail == "open" for one in captions)


def test_arms_begin_with_the_model_of_the_demo_and_the_shipped_pixel_decoder(tmp_path):
    arms = {arm: drawing_study.config_of(arm, 0, tmp_path, Settings()).initialize for arm in drawing_study.EXPERIMENTS}
    assert {arms[arm].pixels for arm in ("flow", "regression", "joint")} == {PIXELS}
    assert {arms[arm].run for arm in ("flow", "regression", "joint", "autoencoder")} == {"runs/demo/sft_multi"}
    assert arms["latents"].pixels is arms["autoencoder"].pixels is None


def test_a_folder_of_other_settings_is_refused(tmp_path):
    drawing_study.begin(tmp_path, Settings("some/run", seeds=(0,)))
    drawing_study.begin(tmp_path, Settings("some/run", seeds=(0, 1)))
    with pytest.raises(ValueError, match="is of captions 40, asked for 50; give another folder"):
        drawing_study.begin(tmp_path, Settings("some/run", captions=50))


def test_a_folder_of_other_figures_is_refused(tmp_path, monkeypatch):
    """Runs that an older version judged lack some: the mean of one stood beside "runs 3"."""
    monkeypatch.setattr(drawing_table, "FIGURES", {"alignment": drawing_table.FIGURES["alignment"]})
    drawing_study.begin(tmp_path, Settings())
    monkeypatch.undo()
    with pytest.raises(ValueError, match="is of figures \\['alignment'\\], asked for .*'colors'.*; give another"):
        drawing_study.begin(tmp_path, Settings())


@pytest.mark.slow
def test_an_arm_is_trained_and_judged_and_not_again(tmp_path, monkeypatch):
    config = TrainConfig(
        name="drawing",
        model=cases.model(),
        data=cases.data(segments=2, batch_rows=8),
        objective=FlowMatching(),
        steps=2,
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=1),
        freeze=cases.FROZEN,
        log_every=1,
        average_decay=0.9,
    )
    monkeypatch.setattr(drawing_study, "config_of", lambda *_: config)
    drawing_study.run_study(tmp_path, SMALL)
    (run,) = json.loads((tmp_path / "table.json").read_text())["runs"]
    assert run["flops"] > 0 and run["seconds"] > 0
    assert all(0 <= run["figures"][name] <= 100 for name in ("alignment", "held_out", "understanding"))
    assert run["figures"]["distance"] > json.loads((tmp_path / "true.json").read_text())["distance"] > 0
    assert "| features, flow matching (sequential) |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "plot.png").is_file()
    # FLOPs by the metrics are those of the rows.
    rows, per_step = config.objective.batches(config.model, config.data, 0, loop.State(), 0, 1), 0.0
    for _ in range(2):
        per_step += config.objective.flops(config.model, next(rows)[0], config.freeze)
    rows.close()
    assert run["flops"] == pytest.approx(per_step, rel=1e-6)
    # What a kill left is judged, and nothing is trained again.
    (tmp_path / "flow_0.json").unlink()
    monkeypatch.setattr(study.loop, "train", None)
    drawing_study.run_study(tmp_path, SMALL)
    (again,) = json.loads((tmp_path / "table.json").read_text())["runs"]
    assert again["figures"] == run["figures"] and again["flops"] == run["flops"]


@pytest.mark.slow
@pytest.mark.parametrize("arm", drawing_study.EXPERIMENTS)
def test_every_arm_takes_two_steps(arm, tmp_path):
    """From random parameters; the features and latents that are drawn are measured at the start."""
    config = drawing_study.config_of(arm, 0, tmp_path, Settings(start="some/run"))
    data = dataclasses.replace(config.data, batch_rows=8, window=64)
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=1)
    config = dataclasses.replace(config, data=data, optimizer=optimizer, initialize=Initialize(), steps=2, log_every=1)
    done = loop.train(config, tmp_path / "run")
    assert done.step == 2
    has_statistics = bool((np.asarray(done.params["target"]["std"]) > 0).all())
    assert has_statistics == (arm != "autoencoder")
