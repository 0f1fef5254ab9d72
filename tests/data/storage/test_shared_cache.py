"""What threads ask for is read once, and the oldest goes where bytes run out."""

import threading
import time

import pytest

from xgenmm_jax.data.storage.shared_cache import SharedCache


def test_threads_that_ask_for_the_same_thing_read_it_once():
    cache = SharedCache(100, len)
    reads, results = [], []
    start = threading.Barrier(8)

    def read():
        reads.append(1)
        time.sleep(0.05)
        return "thing"

    def ask():
        start.wait()
        results.append(cache.get("key", read))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["thing"] * 8 and len(reads) == 1


def test_the_oldest_goes_where_bytes_run_out():
    cache = SharedCache(10, len)
    reads = []

    def get(name, size):
        return cache.get(name, lambda: reads.append(name) or "x" * size)

    for name in "aba":
        get(name, 4)
    get("c", 4)  # b goes: a was asked for later
    get("a", 4)
    get("b", 4)
    assert reads == ["a", "b", "c", "b"]
    get("large", 50)
    get("large", 50)
    get("a", 4)
    assert reads == ["a", "b", "c", "b", "large", "a"]


def test_an_error_goes_to_all_who_wait_and_is_not_kept():
    cache = SharedCache(10, len)
    begun, seen = threading.Event(), []

    def fail():
        begun.set()
        time.sleep(0.05)
        raise ValueError("torn")

    def ask():
        begun.wait()
        try:
            cache.get("key", fail)
        except ValueError as error:
            seen.append(str(error))

    waiting = threading.Thread(target=ask)
    waiting.start()
    with pytest.raises(ValueError, match="torn"):
        cache.get("key", fail)
    waiting.join()
    assert seen == ["torn"]
    assert cache.get("key", lambda: "whole") == "whole"
