"""Sixty-four hosts: each reads the records of its own rows and no others. And a source of 20,000 slow files."""

from collections import Counter
import contextlib
import itertools
import os
import threading
import time

import mixed_sources
from mixed_sources import CountedTars
import pytest
import sharded_data
import slow_bucket
from slow_bucket import Slow
from tar_files import caption_tar

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.index.indexing import index_source
from xgenmm_jax.data.index.workers import Measuring
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.rows import loader, order
from xgenmm_jax.data.rows.config import LoaderConfig
from xgenmm_jax.data.rows.planner import Planner
from xgenmm_jax.data.rows.window import open_sources, shards_of
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage import remote
from xgenmm_jax.data.storage.tars import Tars

SEED, HOSTS, STEPS, AHEAD = 7, 64, 1, 1
MOST_READ = 1.1
FILES, ROUND_TRIP_S = 20_000, 0.05
FIRST_BATCH_S, MOST_DESCRIPTORS = 60.0, 256


def test_of_64_hosts_each_reads_its_own_rows_alone(tmp_path):
    """As many records as its rows hold, none twice and none of another host's: at most 1.1 times its own.

    The batches that are built ahead are its own too.
    """
    for shard in range(6):
        caption_tar(tmp_path / "many" / f"{shard:04}.tar", 60, seed=shard)
    mixed_sources.tokenizer(tmp_path)
    log = tmp_path / "reads"
    tars = ShardedSource(CountedTars(f"{tmp_path}/many/*.tar", log=str(log)), ImageCaptions())
    config = mixed_sources.config(
        tmp_path, mixture=((tars, 1.0),), batch_rows=HOSTS, window=300, loader=LoaderConfig(threads=1, ahead=AHEAD)
    )
    # Which records the rows of each host hold, batch by batch; planning reads none.
    sources = open_sources(config)
    [shards] = shards_of(config, sources)
    planner = Planner(config, SEED, order.State(), sources)
    batches = [planner.take(HOSTS).rows for _ in range(STEPS + AHEAD + 1)]
    planner.close()
    log.unlink()
    read = own_of_all = 0
    for host in range(HOSTS):
        with contextlib.closing(loader.batches(config, SEED, host_index=host, host_count=HOSTS)) as iterator:
            for _ in itertools.islice(iterator, STEPS):
                pass
        reads = Counter((shard, number) for _, shard, number in tars.storage.reads())
        log.unlink()
        own = [record_of(shards, planned) for rows in batches for planned in rows[host]]
        assert reads <= Counter(own) and set(own[: len(batches[0][host])]) <= set(reads), host
        read, own_of_all = read + reads.total(), own_of_all + len(own)
        assert reads.total() <= MOST_READ * len(own)
    assert own_of_all > 3 * HOSTS and read <= MOST_READ * own_of_all


def record_of(shards, planned):
    shard = int((planned.draw.record >= shards.ends).sum())
    return f"{shard:04}.tar", planned.draw.record - int(shards.ends[shard] - shards.sizes[shard])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The config of 20,000 tars in a bucket, indexed."""
    folder = tmp_path_factory.mktemp("slow")
    words = sharded_data.small_tokenizer(folder)
    caption_tar(folder / "00000.tar", 4)
    with slow_bucket.bucket():
        slow_bucket.put("data/00000.tar", (folder / "00000.tar").read_bytes())
        source = ShardedSource(Tars("slow://data/*.tar"), ImageCaptions())
        config = sharded_data.data(words, source, window=256)
        index_source(source, Measuring(words, config.chat))
        slow_bucket.multiply("data", "00000.tar", [f"{number:05}.tar" for number in range(1, FILES)])
        yield config


@pytest.fixture
def slow(many, monkeypatch):
    """Requests take as long as to a bucket that is not near, and nothing is remembered of it."""
    monkeypatch.setattr(Slow, "seconds", ROUND_TRIP_S)
    monkeypatch.setattr(remote, "_SIZES", remote._Sizes())


def first_batch(config, **options):
    with contextlib.closing(loader.batches(config, SEED, **options)) as batches:
        return next(batches)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 64])
def test_20_000_files_50_ms_away_give_a_batch_within_a_minute_and_few_descriptors(many, slow, hosts):
    config = sharded_data.data(many.tokenizer, many.mixture[0][0], window=256, batch_rows=64)
    most, is_done = [0], threading.Event()

    def watch():
        while not is_done.wait(0.02):
            most[0] = max(most[0], len(os.listdir("/proc/self/fd")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    try:
        batch = first_batch(config, host_index=0, host_count=hosts)
        elapsed = time.monotonic() - started
    finally:
        is_done.set()
        watcher.join()
    print(f"\nfirst batch after {elapsed:.1f} s, {Slow.asked} requests; at most {most[0]} descriptors")
    assert len(batch.sample_ids) == 64 // hosts and all(batch.sample_ids)
    assert elapsed < FIRST_BATCH_S and 0 < most[0] <= MOST_DESCRIPTORS


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm, sentence",
    [
        (None, "'12345.tar' is gone"),
        (lambda data: data[:-512], "'12345.tar' has [0-9,]+ bytes, before"),
        (lambda data: b"", "'12345.tar' has 0 bytes, before"),
    ],
    ids=["missing", "cut", "empty"],
)
def test_of_20_000_files_one_that_is_not_as_it_was_is_one_sentence_before_the_first_batch(many, slow, harm, sentence):
    path = "/data/12345.tar"
    file = Slow.store.pop(path)
    try:
        if harm is not None:
            slow_bucket.put(path.lstrip("/"), harm(file.getvalue()))
        with pytest.raises(SourceError, match=sentence) as raised:
            first_batch(many)
    finally:
        Slow.store[path] = file
    assert "\n" not in str(raised.value) and "index" in str(raised.value)
