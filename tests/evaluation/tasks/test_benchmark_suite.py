"""Published benchmarks in a run's config."""

from pathlib import Path
import shutil

from answering import AnsweringModel
import pytest

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.evaluation.tables import figure
from xgenmm_jax.evaluation.tasks.benchmark_suite import Benchmarks
from xgenmm_jax.evaluation.tasks.suite import InputFormat, make_tasks, run_tasks
from xgenmm_jax.training import config_json

GOLDENS = Path(__file__).parents[2] / "goldens" / "benchmarks"
FORMAT = InputFormat(ChatStyle("Be brief."), "chat", AnyRes())


@pytest.fixture
def data(tmp_path):
    for name in ("MMStar", "POPE"):
        shutil.copy(GOLDENS / name / "rows.tsv", tmp_path / f"{name}.tsv")
    return tmp_path


def test_benchmarks_of_a_config_are_read_when_they_are_asked(data, tmp_path):
    """Their metrics are in the benchmark's units; the chat template is the run's."""
    suite = Benchmarks(("mmstar", "pope"), str(data), items=20)
    model = AnsweringModel(lambda prompt: "Yes")
    model.tokenizer = tokenizer.train_tokenizer(["Is there a dog?"] * 3, tmp_path / "m.model", 400)
    evaluation = run_tasks(model, make_tasks([suite], FORMAT), [suite])
    assert evaluation.metrics["pope/Overall"] == pytest.approx(100 * 2 * 0.5 / 1.5, abs=30)
    assert figure("pope/Overall", 66.666) == "66.67" and figure("questions/mean", 0.5) == "50.0 %"
    text = model.tokenizer.decode(model.calls[0][0].token_ids)
    assert "Be brief." in text
    assert len(evaluation.predictions) == 40


def test_missing_files_are_told_together(tmp_path):
    suite = Benchmarks(("mmstar", "ocrbench"), str(tmp_path))
    with pytest.raises(ValueError, match=r"(?s)mmstar: nothing of it in.*ocrbench: nothing of it in"):
        suite.tasks(FORMAT)


def test_a_suite_of_benchmarks_survives_the_run_folder(data):
    suite = Benchmarks(("table1",), str(data), profile="lmms", items=3)
    assert config_json.from_json(config_json.to_json(suite), Benchmarks) == suite
