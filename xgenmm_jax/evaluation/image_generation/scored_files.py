"""Files of what detectors, question answerers and judges said of pictures, and of features, scored.

JSON lines, one a picture (docs/evaluation.md#image-generation):
geneval: "filename", "metadata", "detections" {class: [[x0, y0, x1, y1, score], ...]}, and "colors" {class: [color,
    ...]} or "color_scores" {class: [[ten numbers], ...]}; or lines of GenEval's own results, with "correct".
dpg: "file" and "answers", a crop each: [{"1": "yes", ...}, ...], or null.
wise_2025, wise_verified: "prompt_id" with scores, or with the judge's text as "evaluation".
mjhq: two .npz files of features by categories, (pictures, d) each.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import io
import json
from typing import Any
import zipfile

import numpy as np

from xgenmm_jax import files
from xgenmm_jax.evaluation.image_generation import dpg, fid, geneval, wise
from xgenmm_jax.evaluation.image_generation.prompts import Benchmark, published_file
from xgenmm_jax.evaluation.profiles import Reading
from xgenmm_jax.paths import Path


@dataclass(frozen=True)
class GenerationScores:
    """rules: version and reading. rows: what is scored, its value as the benchmark prints it, and of how many. notes:
    a sentence each on what was left out.
    """

    benchmark: Benchmark
    rules: str
    rows: tuple[tuple[str, float, int], ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        scores = {name: {"value": value, "count": count} for name, value, count in self.rows}
        return {"benchmark": self.benchmark, "rules": self.rules, "scores": scores, "notes": list(self.notes)}


def score(
    benchmark: Benchmark,
    path: Path,
    reading: Reading = "careful",
    data: Path | None = None,
    reference: Path | None = None,
) -> GenerationScores:
    """Scores of a file.

    data: the folder with DPG's questions. reference: the features of real pictures, of MJHQ-30K.

    Raises:
        ValueError: something that the benchmark needs is missing, or a line that is none of it, with its number.
    """
    if benchmark == "geneval":
        return _geneval(path)
    if benchmark == "dpg":
        if data is None:
            raise ValueError("dpg: got no questions; give the folder with dpg_bench.csv (--data).")
        return _dpg(path, data, reading)
    if benchmark == "mjhq":
        if reference is None:
            raise ValueError("mjhq: got no features of real pictures; give their .npz (--against).")
        return _mjhq(path, reference)
    return _wise(benchmark, path, reading)


def _rows(path: Path, what: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Each line's object, and where it stands."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"'{path}': line {number}"
        try:
            row = files.parse_json(line)
        except (UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"{where} is no JSON ({error}); wanted {what}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is no JSON object; wanted {what}.")
        yield row, where


def _geneval(path: Path) -> GenerationScores:
    expected = 'an object with "filename", "metadata", "detections" and "colors" or "color_scores"'
    judged, names = [], set()
    for row, where in _rows(path, expected):
        try:
            if row["filename"] in names:
                raise ValueError(f"'{row['filename']}' a second time")
            names.add(row["filename"])
            metadata = row["metadata"]
            metadata = files.parse_json(metadata) if isinstance(metadata, str) else metadata
            if "correct" in row:
                judged.append(geneval.Judged(metadata, bool(row["correct"])))
                continue
            boxes = {
                name: np.array(one, np.float32).reshape(len(one), 5) for name, one in row["detections"].items() if one
            }
            colors = row.get("colors") or geneval.colors_of(row.get("color_scores", {}))
            verdict = geneval.evaluate(metadata, boxes, colors)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(f"{where} cannot be scored ({error}); wanted {expected}.") from error
        judged.append(geneval.Judged(metadata, verdict.is_correct))
    summary = geneval.summarize(judged)
    rows = [(tag, 100 * right / count, count) for tag, (right, count) in summary.correct.items()]
    prompts = summary.prompts[1]
    rows += [("overall", 100 * summary.overall, len(judged)), ("prompts", 100 * summary.prompts[0] / prompts, prompts)]
    lacking = [tag for tag in geneval.TAGS if tag not in summary.correct]
    notes = [f"No pictures of {', '.join(lacking)}: overall is the mean of the other tags."] if lacking else []
    if prompts < 553:
        notes.append(f"{prompts:,} of 553 prompts.")
    return GenerationScores("geneval", "GenEval's rules", tuple(rows), tuple(notes))


def _dpg(path: Path, data: Path, reading: Reading) -> GenerationScores:
    table = published_file(data, "dpg", "dpg_bench.csv").read_bytes().decode("utf-8-sig")
    items = dpg.read_items(table, reading)
    expected = 'an object with "file" and "answers"'
    answers: dict[str, Any] = {}
    for row, where in _rows(path, expected):
        try:
            crops = row["answers"]
            if row["file"] in answers:
                raise ValueError(f"'{row['file']}' a second time")
            if crops == []:
                raise ValueError("answers of no crop; of what is no picture give null")
            answers[row["file"]] = crops and [
                {int(question): str(answer) for question, answer in crop.items()} for crop in crops
            ]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{where} cannot be scored ({error}); wanted {expected}.") from error
    scores = dpg.score(items, answers, reading)
    count = len(scores.images)
    rows = [("overall", scores.total, count)]
    rows += [(name, value, count) for name, value in sorted({**scores.groups, **scores.kinds}.items())]
    notes = [f"'{file}' is not scored: {reason}." for file, reason in scores.failed.items()]
    if missing := len(items) - count:
        notes.append(f"{missing:,} of {len(items):,} prompts have no picture.")
    return GenerationScores("dpg", f"reading {reading}", tuple(rows), tuple(notes))


def _wise(benchmark: Benchmark, path: Path, reading: Reading) -> GenerationScores:
    version: wise.Version = "2025" if benchmark == "wise_2025" else "verified"
    # Not splitlines(): what a judge wrote may hold U+2028 or a form feed, which JSON leaves as they are.
    lines = path.read_bytes().decode("utf-8", errors="replace").removesuffix("\n").split("\n")
    scores = wise.score([[_with_scores(line, version) for line in lines]], version, "all", reading)
    if scores.missing:
        raise ValueError(
            f"{benchmark}: '{path}' lacks usable scores of {scores.missing:,} of {wise.PROMPTS:,} prompts, and without "
            "all of them there is no score; judge the rest."
        )
    rows = [(name.lower(), mean, count) for name, (mean, count) in scores.categories.items()]
    if scores.overall is not None:
        rows.append(("overall", scores.overall, sum(count for _, count in scores.categories.values())))
    notes = [f"{scores.skipped:,} lines have no usable score."] if scores.skipped else []
    return GenerationScores(benchmark, f"WISE {version}, reading {reading}", tuple(rows), tuple(notes))


def _with_scores(line: str, version: wise.Version) -> str:
    """The line, with the scores that its judge's text has in place of the text."""
    try:
        row = files.parse_json(line)
    except ValueError:
        return line
    if not isinstance(row, dict) or not isinstance(row.get("evaluation"), str):
        return line
    return json.dumps({**row, **wise.scores_in(row["evaluation"], version)})


def _mjhq(path: Path, reference: Path) -> GenerationScores:
    drawn, real = _features(path), _features(reference)
    distances = fid.by_category(drawn, real)
    counts: Mapping[str, int] = {name: len(features) for name, features in drawn.items()}
    rows = [(name, value, counts.get(name, sum(counts.values()))) for name, value in distances.items()]
    notes = ()
    if min(counts.values()) < next(iter(drawn.values())).shape[1]:
        notes = ("Fewer pictures than features: the distance is far from that of many pictures.",)
    return GenerationScores("mjhq", "Frechet distance of the given features", tuple(rows), notes)


def _features(path: Path) -> dict[str, np.ndarray]:
    expected = "wanted a .npz with an array (pictures, d) of numbers for each category"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            features = {name: arrays[name] for name in arrays}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"mjhq: '{path}' cannot be read ({error}); {expected}.") from error
    shapes = {array.shape[1:] if array.ndim == 2 and array.dtype.kind == "f" else None for array in features.values()}
    if len(shapes) != 1 or None in shapes:
        raise ValueError(f"mjhq: '{path}' has other arrays; {expected}.")
    return features
