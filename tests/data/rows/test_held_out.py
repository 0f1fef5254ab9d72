"""Held-out rows: what is set aside is in no row of training, and its own rows are the same everywhere."""

import contextlib
import dataclasses

import numpy as np
import pytest
import sharded_data
from tar_files import caption_tar

from xgenmm_jax.data.index.indexing import index_experiment
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import LoaderConfig
from xgenmm_jax.data.rows.held_out import HeldOutRows
from xgenmm_jax.nano.sources import Synthetic

TARS, RECORDS = 4, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for shard in range(TARS):
        caption_tar(folder / "tars" / f"{shard:04}.tar", RECORDS, seed=shard)
    caption_tar(folder / "one" / "all.tar", 30, seed=9)
    sharded_data.small_tokenizer(folder)
    return folder


def config_of(folder, workers=0):
    """A source with a shard held out, one of a single shard and one without an index."""
    return sharded_data.data(
        str(folder / "small.model"),
        sharded_data.captions(folder / "tars", held_out_shards=1, name="tars"),
        sharded_data.captions(folder / "one", name="one"),
        Synthetic("caption", 40),
        held_out_one_in=5,
        loader=LoaderConfig(threads=2, workers=workers, ahead=2),
    )


def samples(ids):
    return [sample for row in ids for sample in row.split(" + ") if sample]


def held_out_ids(config, count):
    with contextlib.closing(HeldOutRows(config, (), count, 4)) as rows:
        return [sample for one in rows.batches() for sample in samples(one.sample_ids)]


def test_training_never_shows_a_held_out_sample(folder):
    """By the ids of all samples over two epochs of every source."""
    config = config_of(folder)
    aside = set(held_out_ids(config, 60))
    assert len(aside) == RECORDS + 30 // 5 + 40 // 5
    seen = set()
    with contextlib.closing(loader.batches(config, 3)) as batches:
        for one in batches:
            seen.update(samples(one.sample_ids))
            if one.state.window > 3 * 2 * 36 // config.window:
                break
    assert len(seen) == (TARS - 1) * RECORDS + 30 - 6 + 40 - 8
    assert not seen & aside


def test_samples_are_drawn_once_before_one_is_drawn_again(folder):
    ids = held_out_ids(config_of(folder), 18)
    assert len(set(ids)) == len(ids) == 18


@pytest.mark.parametrize("hosts, workers", [(2, 0), (4, 2)])
def test_rows_are_the_same_each_time_on_any_number_of_hosts_and_workers(folder, hosts, workers):
    with contextlib.closing(HeldOutRows(config_of(folder), (), 40, 4)) as rows:
        first, again = list(rows.batches()), list(rows.batches())
        assert len(first) == len(rows) > 1
    with contextlib.closing(HeldOutRows(config_of(folder, workers), (), 40, 4, may_measure=False)) as rows:
        parts = [list(rows.batches(host, hosts)) for host in range(hosts)]
    for number, one in enumerate(first):
        joined = [part[number] for part in parts]
        assert one.sample_ids == again[number].sample_ids == [ids for part in joined for ids in part.sample_ids]
        for name, whole in one.batch._asdict().items():
            np.testing.assert_array_equal(whole, again[number].batch._asdict()[name])
            np.testing.assert_array_equal(whole, np.concatenate([part.batch._asdict()[name] for part in joined]))
        np.testing.assert_array_equal(one.source_of, np.concatenate([part.source_of for part in joined]))


def test_each_segment_has_its_source(folder):
    with contextlib.closing(HeldOutRows(config_of(folder), (), 40, 4)) as rows:
        assert rows.names == ("tars", "one", "synthetic/caption")
        for one in rows.batches():
            for ids, sources, segments in zip(one.sample_ids, one.source_of, one.batch.segment_ids, strict=True):
                kinds = [2 if sample.startswith("caption") else 0 for sample in samples([ids])]
                found = sources[1 : 1 + len(kinds)]
                assert segments.max() == len(kinds)
                np.testing.assert_array_equal(found == 2, np.array(kinds) == 2)
                assert (found >= 0).all() and (sources[1 + len(kinds) :] == -1).all() and sources[0] == -1


def test_sources_of_their_own_are_drawn_whole(folder):
    config = config_of(folder)
    own = ((sharded_data.captions(folder / "one", name="validation"), 1.0),)
    with contextlib.closing(HeldOutRows(config, own, 30, 4)) as rows:
        ids = [sample for one in rows.batches() for sample in samples(one.sample_ids)]
    assert rows.names == ("validation",) and len(set(ids)) == len(ids) == 30


def test_a_source_that_sets_nothing_aside_is_named_with_the_remedy(folder):
    config = dataclasses.replace(config_of(folder), held_out_one_in=0)
    with pytest.raises(ValueError, match="'one' sets nothing aside; keep some .*--data.held-out-one-in 100"):
        HeldOutRows(config, (), 18, 4)
    config = dataclasses.replace(config, mixture=((sharded_data.captions(folder / "tars", name="tars"), 1.0),))
    with pytest.raises(ValueError, match="'tars' sets nothing aside; give it held_out_shards=1, or keep"):
        HeldOutRows(config, (), 18, 4)
    with pytest.raises(ValueError, match="'one' has 30 records, and in no shard as many as .* 50, .*; lower it"):
        HeldOutRows(dataclasses.replace(config_of(folder), held_out_one_in=50), (), 18, 4)
    with pytest.raises(ValueError, match="held_out_one_in: got 1; wanted 0, or 2 or more"):
        dataclasses.replace(config, held_out_one_in=1)


def test_of_several_hosts_none_measures_what_is_held_out(tmp_path):
    """The last shard is reached by no step, so an index that the run's steps made lacks it."""
    for shard in range(2):
        caption_tar(tmp_path / "tars" / f"{shard:04}.tar", RECORDS, seed=shard)
    words = sharded_data.small_tokenizer(tmp_path)
    config = sharded_data.data(words, sharded_data.captions(tmp_path / "tars", held_out_shards=1))
    index_experiment(config, 7, 2)
    with pytest.raises(ValueError, match="lacks the sizes of '0001.tar'; of several hosts none measures"):
        HeldOutRows(config, (), 12, 4, may_measure=False)
    index_experiment(config, 7, 2, held_out_samples=12)
    with contextlib.closing(HeldOutRows(config, (), 12, 4, may_measure=False)) as rows:
        assert sum(len(samples(one.sample_ids)) for one in rows.batches()) == 12
