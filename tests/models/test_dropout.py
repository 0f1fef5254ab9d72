"""Dropout of the Q-Former: where BERT has it, off without a key, and of a row the same wherever it stands."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models import dropout
from xgenmm_jax.models.qformer import QFormer, QFormerConfig, QFormerText

CONFIG = QFormerConfig(width=8, inner=8, hidden=16, layers=2, heads=2, queries=3, dropout=0.3)
TEXT = QFormerText(20, 6)
ROWS = 4


class Inputs:
    """Random features, texts and parameters."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.features = jnp.asarray(rng.normal(size=(ROWS, 5, 8)), jnp.float32)
        self.ids = jnp.asarray(rng.integers(0, 20, (ROWS, 6)), jnp.int32)
        self.valid = jnp.asarray(np.arange(6)[None] < np.array([[6], [4], [5], [2]]))
        self.rows = dropout.checksums(self.ids)
        model = QFormer(CONFIG, text=TEXT)
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), self.features, self.ids, method=_everything))
        self.params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), nn.unbox(shapes))


def _everything(model, features, ids, valid=None, rows=None):
    """All modes: (queries, text alone, both together, text behind the queries)."""
    valid = jnp.ones(ids.shape, bool) if valid is None else valid
    queries, cache = model.read(features, row_ids=rows)
    together = model.together(features, ids, valid, rows)
    after = model.text_after(cache, ids, valid, rows)
    return queries, model.text_alone(ids, valid, rows), together.queries, together.text, after


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs()


def _together(model, features, ids, valid, rows=None):
    return tuple(model.together(features, ids, valid, rows))


@functools.partial(jax.jit, static_argnames="method")
def apply(params, key, *of, method=_together):
    streams = {} if key is None else {dropout.STREAM: key}
    return QFormer(CONFIG, text=TEXT).apply(params, *of, method=method, rngs=streams)


def run(inputs, select=slice(None), key=0, method=_together):
    arrays = (inputs.features, inputs.ids, inputs.valid, inputs.rows)
    key = None if key is None else jax.random.key(key)
    return [np.asarray(x) for x in apply(inputs.params, key, *(x[select] for x in arrays), method=method)]


@pytest.mark.parametrize("method", [_together, pytest.param(_everything, marks=pytest.mark.slow)])
def test_a_row_draws_the_same_alone_and_in_any_order(inputs, method):
    parts = slice(None), slice(None, None, -1), slice(2, 3)
    whole, turned, alone = (run(inputs, part, method=method) for part in parts)
    for all_rows, backwards, one in zip(whole, turned, alone, strict=True):
        np.testing.assert_allclose(backwards[::-1], all_rows, rtol=0, atol=1e-5)
        np.testing.assert_allclose(one[0], all_rows[2], rtol=0, atol=1e-5)


def test_another_step_draws_anew_and_without_a_key_nothing_is_dropped(inputs):
    still = run(inputs, key=None)
    for one, other, plain in zip(run(inputs), run(inputs, key=1), still, strict=True):
        assert np.abs(one - other).max() > 0.1 and np.abs(one - plain).max() > 0.1
    with_ids = (inputs.features, inputs.ids, inputs.valid)
    for plain, without in zip(still, apply(inputs.params, jax.random.key(0), *with_ids), strict=True):
        np.testing.assert_array_equal(plain, without)


def test_places_are_those_of_bert(inputs, monkeypatch):
    """Behind the embeddings' norm; of each attention the weights and what it adds; what each feed-forward adds."""
    seen = []

    def noted(module, x, share, rows):
        assert share == 0.3 and rows.shape == (ROWS,)
        seen.append(("/".join(part for part in module.path if part != "layers"), x.shape[1:]))
        return x

    monkeypatch.setattr(dropout, "drop", noted)
    monkeypatch.setattr("xgenmm_jax.models.remat.UNROLLED_LAYERS", 0)  # a scan's body is traced once
    model = QFormer(CONFIG, text=TEXT)
    streams = {dropout.STREAM: jax.random.key(0)}
    arrays = (inputs.features, inputs.ids, inputs.valid, inputs.rows)
    jax.eval_shape(
        lambda *of: model.apply(inputs.params, *of, method=lambda m, f, i, v, r: m.together(f, i, v, r), rngs=streams),
        *arrays,
    )
    both, queries, text = (9, 8), (3, 8), (6, 8)
    layers = [
        ("layer0/attention", (2, 9, 9)), ("layer0/attention", both), ("layer0/cross", (2, 3, 5)),
        ("layer0/cross", queries), ("layer0/mlp", queries), ("layer0/text_mlp", text),
        ("layer1/attention", (2, 9, 9)), ("layer1/attention", both), ("layer1/mlp", queries), ("layer1/text_mlp", text),
    ]  # fmt: skip
    assert seen[:2] == [("", queries), ("", text)]
    assert set(seen[2:]) == set(layers) and len(seen[2:]) % len(layers) == 0


def test_a_share_is_dropped_and_the_mean_stays():
    class One(nn.Module):
        @nn.compact
        def __call__(self, x, rows):
            return dropout.drop(self, x, 0.25, rows), dropout.drop(self, x, 0.25, rows)

    x, rows = jnp.ones((64, 500)), jnp.arange(64, dtype=jnp.uint32)
    first, second = One().apply({}, x, rows, rngs={dropout.STREAM: jax.random.key(0)})
    values, counts = np.unique(first, return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert abs(counts[0] / x.size - 0.25) < 0.01 and abs(float(first.mean()) - 1) < 0.02
    assert np.mean(np.asarray(first) == np.asarray(second)) < 0.7
    assert np.mean(np.asarray(first[0]) == np.asarray(first[1])) < 0.7


def test_checksums_tell_rows_apart_by_place_too():
    values = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 3), np.uint8)
    values[1] = values[0]
    values[2] = values[0][::-1]
    values[3] = 0
    sums = np.asarray(dropout.checksums(jnp.asarray(values)))
    assert sums[0] == sums[1] and len(set(sums.tolist())) == 499
    floats = np.asarray(dropout.checksums(jnp.asarray(values, jnp.float32) / 255))
    assert floats[0] == floats[1] and len(set(floats.tolist())) == 499
    pair = jnp.asarray([1, 2], jnp.uint32)
    assert dropout.joined(pair, pair[::-1])[0] != dropout.joined(pair, pair[::-1])[1]
    assert dropout.joined(pair, 0)[0] != dropout.joined(pair, 1)[0]


def test_a_share_of_all_is_refused():
    with pytest.raises(ValueError, match="connector.dropout: got 1.0, wanted a share from 0 to below 1"):
        QFormerConfig(dropout=1.0)
