"""What a suite of drawn captions makes of what a model draws: figures over seeds, and the page."""

import math

import numpy as np
import pytest

from xgenmm_jax.generation.images.drawer import Drawer, Drawing
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.nano.drawing.prompts import benchmark, tags
from xgenmm_jax.nano.drawing.suite import DrawnPictures
from xgenmm_jax.nano.world import draw


class TrueOrBlank(Drawer):
    """Draws true pictures with seed 0, white ones with others."""

    def __init__(self, split: str):
        self.true = {prompt.caption: np.asarray(draw.draw(scene)) for prompt, scene in benchmark(split, 2)}

    def draw(self, prompts, count, seed, sampling, first_number=0):
        assert (count, sampling) == (1, Sampling())
        for prompt in prompts:
            image = self.true[prompt] if seed == 0 else np.full((64, 64, 3), 255, np.uint8)
            yield Drawing(prompt, image[None], np.zeros((1, 1, 1, 1), np.float32))


class FeaturesAlone(TrueOrBlank):
    def draw(self, *args):
        return (one._replace(images=None) for one in super().draw(*args))


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_figures_are_means_over_seeds_with_their_spread(split):
    metrics, page = DrawnPictures(per_tag=2, seeds=(0, 7), split=split).metrics_of(TrueOrBlank(split))
    for name in (*tags(split), "overall", "valid", "told/nouns", "told/colors", "told/positions"):
        assert metrics[f"drawing/{name}"] == pytest.approx(0.5), name
        assert metrics[f"drawing/{name}/spread"] == pytest.approx(math.sqrt(0.5)), name
        assert metrics[f"drawing_true/{name}"] == 1
    assert metrics["drawing_shuffled/overall"] < 0.5
    # As many pictures as captions and seeds, half of them right, beside the true ones.
    captions = len(TrueOrBlank(split).true)
    assert page.count("<img") == 3 * captions
    assert page.count("<br>right") == page.count("<br>wrong") == captions
    held_out = split == "held_out"
    assert ("that training has not named" in page) == ("the held-out captions" in page) == held_out


def test_one_seed_has_no_spread():
    metrics, _ = DrawnPictures(per_tag=2, seeds=(0,)).metrics_of(TrueOrBlank("held_out"))
    assert metrics["drawing/overall"] == 1 and not any(name.endswith("/spread") for name in metrics)


def test_a_model_without_pixels_is_told():
    with pytest.raises(ValueError, match="makes features and no pixels"):
        DrawnPictures(per_tag=2).metrics_of(FeaturesAlone("held_out"))
