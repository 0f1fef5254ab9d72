import blip3o_goldens as goldens
import jax
import jax.numpy as jnp
import numpy as np

from xgenmm_jax.models.phi3 import Phi3


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
