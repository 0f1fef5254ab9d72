"""OCRBench's score of an answer: whether a reference answer occurs in it (Liu et al. 2023)."""

from collections.abc import Sequence

from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile, refuse_profile

# ASCII from ! to ~ in full width, and the ideographic space.
_HALF_WIDTH = {0xFF01 + offset: 0x21 + offset for offset in range(94)} | {0x3000: 0x20}


def contains_answer(prediction: str, answers: Sequence[str], is_formula: bool, profile: Profile = "paper") -> bool:
    """Whether one of the answers is a part of the prediction, inside a word too: "a" of "banana".

    Case and white space around are ignored, line breaks are spaces; of a formula (is_formula) case counts and spaces do
    not. An empty answer is part of everything. `lmms` takes characters of full width for those of ASCII, but not in
    formulas.

    Raises: ValueError for `official`, whose script is not followed.
    Source: VLMEvalKit utils/ocrbench.py; lmms-eval tasks/ocrbench/utils.py.
    """
    if profile not in (*VLMEVALKIT, "lmms"):
        raise refuse_profile("OCRBench", profile, (*VLMEVALKIT, "lmms"))

    def plain(text: str) -> str:
        if is_formula:
            return text.strip().replace("\n", " ").replace(" ", "")
        if profile == "lmms":
            text = text.translate(_HALF_WIDTH)
        return text.lower().strip().replace("\n", " ")

    if profile == "lmms":
        prediction = prediction.strip()
    read = plain(prediction)
    return any(plain(answer) in read for answer in answers)
