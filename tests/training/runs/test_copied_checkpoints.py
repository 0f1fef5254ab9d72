"""Which folders of a bucket are checkpoints: whole ones, also those that people copied there from a disk."""

from buckets import gs_bucket
import pytest

from xgenmm_jax import files
from xgenmm_jax.paths import user_path
from xgenmm_jax.training.runs import checkpoint_files

ORBAX = ("_CHECKPOINT_METADATA", "params/_METADATA", "params/d/1")
OTHERS = {
    "saved here": (*ORBAX, "commit_success.txt", "files.json"),
    "saved on a disk": (*ORBAX, "files.json"),
    "converted": ("params/_METADATA", "params/a/0.0"),
}


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch, gs_bucket(patch) as url:
        yield user_path(url, "test")


def write(folder, names):
    for name in names:
        files.write_whole(folder / name, b"{}")


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_that_was_copied_counts_until_its_deletion_begins(bucket, case, monkeypatch):
    folder = bucket / case / "checkpoints"
    write(folder / "3", OTHERS[case])
    assert checkpoint_files.steps(folder) == [3] and not checkpoint_files.unfinished(folder)
    # The host is killed in the middle of deleting it.
    monkeypatch.setattr(files, "delete_tree", lambda _: None)
    checkpoint_files.delete(folder / "3")
    (folder / "3/_CHECKPOINT_METADATA").unlink(missing_ok=True)
    assert not checkpoint_files.steps(folder) and checkpoint_files.unfinished(folder) == [folder / "3"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_that_orbax_was_writing_does_not(bucket, count):
    folder = bucket / f"written{count}" / "checkpoints"
    write(folder / "3", ORBAX[:count])
    assert not checkpoint_files.steps(folder)
