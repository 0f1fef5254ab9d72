"""The same rows for any workers, hosts and resumed states."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
from sharded_data import assert_same_batches, take

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.errors import CUT_SHORT, NO_ROW
from xgenmm_jax.data.rows import loader, packing
from xgenmm_jax.data.rows.config import DataConfig, LoaderConfig
from xgenmm_jax.data.rows.loader import HostBatch
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.rows.window import measurer_of, open_sources, plan_window
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import train_tokenizer
from xgenmm_jax.nano.sources import Synthetic

BATCHES = 5


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> DataConfig:
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    train_tokenizer(["a red circle and the blue square in the center"] * 9, path, pieces=400)
    return DataConfig(
        mixture=((Synthetic("caption", 40), 2.0), (Synthetic("questions", 300), 1.0)),
        tokenizer=str(path),
        row=RowConfig(length=640, crops=8, images=8, vision_tokens=4),
        anyres=AnyRes(grids=((2, 2),), view_px=32, view_cells=4, single_view_up_to_px=64),
        batch_rows=4,
        window=40,
        chat=ChatStyle(system=None),
        loader=LoaderConfig(threads=2, ahead=2),
    )


@pytest.fixture(scope="module")
def unbroken(config) -> list[HostBatch]:
    return take(config, BATCHES)


def test_resumed_from_any_state_equals_unbroken(config, unbroken):
    states = [(0, 0), *(one.state for one in unbroken)]
    assert len({window for window, _ in states}) > 1, "the run should cross a window"
    for done in range(1, BATCHES):
        assert_same_batches(take(config, BATCHES - done, states[done]), unbroken[done:])


def test_a_state_in_the_middle_of_a_batch_gives_the_same_rows(config, unbroken):
    rows = [row for one in unbroken for row in one.sample_ids]
    got = take(config, 2, (0, 3))
    assert [row for one in got for row in one.sample_ids] == rows[3:11]


def test_hosts_hold_the_parts_of_one_batch(config, unbroken):
    parts = [take(config, 2, host=host, hosts=2) for host in (0, 1)]
    joined = [
        HostBatch(Batch(*map(np.concatenate, zip(a.batch, b.batch, strict=True))), a.sample_ids + b.sample_ids, b.state)
        for a, b in zip(*parts, strict=True)
    ]
    assert all(a.state == b.state for a, b in zip(*parts, strict=True))
    assert_same_batches(joined, unbroken[:2])


def test_threads_do_not_change_the_rows(config, unbroken):
    for options in (LoaderConfig(threads=1, ahead=1), LoaderConfig(threads=4, ahead=6)):
        assert_same_batches(take(dataclasses.replace(config, loader=options), BATCHES), unbroken)


def test_workers_do_not_change_the_rows(config, unbroken):
    options = LoaderConfig(threads=1, workers=2, ahead=1)
    assert_same_batches(take(dataclasses.replace(config, loader=options), BATCHES), unbroken)


def test_mixture_reaches_the_rows(config, unbroken):
    window = plan_window(config, open_sources(config), measurer_of(config), 7, 0)
    components = [sample.draw.component for row in window.rows for sample in row]
    assert len(components) == config.window and len(window.skipped) == 0
    assert components.count(0) in (26, 27) and window.drawn == (components.count(0), components.count(1))
    for row in window.rows:
        assert (np.sum([sample.size for sample in row], axis=0) <= packing.budget(config.row)).all()


def test_preference_pairs_share_rows_and_images(config):
    mixture = ((Synthetic("preference", 50), 1.0), (Synthetic("safety", 50), 1.0))
    for one in take(dataclasses.replace(config, mixture=mixture), 2):
        segments, slots = one.batch.segment_ids, one.batch.slot
        assert (segments.max(axis=1) % 2 == 0).all()
        for b, k in itertools.product(range(len(segments)), range(segments.max() // 2)):
            chosen, rejected = (slots[b][(segments[b] == 2 * k + n) & (slots[b] >= 0)] for n in (1, 2))
            np.testing.assert_array_equal(chosen, rejected)
            assert not (one.batch.crop_segment[b] == 2 * k + 2).any()
    with pytest.raises(ValueError, match="give them their own mixture"):
        take(dataclasses.replace(config, mixture=(*mixture, *config.mixture)), 1)


def test_seeds_give_other_rows(config, unbroken):
    with contextlib.closing(loader.batches(config, 8)) as iterator:
        assert next(iterator).sample_ids != unbroken[0].sample_ids


def test_errors_come_before_the_first_batch_and_name_the_remedy(config):
    with pytest.raises(ValueError, match="up to 5 crops and a row holds 4; raise row.crops to 5"):
        dataclasses.replace(config, row=dataclasses.replace(config.row, crops=4))
    with pytest.raises(ValueError, match="up to 20 vision tokens and a row holds 20"):
        dataclasses.replace(config, row=dataclasses.replace(config.row, length=20))
    with pytest.raises(ValueError, match="host 0 of 3 cannot share 4 rows"):
        take(config, hosts=3)
    with pytest.raises(ValueError, match="Raise row.length"):
        take(dataclasses.replace(config, row=dataclasses.replace(config.row, length=24)))
    with pytest.raises(ValueError, match="beyond the .* rows of its window"):
        take(config, state=(0, 1000))


def test_what_no_row_holds_is_dropped_and_counted(config):
    config = dataclasses.replace(config, row=dataclasses.replace(config.row, length=24, too_long="drop"))
    window = plan_window(config, open_sources(config), measurer_of(config), 7, 0)
    dropped = [skip for skip in window.skipped if skip.reason == NO_ROW]
    assert 0 < len(dropped) == config.window - sum(map(len, window.rows))
    cuts = [skip for skip in window.skipped if skip.reason == CUT_SHORT]
    assert cuts and all("tokens and 0 images are cut off" in skip.detail for skip in cuts)
