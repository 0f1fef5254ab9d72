"""The whole of BLIP3-o, caption to optimizer steps and samples, against the official code at a tiny random size."""

import blip3o_goldens as goldens
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.generation.images.sampling import Sampling, euler, sigmas
from xgenmm_jax.models import blip3o
from xgenmm_jax.models.blip3 import VLM
from xgenmm_jax.models.blip3o import Blip3oConfig, DrawingConfig, DrawingHead, EVATarget
from xgenmm_jax.models.mlp_connector import MLPConnectorConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.training.objectives.flow_matching import Noised, flow_losses, noised

QUERIES = 64
OPENING = 157
"""The official id of `[IMG]`, whose embedding is frozen upstream."""


@pytest.fixture(scope="module")
def model() -> Blip3oConfig:
    decoder = goldens.decoder()[0]
    return Blip3oConfig(
        vision=ViTConfig(image_size_px=16, patch_px=8, width=16, hidden=16, layers=1, heads=1),
        connector=MLPConnectorConfig(width=16, out_width=decoder.width),
        decoder=decoder,
        drawing=DrawingConfig(
            head=goldens.dit()[0], target=EVATarget(goldens.eva()[0], grid=8), queries=QUERIES, normalised=False
        ),
    )


@pytest.fixture(scope="module")
def params() -> dict:
    decoder = jax.tree.map(jnp.asarray, goldens.decoder()[1])
    return {
        "decoder": decoder,
        "drawing": {
            "dit": jax.tree.map(jnp.asarray, goldens.dit()[1]),
            "queries": jnp.asarray(goldens.queries()),
            "opening": decoder["embedding"][OPENING],
        },
    }


def rows() -> DrawingBatch:
    """The official rows, right padded, with our queries and the vector before them by index."""
    out = goldens.outputs()
    ids, first = out["input_ids"].astype(np.int32), out["i_s_pos"]
    batch = Batch.empty(len(ids), ids.shape[1], 1, 1, 16)
    drawing = DrawingBatch.around(batch, 1, 64)
    for row, start in enumerate(first):
        end = int(start) + QUERIES
        batch.token_ids[row, :end] = ids[row, :end]
        batch.segment_ids[row, :end] = 1
        batch.positions[row, :end] = np.arange(end)
        drawing.query[row, start - 1 : end] = np.arange(1 + QUERIES)
        drawing.target_segment[row] = 1
    return drawing


def states(model: Blip3oConfig, params: dict) -> tuple[jax.Array, jax.Array]:
    drawing = jax.tree.map(jnp.asarray, rows())
    hidden = blip3o.states(VLM(model), params, drawing, has_images=False)
    return hidden, blip3o.at_queries(hidden, drawing, QUERIES)[:, 0]


def losses(model: Blip3oConfig, drawing: dict, params: dict, step: int) -> jax.Array:
    """The mean loss with the draws of an official step."""
    out = goldens.outputs()
    z = states(model, {**params, "drawing": drawing})[1]
    pooled = jnp.asarray(goldens.channels_last("pooled"))
    x, time, velocity = noised(pooled, jnp.asarray(goldens.channels_last("noise"))[step], jnp.asarray(out["u"])[step])
    one = Noised(x, time, velocity, jnp.asarray(out["dropped"])[step] == 1)
    return jnp.mean(flow_losses(model, {"drawing": drawing}, one, z))


@jax.default_matmul_precision("highest")
def test_states_at_the_queries_are_the_official_ones(model, params):
    hidden, z = jax.jit(states, static_argnums=0)(model, params)
    filled = rows().segment_ids > 0
    expected = goldens.outputs()
    np.testing.assert_allclose(np.asarray(hidden)[filled], expected["hidden_states"][filled], rtol=0, atol=1e-5)
    np.testing.assert_allclose(z, expected["z"], rtol=0, atol=1e-5)


@jax.default_matmul_precision("highest")
def test_loss_and_gradient_of_the_queries_are_the_official_ones(model, params):
    expected = goldens.outputs()
    value, grads = jax.jit(jax.value_and_grad(losses, argnums=1), static_argnums=(0, 3))(
        model, params["drawing"], params, 0
    )
    assert abs(float(value) - float(expected["loss"])) < 1e-5
    np.testing.assert_allclose(grads["queries"], expected["grad/latent_queries"].reshape(64, -1), rtol=0, atol=2e-7)
    gate = grads["dit"]["layers"]["gate"][0]
    expected_gate = expected["grad/dit.gate"].reshape(-1)
    np.testing.assert_allclose(gate, expected_gate, rtol=0, atol=2e-5 * (np.linalg.norm(expected_gate) + 1e-3))


@jax.default_matmul_precision("highest")
def test_three_steps_of_the_optimizer_are_the_official_ones(model, params):
    expected = goldens.outputs()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, 0.9, 0.999, 1e-8, weight_decay=0.0))
    drawing = {name: params["drawing"][name] for name in ("dit", "queries")}
    opening = params["drawing"]["opening"]

    @jax.jit
    def step(drawing, state, number):
        def loss(drawing):
            each = [losses(model, {**drawing, "opening": opening}, params, one) for one in range(3)]
            return jnp.stack(each)[number]

        value, grads = jax.value_and_grad(loss)(drawing)
        updates, state = optimizer.update(grads, state, drawing)
        return optax.apply_updates(drawing, updates), state, value, optax.tree.norm(grads)

    state = optimizer.init(drawing)
    for number in range(3):
        drawing, state, value, norm = step(drawing, state, number)
        np.testing.assert_allclose(value, expected["steps/loss"][number], rtol=2e-5)
        np.testing.assert_allclose(norm, expected["steps/grad_norm"][number], rtol=2e-5)
        if number == 0:
            first = expected["step1/latent_queries"].reshape(64, -1)
            np.testing.assert_allclose(drawing["queries"], first, rtol=0, atol=5e-6)
    np.testing.assert_allclose(
        drawing["queries"], expected["steps/latent_queries"].reshape(64, -1), rtol=0, atol=5e-6
    )
    gate = drawing["dit"]["layers"]["gate"][0]
    np.testing.assert_allclose(gate, expected["steps/gate"].reshape(-1), rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "integer"),
    [
        ("4_3", 4, 3.0, True), ("7_1", 7, 1.0, True), ("7_3", 7, 3.0, True), ("30_3", 30, 3.0, True),
        ("7_3_exact_time", 7, 3.0, False),
    ],
)  # fmt: skip
@jax.default_matmul_precision("highest")
def test_samples_are_the_official_ones(model, params, name, steps, guidance, integer):
    head, variables = DrawingHead(model), {"params": params["drawing"]}
    sample = jax.jit(
        lambda start, z: euler(
            lambda *args: head.apply(variables, *args, method="velocity"), start, z,
            Sampling(steps, guidance, integer),
        )
    )  # fmt: skip
    drawn = sample(jnp.asarray(goldens.channels_last("sample/start")), jnp.asarray(goldens.outputs()["z"]))
    np.testing.assert_allclose(drawn, goldens.channels_last(f"sample/{name}"), rtol=0, atol=2e-4)


def test_noise_levels_are_the_official_ones():
    np.testing.assert_allclose(sigmas(7), goldens.outputs()["sample/7_3/sigmas"], rtol=0, atol=1e-7)
