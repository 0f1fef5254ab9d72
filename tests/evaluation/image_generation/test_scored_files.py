"""Files of what others said of pictures, scored as typed."""

import json
from pathlib import Path

import numpy as np
import pytest

from xgenmm_jax.cli import main as cli
from xgenmm_jax.evaluation.image_generation import scored_files

GOLDENS = Path(__file__).parents[2] / "goldens" / "image_generation"


@pytest.fixture(autouse=True)
def no_compilation_cache(monkeypatch):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)


def _golden(name: str) -> dict:
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))


def _write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _geneval_rows() -> list[dict]:
    return [
        {"filename": f"{number}/samples/{name}", "metadata": folder["metadata"], **image}
        for number, folder in _golden("geneval")["folders"].items()
        for name, image in folder["images"].items()
    ]


def test_detections_are_scored_from_the_command_line(tmp_path: Path, capsys):
    path = _write(tmp_path / "detections.jsonl", _geneval_rows())
    assert cli.main(["score", str(path), "--task", "geneval", "--json", str(tmp_path / "scores.json")]) == 0
    stored = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    expected = _golden("geneval")["summary"]
    assert f"{stored['scores']['overall']['value'] / 100:.5f}" == expected["overall"]
    assert stored["scores"]["position"] == {"value": 37.5, "count": 32}
    assert stored["notes"] == ["48 of 553 prompts."]
    assert "51.26" in capsys.readouterr().out  # 0.51265 is 51.264...


def test_results_of_genevals_own_scorer_are_summed_up(tmp_path: Path):
    rows = [
        {"filename": row["filename"], "correct": expected["correct"], "metadata": json.dumps(row["metadata"])}
        for row, expected in zip(_geneval_rows(), _golden("geneval")["folders_expected"].values(), strict=True)
    ]
    scores = scored_files.score("geneval", _write(tmp_path / "results.jsonl", rows))
    assert f"{dict((name, value) for name, value, _ in scores.rows)['overall'] / 100:.5f}" == "0.51265"


def test_answers_are_scored_with_their_table(tmp_path: Path):
    case = _golden("dpg")["cases"][1]
    (tmp_path / "dpg_bench.csv").write_text(case["csv"], encoding="utf-8")
    rows = [{"file": f"{name}.png", "answers": crops} for name, crops in case["answers"].items()]
    path = _write(tmp_path / "answers.jsonl", [*rows, {"file": "notes.txt", "answers": None}])
    published = scored_files.score("dpg", path, "as_published", data=tmp_path)
    assert dict((name, value) for name, value, _ in published.rows)["overall"] == pytest.approx(
        case["expected"]["score"], abs=1e-9
    )
    assert "'notes.txt' is not scored: no picture." in published.notes
    with pytest.raises(ValueError, match=r"dpg: got no questions; give the folder with dpg_bench.csv \(--data\)"):
        scored_files.score("dpg", path)


def test_judges_texts_are_scored(tmp_path: Path):
    rows = [{"prompt_id": number, "evaluation": f"Score: {number % 2}"} for number in range(1, 1001)]
    scores = scored_files.score("wise_verified", _write(tmp_path / "full.jsonl", rows))
    assert scores.rows[-1] == ("overall", pytest.approx(0.5), 1000)
    with pytest.raises(ValueError, match="lacks usable scores of 1 of 1,000 prompts"):
        scored_files.score("wise_verified", _write(tmp_path / "part.jsonl", rows[1:]))


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path):
    """A judge's U+2028 or form feed cut the line in two, and both halves were no JSON."""
    rows = [{"prompt_id": n, "evaluation": "fine \u2028\x0c\x85 Score: 1"} for n in range(1, 1001)]
    path = tmp_path / "full.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    scores = scored_files.score("wise_verified", path)
    assert scores.rows[-1] == ("overall", pytest.approx(1.0), 1000) and scores.notes == ()


def test_answers_of_no_crop_are_told_with_their_line(tmp_path: Path):
    """They were a division by zero."""
    (tmp_path / "dpg_bench.csv").write_text(_golden("dpg")["cases"][1]["csv"], encoding="utf-8")
    path = _write(tmp_path / "answers.jsonl", [{"file": "a.png", "answers": []}])
    with pytest.raises(ValueError, match="line 1 cannot be scored .answers of no crop; of what is no picture"):
        scored_files.score("dpg", path, data=tmp_path)


def test_features_are_compared_by_category(tmp_path: Path, capsys):
    with np.load(GOLDENS / "fid.npz") as arrays:
        for side, name in (("a", "drawn"), ("b", "real")):
            np.savez(tmp_path / f"{name}.npz", **{c: arrays[f"category_{c}/{side}"] for c in ("one", "two")})
    drawn, real = (str(tmp_path / f"{name}.npz") for name in ("drawn", "real"))
    assert cli.main(["score", drawn, "--task", "mjhq", "--against", real]) == 0
    assert f"{_golden('fid')['cases']['both_categories']['torchmetrics']:.2f}" in capsys.readouterr().out
    np.savez(tmp_path / "objects.npz", one=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="mjhq: '.*objects.npz' cannot be read"):
        scored_files.score("mjhq", tmp_path / "objects.npz", reference=tmp_path / "real.npz")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 1 is no JSON"),
        ("[]", "line 1 is no JSON object"),
        (
            '{"filename": "x", "metadata": {"tag": "colors", "include": []}}',
            r"line 1 cannot be scored \('detections'\)",
        ),
        ('{"filename": "x", "metadata": {"tag": "x"}, "detections": {"cat": [[1, 2]]}}', "line 1 cannot be scored"),
    ],
)
def test_a_line_that_is_no_picture_is_named(tmp_path: Path, line: str, sentence: str):
    (tmp_path / "x.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence):
        scored_files.score("geneval", tmp_path / "x.jsonl")


def test_options_of_other_benchmarks_and_pictures_that_come_twice_are_refused(tmp_path: Path, capsys):
    row = {"filename": "x", "metadata": {"tag": "colors"}, "correct": True}
    path = _write(tmp_path / "x.jsonl", [row, row])
    assert cli.main(["score", str(path), "--task", "geneval", "--reading", "careful"]) != 0
    assert "--reading: geneval does not use it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="line 2 cannot be scored .'x' a second time"):
        scored_files.score("geneval", path)
