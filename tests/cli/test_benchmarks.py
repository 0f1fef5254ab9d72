"""Published benchmarks through the whole path on the nano model: files, prompts, answers, scores; kills."""

import json
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys

import few_shot_files
import nano_runs
import original_files
import published_sets
import pytest

from xgenmm_jax.cli import main
from xgenmm_jax.evaluation.published.files import Tsv
from xgenmm_jax.evaluation.tasks import suites
from xgenmm_jax.evaluation.tasks.few_shot import FewShotOptions

GOLDENS = Path(__file__).parents[1] / "goldens" / "benchmarks"
BY_TABLE = {
    table.name: benchmark
    for benchmark in suites.BENCHMARKS
    for table in benchmark.published
    if isinstance(table, Tsv) and (GOLDENS / table.name / "rows.tsv").is_file()
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return nano_runs.start(tmp_path_factory.mktemp("nano") / "run", None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in BY_TABLE:
        shutil.copy(GOLDENS / name / "rows.tsv", folder / f"{name}.tsv")
    return folder


@pytest.mark.slow
def test_tables_of_vlmevalkit_are_asked_and_scored(run, data, tmp_path, capsys):
    asked = list(BY_TABLE.values())
    names = ",".join(benchmark.name for benchmark in asked)
    words = ["evaluate", str(run), "--tasks", names, "--data", str(data), "--items", "6", "--output", str(tmp_path)]
    assert main.main(words) == 0
    capsys.readouterr()
    for benchmark in asked:
        scores = json.loads((tmp_path / f"{benchmark.name}.scores.json").read_text())
        assert scores["headline"] in scores["scores"], benchmark.name
        lines = (tmp_path / f"{benchmark.name}.jsonl").read_text().splitlines()
        assert len(lines) == 7 and json.loads(lines[0])["profile"] == "paper"
        # The file alone gives the same scores again.
        again = tmp_path / "again.json"
        assert main.main(["score", str(tmp_path / f"{benchmark.name}.jsonl"), "--json", str(again)]) == 0
        assert json.loads(again.read_text())["scores"] == scores["scores"], benchmark.name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "profile"),
    [
        ("mme,pope,hallusionbench,ocrbench,textvqa,docvqa,chartqa,vlguard,mathvista,mmvet,qbench2", None),
        ("fewshot", "paper"),
        ("blip2", None),
        ("realworldqa,ai2d,blink,muirbench,mantis,qbench1", "lmms"),
    ],
)
def test_the_authors_files_and_the_hubs_are_asked_and_scored(run, tmp_path, names, profile):
    """MM-Vet, which only a judge scores, and MME without all its categories say why they have no score."""
    folder = tmp_path / "data"
    for name in ("mme", "pope", "hallusionbench", "ocrbench", "textvqa", "docvqa", "chartqa", "vlguard"):
        getattr(original_files, name)(folder)
    for name, (_, write) in published_sets.WRITERS.items():
        if name in ("mathvista_json", "mmvet_json", "qbench2_json") or name.endswith("parquet"):
            write(folder)
    few_shot_files.write(folder / "few")
    where = folder / "few" if names in ("fewshot", "blip2") else folder
    words = ["--data", str(where), "--output", str(tmp_path / "out"), "--shots", "0", "2"]
    words += [] if profile is None else ["--profile", profile]
    assert main.main(["evaluate", str(run), "--tasks", names, *words]) == 0
    asked = suites.named(names.split(","), FewShotOptions((0, 2)))
    for benchmark in asked:
        scores = json.loads((tmp_path / "out" / f"{benchmark.name}.scores.json").read_text())
        assert scores["scores"][scores["headline"]]["items"] > 0, benchmark.name
        assert (scores["normalized"] is None) == (benchmark.name in ("mmvet", "mme"))


def test_a_name_or_a_folder_that_is_wrong_is_told_before_the_model_is_read(tmp_path, data, capsys):
    assert main.main(["evaluate", "nowhere", "--tasks", "mmstr", "--data", str(data)]) == 1
    assert "no benchmark 'mmstr'; did you mean mmstar" in capsys.readouterr().err
    assert main.main(["evaluate", "nowhere", "--tasks", "mmstar"]) == 1
    assert "--data: got none" in capsys.readouterr().err
    assert main.main(["evaluate", "nowhere", "--tasks", "ocrbench,coco_4", "--data", str(tmp_path)]) == 1
    sentence = capsys.readouterr().err
    assert "ocrbench: nothing of it in" in sentence and "coco_4: nothing of it in" in sentence


def test_another_program_s_predictions_are_scored(data, tmp_path, capsys):
    shutil.copy(GOLDENS / "MMStar" / "predictions.jsonl", tmp_path / "p.jsonl")
    words = ["score", str(tmp_path / "p.jsonl"), "--task", "mmstar", "--data", str(data), "--json", str(tmp_path / "s")]
    assert main.main([*words, "--profile", "latest", "--reading", "as_published"]) == 0
    assert json.loads((tmp_path / "s").read_text())["scores"]["Overall"]["value"] == pytest.approx(32.5)
    (tmp_path / "p.jsonl").write_text('{"index": 0, "prediction": "A"}\n')
    assert main.main(words) == 1
    assert "lacks 39 of 40 examples" in capsys.readouterr().err


@pytest.mark.slow
def test_an_evaluation_killed_at_ten_random_items_leaves_the_file_of_an_unbroken_one(run, data, tmp_path):
    """SIGKILL when the file has so many lines; chunks of 5 prompts, so that it happens inside and between them."""
    whole = tmp_path / "whole"
    command = [sys.executable, str(Path(__file__).parents[1] / "fixtures" / "small_chunks.py"), "evaluate", str(run)]
    words = ["--tasks", "mmstar", "--data", str(data)]
    subprocess.run([*command, *words, "--output", str(whole)], check=True, capture_output=True)
    wanted = (whole / "mmstar.jsonl").read_bytes()
    file = tmp_path / "killed" / "mmstar.jsonl"
    stops = sorted(random.Random(0).sample(range(1, wanted.count(b"\n")), 10))
    for stop in stops:
        process = subprocess.Popen(
            [*command, *words, "--output", str(file.parent)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            if file.is_file() and file.read_bytes().count(b"\n") >= stop:
                process.send_signal(signal.SIGKILL)
                process.wait()
    subprocess.run([*command, *words, "--output", str(file.parent)], check=True, capture_output=True)
    assert file.read_bytes() == wanted
    assert (file.parent / "mmstar.scores.json").read_bytes() == (whole / "mmstar.scores.json").read_bytes()


def test_items_whose_texts_differ_are_listed(data, tmp_path, capsys):
    """As two device counts may give: the scores differ by these items alone."""
    shutil.copy(GOLDENS / "MMStar" / "predictions.jsonl", tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    lines[4]["prediction"] = "another [answer]"
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["score", str(tmp_path / "a.jsonl"), "--task", "mmstar", "--data", str(data)]
    assert main.main([*words, "--against", str(tmp_path / "b.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "'another [answer]'" in printed and "1 of 40 texts differ" in printed
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    assert main.main([*words, "--against", str(tmp_path / "b.jsonl")]) == 1
    assert "1 items are in one of the two files alone (first: 0)" in capsys.readouterr().err
