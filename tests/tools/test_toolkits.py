"""What tools/try_toolkits.py asks in the toolkits and compares: rows in all their containers, scores side by side."""

import json
from pathlib import Path

import pytest

from tools import toolkit_files, toolkit_results, toolkit_rows
from xgenmm_jax.evaluation.tasks import suites
from xgenmm_jax.evaluation.tasks.benchmark import Choice


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    toolkit_files.write_all(folder, toolkit_rows.pope_rows(6), toolkit_rows.muir_rows(6))
    return folder


def loaded(data: Path, name: str, choice: Choice):
    (benchmark,) = suites.named([name])
    return benchmark.load(data, choice).examples


def test_the_two_containers_of_pope_hold_the_same_questions(data: Path):
    table = loaded(data, "pope", Choice("fork"))
    hub = loaded(data, "pope", Choice("lmms"))
    assert len(table) == 12 and {example.answers for example in table} == {("Yes",), ("No",)}
    asked = [
        (one.question, one.answers[0].lower(), split)
        for one in table
        for split in one.fields["category"].split(",")
    ]
    assert sorted((one.question, one.answers[0], one.fields["category"]) for one in hub) == sorted(asked)


def test_muirbench_loses_the_option_none_only_as_published(data: Path):
    careful = loaded(data, "muirbench", Choice("fork"))
    published = loaded(data, "muirbench", Choice("fork", "as_published"))
    number_of = [[len(example.options) for example in examples] for examples in (careful, published)]
    assert [a - b for a, b in zip(*number_of, strict=True)] == [0, 1, 0, 0, 0, 1]
    assert all(len(one.images) == one.question.count("<image>") for one in careful)


def test_conversations_are_of_other_pictures_than_the_rows(tmp_path: Path):
    path = toolkit_rows.conversations(tmp_path / "learned", 8)
    entries = json.loads(path.read_text())
    assert {entry["conversations"][1]["value"] for entry in entries} >= {"Yes", "No", "A", "B"}
    learned = {(tmp_path / "learned" / name).read_bytes() for entry in entries for name in entry["image"]}
    rows = [row.picture for row in toolkit_rows.pope_rows(30)]
    assert not learned & {*rows, *(picture for row in toolkit_rows.muir_rows(36) for picture in row.pictures)}


@pytest.fixture
def outputs(tmp_path: Path) -> tuple[Path, Path]:
    """lmms-eval's output and ours, of one question each."""
    theirs, ours = tmp_path / "lmms_eval" / "run", tmp_path / "ours"
    theirs.mkdir(parents=True)
    ours.mkdir()
    results = {}
    for task, score in (("pope", "pope_accuracy"), ("muirbench", "muirbench_score_overall")):
        results[f"{task}_local"] = {"alias": task, f"{score},none": 1.0, f"{score}_stderr,none": "N/A"}
        line = {"doc_id": 0, "filtered_resps": ["Yes"]}
        (theirs / f"1_samples_{task}_local.jsonl").write_text(json.dumps(line) + "\n")
        (ours / f"{task}.jsonl").write_text(json.dumps({"id": "0", "prediction": "Yes\n\nIt is."}) + "\n")
        (ours / f"{task}.scores.json").write_text(json.dumps({"scores": {score: {"value": 100.0}}}))
    (theirs / "1_results.json").write_text(json.dumps({"results": results}))
    return theirs.parent, ours


def test_equal_answers_and_scores_are_told_from_others(outputs: tuple[Path, Path]):
    rows = toolkit_results.compare_lmms_eval(*outputs)
    assert len(rows) == 4 and all(row.is_equal for row in rows)
    ours = outputs[1]
    (ours / "pope.scores.json").write_text(json.dumps({"scores": {"pope_accuracy": {"value": 99.0}}}))
    (ours / "muirbench.jsonl").write_text(json.dumps({"id": "0", "prediction": "No"}) + "\n")
    rows = toolkit_results.compare_lmms_eval(*outputs)
    assert [row.is_equal for row in rows] == [True, False, False, True]
    assert toolkit_results.table(rows).count("DIFFERS") == 2
