"""What we write slice by slice orbax restores, and what orbax writes we read slice by slice."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from xgenmm_jax.convert import parameter_store
from xgenmm_jax.convert.parameter_store import CHUNK_BYTES, ParameterReader, ParameterWriter, chunk_shape
from xgenmm_jax.training.runs import checkpoints

TREE = {"vision": {"layers": {"k": np.arange(48.0, dtype=np.float32).reshape(4, 3, 4)}, "p": np.ones(5, np.float32)}}
SHAPES = {"vision/layers/k": (4, 3, 4), "vision/p": (5,)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_orbax_restores_what_was_written_by_layer(tmp_path, dtype):
    writer = ParameterWriter(tmp_path / "run/checkpoints/0/params", SHAPES, np.dtype(jnp.dtype(dtype)))
    for layer, array in enumerate(TREE["vision"]["layers"]["k"]):
        writer.write("vision/layers/k", layer, array.astype(jnp.dtype(dtype)))
    writer.write("vision/p", None, TREE["vision"]["p"].astype(jnp.dtype(dtype)))
    mesh = jax.make_mesh((2,), ("fsdp",), devices=jax.devices()[:2])
    rows = jax.NamedSharding(mesh, jax.P(None, None, "fsdp"))
    whole = jax.NamedSharding(mesh, jax.P())
    abstract = {
        "vision": {
            "layers": {"k": jax.ShapeDtypeStruct((4, 3, 4), np.float32, sharding=rows)},
            "p": jax.ShapeDtypeStruct((5,), np.float32, sharding=whole),
        }
    }
    restored = checkpoints.restore_params(tmp_path / "run", abstract)
    jax.tree.map(np.testing.assert_array_equal, restored, TREE)
    assert restored["vision"]["layers"]["k"].sharding == rows
    assert checkpoints.param_shapes(tmp_path / "run/checkpoints/0/params") == SHAPES


@pytest.mark.parametrize("shape", [(7, 4), (1, 7, 4)])
def test_a_leaf_in_uneven_chunks_is_read_as_it_was_written(tmp_path, monkeypatch, shape):
    """Seven rows in chunks of two: zarr's last chunk is as long as the others."""
    monkeypatch.setattr(parameter_store, "CHUNK_BYTES", 40)
    array = np.arange(28, dtype=np.float32).reshape(shape)
    for layer in (None, 0, 1):
        folder = tmp_path / f"{layer}"
        writer = ParameterWriter(folder, {"a/b": shape if layer is None else (2, *shape)}, array.dtype)
        for number in (None,) if layer is None else (0, 1):
            writer.write("a/b", number, array + (number or 0))
        assert len(list((folder / "a.b").iterdir())) == 1 + (4 if layer is None else 8)
        np.testing.assert_array_equal(ParameterReader(folder).read("a/b", layer), array + (layer or 0))


@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("by_layer", [True, False])
def test_reads_what_orbax_wrote(tmp_path, ocdbt, by_layer):
    shard_axes = (0,) if by_layer else ()
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(shard_axes=shard_axes), TREE)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)) as checkpointer:
        # As training's checkpoints: device arrays.
        tree = jax.tree.map(jnp.asarray, TREE)
        checkpointer.save(tmp_path / "params", args=ocp.args.PyTreeSave(tree, save_args=save_args))
    reader = ParameterReader(tmp_path / "params")
    assert reader.shapes == SHAPES
    np.testing.assert_array_equal(reader.read("vision/layers/k", 2), TREE["vision"]["layers"]["k"][2])
    np.testing.assert_array_equal(reader.read("vision/p"), TREE["vision"]["p"])


def test_large_stacked_leaves_of_training_are_chunked_by_layer(monkeypatch):
    """Export reads a 6.4 GB leaf layer by layer; a leaf in one chunk would be read whole for each."""
    monkeypatch.setattr(checkpoints, "CHUNK_BYTES", 100)
    assert checkpoints._by_layer(jnp.zeros((4, 10))).shard_axes == (0,)
    assert checkpoints._by_layer(jnp.zeros((4, 5))).shard_axes == ()


def test_chunks_never_span_layers_and_are_bounded():
    assert chunk_shape((32, 3072, 2, 8192), True, 4) == [1, 1536, 2, 8192]
    assert chunk_shape((32064, 3072), False, 4) == [8016, 3072]
    assert chunk_shape((7,), False, 4) == [7] and chunk_shape((), False, 4) == []
    # A row stays whole: writing chunks of two cut axes would not be runs of memory.
    assert chunk_shape((2, 10**9), False, 4) == [1, 10**9]
    assert 1536 * 2 * 8192 * 4 <= CHUNK_BYTES


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="has no parameters of ours"):
        ParameterReader(tmp_path)
