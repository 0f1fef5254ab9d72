"""Random parameters without compiling an initialiser, which costs more than most of these tests."""

from flax import linen as nn
import jax
import numpy as np


def random_parameters(init, *arguments, **options) -> dict:
    """Parameters of the shapes that init(key, *arguments) would give: normal, 0.3 wide, around 1 for scales."""
    shapes = nn.unbox(jax.eval_shape(lambda key: init(key, *arguments, **options), jax.random.key(0)))
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        mean = 1 if path[-1].key == "scale" else 0
        return jax.numpy.asarray(generator.normal(mean, 0.3, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
