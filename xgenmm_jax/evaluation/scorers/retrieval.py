"""Recall of texts for images and of images for texts, and re-ranking of the best candidates by a slower score.

Source: docs/reference/blip2.md#recipe; LAVIS' `RetrievalTask._report_metrics` computes the same figures.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float, Integer, Num
import numpy as np

CUTOFFS = (1, 5, 10)
LEFT_OUT = -100.0
"""Score of what is no candidate of a re-ranking."""
CANDIDATES = 128
"""How many of COCO's and Flickr30k's are re-ranked."""


class Recalls(NamedTuple):
    """Percent. to_text: of images, whether one of their texts is among the first 1, 5, 10; to_image: of texts."""

    to_text: tuple[float, ...]
    to_image: tuple[float, ...]

    @property
    def to_text_mean(self) -> float:
        """By which the official code picks checkpoints."""
        return sum(self.to_text) / len(self.to_text)

    @property
    def to_image_mean(self) -> float:
        return sum(self.to_image) / len(self.to_image)

    @property
    def mean(self) -> float:
        """Of both directions."""
        return (self.to_text_mean + self.to_image_mean) / 2


def recalls(
    to_text: Num[np.ndarray, "n m"], to_image: Num[np.ndarray, "m n"], image_of_text: Integer[np.ndarray, " _"]
) -> Recalls:
    """Recall at 1, 5 and 10 from the scores of all texts for each image, and of all images for each text.

    Raises ValueError where shapes do not fit, an image has no text, or a score is not a number.
    """
    of_images, of_texts = text_ranks(to_text, image_of_text), image_ranks(to_image, image_of_text)
    to_texts, to_images = (
        tuple(float(100.0 * np.count_nonzero(ranks < cutoff) / len(ranks)) for cutoff in CUTOFFS)
        for ranks in (of_images, of_texts)
    )
    return Recalls(to_texts, to_images)


def text_ranks(scores: Num[np.ndarray, "n m"], image_of_text: Integer[np.ndarray, " _"]) -> Integer[np.ndarray, " n"]:
    """Of each image the best rank among its own texts; 0 is the first. Of equal scores the later ranks before."""
    _check(scores, image_of_text)
    by_image = np.argsort(image_of_text, kind="stable")
    counts = np.bincount(image_of_text, minlength=len(scores))
    if len(counts) != len(scores) or not counts.all():
        raise ValueError(
            f"retrieval: texts belong to {np.count_nonzero(counts)} of {len(scores)} images; give every image a text."
        )
    ends = np.cumsum(counts)
    return np.array(
        [
            min(_rank(row, int(text)) for text in by_image[end - count : end])
            for row, end, count in zip(scores, ends, counts, strict=True)
        ]
    )


def image_ranks(scores: Num[np.ndarray, "m n"], image_of_text: Integer[np.ndarray, " _"]) -> Integer[np.ndarray, " m"]:
    """Of each text the rank of its image, ties as in `text_ranks`."""
    _check(scores.T, image_of_text)
    return np.array([_rank(row, int(image)) for row, image in zip(scores, image_of_text, strict=True)])


def _rank(row: Num[np.ndarray, " n"], index: int) -> int:
    score = row[index]
    return int(np.count_nonzero(row > score) + np.count_nonzero(row[index + 1 :] == score))


def _check(scores: Num[np.ndarray, "n m"], image_of_text: Integer[np.ndarray, " _"]) -> None:
    if scores.shape[1] != len(image_of_text) or not scores.size:
        raise ValueError(
            f"retrieval: got scores of {scores.shape[0]} images and {scores.shape[1]} texts for {len(image_of_text)} "
            "texts; wanted one of each pair."
        )
    if np.isnan(scores).any():
        raise ValueError("retrieval: a score is not a number; look at the model's parameters.")


def reranked(
    scores: Float[np.ndarray, "n m"],
    rescore: Callable[[int, Integer[np.ndarray, " k"]], Float[np.ndarray, " k"]],
    candidates: int = CANDIDATES,
) -> Float[np.ndarray, "n m"]:
    """The best candidates of each row with the other score added, all else at LEFT_OUT.

    rescore: (row, its candidates, the best first) -> theirs, for BLIP-2 the matching head's logit of a pair.
    """
    if candidates < 1:
        raise ValueError(f"retrieval: got {candidates} candidates, wanted at least 1.")
    out = np.full(scores.shape, LEFT_OUT, scores.dtype)
    for number, row in enumerate(scores):
        best = np.argsort(-row, kind="stable")[:candidates]
        out[number, best] = row[best] + rescore(number, best)
    return out
