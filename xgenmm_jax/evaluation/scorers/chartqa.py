"""Relaxed accuracy of answers about charts: numbers may be off by a twentieth (Methani et al. 2020)."""

from collections.abc import Sequence

from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile, refuse_profile

TOLERANCE = 0.05
"""Of a number, relative."""


def relaxed_accuracy(prediction: str, answers: Sequence[str], profile: Profile = "paper") -> float:
    """1 where the prediction is right by one of the answers, else 0.

    Both are numbers: they may differ by TOLERANCE of the answer; else the texts must be equal but for case. So "95" is
    right for "100", "2010" for "2014", and "1,000", "$100", "100 USD" are no numbers; "45%" is 0.45. An answer of 0 is
    compared as text, and "nan" is never within the tolerance of anything.
    `paper`: VLMEvalKit until September 2025 had the two the wrong way round: the error is divided by the prediction.
    VLMEvalKit strips the prediction.

    Raises: ValueError for `official`: the authors published no script.
    Source: VLMEvalKit vqa_eval.py; lmms-eval tasks/chartqa/utils.py.
    """
    if profile in VLMEVALKIT:
        prediction = prediction.strip()
    elif profile != "lmms":
        raise refuse_profile("relaxed accuracy", profile, (*VLMEVALKIT, "lmms"))
    if profile == "paper":
        return float(any(_is_near(answer, prediction) for answer in answers))
    return float(any(_is_near(prediction, answer) for answer in answers))


def _is_near(prediction: str, target: str) -> bool:
    value, true_value = _number(prediction), _number(target)
    if value is None or not true_value:
        return prediction.lower() == target.lower()
    return abs(value - true_value) / abs(true_value) <= TOLERANCE


def _number(text: str) -> float | None:
    """As Python reads a float: "1_000", "１００", " 5 ", "inf" are numbers."""
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None
