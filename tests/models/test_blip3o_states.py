"""What is drawn and under which states: features of the towers, states at the queries."""

import dataclasses

import blip3o_goldens as goldens
import drawing_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models import blip3o, drawing_features
from xgenmm_jax.models.blip3o import TowerTarget
from xgenmm_jax.models.phi3 import Phi3
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.ops.partitioning import unboxed


def test_states_at_the_queries_are_the_official_ones_through_our_decoder():
    """Behind the last norm, at the slots themselves: no shift by one. Padding behind them matters to nobody."""
    config, params = goldens.decoder()
    arrays, queries = goldens.outputs(), jnp.asarray(goldens.queries())
    ids = jnp.asarray(arrays["input_ids"], jnp.int32)
    first = [int(position) for position in arrays["i_s_pos"]]
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
    is_text = positions < jnp.asarray(first)[:, None] + len(queries)

    def hidden(decoder):
        embeddings = decoder.embed(ids)
        for row, start in enumerate(first):
            embeddings = embeddings.at[row, start : start + len(queries)].set(queries)
        return decoder.hidden(embeddings, is_text.astype(jnp.int32), positions)

    with jax.default_matmul_precision("highest"):
        states = jax.jit(lambda params: Phi3(config).apply({"params": params}, method=hidden))(params)
    for row, start in enumerate(first):
        end = start + len(queries)
        np.testing.assert_allclose(states[row, :end], arrays["hidden_states"][row, :end], rtol=0, atol=1e-5)
        np.testing.assert_allclose(states[row, start:end], arrays["z"][row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", ["last", "penultimate"])
def test_a_class_token_is_no_cell_of_what_is_drawn(layer):
    """BLIP-2's tower gives its state before those of the patches: 65 features were no grid of 8 x 8."""
    base = drawing_cases.model()
    vision = dataclasses.replace(base.vision, class_token=True, bare=True, layers=2)
    connector = QFormerConfig(width=96, inner=32, hidden=32, layers=2, heads=2, queries=16, out_width=128)
    drawing = dataclasses.replace(base.drawing, target=TowerTarget(grid=2, layer=layer))
    model = dataclasses.replace(base, vision=vision, connector=connector, drawing=drawing)
    params = unboxed(jax.eval_shape(lambda key: blip3o.initialize(model, key), jax.random.key(0)))
    pixels = jax.ShapeDtypeStruct((3, 64, 64, 3), jnp.uint8)
    features = jax.eval_shape(lambda *of: drawing_features.raw_features(model, *of), params, pixels)
    assert features.shape == (3, 2, 2, 96)
