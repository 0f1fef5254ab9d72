"""What `train` says of memory on accelerators, on devices as libtpu makes them and on made-up GPUs."""

from dataclasses import replace
import re
from unittest.mock import NonCallableMock

import jax
import pytest

from experiments import sft_single, stage1
from experiments.nano.starting_weights import vision_tower
from xgenmm_jax.planning import memory_check
from xgenmm_jax.planning.presets import preset
from xgenmm_jax.planning.topology import find_topology, named_topology, topology_of
from xgenmm_jax.training import sharding
from xgenmm_jax.training.sharding import MeshConfig


def tpus(name):
    pytest.importorskip("libtpu")
    return find_topology(name).devices


def gpus(count, kind="NVIDIA H200", limit=None, hosts=1):
    stats = None if limit is None else {"bytes_limit": limit}
    return [
        NonCallableMock(
            spec=jax.Device,
            device_kind=kind,
            platform="gpu",
            process_index=number * hosts // count,
            slice_index=number * hosts // count,
            memory_stats=lambda: stats,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    "name", ["v5e:2x4", "v5e:16x16", "2xv5e:4x4", "v6e:4x4", "v4:2x2x4", "v5p:4x4x8", "v5p:2x2x1", "tpu7x:2x2x1"]
)
def test_devices_are_called_as_the_options_call_them(name):
    assert topology_of(tpus(name)).label == name


def test_gpus_are_called_as_the_options_call_them():
    assert topology_of(gpus(1)).label == "h200"
    assert topology_of(gpus(8, "NVIDIA H100 80GB HBM3")).label == "h100:8"
    assert topology_of(gpus(16, hosts=2)).label == "2xh200:8"
    assert topology_of(gpus(1, "NVIDIA A100")) is None and topology_of(jax.devices()) is None


def test_the_experiment_as_it_stands_does_not_fit_and_the_remedy_is_named():
    """Told after hours in the queue it was RESOURCE_EXHAUSTED."""
    base = stage1.config()
    with pytest.raises(ValueError) as error:
        memory_check.sentence(base, base, None, tpus("v5e:16x16"), is_forced=False)
    sentence = str(error.value)
    sizes = r"[\d.]+ \([\d.]+ to [\d.]+\) GiB of 15.8 GiB a device on v5e:16x16"
    assert re.match(f"memory: by the estimate a step takes {sizes}: it does not fit; ", sentence)
    assert "add --for v5e:16x16, whose settings fit (compiled as 4b stage1: 11.73 GiB" in sentence
    assert sentence.endswith("or --ignore-estimate to try all the same.")
    forced = memory_check.sentence(base, base, None, tpus("v5e:16x16"), is_forced=True)
    assert "it does not fit; add --for v5e:16x16" in forced


def test_a_compiled_preset_is_not_estimated_again_but_one_that_was_changed_is():
    base, devices = stage1.config(), tpus("v5e:16x16")
    chosen = preset(base, named_topology("v5e:16x16"))
    assert memory_check.sentence(chosen.config, base, chosen, devices, False) is None
    longer = replace(chosen.config, steps=10, name="mine")
    assert memory_check.sentence(longer, base, chosen, devices, False) is None
    with pytest.raises(ValueError, match="does not fit; leave away what you changed of the settings of --for"):
        memory_check.sentence(replace(chosen.config, accumulation=1), base, chosen, devices, False)


def test_between_fitting_and_not_it_only_tells():
    base = stage1.config()
    chosen = preset(base, named_topology("v5e:16x16")).config
    told = memory_check.sentence(chosen, base, None, tpus("v5e:16x16"), False)
    assert told.startswith("by the estimate a step takes ") and told.endswith(" on v5e:16x16: it should fit")
    tight = replace(chosen, mesh=MeshConfig(1, 256, 1))
    told = memory_check.sentence(tight, base, None, tpus("v5e:16x16"), False)
    assert "it may not fit; add --for v5e:16x16" in told


def test_a_gpu_has_what_jax_reserved_of_it():
    base = replace(sft_single.config(), accumulation=16)
    told = memory_check.sentence(base, base, None, gpus(1, limit=120 * 2**30), False)
    assert "of 120.0 GiB a device on h200: it should fit" in told
    assert "of 98.5 GiB" in memory_check.sentence(base, base, None, gpus(1), False)
    with pytest.raises(ValueError, match="add --for h200, whose settings should fit .by the estimate, not compiled"):
        memory_check.sentence(base, base, None, gpus(1, limit=40 * 2**30), False)


def test_nothing_is_said_on_cpus_and_of_models_that_are_not_planned():
    base, tower = stage1.config(), vision_tower.config()
    assert memory_check.sentence(base, base, None, jax.devices(), False) is None
    assert memory_check.sentence(tower, tower, None, gpus(1), False) is None


def test_other_devices_than_for_names_are_refused_unless_the_mesh_is_given():
    base = stage1.config()
    chosen = preset(base, named_topology("v5e:16x16"))
    with pytest.raises(ValueError, match=r"--for: v5e:16x16 has 256 devices, but here are 8 \(TPU v5 lite\)"):
        memory_check.check_count(chosen, chosen.config, tpus("v5e:2x4"))
    memory_check.check_count(chosen, replace(chosen.config, mesh=MeshConfig()), tpus("v5e:2x4"))
    memory_check.check_count(chosen, chosen.config, tpus("v5e:16x16"))
    assert sharding.make_mesh(chosen.config.mesh, tpus("v5e:16x16")).shape["fsdp"] == 128
