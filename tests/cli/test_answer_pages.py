"""`xgenmm evaluate --tasks` and `xgenmm score --page` as typed: pages of the answers that are not right."""

import html
import json
from pathlib import Path
import re
import shutil

import pytest

from xgenmm_jax.cli import main as cli
from xgenmm_jax.evaluation import prediction_files
from xgenmm_jax.evaluation.published.files import Tsv
from xgenmm_jax.evaluation.tasks.benchmark import Choice
from xgenmm_jax.evaluation.tasks.suites import BENCHMARKS

GOLDENS = Path(__file__).parents[1] / "goldens" / "benchmarks"
ITEMS = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder of benchmarks as VLMEvalKit publishes them; a picture of MMStar's cannot be decoded."""
    folder = tmp_path_factory.mktemp("data")
    for golden in GOLDENS.iterdir():
        if golden.is_dir():
            shutil.copy(golden / "rows.tsv", folder / f"{golden.name}.tsv")
    head, first, second, *rest = (folder / "MMStar.tsv").read_text().splitlines(keepends=True)
    cut = second.rpartition("\t")[2]
    (folder / "MMStar.tsv").write_text("".join([head, first, second.replace(cut, cut[:40] + "\n"), *rest]))
    return folder


def words_of(page: Path) -> str:
    text = page.read_text().partition("</head>")[2].partition("<script>")[0]
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", text)))


@pytest.fixture
def own(tmp_path) -> str:
    """The example of an own benchmark of docs/evaluation.md, as --tasks names it."""
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    (code,) = re.findall("```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    return f"{tmp_path / 'mine.py'}:TASKS"


def test_evaluate_writes_a_page_beside_the_predictions(run, data, own, tmp_path, monkeypatch, capsys):
    """Of a user's benchmark: its answers are short, those of published ones have a thousand tokens."""
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    (folder := tmp_path / "data").mkdir()
    shutil.copy(data / "MMStar.tsv", folder / "signs.tsv")
    out = tmp_path / "out"
    asked = ["evaluate", str(run), "--tasks", own, "--data", str(folder), "--items", str(ITEMS), "--output", str(out)]
    assert cli.main(asked) == 0, capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["signs.html", "signs.jsonl", "signs.scores.json"]
    page, scores = (out / "signs.html").read_text(), json.loads((out / "signs.scores.json").read_text())
    wrong = ITEMS - round(scores["scores"]["Overall"]["value"] / 100 * ITEMS)
    assert wrong <= page.count("<article") <= ITEMS
    assert page.count("data:image/jpeg") == page.count("<article") - 1 and scores["unreadable"] == 1
    assert page.count('data-kind="unreadable"') == 1
    assert prediction_files.read(out / "signs.jsonl").head.model in page and "Road signs" in words_of(
        out / "signs.html"
    )

    # The same command again: nothing is asked, and the page of a run that is complete is the same.
    (out / "signs.html").unlink()
    assert cli.main(asked) == 0
    assert (out / "signs.html").read_text() == page

    # Scored by itself, a picture that could not be read when the model was asked stays unreadable.
    alone = tmp_path / "alone.html"
    assert cli.main(["score", str(out / "signs.jsonl"), "--task", own, "--page", str(alone)]) == 0
    assert "files were not given" in words_of(alone) and "<img " not in alone.read_text()
    assert alone.read_text().count('data-kind="unreadable"') == 1


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_any_model_s_answers_have_a_page(benchmark, data, tmp_path, capsys):
    """Of the answers of the goldens, by the rules of the paper's toolkit."""
    name = next((one.name for one in benchmark.published if isinstance(one, Tsv)), None)
    if name is None or not (data / f"{name}.tsv").is_file():
        pytest.skip(f"no golden folder of {benchmark.title}")
    page, answers = tmp_path / "page.html", tmp_path / "answers.jsonl"
    lines = (GOLDENS / name / "predictions.jsonl").read_text().splitlines()
    # A golden row of SEED has no picture, and is no example.
    known = {example.id for example in benchmark.load(data, Choice()).examples}
    answers.write_text("\n".join(line for line in lines if str(json.loads(line)["index"]) in known))
    words = ["score", str(answers), "--task", benchmark.name, "--data", str(data), "--page", str(page)]
    assert cli.main(words) == 0, capsys.readouterr().err
    text = page.read_text()
    assert 0 < text.count("<article") <= 200 and text.count("<script>") == 1
    assert "data:image/jpeg" in text and benchmark.title in words_of(page)


def test_a_name_of_several_benchmarks_is_refused_with_theirs(tmp_path, capsys):
    answers = str(GOLDENS / "MMStar" / "predictions.jsonl")
    assert cli.main(["score", answers, "--task", "table2", "--data", str(tmp_path)]) == 1
    assert "'table2' stands for blink, qbench2, muirbench, mantis; give one of them." in capsys.readouterr().err


def test_a_page_that_would_be_a_folder_is_refused_before_anything_is_read(data, tmp_path, capsys):
    words = ["score", str(GOLDENS / "MMStar" / "predictions.jsonl"), "--task", "mmstar", "--data", str(data)]
    assert cli.main([*words, "--page", str(tmp_path)]) == 1
    assert "--page" in capsys.readouterr().err
