"""What the toolkits make of a table's cells and of a model's answers, where that differs from what is written."""

from collections.abc import Sequence
import re

from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile, Reading

LOST_WORDS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null"]
)  # fmt: skip
"""Cells that `pandas.read_csv` takes for missing: an option "None" is then no option."""

_INTEGER = re.compile(r"[ \t]*[+-]?[0-9]+[ \t]*")
_DECIMAL = re.compile(r"[ \t]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*")
_INFINITE = {"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}
_TRUTHS = {"True": "True", "TRUE": "True", "true": "True", "False": "False", "FALSE": "False", "false": "False"}


def read_column(cells: Sequence[str], reading: Reading) -> list[str | None]:
    """A column's cells as the toolkit has them in its prompts and scores; None where it has no value.

    careful: a blank cell has none, every other stays as it is. as_published: as pandas infers types: LOST_WORDS have
    none, a column of whole numbers without a gap is written as such (`"007"` becomes `"7"`), one of numbers with gaps
    or fractions as floats (`"2"` becomes `"2.0"`).
    """
    if reading == "careful":
        return [cell or None for cell in cells]
    there = [cell for cell in cells if cell not in LOST_WORDS]
    if there and all(cell in _TRUTHS for cell in there):
        return [_TRUTHS.get(cell) for cell in cells]
    if there and all(_INTEGER.fullmatch(cell) and abs(int(cell)) < 2**63 for cell in there):
        if len(there) == len(cells):
            return [str(int(cell)) for cell in cells]
        return [None if cell in LOST_WORDS else str(float(cell)) for cell in cells]
    if there and all(_DECIMAL.fullmatch(cell) or cell.strip().lower() in _INFINITE for cell in there):
        return [None if cell in LOST_WORDS else str(float(cell)) for cell in cells]
    return [None if cell in LOST_WORDS else cell for cell in cells]


def read_answer(answer: str, profile: Profile, reading: Reading) -> str:
    """A model's answer as the toolkit scores it.

    careful: as it is. as_published: lmms-eval strips every answer; VLMEvalKit writes a spreadsheet and reads it again:
    LOST_WORDS become the text `nan`; in `paper` and `fork` an answer that begins with `=` is a formula, read as `0`.
    """
    if reading == "careful":
        return answer
    if profile == "lmms":
        return answer.strip()
    if profile in VLMEVALKIT:
        if profile != "latest" and answer.startswith("="):
            return "0"
        return "nan" if answer in LOST_WORDS else answer
    return answer
