"""Two files of predictions of one benchmark: the items whose texts differ, and what their scores owe to them.

At other shapes or device counts floats add up in another order, and a few greedy answers may differ. Everything else
must be equal: the scores of two files differ by these items alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xgenmm_jax.evaluation.predictions import Prediction


@dataclass(frozen=True)
class Difference:
    """An item with another text. scores: of both, in [0, 1]."""

    id: str
    texts: tuple[str, str]
    scores: tuple[float, float]


def differences(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> list[Difference]:
    """Items whose texts differ, in the order of the first.

    Raises: ValueError where one has an item that the other has not.
    """
    by_id = {prediction.example.id: prediction for prediction in theirs}
    spare = {prediction.example.id for prediction in ours} ^ set(by_id)
    if spare:
        raise ValueError(
            f"score: {len(spare):,} items are in one of the two files alone (first: {min(spare)}); give two files of "
            "the same examples."
        )
    pairs = ((prediction, by_id[prediction.example.id]) for prediction in ours)
    return [
        Difference(a.example.id, (a.text, b.text), (a.score, b.score)) for a, b in pairs if a.text != b.text
    ]  # fmt: skip
