"""What stands beside the tower while it is pre-trained: captioning decoder and text tower."""

import jax
import jax.numpy as jnp
import numpy as np
from random_parameters import random_parameters

from xgenmm_jax.nano.captioner import Captioner, CaptionerConfig, greedy_caption
from xgenmm_jax.nano.text_tower import TextTower, TextTowerConfig, unit_length

CAPTIONER = Captioner(CaptionerConfig(width=8, hidden=16, layers=2, heads=2, vocab_size=11, max_positions=6))
TEXT = TextTower(TextTowerConfig(width=8, hidden=16, layers=2, heads=2, vocab_size=11, max_positions=6, out_width=5))


def captioner_inputs():
    features = jax.random.normal(jax.random.key(0), (2, 4, 7))
    ids = jnp.asarray([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]], jnp.int32)
    return features, ids, jnp.asarray([False, True])


def test_autoregression_sees_the_past_and_parallel_prediction_sees_no_token():
    features, ids, parallel = captioner_inputs()
    params = random_parameters(CAPTIONER.init, features, ids, parallel)
    apply = jax.jit(CAPTIONER.apply)
    logits = apply(params, features, ids, parallel)
    assert logits.shape == (2, 5, 11) and logits.dtype == jnp.float32
    changed = apply(params, features, ids.at[:, 2].set(9), parallel)
    np.testing.assert_allclose(changed[0, :3], logits[0, :3], rtol=0, atol=1e-6)
    assert np.abs(changed[0, 3:] - logits[0, 3:]).max() > 1e-4
    np.testing.assert_array_equal(changed[1], logits[1])
    other_image = apply(params, features + 1, ids, parallel)
    assert (np.abs(other_image - logits).max(axis=(1, 2)) > 1e-4).all()


def test_greedy_captions_are_the_likeliest_tokens():
    features, ids, parallel = captioner_inputs()
    params = random_parameters(CAPTIONER.init, features, ids, parallel)["params"]
    caption = greedy_caption(CAPTIONER, params, features, 5)
    logits = CAPTIONER.apply({"params": params}, features, caption, jnp.zeros(2, bool))
    np.testing.assert_array_equal(caption, jnp.argmax(logits, axis=-1))


def test_text_vectors_have_length_one_and_ignore_padding():
    ids = jnp.asarray([[1, 2, 3, 0, 0]], jnp.int32)
    valid = ids > 0
    params = random_parameters(TEXT.init, ids, valid)
    apply = jax.jit(TEXT.apply)
    contrast = apply(params, ids, valid)
    np.testing.assert_allclose(jnp.linalg.norm(contrast.text, axis=-1), [1.0], rtol=0, atol=1e-5)
    log_scale, bias = params["params"]["log_scale"], params["params"]["bias"]
    np.testing.assert_allclose([contrast.scale, contrast.bias], [np.exp(log_scale), bias], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(apply(params, ids.at[:, 3:].set(7), valid).text, contrast.text)
    np.testing.assert_allclose(apply(params, ids[:, :3], valid[:, :3]).text, contrast.text, rtol=0, atol=1e-5)


def test_unit_length_has_a_finite_gradient_at_zero():
    assert np.isfinite(jax.grad(lambda x: unit_length(x).sum())(jnp.zeros((1, 3)))).all()
