"""WISE's scores of what a judge wrote about pictures (docs/reference/blip3o.md#image-benchmarks).

Two benchmarks bear the name: of 2025, three scores of 0 to 2, and "verified" of April 2026, other prompts and one score
of 0 or 1. Name the version beside every number.
"""

from collections.abc import Mapping, Sequence
import json
import math
import re
from typing import Any, Literal, NamedTuple

from xgenmm_jax.evaluation.profiles import Reading

Version = Literal["2025", "verified"]
Category = Literal["all", "culture", "space-time", "science"]
PROMPTS = 1000
LAST_IDS: dict[Version, dict[str, int]] = {
    "2025": {"CULTURE": 400, "TIME": 567, "SPACE": 700, "BIOLOGY": 800, "PHYSICS": 900, "CHEMISTRY": 1000},
    "verified": {"CULTURE": 400, "TIME": 520, "SPACE": 640, "BIOLOGY": 760, "PHYSICS": 880, "CHEMISTRY": 1000},
}
"""The last prompt of each category; the first follows the one before."""
WEIGHTS: dict[Version, dict[str, float]] = {
    "2025": {"CULTURE": 0.4, "TIME": 0.167, "SPACE": 0.133, "BIOLOGY": 0.1, "PHYSICS": 0.1, "CHEMISTRY": 0.1},
    "verified": {"CULTURE": 0.4, "TIME": 0.12, "SPACE": 0.12, "BIOLOGY": 0.12, "PHYSICS": 0.12, "CHEMISTRY": 0.12},
}
FILE_CATEGORIES: dict[str, tuple[str, ...]] = {
    "culture": ("CULTURE",), "space-time": ("TIME", "SPACE"), "science": ("BIOLOGY", "PHYSICS", "CHEMISTRY")
}  # fmt: skip
_FIELDS: dict[Version, tuple[str, ...]] = {
    "2025": ("consistency", "realism", "aesthetic_quality"), "verified": ("score",)
}  # fmt: skip
_LABELED = re.compile(r"\*{0,2}(Consistency|Realism|Aesthetic Quality)\*{0,2}\s*:?\s*([0-9])", re.IGNORECASE)
_BINARY = re.compile(r"\*{0,2}Score\*{0,2}\s*:?\s*([01])(?![0-9])", re.IGNORECASE)


class WiseScores(NamedTuple):
    """categories: mean in [0, 1] and number of scores of each. overall: their weighted sum; None where a category or,
    of all files, a prompt is missing. missing: prompts without a line, of all files. skipped: lines left out.
    """

    categories: dict[str, tuple[float, int]]
    overall: float | None
    missing: int
    skipped: int


def scores_in(text: str, version: Version) -> dict[str, float]:
    """What the public scripts read of a judge's reply; {} where they read nothing, or part of it.

    2025: `Consistency: 2`, the last of each name, one digit; without any such, the first three lines that are 0, 1 or
    2 alone. verified: the first `Score: 1`, or a reply that is 0 or 1 alone. Neither reads `**Score:** 1`, whose
    colon stands inside the stars.
    """
    if version == "verified":
        match = _BINARY.search(text) or re.fullmatch(r"\s*([01])\s*", text)
        return {"score": float(match[1])} if match else {}
    labeled = {name.lower().replace(" ", "_"): float(digit) for name, digit in _LABELED.findall(text)}
    alone = [line.strip() for line in text.splitlines() if re.fullmatch(r"[0-2]", line.strip())]
    if not labeled and len(alone) >= 3:
        return dict(zip(_FIELDS["2025"], map(float, alone), strict=False))
    return labeled


def image_score(scores: Mapping[str, int | float], version: Version) -> float:
    """Of one picture, in [0, 1]: (0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2, or the score itself."""
    if version == "verified":
        return float(scores["score"])
    return (0.7 * scores["consistency"] + 0.2 * scores["realism"] + 0.1 * scores["aesthetic_quality"]) / 2


def score(
    files: Sequence[Sequence[str]], version: Version, category: Category = "all", reading: Reading = "careful"
) -> WiseScores:
    """Scores of files of JSON lines, `{"prompt_id": 1, "consistency": 2, ...}`.

    as_published: a line whose score cannot be used counts as present and leaves the mean; a repeated prompt counts
    twice; a score of 2025 may be any number; with a category several files are not checked for missing prompts.
    careful: such a line is missing, of repeated prompts the last counts, scores are in 0 to 2, and prompts of the
    category's files are always checked. In both nothing is scored where a prompt is missing.

    category: of what `files` are; "all" needs every prompt.
    """
    present: set[int] = set()
    scored: list[tuple[int, float]] = []
    skipped = 0
    for line in (line for file in files for line in file):
        row = _row(line)
        number = row.get("prompt_id")
        if type(number) is not int or not 1 <= number <= PROMPTS:
            skipped += 1
            continue
        values = {name: row.get(name) for name in _FIELDS[version]}
        is_usable = all(_is_usable(value, version, reading) for value in values.values())
        if is_usable:
            scored.append((number, image_score(values, version)))  # type: ignore[arg-type]
        skipped += not is_usable
        if is_usable or reading == "as_published":
            present.add(number)
    if reading == "careful":
        scored = list(dict(scored).items())
    names = WEIGHTS[version] if category == "all" else FILE_CATEGORIES[category]
    required = {number for number in range(1, PROMPTS + 1) if _category(number, version) in names}
    is_checked = category == "all" or reading == "careful" or len(files) == 1
    missing = len(required - present) if is_checked else 0
    if missing:
        return WiseScores({}, None, missing, skipped)
    by_category: dict[str, list[float]] = {}
    for number, value in scored:
        by_category.setdefault(_category(number, version), []).append(value)
    categories = {name: (sum(values) / len(values), len(values)) for name, values in by_category.items()}
    overall = None
    if len(categories) == len(WEIGHTS[version]):
        overall = sum(weight * categories[name][0] for name, weight in WEIGHTS[version].items())
    return WiseScores(categories, overall, 0, skipped)


def _row(line: str) -> dict[str, Any]:
    """{} where a line is no JSON object."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _is_usable(value: object, version: Version, reading: Reading) -> bool:
    """A boolean is a number, as it is to Python."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if version == "verified":
        return value in (0, 1)
    return reading == "as_published" or 0 <= value <= 2


def _category(number: int, version: Version) -> str:
    return next(name for name, last in LAST_IDS[version].items() if number <= last)
