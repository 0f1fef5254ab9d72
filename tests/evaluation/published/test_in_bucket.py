"""Benchmarks' tables in a bucket give the examples of a disk."""

from pathlib import Path
import shutil

from buckets import gs_bucket
import numpy as np
import published_sets
import pytest

from xgenmm_jax import files
from xgenmm_jax.evaluation.published import copies
from xgenmm_jax.evaluation.tasks import suites
from xgenmm_jax.paths import user_path

MMSTAR = Path(__file__).parents[2] / "goldens" / "benchmarks" / "MMStar" / "rows.tsv"
SETS = [name for name in published_sets.WRITERS if name.endswith("parquet")]


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch, gs_bucket(patch) as url:
        yield user_path(url, "test")


@pytest.fixture
def place(bucket, tmp_path):
    """A folder on the disk, and where `copied` puts it."""
    return tmp_path / "data", bucket / tmp_path.name


def copied(here, there) -> None:
    for name in files.tree(here):
        files.copy(here / name, there / name)


def loaded(name: str, folder, profile):
    (benchmark,) = suites.named([name])
    return benchmark.load(folder, benchmark.choice(profile))


def same(one, other) -> None:
    assert one.fingerprint == other.fingerprint and one.left_out == other.left_out
    for mine, theirs in zip(one.examples, other.examples, strict=True):
        for image, copy in zip(mine.images, theirs.images, strict=True):
            np.testing.assert_array_equal(np.asarray(image.load()), np.asarray(copy.load()))


@pytest.mark.parametrize("name", SETS)
def test_parquet_gives_the_same_examples(place, name):
    here, there = place
    task, write = published_sets.WRITERS[name]
    write(here)
    copied(here, there)
    profile = None if task == "mathvista" else "lmms"
    same(loaded(task, here, profile), loaded(task, there, profile))


def test_a_table_is_copied_once_and_no_more_than_fits(place, monkeypatch):
    """Its pictures are read from any place of it, again and again."""
    here, there = place
    here.mkdir()
    shutil.copy(MMSTAR, here / "MMStar.tsv")
    copied(here, there)
    fetched, copy = [], files.copy
    monkeypatch.setattr(files, "copy", lambda source, target: fetched.append(source) or copy(source, target))
    same(loaded("mmstar", here, None), loaded("mmstar", there, None))
    loaded("mmstar", there, None)
    assert fetched == [there / "MMStar.tsv"]
    monkeypatch.setattr(copies, "MOST_BYTES", sum(files.tree(copies._folder()).values()))
    copy(MMSTAR, there / "again" / "MMStar.tsv")
    with pytest.raises(ValueError, match=r"again/MMStar.tsv' has [\d,]+ bytes, and 0 are left for copies"):
        loaded("mmstar", there / "again", None)


def test_the_authors_files_are_read_on_a_disk_alone(place):
    here, there = place
    published_sets.WRITERS["mmvet_json"][1](here)
    copied(here, there)
    assert loaded("mmvet", here, None).examples
    with pytest.raises(ValueError, match=r"mmvet: nothing of it in 'gs://.*In a bucket tables alone are read"):
        loaded("mmvet", there, None)
