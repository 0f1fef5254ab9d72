"""Scores of reading: ANLS as in DocVQA, and word accuracy."""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

ANLS_THRESHOLD = 0.5


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the nearest answer in [0, 1], 0 where it is below one half.

    The distance ignores case and repeated spaces, the length it is divided by does not: that is how VLMEvalKit and
    lmms-eval compute it.
    """
    best = max(_similarity(prediction, answer) for answer in answers)
    return best if best >= ANLS_THRESHOLD else 0.0


def _similarity(prediction: str, answer: str) -> float:
    # upper(): it lengthens some letters, as in the reference.
    longest = max(len(prediction.upper()), len(answer.upper()))
    if longest == 0:
        return 1.0
    distance = Levenshtein.distance(" ".join(answer.lower().split()), " ".join(prediction.lower().split()))
    return 1.0 - distance / longest


def word_accuracy(prediction: str, truth: str) -> float:
    """1 - (word edits / words of the truth), not below 0; case counts, punctuation is part of its word.

    `"stop at the", "stop here at the"` gives 0.75.
    """
    words = truth.split()
    if not words:
        return float(not prediction.split())
    return max(0.0, 1.0 - Levenshtein.distance(words, prediction.split()) / len(words))
