"""Keys and values that do not fit into memory, sorted."""

import hashlib

import numpy as np
import pytest

from xgenmm_jax.data.sorting import HashSort


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@pytest.mark.parametrize("most_bytes", [1 << 20, 20_000, 3_000])
def test_keys_come_once_in_order_with_their_first_value(tmp_path, most_bytes):
    numbers = np.random.default_rng(0).integers(0, 800, 2000).tolist()
    found, first = HashSort(tmp_path / "sorting", most_bytes), {}
    for place, number in enumerate(numbers):
        found.add(key(number), b"%d" % place)
        first.setdefault(key(number), b"%d" % place)
    assert (tmp_path / "sorting").exists() == (most_bytes < 1 << 20)
    assert list(found.sorted()) == sorted(first.items())
    assert not (tmp_path / "sorting").exists()


def test_little_is_in_memory_at_a_time(tmp_path):
    found = HashSort(tmp_path / "sorting", 3_000)
    for number in range(2000):
        found.add(key(number), b"x" * (number % 90))
        assert found._bytes < 3_000 and len(found._held) < 15
    assert sum(1 for _ in found.sorted()) == 2000


def test_a_key_that_comes_again_and_again_ends(tmp_path):
    """The image of a counter stands on a million pages; splitting its file by more bytes would leave it as it is."""
    found = HashSort(tmp_path / "sorting", 600)
    for number in range(300):
        found.add(key(0), b"0")
        found.add(key(number), b"%d" % number)
    items = dict(found.sorted())
    assert len(items) == 300 and items[key(0)] == b"0" and items[key(299)] == b"299"


def test_nothing_gives_nothing(tmp_path):
    assert list(HashSort(tmp_path / "sorting").sorted()) == []
