"""A language model learns from images in words, and from nothing else in them."""

from dataclasses import replace

from bound_objective import Bound
import jax
from jax import numpy as jnp
import numpy as np
import pytest

from experiments.nano import recipes
from experiments.nano.starting_weights import language_model
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.blip3 import VLM
from xgenmm_jax.nano.symbolic_images import SymbolicImages, embed_words, pieces_of_words
from xgenmm_jax.nano.world.symbolic_images import WORDS
from xgenmm_jax.ops.partitioning import unboxed


@pytest.fixture(scope="module")
def run():
    """The objective of the language model, parameters, two rows."""
    config = language_model.config()
    data = replace(config.data, batch_rows=2, window=128)
    objective = Bound(SymbolicImages(recipes.TOKENIZER, noise=0.0), config.model, data, config.freeze)
    batch, _, _ = next(objective.batches(0, State(), 0, 1))
    params = unboxed(jax.jit(objective.init)(jax.random.key(0)))
    return objective, params, jax.tree.map(jnp.asarray, batch)


def test_a_cell_is_the_sum_of_its_words(run):
    _, params, batch = run
    tokenizer = Tokenizer.load(recipes.TOKENIZER)
    pieces = pieces_of_words(tokenizer)
    pixels = np.zeros((1, 1, 64, 64, 3), np.uint8)
    pixels[0, 0, 16, 32:34, 0] = WORDS.index("red"), WORDS.index("star")
    batch = batch._replace(pixels=jnp.asarray(pixels))
    cells = VLM(recipes.model()).apply({"params": params}, method=lambda vlm: embed_words(vlm.decoder, pieces, batch))
    red_star = tokenizer.encode("red star")
    assert len(red_star) == 2
    expected = np.asarray(params["decoder"]["embedding"])[red_star].sum(0)
    np.testing.assert_allclose(cells[0, 0, 6], expected, atol=1e-6)
    assert not np.asarray(cells).reshape(16, -1)[np.arange(16) != 6].any()


def test_the_loss_sees_the_words_and_trains_the_decoder_alone(run):
    objective, params, batch = run
    loss = jax.jit(lambda p, b: objective.loss(p, None, b, jax.random.key(0))[0].total)
    other = batch._replace(pixels=batch.pixels.at[:, :, ::16, :16, 0].set(1))
    assert loss(params, batch) != loss(params, other)
    unread = batch._replace(pixels=batch.pixels.at[..., 1:].set(7))
    assert loss(params, batch) == loss(params, unread)
    grads = jax.grad(loss)(params, batch)
    sizes = {part: max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[part])) for part in grads}
    assert sizes["decoder"] > 0 and sizes["vision"] == sizes["connector"] == 0


def test_every_word_has_its_pieces():
    pieces = pieces_of_words(Tokenizer.load(recipes.TOKENIZER))
    rows = [tuple(row[row >= 0]) for row in pieces]
    assert rows[0] == () and all(rows[1:])
    assert len(set(rows)) == len(rows)


def test_models_that_do_not_fit():
    config = language_model.config()
    odd = replace(config.model, connector=replace(config.model.connector, queries=12))
    with pytest.raises(ValueError, match="multiple of 16"):
        SymbolicImages(recipes.TOKENIZER).check(odd, config.data)
