"""Rows leave nothing to the garbage collector, and the order of a source is made once.

What only a full collection frees lies for thousands of batches, and memory rises until then.
"""

import gc
import json
import os
import subprocess
import sys

import mixed_sources
import numpy as np
from printed_rows import ROOT

from xgenmm_jax.data.rows import order
from xgenmm_jax.data.rows.order import Phase, Shards

ALONE = (Phase(0, (1.0,)),)
COUNTER = ROOT / "tests/fixtures/garbage_counter.py"


def test_batches_leave_no_cycles_of_objects(tmp_path):
    """Each window left a class for every source: the annotation of a function that was defined in a loop."""
    mixed_sources.write(tmp_path)
    command = [sys.executable, str(COUNTER), str(tmp_path), "50"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = json.loads(done.stdout)
    assert printed["windows"] > 20 and printed["left"] == {}


def test_an_order_that_is_no_longer_kept_is_freed_at_once():
    """One held itself in a cycle, so that it stayed after the cache had let it go."""
    order.draws(ALONE, [Shards(np.array([9]))], 5, 4, 0)  # what signatures keep of their first call
    gc.collect()
    gc.disable()
    try:
        for records in range(1, order._SOURCES + 20):
            order.draws(ALONE, [Shards(np.array([records]))], 5, 4, 0)
        assert sum(isinstance(one, order._SourceOrder) for one in gc.get_objects()) <= order._SOURCES
    finally:
        gc.enable()


def test_the_order_of_a_source_without_shards_is_made_once():
    """One was made in every window and kept until 256 were there."""
    order._order_of.cache_clear()
    for window in range(9):
        order.draws((Phase(0, (1.0, 1.0)),), [Shards.one(40), Shards.one(7)], 5, 8, window)
    assert order._order_of.cache_info().misses == 2
