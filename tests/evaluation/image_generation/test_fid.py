"""Frechet distances of three public programs' cases, singular ones among them."""

import json
from pathlib import Path

import numpy as np
import pytest

from xgenmm_jax.evaluation.image_generation import fid

GOLDENS = Path(__file__).parents[2] / "goldens" / "image_generation"
CASES = json.loads((GOLDENS / "fid.json").read_text(encoding="utf-8"))["cases"]


def _features(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(GOLDENS / "fid.npz") as arrays:
        if name == "both_categories":
            return tuple(  # type: ignore[return-value]
                np.concatenate([arrays[f"category_{which}/{side}"] for which in ("one", "two")]) for side in "ab"
            )
        a = arrays["general/a"]
        derived = {
            "identical": (a, a),
            "shifted_by_a_constant": (a, a + np.float32(0.75)),
            "scaled": (a, a * np.float32(1.5)),
        }
        return derived.get(name) or (arrays[f"{name}/a"], arrays[f"{name}/b"])


@pytest.mark.parametrize("name", [name for name in CASES if name != "one_sample"])
def test_distances_are_those_of_torchmetrics(name: str):
    case = CASES[name]
    first, second = (fid.statistics(features) for features in _features(name))
    result = fid.distance(first, second)
    is_full = case["rank"] == [case["features"]] * 2 and name != "nearly_repeated_feature"
    assert abs(result - case["torchmetrics"]) <= (1e-9 if is_full else 1e-7) * max(1.0, abs(case["torchmetrics"]))
    assert np.square(first.mean - second.mean).sum() == pytest.approx(case["mean_part"], rel=1e-9, abs=1e-9)
    if name == "identical":
        assert abs(result) < 1e-8
    with np.load(GOLDENS / "fid.npz") as arrays:
        if f"{name}/mean_a" in arrays:
            np.testing.assert_allclose(first.mean, arrays[f"{name}/mean_a"], rtol=1e-9, atol=1e-12)
            covariance = np.atleast_2d(arrays[f"{name}/covariance_a"])
            np.testing.assert_allclose(first.covariance, covariance, rtol=1e-9, atol=1e-9)


def test_worked_by_hand():
    """Variances 1 and 4 of one feature, means 0 and 3: 9 + 1 + 4 - 2 x 2 = 10."""
    first, second = np.array([[-1.0], [0.0], [1.0]]), np.array([[1.0], [3.0], [5.0]])
    assert fid.distance(fid.statistics(first), fid.statistics(second)) == pytest.approx(10)


def test_one_picture_is_refused():
    with pytest.raises(ValueError, match="got 1 pictures' features, wanted two or more"):
        fid.statistics(_features("one_sample")[0])
    with pytest.raises(ValueError, match="not finite"):
        fid.statistics(np.array([[0.0], [np.nan]]))


def test_overall_is_of_all_pictures_together():
    one, two = _features("category_one"), _features("category_two")
    result = fid.by_category({"one": one[0], "two": two[0]}, {"two": two[1], "one": one[1]})
    for name, case in (("one", "category_one"), ("two", "category_two"), ("overall", "both_categories")):
        assert result[name] == pytest.approx(CASES[case]["torchmetrics"], rel=1e-9)
    with pytest.raises(ValueError, match="category 'two' in one set alone"):
        fid.by_category({"one": one[0]}, {"one": one[1], "two": two[1]})
