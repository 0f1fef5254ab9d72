"""A file of ranges reads like the file itself, and small reads share one range."""

import io

import numpy as np
import pytest

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.storage import files, range_file
from xgenmm_jax.data.storage.range_file import RangeFile


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    return path


def test_any_seeks_and_reads_give_the_bytes_of_the_file(path, monkeypatch):
    monkeypatch.setattr(range_file, "READ_AHEAD", 300)
    rng = np.random.default_rng(1)
    ours, theirs = RangeFile(str(path)), io.BytesIO(path.read_bytes())
    for _ in range(500):
        if rng.random() < 0.5:
            whence = int(rng.integers(3))
            offset = int(rng.integers(0, 5200)) - (0, theirs.tell(), 5100)[whence]
            offset = max(offset, -theirs.tell() if whence == 1 else -5000)
            assert ours.seek(offset, whence) == theirs.seek(offset, whence)
        size = int(rng.choice([-1, 0, 1, 50, 299, 300, 301, 2000], p=[0.02, 0.08, 0.2, 0.2, 0.15, 0.1, 0.15, 0.1]))
        assert ours.read(size) == theirs.read(size) and ours.tell() == theirs.tell()
    assert io.BufferedReader(ours).seek(0) == 0 and io.BufferedReader(ours).read() == path.read_bytes()


def test_small_reads_are_one_range(path, monkeypatch):
    ranges = []
    read = files.read
    monkeypatch.setattr(files, "read", lambda path, *range_: ranges.append(range_) or read(path, *range_))
    monkeypatch.setattr(range_file, "READ_AHEAD", 1000)
    file = RangeFile(str(path))
    for place in (0, 10, 500, 990):
        file.seek(place)
        file.read(10)
    file.seek(-1, io.SEEK_END)
    file.read(10)
    file.seek(2000)
    file.read(2500)
    assert ranges == [(0, 1000), (4999, 1), (2000, 2500)]


def test_a_file_that_is_gone_or_cut_is_an_error_of_the_source(path):
    file = RangeFile(str(path))
    path.write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match="copy it again"):
        file.read(200)
    path.unlink()
    with pytest.raises(SourceError, match="no file"):
        RangeFile(str(path))
