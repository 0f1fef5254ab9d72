"""A checkpoint that one replica reads for all."""

import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import numpy as np
import pytest
from started_hosts import run_hosts
import toy_run

from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs import checkpoint_files, replica_restore
from xgenmm_jax.training.runs.checkpoints import restore_params
from xgenmm_jax.training.sharding import MeshConfig, make_mesh

TOLD = """
import dataclasses, sys
import toy_run
from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.runs import checkpoints
from xgenmm_jax.training.sharding import MeshConfig

read = checkpoints._restore_here

def told(folder, abstract):
    print("reads", folder.name, file=sys.stderr)
    if {is_broken}:
        raise TimeoutError("the bucket did not answer")
    return read(folder, abstract)

checkpoints._restore_here = told

def config():
    checkpoint = CheckpointConfig(every_steps=5, every_seconds=0.0)
    config = dataclasses.replace(toy_run.config(steps=12), mesh=MeshConfig(replica=2, fsdp=1))
    return dataclasses.replace(config, log_every=1, checkpoint=checkpoint)
"""


@pytest.mark.parametrize(
    ("hosts", "is_apart"),
    [
        ([[0, 0, 1, 1], [2, 2, 3, 3]], True),
        ([[0, 0, 1, 1], [1, 1, 2, 2]], False),
        ([[0, 0], [0, 0]], False),
        ([[0, 1]], False),
    ],
)
def test_one_replica_reads_where_no_host_lies_in_two(hosts, is_apart):
    assert replica_restore.is_apart(hosts) == is_apart


def test_what_one_replica_sends_is_what_every_one_would_read(tmp_path):
    """To the bit, on eight devices of one process: here the first replica's four read and all eight get it."""
    config = dataclasses.replace(toy_run.config(steps=3), mesh=MeshConfig(replica=2, fsdp=4))
    result = train(config, tmp_path)
    mesh = make_mesh(config.mesh)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), result.params
    )
    assert replica_restore.replicated_mesh(abstract) is None  # one process reads all once anyway
    with jax.set_mesh(mesh):  # as in a run
        sent = replica_restore.restore(lambda abstract: restore_params(tmp_path, abstract), abstract, mesh)
    read = restore_params(tmp_path, abstract)
    jax.tree.map(np.testing.assert_array_equal, sent, read)
    for one, other in zip(jax.tree.leaves(sent), jax.tree.leaves(read), strict=True):
        assert one.sharding == other.sharding and len(one.addressable_shards) == 8


def test_every_bit_arrives(unchecked_signatures):
    """Minus zero, and what is no number; a sum of floats makes 0 of the one and another of the other."""
    mesh = make_mesh(MeshConfig(replica=2, fsdp=4))
    bits = np.array([0x80000000, 0, 1, 0x7F800001, 0xFFC00123, 0x7F800000, 0xFFFFFFFF, 0x3F800000], np.uint32)
    values, numbers = bits.view(np.float32), bits.view(np.int32)
    abstract = {
        "a": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=NamedSharding(mesh, jax.P("fsdp"))),
        "b": jax.ShapeDtypeStruct((8,), jnp.int32, sharding=NamedSharding(mesh, jax.P())),
        "c": jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, jax.P())),
    }
    given = {"a": values, "b": numbers, "c": np.int32(-7)}

    def read(wanted):
        return jax.tree.map(lambda leaf, value: jax.device_put(value, leaf.sharding), wanted, given)

    sent = replica_restore.restore(read, abstract, mesh)
    np.testing.assert_array_equal(np.asarray(sent["a"]).view(np.uint32), bits)
    np.testing.assert_array_equal(sent["b"], numbers)
    assert sent["c"] == -7


@pytest.mark.slow
def test_of_two_hosts_one_reads_and_both_go_on_as_if_both_had(tmp_path):
    first = run_hosts(tmp_path, 2, experiment=TOLD.format(is_broken=False).replace("{", "{{").replace("}", "}}"))
    assert [process.returncode for process in first] == [0, 0], first
    before = read_metrics(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    experiment = TOLD.format(is_broken=False).replace("{", "{{").replace("}", "}}")
    again = run_hosts(tmp_path, 2, experiment=experiment)
    assert [process.returncode for process in again] == [0, 0], again
    reads = [re.findall("^reads (.+)$", process.stderr, re.MULTILINE) for process in again]
    assert reads == [["params", "opt_state"], []]
    after = read_metrics(tmp_path / "run")
    assert [(row["step"], row["loss"], row["grad_norm"]) for row in after] == [
        (row["step"], row["loss"], row["grad_norm"]) for row in before
    ]
    # A read that fails is told on both, and neither waits for the other.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    (tmp_path / "run" / "checkpoints" / "10" / checkpoint_files.LIST_FILE).unlink()
    experiment = TOLD.format(is_broken=True).replace("{", "{{").replace("}", "}}")
    failed = run_hosts(tmp_path, 2, experiment=experiment)
    assert all(process.returncode in (1, 75) for process in failed), failed
    assert "10' was not read (the bucket did not answer), and nothing says that it is damaged" in failed[0].stderr
