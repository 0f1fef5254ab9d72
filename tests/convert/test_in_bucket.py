"""Checkpoints of other layouts in a bucket: read by parts, written whole, the bytes those of a disk."""

from pathlib import Path

from buckets import gs_bucket
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from xgenmm_jax import files
from xgenmm_jax.api import conversion
from xgenmm_jax.cli import main as cli
from xgenmm_jax.convert import byte_ranges, importing, safetensors_writer
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.parameter_store import ParameterReader
from xgenmm_jax.convert.tensor_files import open_tensors
from xgenmm_jax.data.storage import remote
from xgenmm_jax.paths import user_path

GOLDENS = Path(__file__).parents[1] / "goldens"
TINY28 = GOLDENS / "xgenmm_tiny28"
SHARD_BYTES = 1_000_000


@pytest.fixture(scope="module")
def bucket():
    """With the golden in it, and a big_vision tower."""
    with pytest.MonkeyPatch.context() as patch, gs_bucket(patch) as url:
        root = user_path(url, "test")
        for path in (TINY28 / "config.json", TINY28 / "model.safetensors", GOLDENS / "big_vision_scanned/siglip.npz"):
            files.copy(path, root / path.parent.name / path.name)
        yield root


@pytest.fixture(scope="module", autouse=True)
def no_compilation_cache():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "keep_compilations", lambda: None)
        yield


@pytest.fixture(scope="module")
def imported(bucket, tmp_path_factory):
    """The golden as run folders, imported here from here and there from there."""
    here, there = tmp_path_factory.mktemp("runs") / "run", bucket / "runs" / "run"
    assert cli.main(["convert", str(TINY28), str(here)]) == 0
    assert cli.main(["convert", str(bucket / "xgenmm_tiny28"), str(there)]) == 0
    return here, there


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files.tree(folder)}


@pytest.mark.parametrize("place", ["xgenmm_tiny28", "big_vision_scanned/siglip.npz"])
def test_tensors_are_those_of_the_disk(bucket, monkeypatch, place):
    """In requests smaller than a tensor, too."""
    monkeypatch.setattr(byte_ranges, "PIECE_BYTES", 1000)
    here, there = open_tensors(GOLDENS / place), open_tensors(bucket / place)
    assert here.infos.keys() == there.infos.keys()
    for name, info in list(here.infos.items())[::40]:
        assert (info.shape, info.dtype) == (there.infos[name].shape, there.infos[name].dtype)
        np.testing.assert_array_equal(here.read(name), there.read(name))
    here.close()
    there.close()


def test_a_tensor_is_read_without_the_others(bucket, monkeypatch):
    """Not the 49 GB of a checkpoint for one of its slices."""
    tensors = open_tensors(bucket / "xgenmm_tiny28")
    asked, read = [], remote.read
    monkeypatch.setattr(remote, "read", lambda url, offset, length: asked.append(length) or read(url, offset, length))
    name = next(name for name, info in tensors.infos.items() if len(info.shape) == 2)
    array = tensors.read(name, None, 1, 2)
    tensors.close()
    assert asked == [array.nbytes]


def test_an_imported_run_is_that_of_the_disk(imported):
    here, there = imported
    local, remote_ = contents(here), contents(there)
    config = local.pop("config.json").replace(str(here).encode(), str(there).encode())
    assert remote_.pop("config.json") == config
    assert local == remote_ and any(name.startswith("checkpoints/0/params/") for name in local)


@pytest.mark.parametrize("layout", ["xgenmm", "phi3"])
def test_an_export_is_that_of_the_disk(imported, layout):
    here, there = imported
    assert cli.main(["convert", str(here), str(here.with_name(layout)), "--to", layout]) == 0
    assert cli.main(["convert", str(there), str(there.with_name(layout)), "--to", layout]) == 0
    assert contents(here.with_name(layout)) == contents(there.with_name(layout))
    assert not files.is_unfinished(there.with_name(layout))


def test_shards_lie_on_the_disk_no_longer_than_they_are_written(imported, monkeypatch):
    """A bucket takes a file from its beginning on: all shards of a 14B at once would want 56 GB of the disk."""
    here, there = imported
    most, whole = [0], safetensors_writer._Shard.put_in_place

    def count(shard):
        begun = [path for path in shard._here.parent.iterdir() if path.stat().st_blocks * 512 > SHARD_BYTES / 4]
        most[0] = max(most[0], len(begun))
        whole(shard)

    monkeypatch.setattr(safetensors_writer._Shard, "put_in_place", count)
    conversion.export_checkpoint(there, there.with_name("shards"), "xgenmm", shard_bytes=SHARD_BYTES)
    monkeypatch.undo()
    conversion.export_checkpoint(here, here.with_name("shards"), "xgenmm", shard_bytes=SHARD_BYTES)
    expected = contents(here.with_name("shards"))
    assert contents(there.with_name("shards")) == expected and sum(name.endswith("tensors") for name in expected) > 4
    assert most[0] <= 3


def test_what_a_kill_left_is_refused(bucket, tmp_path, capsys):
    half = bucket / tmp_path.name / "half"
    files.write_whole(half / files.UNFINISHED, b"")
    files.copy(TINY28 / "model.safetensors", half / "model.safetensors")
    assert cli.main(["convert", str(half), str(tmp_path / "run")]) == 1
    assert f"'{half}' was not written to its end" in capsys.readouterr().err
    assert cli.main(["convert", str(TINY28), str(half)]) == 1
    assert "is left of a conversion that was killed" in capsys.readouterr().err


def test_what_fails_leaves_nothing(bucket, tmp_path, monkeypatch):
    with open_source(TINY28) as source:

        def fail(source, folder, *_):
            files.write_whole(folder / "half", b"x")
            raise ZeroDivisionError

        monkeypatch.setattr(importing, "write_parameters", fail)
        with pytest.raises(ZeroDivisionError):
            conversion.import_run(source, bucket / tmp_path.name / "run")
    assert not (bucket / tmp_path.name / "run").exists()
    with pytest.raises(ValueError, match="exists; give a new folder"):
        conversion.refuse_existing(bucket / "xgenmm_tiny28")


def test_what_orbax_wrote_is_read_by_layer(bucket, tmp_path):
    """Training's checkpoints, in OCDBT, copied from a disk."""
    tree = {"vision": {"k": jnp.arange(48.0).reshape(4, 3, 4), "p": jnp.ones(5)}}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "params", args=ocp.args.PyTreeSave(tree))
    for name in files.tree(tmp_path / "params"):
        files.copy(tmp_path / "params" / name, bucket / tmp_path.name / name)
    reader = ParameterReader(bucket / tmp_path.name)
    assert (bucket / tmp_path.name / "manifest.ocdbt").is_file() and reader.shapes["vision/k"] == (4, 3, 4)
    for layer in (3, 0):
        np.testing.assert_array_equal(reader.read("vision/k", layer), tree["vision"]["k"][layer])
    np.testing.assert_array_equal(reader.read("vision/p"), tree["vision"]["p"])
