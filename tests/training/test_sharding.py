"""The table of axes on every size, meshes over slices and hosts, and what stays on its device."""

import functools
import re
from unittest.mock import NonCallableMock

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from xgenmm_jax.models import blip3, kv_cache, sizes
from xgenmm_jax.models.blip3 import VLM
from xgenmm_jax.ops import partitioning
from xgenmm_jax.ops.partitioning import path_name
from xgenmm_jax.training import sharding
from xgenmm_jax.training.sharding import RULES, MeshConfig, host_share, make_mesh, param_shardings, sharding_context

SIZES = {"nano": sizes.nano(), "micro": sizes.micro(), "4b": sizes.B4, "14b": sizes.B14}
EVERYTHING = MeshConfig(replica=2, fsdp=2, tensor=2)


def boxes(config):
    boxed = jax.eval_shape(functools.partial(blip3.initialize, config), jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
    return boxed, {path_name(path): leaf for path, leaf in leaves}


@pytest.mark.parametrize("size", SIZES)
def test_no_tensor_takes_a_mesh_axis_twice(size):
    """And the only tensor that two axes of the table want to cut alike is known: its inputs are cut."""
    boxed, named = boxes(SIZES[size])
    contested = set()
    for name, leaf in named.items():
        claims = [axis for logical in leaf.names if logical is not None for axis in RULES[logical]]
        if len(claims) != len(set(claims)):
            contested.add(name)
    assert contested == {"connector/projection/kernel"}

    mesh = make_mesh(EVERYTHING)
    shardings = param_shardings(mesh, boxed)
    assert tuple(shardings["connector"]["projection"]["kernel"].spec) == ("fsdp", None)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shardings):
        taken = [axis for entry in leaf.spec if entry for axis in np.atleast_1d(entry).tolist()]
        assert len(taken) == len(set(taken)), path_name(path)


@pytest.mark.parametrize("size", ["4b", "14b"])
def test_all_large_parameters_are_cut(size):
    """What is left whole on every device is small change: below a thousandth of the parameters."""
    boxed, named = boxes(SIZES[size])
    shardings = param_shardings(make_mesh(MeshConfig(fsdp=8)), boxed)
    specs = {path_name(path): leaf.spec for path, leaf in jax.tree_util.tree_leaves_with_path(shardings)}
    whole = sum(np.prod(leaf.value.shape) for name, leaf in named.items() if not any(specs[name]))
    assert whole < 1e-3 * sum(np.prod(leaf.value.shape) for leaf in named.values())


@pytest.mark.parametrize(
    "names, sentence",
    [
        (("embed", "embed"), r"decoder/kernel: got the axis name 'embed' twice"),
        (("embed", "hidden"), r"decoder/kernel: got the axis name 'hidden', wanted one of batch, layers"),
        (("embed",), r"decoder/kernel: got axis names \('embed',\) for shape \(8, 8\)"),
    ],
)
def test_a_wrong_name_is_an_error_that_names_the_tensor(names, sentence):
    boxed = {"decoder": {"kernel": nn.LogicallyPartitioned(jax.ShapeDtypeStruct((8, 8), jnp.float32), names)}}
    with pytest.raises(ValueError, match=sentence):
        param_shardings(make_mesh(EVERYTHING), boxed)


def fake(kind, **attributes):
    device = NonCallableMock(spec=kind)
    device.configure_mock(**attributes)
    return device


def fake_devices(slices, per_slice, per_host=4):
    return [
        fake(jax.Device, id=number, slice_index=number // per_slice, process_index=number // per_host, device_kind="x")
        for number in np.random.default_rng(0).permutation(slices * per_slice).tolist()
    ]


def test_replicas_are_dealt_out_over_slices():
    grid = sharding._over_slices(fake_devices(2, 8), (4, 2, 2), 2)
    slice_of = np.vectorize(lambda device: device.slice_index)(grid)
    assert grid.shape == (4, 2, 2) and len({device.id for device in grid.flat}) == 16
    assert (slice_of == np.array([0, 0, 1, 1]).reshape(4, 1, 1)).all()
    with pytest.raises(ValueError, match="got replica 1 for 2 slices; make it a multiple of 2 .--mesh.replica 2"):
        make_mesh(MeshConfig(), fake_devices(2, 8))


def test_an_axis_may_take_part_of_one_of_the_networks():
    """128 chips of a torus of 16 x 16: half of it, 16 x 8."""
    devices = [
        fake(jax.Device, id=n, platform="tpu", device_kind="TPU v6 lite", coords=(n // 16, n % 16, 0), core_on_chip=0)
        for n in range(256)
    ]
    grid = sharding._over_slices(devices, (2, 128, 1), 1)
    first = np.array([device.coords for device in grid[0].flat])
    assert grid.shape == (2, 128, 1) and np.prod(np.ptp(first, axis=0) + 1) == 128


def grid_of(replica, fsdp, tensor, per_host):
    devices = [fake(jax.Device, process_index=number // per_host) for number in range(replica * fsdp * tensor)]
    shape = {"replica": replica, "fsdp": fsdp, "tensor": tensor}
    return fake(jax.sharding.Mesh, devices=np.array(devices).reshape(replica, fsdp, tensor), shape=shape)


def test_hosts_that_hold_the_same_rows_load_the_same_rows():
    """With tensor 8 over hosts of 4 devices, hosts 2k and 2k + 1 share rows: they are one part of the batch."""
    assert [host_share(grid_of(1, 16, 1, 4), host) for host in range(4)] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [host_share(grid_of(2, 2, 2, 4), host) for host in range(2)] == [(0, 2), (1, 2)]
    assert [host_share(grid_of(1, 2, 8, 4), host) for host in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    with pytest.raises(ValueError, match="share some of their rows"):
        host_share(grid_of(1, 4, 3, 4), 0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_run.model(tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_every_device_sees_as_many_crops_and_no_pixel_travels(tiny):
    """Rows have room for C crops, whatever the images: the tower's work is cut as the rows are."""
    mesh = make_mesh(EVERYTHING)
    rows, crops, side = 8, 3, tiny.vision.image_size_px
    batch = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape[1:]), leaf.dtype), blip3.smallest_batch(tiny))
    batch = batch._replace(
        pixels=jnp.zeros((rows, crops, side, side, 3), jnp.uint8),
        crop_image=jnp.zeros((rows, crops), jnp.int32),
        crop_segment=jnp.ones((rows, crops), jnp.int32),
    )
    boxed, _ = boxes(tiny)

    def features(params, batch):
        with sharding.axis_rules():
            return VLM(tiny).apply({"params": params}, batch, method="features")

    with jax.set_mesh(mesh):
        shardings = param_shardings(mesh, boxed), sharding.row_sharding(mesh)
        compiled = jax.jit(features, in_shardings=shardings).lower(partitioning.unboxed(boxed), batch).compile()
    assert compiled.output_shardings.shard_shape((rows, crops, 16, 32)) == (rows // 4, crops, 16, 32)
    text = compiled.as_text()
    moved = re.findall(r"= (\S+) (?:all-gather|all-to-all|collective-permute|all-reduce)[-\w]*\(", text)
    assert moved, "the mesh cuts parameters, so something must travel"
    assert not [shape for shape in moved if shape.startswith("u8") or f"{side},{side},3" in shape], moved
    # 2 rows of 3 crops on each of the four row shards, 16 patches of width 32.
    assert "f32[6,16,32]" in text and "f32[24,16,32]" not in text


def test_a_cache_is_cut_by_the_table(tiny):
    decoder, context = tiny.decoder, sharding_context(make_mesh(EVERYTHING))
    make = jax.jit(lambda rows: kv_cache.sharded(kv_cache.empty_cache(decoder, rows, 16, "float32")), static_argnums=0)
    with context():
        cache, small = make(8), make(3)
    assert tuple(cache.key.sharding.spec) == (None, ("replica", "fsdp"), None, "tensor")
    assert cache.value.sharding.shard_shape(cache.value.shape) == (2, 2, 16, 2, 8)
    assert tuple(cache.segment_ids.sharding.spec) == (None, ("replica", "fsdp"))
    assert small.key.sharding.shard_shape(small.key.shape) == (2, 3, 16, 2, 8)  # 3 rows do not divide
    assert len(make(8).key.sharding.device_set) == 1
    # 14B has 10 key-value heads: a tensor axis of 4 cannot cut them, and they stay whole.
    assert tuple(sharding.spec(make_mesh(MeshConfig(fsdp=2, tensor=4)), ("heads", "kv"), (10, 128))) == (None, None)
