"""`xgenmm evaluate` of what a model understands, before it learned to draw and after: the same answers, to the bit."""

import json

import nano_runs
import pytest

from xgenmm_jax.cli import main as cli
from xgenmm_jax.nano.connector_start import pooling_start

pytestmark = pytest.mark.slow

ASKED = ["--kinds", "questions", "reading", "--items", "2", "--style", "chat"]
"""Pages are read in several views, which rows of captions to draw do not have."""


def test_answers_and_metrics_are_those_of_the_run_below(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    below = nano_runs.start(tmp_path / "below", pooling_start)
    monkeypatch.chdir(cli.__file__.rpartition("/xgenmm_jax/")[0])
    start = ["--initialize.run", str(below), "--steps", "2", "--data.batch-rows", "8", "--optimizer.warmup-steps", "1"]
    drawing = tmp_path / "drawing"
    assert cli.main(["train", "experiments/nano/draw.py", *start, "--workdir", str(drawing)]) == 0
    for run in (below, drawing):
        assert cli.main(["evaluate", str(run), *ASKED]) == 0
    answers = [(run / "answers.jsonl").read_text() for run in (below, drawing)]
    assert answers[0] == answers[1] and answers[0].count("\n") > 20
    assert "anyres" in answers[0]
    first, second = (json.loads((run / "evaluation.json").read_text()) for run in (below, drawing))
    assert first == second
