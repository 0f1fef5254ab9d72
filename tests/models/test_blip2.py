"""BLIP-2's tower, Q-Former and heads against LAVIS' own code at a tiny size."""

import blip2_goldens as goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models import blip2
from xgenmm_jax.models.blip2 import Blip2
from xgenmm_jax.models.qformer import QFormerLayer

CLOSE = {"rtol": 0, "atol": 2e-5}


def everything(model: Blip2, pixels, ids, valid):
    """All that the goldens hold, in one program."""
    features = model.encode(pixels)
    seen = model.see(features)
    return {
        "vit_features": features,
        "image_embeds": seen.features,
        "image_feats": seen.vectors,
        "text_only": model.connector.text_alone(ids, valid),
        "text_feats": model.text_vectors(ids, valid),
        "queries_and_text": jnp.concatenate(model.connector.together(seen.features, ids, valid), axis=1),
        "itm_logits": model.match(seen.features, ids, valid),
        "itg_logits": model.caption_logits(seen.cache, ids, valid),
        "similarity": blip2.similarity(seen.vectors, model.text_vectors(ids, valid)),
    }


@pytest.fixture(scope="module")
def outputs() -> dict:
    ids, valid = goldens.text()
    apply = jax.jit(
        lambda params: Blip2(goldens.CONFIG).apply(
            blip2.variables(params), goldens.pixels(), ids, valid, method=everything
        )
    )
    with jax.default_matmul_precision("highest"):
        return apply(goldens.stage1())


NAMES = ["vit_features", "image_embeds", "image_feats", "text_feats", "itm_logits", "similarity"]


@pytest.mark.parametrize("name", NAMES)
def test_is_the_official_one(outputs, name):
    np.testing.assert_allclose(outputs[name], goldens.golden("lavis/stage1")[name], **CLOSE)


@pytest.mark.parametrize("name", ["text_only", "itg_logits", "queries_and_text"])
def test_states_of_text_are_the_official_ones_where_there_is_text(outputs, name):
    """The official logits are those of cached queries too."""
    mask = np.asarray(goldens.text()[1])
    if name == "queries_and_text":
        mask = np.pad(mask, ((0, 0), (goldens.QUERIES, 0)), constant_values=True)
    np.testing.assert_allclose(outputs[name][mask], goldens.golden("lavis/stage1")[name][mask], **CLOSE)


def test_every_layer_of_the_queries_is_the_official_one():
    features = jnp.asarray(goldens.golden("lavis/stage1")["image_embeds"])
    variables = blip2.variables(goldens.stage1())
    with jax.default_matmul_precision("highest"):
        (last, _), kept = jax.jit(
            lambda: Blip2(goldens.CONFIG).apply(
                variables,
                method=lambda model: model.connector.read(features),
                capture_intermediates=lambda module, _: isinstance(module, QFormerLayer),
            )
        )()
    layers = kept["intermediates"]["connector"]["layers"]
    expected = goldens.golden("lavis/stage1")
    for number in range(goldens.CONNECTOR.layers):
        got = layers[f"layer{number % 2}"]["__call__"][0][0].queries[number // 2]
        np.testing.assert_allclose(got, expected[f"queries_only_{number + 1}"], **CLOSE)
    np.testing.assert_array_equal(last, got)
