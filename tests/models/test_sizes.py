from flax import linen as nn
import jax
import pytest

from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import initialize
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.training.sharding import RULES


def shapes(config):
    return jax.eval_shape(lambda key: initialize(config, key), jax.random.key(0))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(nn.unbox(tree)))


@pytest.mark.parametrize(
    "config, vision, connector, decoder, total",
    [
        (sizes.B4, 428_225_600, 109_901_568, 3_821_130_051, 4_359_257_219),
        (sizes.B14, 428_225_600, 112_262_912, 13_960_300_867, 14_500_789_379),
    ],
    ids=["4b", "14b"],
)
def test_full_sizes_have_the_published_parameter_counts(config, vision, connector, decoder, total):
    tree = shapes(config)
    assert sorted(tree) == ["connector", "decoder", "vision"]
    assert (count(tree["vision"]), count(tree["connector"]), count(tree["decoder"])) == (vision, connector, decoder)
    assert count(tree) == total


def test_micro_is_about_ten_times_nano():
    assert 1_500_000 < count(shapes(sizes.nano())) < 2_500_000
    assert 8 < count(shapes(sizes.micro())) / count(shapes(sizes.nano())) < 12


def test_every_parameter_axis_has_a_listed_name():
    """A name that the sharding table does not know would silently stay whole on every device."""
    for leaf in jax.tree.leaves(shapes(sizes.B4), is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)):
        assert isinstance(leaf, nn.LogicallyPartitioned)
        assert len(leaf.names) == leaf.value.ndim
        assert {name for name in leaf.names if name is not None} <= set(RULES)


def test_strips_are_one_call_away():
    assert sizes.with_strips(sizes.B4).token_sampling is TokenSampling.STRIPS
