"""What low-rank updates cost a device: the estimate counts optimizer memory of what trains alone."""

from dataclasses import replace
import math

import pytest

from experiments import sft_single
from xgenmm_jax.models.lora import UPDATES, LoRA
from xgenmm_jax.planning.bounds import work
from xgenmm_jax.planning.estimates import held, parameters_of
from xgenmm_jax.planning.product_shapes import flops_of
from xgenmm_jax.planning.products import step_products
from xgenmm_jax.training.sharding import MeshConfig


@pytest.fixture(scope="module")
def configs():
    whole = replace(sft_single.config(), mesh=MeshConfig(replica=1, fsdp=8, tensor=1))
    return whole, replace(whole, lora=LoRA(rank=16, targets=("decoder/layers",)))


def test_optimizer_memory_of_4b_is_that_of_updates(configs):
    whole, updated = configs
    sizes = [math.prod(shape) for shape, _, trains, _ in parameters_of(updated) if trains]
    # Rank 16 of qkv, o, gate and up, down in 32 layers of width 3072.
    layer = 16 * ((3072 + 9216) + (3072 + 3072) + (3072 + 16384) + (8192 + 3072))
    assert sum(sizes) == 32 * layer
    assert len(sizes) == 4 * len(UPDATES)
    costs, before = held(updated, parameters_of(updated)), held(whole, parameters_of(whole))
    # Updates that the table cuts by no width lie on every chip: B of what is as wide as heads or the hidden layer.
    assert sum(sizes) / 8 < costs.trained < sum(sizes)
    # In float32 the base once, updates four times: themselves, two moments, the gradient.
    base = before.state - 12 * before.trained
    assert costs.state == pytest.approx(base + 16 * costs.trained, rel=1e-4)
    assert costs.state < before.state / 3
    assert costs.reduced < before.reduced / 50


def test_kernels_that_updates_change_give_no_gradient_of_their_own(configs):
    whole, updated = configs
    decoder = [flops_of(step_products(config, 8, 1)).decoder for config in configs]
    # Forward and the gradient of inputs, of forward, inputs and weights; rematerialization repeats the same in both.
    assert 1 / 2 < decoder[1] / decoder[0] < 0.8
    assert work(updated).model.decoder / work(whole).model.decoder == pytest.approx(2 / 3)
    assert work(updated).hardware.total < work(whole).hardware.total
