"""Recall at 1, 5 and 10 against LAVIS' own function."""

import json
from pathlib import Path

import numpy as np
import pytest

from xgenmm_jax.evaluation.scorers import retrieval

FOLDER = Path(__file__).parents[2] / "goldens" / "retrieval"
CASES = json.loads((FOLDER / "retrieval.json").read_text())["cases"]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "retrieval.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "coco_5k" else n for n in CASES])
def test_recall_is_the_official_one(arrays, name):
    texts_per_image = arrays[f"{name}/texts_per_image"]
    image_of_text = np.repeat(np.arange(len(texts_per_image)), texts_per_image)
    if f"{name}/i2t" in arrays:
        to_text, to_image = arrays[f"{name}/i2t"], arrays[f"{name}/t2i"]
    else:
        image, text = (arrays[f"{name}/{kind}"].astype(np.float64) for kind in ("image", "text"))
        to_text = image @ text.T
        to_image = to_text.T
    got, expected = retrieval.recalls(to_text, to_image, image_of_text), CASES[name]["expected"]
    figures = {
        **{f"txt_r{cutoff}": value for cutoff, value in zip(retrieval.CUTOFFS, got.to_text, strict=True)},
        **{f"img_r{cutoff}": value for cutoff, value in zip(retrieval.CUTOFFS, got.to_image, strict=True)},
        "txt_r_mean": got.to_text_mean,
        "img_r_mean": got.to_image_mean,
        "r_mean": got.mean,
        "agg_metrics": got.to_text_mean,
    }
    assert figures.keys() == expected.keys()
    for key, value in expected.items():
        assert abs(figures[key] - value) < 1e-9, key


def test_texts_need_not_stand_image_by_image():
    scores = np.array([[0.1, 0.9, 0.2], [0.8, 0.3, 0.4]])
    ranks = retrieval.text_ranks(scores, np.array([1, 0, 1]))
    np.testing.assert_array_equal(ranks, [0, 0])
    np.testing.assert_array_equal(retrieval.image_ranks(scores.T, np.array([1, 0, 0])), [0, 0, 1])


def test_candidates_are_ranked_again_and_the_rest_stands_behind():
    scores = np.array([[0.5, 0.4, 0.3, 0.2]])
    asked = []

    def rescore(row, candidates):
        asked.append((row, candidates.tolist()))
        return np.array([-1.0, 2.0])

    out = retrieval.reranked(scores, rescore, candidates=2)
    assert asked == [(0, [0, 1])]
    np.testing.assert_allclose(out, [[-0.5, 2.4, retrieval.LEFT_OUT, retrieval.LEFT_OUT]])


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="2 images and 3 texts for 2 texts"):
        retrieval.text_ranks(np.zeros((2, 3)), np.array([0, 1]))
    with pytest.raises(ValueError, match="texts belong to 1 of 2 images"):
        retrieval.text_ranks(np.zeros((2, 2)), np.array([0, 0]))
    with pytest.raises(ValueError, match="not a number"):
        retrieval.image_ranks(np.full((1, 1), np.nan), np.array([0]))
    with pytest.raises(ValueError, match="got 0 candidates"):
        retrieval.reranked(np.zeros((1, 1)), lambda row, best: np.zeros(1), 0)
