"""Every benchmark against the toolkits' own prompts, items and tables, in each profile and reading.

BENCHMARK_GOLDENS names another folder of the same form.
"""

import os
from pathlib import Path

import benchmark_goldens as goldens
import pytest

from xgenmm_jax.evaluation.tasks import mmbench, suites
from xgenmm_jax.evaluation.tasks.benchmark import Choice

ROOT = Path(os.environ.get("BENCHMARK_GOLDENS", Path(__file__).parents[2] / "goldens" / "benchmarks"))
BY_FOLDER = {
    table.name: benchmark
    for benchmark in suites.BENCHMARKS
    for table in benchmark.published
    if isinstance(table, goldens.Tsv)
} | {benchmark.title: benchmark for benchmark in suites.BENCHMARKS if benchmark.name == "mantis"}
FOLDERS = sorted(path.name for path in ROOT.iterdir() if (path / "scores.json").is_file())
# Ours are in percent, the toolkits' are fractions, but for these.
SCALE = {"MME": 1, "OCRBench": 1, "POPE": 1, "HallusionBench": 1, "MathVista_MINI": 1, "TextVQA_VAL": 1,
         "DocVQA_VAL": 1, "ChartQA_TEST": 1}  # fmt: skip
LMMS_SCALE = {"MME": 1, "MMBench_DEV_EN": 1}
READINGS = ("as_published", "careful")
VLMEVALKIT = [
    (folder, code, reading)
    for folder in FOLDERS
    for code in goldens.CODES
    for reading in READINGS
    if code in goldens.parsed(ROOT / folder / "scores.json")
]
LMMS = [folder for folder in FOLDERS if "lmms_eval" in goldens.parsed(ROOT / folder / "scores.json")]


def test_every_golden_folder_has_its_benchmark():
    assert set(FOLDERS) <= set(BY_FOLDER)


@pytest.mark.parametrize(("folder", "code", "reading"), VLMEVALKIT)
def test_prompts_are_those_of_vlmevalkit(folder, code, reading):
    benchmark = BY_FOLDER[folder]
    golden = goldens.parsed(ROOT / folder / "prompts.json")
    base = golden["vlmeval_fork"]
    wanted = {}
    for part in [base["as_published"], golden[code]["as_published"]]:
        wanted |= {str(line["index"]): line["message"] for line in part}
    if reading == "careful":
        for part in [base["careful"], golden[code]["careful"]]:
            wanted |= {str(line["index"]): line["message"] for line in part}
    examples = goldens.tsv_examples(benchmark, ROOT / folder, reading)
    ours = {example.id: goldens.message_of(benchmark, example, goldens.CODES[code]) for example in examples}
    assert ours == wanted


@pytest.mark.parametrize(("folder", "code", "reading"), VLMEVALKIT)
def test_scores_are_those_of_vlmevalkit(folder, code, reading):
    benchmark, profile = BY_FOLDER[folder], goldens.CODES[code]
    scores = goldens.parsed(ROOT / folder / "scores.json")[code]
    answers = goldens.predictions_of(ROOT / folder)
    if reading == "careful" and scores["prediction_file"]["careful"] == "xlsx":
        # That version writes spreadsheets alone, in which such an answer is a formula.
        answers = {index: "0" if text.startswith("=") else text for index, text in answers.items()}
    examples = [(example.id, example) for example in goldens.tsv_examples(benchmark, ROOT / folder, reading)]
    predictions = goldens.predicted(benchmark, examples, answers, Choice(profile, reading))
    golden = scores[reading]
    # Of DocVQA it keeps the mean distance to all answers, which is no score.
    items = golden.get("items", ()) if folder != "DocVQA_VAL" else ()
    check_items(items, of_items(folder, predictions))
    ours = benchmark.summarize([prediction for _, prediction in predictions], profile)
    assert list(goldens.differing(goldens.flat_table(golden["table"]), ours, SCALE.get(folder, 100))) == []


@pytest.mark.parametrize("folder", LMMS)
def test_prompts_are_those_of_lmms_eval(folder):
    benchmark = BY_FOLDER[folder]
    messages = goldens.parsed(ROOT / folder / "prompts.json")["lmms_eval"]["messages"]
    examples = goldens.doc_examples(benchmark, ROOT / folder)
    ours = [
        (index, [
            {"image": example.images[part["image"]].size_px[0] - 1} if "image" in part else part
            for part in goldens.message_of(benchmark, example, "lmms")
        ])
        for index, example in examples
    ]  # fmt: skip
    assert ours == [(str(line["index"]), line["message"]) for line in messages]


@pytest.mark.parametrize("folder", LMMS)
def test_scores_are_those_of_lmms_eval(folder):
    benchmark = BY_FOLDER[folder]
    golden = goldens.parsed(ROOT / folder / "scores.json")["lmms_eval"]
    examples = goldens.doc_examples(benchmark, ROOT / folder)
    predictions = goldens.predicted(
        benchmark, examples, goldens.predictions_of(ROOT / folder), Choice("lmms", "as_published")
    )
    check_items(golden["items"], predictions)
    ours = benchmark.summarize([prediction for _, prediction in predictions], "lmms")
    wanted = {name.split(",")[0]: value for name, value in golden["metrics"].items()}
    assert list(goldens.differing(wanted, ours, LMMS_SCALE.get(folder, 100))) == []


def of_items(folder, predictions):
    """Items of MMBench are questions, each of several rows."""
    if folder != "MMBench_DEV_EN":
        return predictions
    return [(one.example.id, one) for one in mmbench.questions([prediction for _, prediction in predictions])]


def check_items(golden, predictions):
    """Items that carry a score are compared by their row's index, where each row has one item."""
    indices = [str(item["index"]) for item in golden]
    if len(set(indices)) < len(indices):
        return
    ours = dict(predictions)
    for item in golden:
        if "prefetched" in item:
            read = item["prefetched"]
            assert ours[str(item["index"])].extracted == (None if read is None else str(read)), item
        wanted = next((float(item[name]) for name in goldens.SCORE_FIELDS if item.get(name) is not None), None)
        if wanted is not None and str(item["index"]) in ours:
            assert ours[str(item["index"])].score == pytest.approx(wanted, abs=1e-9), item
