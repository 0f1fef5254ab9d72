"""The suite of drawn captions: metrics of what a drawer draws, and the page of it. Here the drawer knows the truth."""

from typing import NamedTuple

import numpy as np
import pytest

from xgenmm_jax.generation.images.drawer import Drawer
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.nano.drawing.prompts import benchmark
from xgenmm_jax.nano.drawing.suite import DrawnPictures
from xgenmm_jax.nano.world import draw


class Drawing(NamedTuple):
    images: np.ndarray | None


class TrueDrawer(Drawer):
    """The true pictures of all captions; from seed 1 on the last half of them are empty."""

    def __init__(self, suite: DrawnPictures):
        pairs = benchmark(suite.split, suite.per_tag)
        self._scenes = {prompt.caption: scene for prompt, scene in pairs}

    def draw(self, captions, count, seed, sampling):
        assert count == 1 and sampling == Sampling()
        for number, caption in enumerate(captions):
            is_empty = seed > 0 and 2 * number >= len(captions)
            picture = np.full((64, 64, 3), 240, np.uint8) if is_empty else np.asarray(draw.draw(self._scenes[caption]))
            yield Drawing(picture[None])


@pytest.fixture(scope="module")
def drawn():
    suite = DrawnPictures(per_tag=2, seeds=(0, 1))
    return suite.metrics_of(TrueDrawer(suite))


def test_metrics_are_means_and_spreads_over_seeds(drawn):
    metrics, _ = drawn
    # The last half of twelve captions are those of places, of two colored things and dense ones.
    assert metrics["drawing/two_object"] == 1 and metrics["drawing/two_object/spread"] == 0
    assert metrics["drawing/dense"] == 0.5 and metrics["drawing/dense/spread"] == pytest.approx(0.5**0.5)
    assert metrics["drawing_true/overall"] == 1 and metrics["drawing_shuffled/overall"] == 0
    assert metrics["drawing/told/colors"] < 1 and metrics["drawing_true/told/colors"] == 1


def test_the_page_tells_what_was_read_in_each_drawing(drawn):
    _, page = drawn
    assert page.count("<img") == 12 * 3 and page.count("The first 2 of 2") == 6
    assert page.count("</span> nothing") == 6, "the empty ones"
    assert page.count('aria-label="right"') == 18 and page.count('aria-label="wrong"') == 6
    assert "two_object" not in page and "guidance 3," in page
    assert "50.0 ± 70.7" in page


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_the_page_says_which_captions_it_is_of(split):
    suite = DrawnPictures(per_tag=1, seeds=(0,), split=split)
    metrics, page = suite.metrics_of(TrueDrawer(suite))
    held_out = split == "held_out"
    assert ("that training has not named" in page) == ("the held-out captions" in page) == held_out
    assert metrics["drawing/overall"] == 1 and not any(name.endswith("/spread") for name in metrics), "one seed"


def test_a_run_without_pixels_is_told():
    class Features(Drawer):
        def __init__(self):
            pass

        def draw(self, captions, *_):
            return [Drawing(None) for _ in captions]

    with pytest.raises(ValueError, match="makes features and no pixels"):
        DrawnPictures(per_tag=1, seeds=(0,)).metrics_of(Features())
