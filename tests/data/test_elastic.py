"""A run that goes on with other hosts and workers, and what they read of the files."""

from collections import Counter
import contextlib
import itertools
import os
from pathlib import Path

import mixed_sources
from mixed_sources import CountedTars
import pytest
from tar_files import caption_tar

from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.rows import loader, order
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.window import open_sources, shards_of
from xgenmm_jax.data.sharded import ShardedSource

SEED, STEPS = 7, 8
TARS, RECORDS = 4, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mixed"
    mixed_sources.write(folder)
    for shard in range(TARS):
        caption_tar(folder / "many" / f"{shard:04}.tar", RECORDS, seed=shard)
    return folder


def config_of(folder: Path, workers: int = 0) -> DataConfig:
    tars = ShardedSource(
        CountedTars(f"{folder}/many/*.tar", log=str(folder / "reads")), ImageCaptions(), group_shards=2
    )
    (_, weight), *others = mixed_sources.config(folder).mixture
    return mixed_sources.config(folder, workers, mixture=((tars, weight), *others))


def take(config: DataConfig, state, hosts: int, count: int = STEPS) -> list[tuple[list[str], order.State]]:
    """Hashes of all hosts' rows and the state, step by step; hosts run at the same time."""
    with contextlib.ExitStack() as stack:
        iterators = [
            stack.enter_context(contextlib.closing(loader.batches(config, SEED, state, host, hosts)))
            for host in range(hosts)
        ]
        steps = []
        for parts in itertools.islice(zip(*iterators, strict=True), count):
            assert len({part.state for part in parts}) == 1
            steps.append(([one for part in parts for one in mixed_sources.row_hashes(part)], parts[0].state))
        return steps


def test_hosts_and_workers_change_no_row_and_each_record_is_read_once(folder):
    """Begun on two hosts with two workers each, continued by one without, then by four: the rows of one unbroken run.

    Planning reads no record, and of each window no record is read by two hosts or twice.
    """
    unbroken = take(config_of(folder), (0, 0), hosts=1, count=3 * STEPS)  # measures the shards
    config = config_of(folder, workers=2)
    storage = config.mixture[0][0].storage
    Path(storage.log).unlink()
    first = take(config, (0, 0), hosts=2)
    reads = storage.reads()
    second = take(config_of(folder), first[-1][1], hosts=1)
    third = take(config_of(folder), second[-1][1], hosts=4)
    assert [*first, *second, *third] == unbroken
    # What the four worker processes have read, and this one, which has planned.
    processes = {process for process, *_ in reads}
    assert os.getpid() not in processes and 2 <= len(processes) <= 4
    counts = Counter((shard, number) for _, shard, number in reads)
    window, _ = first[-1][1]
    shards = shards_of(config, open_sources(config))
    drawn: Counter[tuple[str, int]] = Counter()
    for number in range(window):
        draws = order.draws(config.order_phases, shards, SEED, config.window, number)
        places = order.shard_of(shards[0], draws.record[draws.component == 0])
        drawn.update((f"{shard:04}.tar", record) for shard, record in zip(*map(list, places), strict=True))
    assert window > 2 and drawn.total() == window * config.window // 2
    assert set(counts.values()) == {1} and drawn <= counts
