"""tools/connector_study.py: steps of equal samples and FLOPs, arms, what is not done again, tables and plot."""

from dataclasses import replace
import json

import numpy as np
import PIL.Image
import pytest

from tools import connector_study, connector_table, study
from tools.connector_study import Cost, Settings
from tools.study_table import Result

COSTS = {
    "queries": Cost(32, 16e9), "blip2": Cost(40, 10e9), "qformer": Cost(40, 10e9), "resampler": Cost(40, 8e9),
    "blip3": Cost(40, 16e9), "qformer_trained": Cost(40, 16e9), "blip3_documents": Cost(25, 20e9),
}  # fmt: skip
SETTINGS = Settings(samples=4000, pairs=1600)
"""50 steps of the first stage and 100 of A: 0.8 and 1 TFLOP."""


def result(arm: str, seed: int, flops: float = 3e12, **figures: float) -> Result:
    return Result(arm, seed, dict.fromkeys(connector_table.FIGURES, 1.0) | figures, flops, seconds=60.0)


def results() -> list[Result]:
    return [
        *(result("blip2", seed, questions=30.0 + seed) for seed in (0, 2)),
        *(result("qformer", seed, questions=20.0 + seed) for seed in (0, 2)),
        *(result("blip3", seed, 5e12, questions=31.0 + seed, several=5.0) for seed in (0, 2)),
        result("blip3_documents", 0, questions=40.0),
    ]


def test_equal_flops_are_those_of_both_stages_of_blip2():
    steps = {arm: connector_study.steps_of(arm, "flops", COSTS, SETTINGS) for arm in COSTS}
    assert steps == {
        "queries": 50, "blip2": 100, "qformer": 180, "resampler": 225, "blip3": 112, "qformer_trained": 62,
        "blip3_documents": 90,
    }  # fmt: skip
    equal = {arm: connector_study.steps_of(arm, "samples", COSTS, SETTINGS) for arm in COSTS}
    assert set(equal.values()) == {50, 100, 160} and equal["blip3_documents"] == 160


def test_a_study_of_no_step_is_refused():
    """A run of 0 steps was begun."""
    with pytest.raises(ValueError, match="connector study: --samples: 10 are no step of blip2, which takes 40; give"):
        connector_study.steps_of("blip2", "samples", COSTS, replace(SETTINGS, samples=10))
    with pytest.raises(ValueError, match="connector study: --pairs: 10 are no step, which takes 32; give more"):
        connector_study.steps_of("blip3", "flops", COSTS, replace(SETTINGS, pairs=10))


def test_arms_are_the_experiments_at_nano_and_begin_with_their_seeds_first_stage(tmp_path):
    configs = {arm: connector_study.config_of(arm, 2, 7, tmp_path) for arm in COSTS}
    assert {(one.steps, one.seed, one.optimizer.warmup_steps) for one in configs.values()} == {(7, 2, 1)}
    begin = {arm: one.initialize.connector for arm, one in configs.items()}
    first = str(tmp_path / "queries_2")
    assert begin == dict.fromkeys(COSTS, None) | dict.fromkeys(connector_study.AFTER_FIRST, first)
    assert all(one.initialize.connector_start is None for one in configs.values())


def test_costs_are_those_of_the_first_batches():
    config = connector_study.experiment("queries")
    cost = connector_study.cost_of(config, count=2)
    assert cost.samples == config.data.batch_rows and cost.flops > 1e9


def test_tables_have_means_and_differences():
    table = connector_table.table(results())
    assert [line[0][0] for line in table[1:]] == ["A", "B", "D", "D"]
    assert table[1][1] == "31.0 ± 1.4" and table[4][1] == "40.0" and len({len(line) for line in table}) == 1
    differences = {line[1]: line[2] for line in connector_table.differences(results())[1:]}
    assert differences == {"A - B": "+10.0 more", "D - A": "+1.0 not told apart", "D+ - D": "+8.0"}


def test_a_plot_shows_every_arm_at_either_budget(tmp_path):
    whole = [result(arm, seed, 1e12 * (1 + n)) for n, arm in enumerate(connector_table.NAMES) for seed in (0, 1)]
    connector_table.plot({"samples": whole, "flops": [result("blip3", 0, 9e12)]}, tmp_path / "plot.png")
    with PIL.Image.open(tmp_path / "plot.png") as image:
        colors = {tuple(color) for color in np.asarray(image.convert("RGB")).reshape(-1, 3)}
    for color in connector_table.COLORS:
        assert tuple(bytes.fromhex(color[1:])) in colors


def test_what_is_finished_is_not_done_again(tmp_path, monkeypatch):
    """Arms, seeds and budgets may be added; the run of A serves both budgets."""
    trained = []
    (tmp_path / "costs.json").write_text(json.dumps({arm: vars(cost) for arm, cost in COSTS.items()}))
    monkeypatch.setattr(study, "train", lambda config, run, subject: trained.append(run.name))
    monkeypatch.setattr(connector_study.api, "load", lambda run: None)
    monkeypatch.setattr(connector_study, "judged", lambda *_: dict.fromkeys(connector_table.JUDGED, 50.0))
    monkeypatch.setattr(connector_study, "read_metrics", lambda run: [{"samples": 4000}])
    monkeypatch.setattr(study, "flops_of", lambda run: 2e12)
    monkeypatch.setattr(study, "seconds_of", lambda run: 60.0)
    monkeypatch.setattr(connector_table, "plot", lambda results, path: None)

    def recalls(first, settings):
        (tmp_path / f"{first.name}.json").write_text(json.dumps({"contrast": 10.0, "matched": 20.0}))

    monkeypatch.setattr(connector_study, "found", recalls)
    connector_study.run_study(tmp_path, replace(SETTINGS, seeds=(0,), arms=("blip2", "blip3")))
    assert trained == ["queries_0", "blip2_100_0", "blip3_100_0", "blip3_112_0"]
    trained.clear()
    connector_study.run_study(tmp_path, replace(SETTINGS, seeds=(0, 1), arms=("blip2", "blip3"), budgets=("samples",)))
    assert trained == ["queries_1", "blip2_100_1", "blip3_100_1"]
    text = (tmp_path / "table.md").read_text()
    assert "paper claims no number" in text and "recall at 1 10.0 ± 0.0 % by contrast, 20.0 ± 0.0 % by matching" in text
    assert "| D BLIP-3: resampler, decoder trained | 50.0 ± 0.0 |" in text and "4,000 ± 0" in text
    (first, *_) = json.loads((tmp_path / "table.json").read_text())["runs"]["samples"]
    assert first["arm"] == "blip2" and first["flops"] == 4e12, "its first stage's are counted"
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["figures"] == sorted(connector_table.FIGURES)
    with pytest.raises(ValueError, match="connector study: .* is of pairs 1600, asked for 5; give another folder"):
        connector_study.run_study(tmp_path, replace(SETTINGS, pairs=5))


@pytest.mark.slow
def test_every_arm_takes_two_steps(tmp_path, monkeypatch):
    """The first stage is trained and retrieves, both arms behind it read it; one is asked."""
    made = connector_study.experiment

    def small(arm):
        config = made(arm)
        rows = {"batch_rows": 8} if arm == "queries" else {"batch_rows": 8, "window": 64}
        return replace(config, data=replace(config.data, **rows), log_every=1)

    whole = connector_study.judged
    asked = {"blip2": whole}

    def judged(lmm, settings):
        ask = asked.pop("blip2", None)
        return ask(lmm, settings) if ask else dict.fromkeys(connector_table.JUDGED, 50.0)

    monkeypatch.setattr(connector_study, "experiment", small)
    monkeypatch.setattr(connector_study, "judged", judged)
    monkeypatch.setattr(connector_study, "steps_of", lambda *_: 2)
    connector_study.run_study(tmp_path, Settings(seeds=(0,), budgets=("samples",), items=1, retrieved=4))
    runs = json.loads((tmp_path / "table.json").read_text())["runs"]["samples"]
    assert [run["arm"] for run in runs] == list(connector_table.NAMES)
    assert all(run["flops"] > 0 and run["seconds"] > 0 and run["figures"]["samples"] > 0 for run in runs)
    assert runs[0]["flops"] > runs[1]["flops"], "its first stage is counted"
    assert all(0 <= runs[0]["figures"][name] <= 1000 for name in connector_table.JUDGED)
    recalls = json.loads((tmp_path / "queries_0.json").read_text())
    assert all(0 <= recalls[name] <= 100 for name in ("contrast", "matched"))
