"""What low-rank updates cost a device: the estimate counts optimizer memory of what trains alone."""

from dataclasses import replace
import math

import pytest

from experiments import sft_single
from xgenmm_jax.models.lora import UPDATES, LoRA
from xgenmm_jax.planning.bounds import work
from xgenmm_jax.planning.estimates import held, parameters_of
from xgenmm_jax.planning.products import flops_of, step_products
from xgenmm_jax.training.sharding import MeshConfig


@pytest.fixture(scope="module")
def configs():
    whole = replace(sft_single.config(), mesh=MeshConfig(replica=1, fsdp=8, tensor=1))
    return whole, replace(whole, lora=LoRA(rank=16, targets=("decoder/layers",)))


def test_optimizer_memory_of_4b_is_that_of_updates(configs):
    whole, updated = configs
    sizes = [math.prod(shape) for shape, _, trains in parameters_of(updated) if trains]
    # Rank 16 of qkv, o, gate and up, down in 32 layers of width 3072.
    layer = 16 * ((3072 + 9216) + (3072 + 3072) + (3072 + 16384) + (8192 + 3072))
    assert sum(sizes) == 32 * layer
    assert len(sizes) == 4 * len(UPDATES)
    all_of = sum(math.prod(shape) for shape, _, _ in parameters_of(updated))
    costs = held(updated, parameters_of(updated))
    # Everything in float32 once; updates three times more, for two moments and the gradient.
    assert costs.state == pytest.approx((4 * all_of + 12 * sum(sizes)) / 8, rel=0.02)
    assert costs.trained == pytest.approx(sum(sizes) / 8, rel=0.02)
    before = held(whole, parameters_of(whole))
    assert before.state - costs.state == pytest.approx(12 * (before.trained - costs.trained), rel=0.02)
    assert costs.reduced < before.reduced / 50


def test_kernels_that_updates_change_give_no_gradient_of_their_own(configs):
    whole, updated = configs
    decoder = [flops_of(step_products(config, 8, 1)).decoder for config in configs]
    # Forward and the gradient of inputs, of forward, inputs and weights; rematerialization repeats the same in both.
    assert 1 / 2 < decoder[1] / decoder[0] < 0.8
    assert work(updated).model.decoder / work(whole).model.decoder == pytest.approx(2 / 3)
    assert work(updated).hardware.total < work(whole).hardware.total
