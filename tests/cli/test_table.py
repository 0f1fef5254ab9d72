"""`xgenmm table` as typed, on folders with the score files that evaluations leave."""

import html
import json
import math
from pathlib import Path
import re

import pytest

from xgenmm_jax.cli import main as cli
from xgenmm_jax.cli import table
from xgenmm_jax.evaluation import results
from xgenmm_jax.evaluation.paper_tables import DOMAINS, TABLE1
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.tasks.benchmark import Choice

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens/evaluation/table1_average.json").read_text())
FULL = {case["model"]: case for case in GOLDEN["cases"]}
BLIP3_14B = list(FULL["BLIP-3-14B"]["scores"].values())
TASKS = [column.task for column in TABLE1.columns]


def score(task: str, value: float, error: float = 1.2, **changes) -> Result:
    """As `results.result_of` makes it. changes: of the estimate, or fields of the result."""
    influence = {} if math.isnan(error) else {"a": error / 2, "b": -error / 2}
    of_estimate = {name: changes.pop(name) for name in ("unparsed", "note") if name in changes}
    estimate = Estimate(value, 1500, influence=influence, **of_estimate)
    fields = {"title": task, "choice": Choice(), "model": "m", **changes}
    return Result(task, headline="Overall", normalized=value, scores={"Overall": estimate}, **fields)


def run_of(folder: Path, scores: list[Result], profile: str = "paper") -> Path:
    there = folder / "evaluation" / profile
    there.mkdir(parents=True)
    for one in scores:
        results.write(one, there)
    return folder


@pytest.fixture
def full(tmp_path) -> Path:
    """A run with BLIP-3-14B's scores on Table 1."""
    return run_of(tmp_path / "full", [score(*pair) for pair in zip(TASKS, BLIP3_14B, strict=True)])


@pytest.fixture
def part(tmp_path) -> Path:
    """A run with three of Table 1's scores, one of them without a value, and two of no table of the paper."""
    scores = [
        score("mmstar", 45.24, 2.31, unparsed=39, unreadable=3), score("pope", 80.0, math.nan),
        score("mmvet", math.nan, note="no judge"), score("ai2d", 61.5, title="AI2D"),
        score("mine_2", 7.0, title="Mine"),
    ]  # fmt: skip
    return run_of(tmp_path / "part", scores)


def shown(capsys, *words: object) -> str:
    capsys.readouterr()
    assert cli.main(["table", *map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_run_of_all_columns_has_the_average_and_the_domains_of_its_published_twin(full, capsys):
    (filled,) = json.loads(shown(capsys, full, "--format", "json"))
    ours, twin = filled["rows"][-1], next(row for row in filled["rows"] if row["model"] == "BLIP-3-14B")
    assert (ours["model"], ours["ours"], ours["notes"]) == ("full", True, [])
    assert [cell["value"] for cell in ours["scores"]] == [cell["value"] for cell in twin["scores"]] == BLIP3_14B
    assert ours["average"]["value"] == pytest.approx(FULL["BLIP-3-14B"]["mean12"])
    assert f"{ours['average']['value']:.1f}" == f"{twin['average']['value']:.1f}" == "62.0"
    assert ours["average"]["stderr"] == pytest.approx(1.2 / math.sqrt(12)) and ours["average"]["notes"] == []


@pytest.mark.parametrize("model", FULL)
def test_averages_and_domain_means_are_the_papers_arithmetic(model, tmp_path, capsys):
    """Of all rows of Table 1 that are known whole; three of Table 5's means are such means of BLIP-3-4B's row."""
    case = FULL[model]
    run = run_of(tmp_path / "run", [score(*pair) for pair in zip(TASKS, case["scores"].values(), strict=True)])
    (table1,) = json.loads(shown(capsys, run, "--format", "json"))
    assert table1["rows"][-1]["average"]["value"] == pytest.approx(case["mean12"], abs=1e-9)
    (ablation,) = json.loads(shown(capsys, run, "--table", "ablation", "--format", "json"))
    means = {
        title: cell["value"] for title, cell in zip(ablation["columns"], ablation["rows"][-1]["scores"], strict=True)
    }
    wanted = {
        "General VQA": case["general5"], "Science and maths": case["scimath2"], "Hallucination": case["halluc2"],
        "OCR": case["ocr2"],
    }  # fmt: skip
    assert means == pytest.approx(wanted, abs=1e-9)
    errors = [cell["stderr"] for cell in ablation["rows"][-1]["scores"]]
    assert errors == pytest.approx([1.2 / math.sqrt(len(tasks)) for tasks in DOMAINS.values()])


def test_the_text_fits_a_hundred_columns_with_three_runs(full, part, tmp_path, capsys):
    other = run_of(tmp_path / "deep" / "full", [score("mmstar", 1.0)])
    out = shown(capsys, full, part, other)
    assert max(map(len, out.splitlines())) <= 100
    for words in (
        "GPT-4V",
        "VILA-1.5-",
        "45.2",
        "±2.3",
        "HalBench",
        "Benchmarks of none of the paper's tables",
        "61.5",
    ):
        assert words in out
    file = tmp_path / "table.txt"
    assert shown(capsys, full, part, other, "--output", file) == "" and file.read_text() == out


def test_what_is_missing_or_uncertain_is_a_footnote(part, capsys):
    first, other = json.loads(shown(capsys, part, "--format", "json"))
    ours = first["rows"][-1]
    cells = dict(zip(TASKS, ours["scores"], strict=True))
    assert cells["mmstar"]["notes"] == [
        "part, MMStar: 39 of 1,500 answers could not be read.",
        "part, MMStar: 3 pictures could not be read and count as wrong.",
    ]
    assert cells["mmvet"] == {"value": None, "stderr": None, "notes": ["part, MMVet: no judge."]}
    assert (cells["pope"]["value"], cells["pope"]["stderr"]) == (80.0, None)
    assert cells["mme"] == {"value": None, "stderr": None, "notes": []}
    (missing,) = ours["notes"]
    assert missing.startswith("part: not asked, or not by this profile: SEED-IMG, MMB(dev), MME(norm),")
    assert "MMStar" not in missing and "MMVet" not in missing
    # An error is not known where that of a part is not.
    assert (ours["average"]["value"], ours["average"]["stderr"]) == (pytest.approx((45.24 + 80) / 2), None)
    assert ours["average"]["notes"] == ["part: the mean of 2 of 12 columns, not comparable with a mean of all."]
    # A score is never dropped unseen, also not one whose name ends like a few-shot set's.
    assert (other["table"], other["columns"]) == ("other", ["AI2D", "Mine"])
    assert [cell["value"] for cell in other["rows"][-1]["scores"]] == [61.5, 7.0]
    (ablation,) = json.loads(shown(capsys, part, "--table", "ablation", "--format", "json"))
    assert ablation["rows"][-1]["scores"][2]["notes"] == ["part, Hallucination: no score of hallusionbench."]


def test_a_score_with_a_remark_a_judge_or_other_pictures_says_so(tmp_path, capsys):
    """MathVista without a judge has a number, and none that is comparable with published ones."""
    scores = [
        score("mathvista", 31.0, note="not comparable with published scores"),
        score("mmvet", 40.0, judge="gpt-4-turbo"),
        score("pope", 80.0, choice=Choice("paper", "as_published", "jpeg75")),
    ]
    (filled,) = json.loads(shown(capsys, run_of(tmp_path / "r", scores), "--format", "json"))
    cells = dict(zip(TASKS, filled["rows"][-1]["scores"], strict=True))
    assert cells["mathvista"]["notes"] == ["r, MathVista: not comparable with published scores."]
    assert cells["mmvet"]["notes"] == ["r, MMVet: judged by gpt-4-turbo."]
    assert filled["rules"] == "profile paper, as_published, pictures jpeg75; profile paper, careful"


def test_benchmarks_without_the_papers_rules_stand_by_the_authors(tmp_path, capsys):
    """As `xgenmm evaluate --tasks table2` asks them; of the others the authors' scores are another profile's."""
    official = Choice("official")
    run = run_of(tmp_path / "r", [score("blink", 40.0)])
    run_of(run, [score("mantis", 50.0, choice=official), score("blink", 1.0, choice=official)], profile="official")
    (filled,) = json.loads(shown(capsys, run, "--format", "json"))
    assert [cell["value"] for cell in filled["rows"][-1]["scores"]] == [40.0, None, None, 50.0]
    assert filled["rules"] == "profile official, careful; profile paper, careful"
    (filled,) = json.loads(shown(capsys, run, "--profile", "paper", "--format", "json"))
    assert [cell["value"] for cell in filled["rows"][-1]["scores"]] == [40.0, None, None, None]


def test_a_users_benchmark_without_the_papers_rules_has_its_column(tmp_path, capsys):
    """It was in no table; nobody but its file knows by which profile it is asked where none is given."""
    run = run_of(tmp_path / "r", [score("signs", 40.0)])
    official, lmms = Choice("official"), Choice("lmms")
    theirs = [score("lamps", 50.0, choice=official), score("signs", 1.0, choice=official)]
    run_of(run, theirs, profile="official")
    run_of(run, [score("doors", 60.0, choice=lmms), score("mmstar", 1.0, choice=lmms)], profile="lmms")
    (filled,) = json.loads(shown(capsys, run, "--format", "json"))
    assert dict(zip(filled["columns"], [cell["value"] for cell in filled["rows"][-1]["scores"]], strict=True)) == {
        "signs": 40.0, "lamps": 50.0, "doors": 60.0,
    }  # fmt: skip


def test_markdown_is_a_table_whose_cells_are_escaped(part, tmp_path, capsys):
    odd = run_of(tmp_path / "a|b", [score("mmstar", 50.0)])
    lines = shown(capsys, odd, part, "--table", "table1", "--format", "markdown").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {1 + 1 + 3 + 12 + 1}
    assert any(row.startswith("| **a\\|b [4]** | ? | ? | ? | - | - | 50.0 ±1.2 |") for row in rows)
    assert (
        "[1] Rows of the paper that are not known here to the digit, BLIP-3-4B's among them, are left out.  " in lines
    )


def test_html_is_a_page_with_every_number_and_curves_over_shots(part, tmp_path, capsys):
    shots = [
        score(f"coco_{count}", value, title=f"COCO captions, {count} shots")
        for count, value in ((0, 60.0), (4, 90.5), (8, 88.25))
    ]
    run = run_of(tmp_path / "<b>run", [*shots, score("okvqa_4", 40.0)])
    page = shown(capsys, run, part, "--format", "html")
    text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page.partition("</head>")[2])))
    for words in (
        "<b>run",
        "Few-shot, 8 demonstrations",
        "±2.3",
        "<b>run: COCO captions",
        "Average",
        "xgen-mm base r-v1",
    ):
        assert words in text, words
    assert "<b>" not in page and "<script" not in page and not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    # One curve: of the set with more than one number of shots, through its points and labelled with the last.
    assert page.count("<svg") == 1 and "88.25" in text and text.count("COCO captions") == 1
    assert table.curves({"r": results.read(run / "evaluation/paper")}) == {
        "r: COCO captions": [(0, 60.0), (4, 90.5), (8, 88.25)]
    }


def test_runs_of_one_folder_name_are_told_apart(tmp_path, capsys):
    runs = [run_of(tmp_path / name / "sft", [score("mmstar", value)]) for name, value in (("a", 10.0), ("b", 20.0))]
    single = run_of(tmp_path / "dpo", [score("mmstar", 30.0)])
    (filled,) = json.loads(shown(capsys, *runs, single, "--format", "json"))
    ours = {row["model"]: row["scores"][2]["value"] for row in filled["rows"] if row["ours"]}
    assert ours == {"a/sft": 10.0, "b/sft": 20.0, "dpo": 30.0}


def test_without_runs_the_papers_rows_are_shown(capsys):
    out = shown(capsys)
    assert "Table 1" in out and "no run of ours" in out and "BLIP-3-" in out
    assert "Few-shot, 8 demonstrations" in shown(capsys, "--table", "fewshot")


def test_a_run_without_scores_is_told_what_to_ask_and_what_there_is(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli.main(["table", str(empty)]) == 1
    error = capsys.readouterr().err
    assert f"xgenmm evaluate {empty} --tasks table1 --data DIR --profile paper" in error and error.count("\n") == 1
    other = run_of(tmp_path / "other", [score("mmstar", 1.0)], profile="lmms")
    assert cli.main(["table", str(other)]) == 1
    assert "there are scores of lmms (--profile)" in capsys.readouterr().err
    (other / "evaluation" / "paper").mkdir()
    (other / "evaluation" / "paper" / "mmstar.scores.json").write_text('{"task": "mmstar"}')
    assert cli.main(["table", str(other)]) == 1
    assert "holds no scores" in capsys.readouterr().err


def test_runs_that_know_their_tokens_make_the_papers_curve(tmp_path, capsys):
    """Figure 5's axes: billions of tokens of training, and the score of a few-shot set over checkpoints."""
    title = "COCO captions, 4 shots"
    runs = [
        run_of(tmp_path / name, [score("coco_4", value, title=title, tokens=tokens)])
        for name, value, tokens in (("b", 99.5, 60_000_000_000), ("a", 80.0, 2_000_000_000), ("c", 70.0, 0))
    ]  # fmt: skip
    listed = {run.name: results.read(run / "evaluation/paper") for run in runs}
    assert table.token_curves(listed) == {title: [(2.0, 80.0), (60.0, 99.5)]}
    page = shown(capsys, *runs, "--format", "html")
    assert page.count("<svg") == 1 and "billion tokens of training" in page
