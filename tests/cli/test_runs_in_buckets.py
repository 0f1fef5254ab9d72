"""Runs in a bucket are asked, evaluated, scored and tabled as those of a disk, with the same bytes."""

import json
from pathlib import Path
import shutil

from buckets import gs_bucket
import nano_runs
import PIL.Image
import pytest

from xgenmm_jax import api, files
from xgenmm_jax.cli import main as cli
from xgenmm_jax.evaluation import prediction_files, runner
from xgenmm_jax.paths import user_path

MMSTAR = Path(__file__).parents[1] / "goldens" / "benchmarks" / "MMStar" / "rows.tsv"
DRAWN = ["--kinds", "handwriting", "--items", "3"]


@pytest.fixture(autouse=True)
def no_compilation_cache(monkeypatch):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)


@pytest.fixture(scope="module")
def there(run):
    """The run of this folder's tests, copied to a bucket as people do, and an image beside it."""
    with pytest.MonkeyPatch.context() as patch, gs_bucket(patch) as url:
        folder = user_path(f"{url}/runs", "test") / run.name
        copy(run, folder)
        yield folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    shutil.copy(MMSTAR, folder / "MMStar.tsv")
    return folder


def copy(source, target) -> None:
    for name in files.tree(source):
        files.copy(source / name, target / name)


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files.tree(folder)}


@pytest.mark.slow
def test_nano_is_asked_evaluated_and_converted_there(there, data, tmp_path, capsys):
    here = nano_runs.start(tmp_path / "nano", None)
    nano = there.parent / "nano"
    copy(here, nano)
    question = ["What is this?", "--max-new-tokens", "8"]
    said = []
    for folder in (here, nano):
        assert cli.main(["generate", str(folder), *question]) == 0
        assert cli.main(["evaluate", str(folder), "--kinds", "reading", "--items", "4"]) == 0
        assert cli.main(["evaluate", str(folder), "--tasks", "mmstar", "--data", str(data), "--items", "6"]) == 0
        assert cli.main(["convert", str(folder), str(folder.parent / "released"), "--to", "xgenmm"]) == 0
        capsys.readouterr()
        assert cli.main(["generate", str(folder.parent / "released"), *question]) == 0
        said.append(capsys.readouterr().out)
    assert contents(here.parent / "released") == contents(there.parent / "released")
    assert contents(here) == contents(nano) and said[0] == said[1]


def test_a_notebook_loads_it(run, there):
    here, loaded = api.load(run), api.load(str(there))
    assert loaded.folder == there
    answers = [one.generate(["What is this?"], max_new_tokens=5) for one in (here, loaded)]
    assert answers[0] == answers[1]


def test_generate_answers_about_an_image_beside_it(run, there, tmp_path, capsys):
    PIL.Image.new("RGB", (80, 50), (200, 30, 40)).save(tmp_path / "red.png")
    files.copy(tmp_path / "red.png", there.parent / "red.png")
    said = []
    for folder, image in ((run, tmp_path / "red.png"), (there, there.parent / "red.png")):
        words = ["generate", str(folder), "--image", str(image), "What is this?", "--max-new-tokens", "5"]
        assert cli.main(words) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert cli.main(["generate", str(there), "--image", str(there / "none.png"), "What?"]) == 1
    assert f"image: no file '{there / 'none.png'}'" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_writes_what_it_writes_on_a_disk(run, there, tmp_path):
    here = tmp_path / run.name
    shutil.copytree(run, here)
    for folder in (here, there):
        assert cli.main(["evaluate", str(folder), *DRAWN]) == 0
    for name in ("evaluation.json", "answers.jsonl"):
        assert (here / name).read_bytes() == (there / name).read_bytes()
    assert contents(here / "examples") == contents(there / "examples") != {}
    assert not (there / "evaluation.lock").exists()
    target = there.parent / "metrics.json"
    assert cli.main(["evaluate", str(there), *DRAWN, "--json", str(target)]) == 0
    assert files.read_json(target) == files.read_json(here / "evaluation.json")


@pytest.mark.slow
def test_benchmarks_are_resumed_to_the_bytes_of_an_unbroken_evaluation(run, there, data, tmp_path, monkeypatch, capsys):
    """Ended at its second chunk; what another chunk's kill left on a disk, a part of one, is no state of a bucket."""
    monkeypatch.setattr(runner, "CHUNK", 4)
    here = tmp_path / run.name
    shutil.copytree(run, here)
    words = ["--tasks", "mmstar", "--data", str(data), "--items", "10"]
    assert cli.main(["evaluate", str(here), *words]) == 0
    append = prediction_files.append
    monkeypatch.setattr(prediction_files, "append", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["evaluate", str(there), *words])
    asked = []
    monkeypatch.setattr(prediction_files, "append", lambda *both: asked.append(len(both[1])) or append(*both))
    assert cli.main(["evaluate", str(there), *words]) == 0
    assert contents(here / "evaluation") == contents(there / "evaluation")
    # From the beginning of the bucket's last chunk: half of the file is as if it had been cut there.
    file = there / "evaluation/paper/mmstar.jsonl"
    whole = file.read_bytes()
    files.write_whole(file, b"".join(line + b"\n" for line in whole.split(b"\n")[:7]) + b'{"id": "torn')
    asked.clear()
    assert cli.main(["evaluate", str(there), *words]) == 0
    assert file.read_bytes() == whole and sum(asked) < 10

    # The tables and scores of both are the same.
    capsys.readouterr()
    said = []
    for folder in (here, there):
        scores = folder.parent / "again.json"
        assert cli.main(["score", str(folder / "evaluation/paper/mmstar.jsonl"), "--json", str(scores)]) == 0
        assert cli.main(["table", str(folder), "--format", "json"]) == 0
        said.append((capsys.readouterr().out, scores.read_bytes()))
    assert said[0] == said[1] and json.loads(said[0][1])["task"] == "mmstar"
    page = there.parent / "table.html"
    assert cli.main(["table", str(there), "--format", "html", "--output", str(page)]) == 0
    assert "<table" in page.read_text()
