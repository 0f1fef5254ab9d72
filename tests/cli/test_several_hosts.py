"""`xgenmm evaluate` and `xgenmm generate` on two hosts: the answers of one, written once."""

import dataclasses
import json
from pathlib import Path
import shutil

import drawing_cases
import jax
import nano_runs
import numpy as np
import PIL.Image
import pytest
import several_hosts
import tiny_run

from xgenmm_jax.nano.tasks import DrawnWorld
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.sharding import MeshConfig

pytestmark = pytest.mark.slow

GOLDENS = Path(__file__).parents[1] / "goldens" / "benchmarks"

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    config = tiny_run.config(tiny_run.tokenizer(folder), steps=3)
    suite = DrawnWorld(groups=("handwriting", "caption"), items=5)
    config = dataclasses.replace(config, mesh=MeshConfig(), evaluate=(suite,))
    train(config, folder / "run", devices=jax.devices()[:1])
    PIL.Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    return folder


def said(process):
    """Lines on standard output; Gloo, which connects CPUs, prints some of its own."""
    return [line for line in process.stdout.splitlines() if not line.startswith("[Gloo]")]


def written(folder):
    metrics = json.loads((folder / "run" / "evaluation.json").read_text())
    return (folder / "run" / "answers.jsonl").read_text(), metrics["metrics"]


def test_an_evaluation_of_two_hosts_is_that_of_one(folder):
    (alone,) = several_hosts.run_hosts(folder, 1, ["evaluate", "run"])
    assert alone.returncode == 0, alone.stderr
    expected = written(folder)
    (folder / "run" / "answers.jsonl").unlink()
    first, second = several_hosts.run_hosts(folder, 2, ["evaluate", "run"])
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    assert written(folder) == expected
    assert "10 answers" in first.stdout and not said(second)
    assert not list((folder / "run").glob("*.lock"))


def test_two_hosts_generate_what_one_does(folder):
    words = ["generate", "run", "What is it?", "--image", "red.png", "--max-new-tokens", "6"]
    (alone,) = several_hosts.run_hosts(folder, 1, words)
    first, second = several_hosts.run_hosts(folder, 2, words)
    assert (alone.returncode, first.returncode, second.returncode) == (0, 0, 0), (first.stderr, second.stderr)
    assert said(first) == said(alone) != [] and not said(second)


def test_a_benchmark_of_two_hosts_is_written_by_the_first_and_gone_on_with(tmp_path):
    """The nano model; the files of predictions and scores of one host, byte for byte, and again without asking."""
    nano_runs.start(tmp_path / "run", None)
    (tmp_path / "data").mkdir()
    shutil.copy(GOLDENS / "MMStar" / "rows.tsv", tmp_path / "data" / "MMStar.tsv")
    words = ["evaluate", "run", "--tasks", "mmstar", "--data", "data", "--items", "6", "--output"]
    (alone,) = several_hosts.run_hosts(tmp_path, 1, [*words, "alone"])
    assert alone.returncode == 0, alone.stderr
    for _ in range(2):
        first, second = several_hosts.run_hosts(tmp_path, 2, [*words, "both"])
        assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
        assert "MMStar" in first.stdout and not said(second)
        for name in ("mmstar.jsonl", "mmstar.scores.json"):
            assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_two_hosts_draw_what_one_does_and_go_on_together(tmp_path):
    """Each would have drawn what it finds missing, and only the first one sees what it writes."""
    drawing_cases.saved(tmp_path / "run")
    lines = [{"tag": "colors", "include": [], "prompt": f"a {color} star"} for color in ("red", "blue")]
    (tmp_path / "evaluation_metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["evaluate", "run", "--tasks", "geneval", "--data", ".", "--output"]
    (alone,) = several_hosts.run_hosts(tmp_path, 1, [*words, "alone"])
    assert alone.returncode == 0, alone.stderr
    for drawn in (2, 1):
        first, second = several_hosts.run_hosts(tmp_path, 2, [*words, "both"])
        assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
        assert f"geneval: {drawn} prompts drawn, 2 in both" in first.stdout and not said(second)
        names = sorted(path.relative_to(tmp_path / "both") for path in (tmp_path / "both").rglob("*.png"))
        assert len(names) == 8
        for name in names:
            ours, expected = (
                np.asarray(PIL.Image.open(tmp_path / one / name)).astype(int) for one in ("both", "alone")
            )
            assert np.abs(ours - expected).max() <= 1
        (tmp_path / "both" / "geneval" / "00001" / "samples" / "0002.png").unlink()


def test_an_error_ends_both(folder):
    words = ["generate", "nothing", "What is it?"]
    first, second = several_hosts.run_hosts(folder, 2, words)
    assert (first.returncode, second.returncode) == (1, 1)
    assert "no file or folder 'nothing'" in first.stderr + second.stderr
