"""No position of a packed row sees another sample."""

import contextlib
import dataclasses
import itertools

import jax
import mixed_sources
import numpy as np
from random_parameters import random_parameters
import tiny_run

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.models import blip3
from xgenmm_jax.models.blip3 import VLM, VLMConfig

SEED = 7


def rows_of(config: DataConfig, count: int) -> list[loader.HostBatch]:
    with contextlib.closing(loader.batches(config, SEED)) as batches:
        return list(itertools.islice(batches, count))


def test_logits_of_packed_rows_are_those_of_their_samples_alone(tmp_path):
    """Captions and texts of sharded sources and documents, images of one view and of several; within 1e-5."""
    mixed_sources.write(tmp_path)
    data = mixed_sources.config(tmp_path, batch_rows=2)
    assert sum(isinstance(source, ShardedSource) for source, _ in data.mixture) == 2
    model: VLMConfig = tiny_run.model(tmp_path / "small.model")
    # The same samples in rows of one each: a row has one segment.
    alone = dataclasses.replace(data, row=dataclasses.replace(data.row, segments=1), batch_rows=1)
    packed_rows = rows_of(data, 10)
    params = random_parameters(lambda key: blip3.initialize(model, key))
    logits = jax.jit(lambda batch: VLM(model).apply({"params": params}, batch))
    by_id = {one.sample_ids[0]: one.batch for one in rows_of(alone, 200)}
    kinds, crops, compared = set(), set(), 0
    for one in packed_rows:
        got = np.asarray(logits(one.batch))
        for row, ids in enumerate(one.sample_ids):
            for segment, id_ in enumerate(ids.split(" + "), start=1):
                own: Batch = by_id[id_]
                here, there = one.batch.segment_ids[row] == segment, own.segment_ids[0] == 1
                np.testing.assert_array_equal(one.batch.token_ids[row][here], own.token_ids[0][there])
                want = np.asarray(logits(jax.tree.map(lambda array: np.repeat(array, 2, axis=0), own)))[0][there]
                np.testing.assert_allclose(got[row][here], want, rtol=0, atol=1e-5)
                kinds.add(id_.partition("/")[0].partition("[")[0].partition(".")[2] or "documents")
                crops.add(int((own.crop_segment[0] == 1).sum()))
                compared += 1
    assert kinds == {"tar", "jsonl", "documents"} and {0, 1, 5} <= crops
    assert compared > 2 * sum(len(one.sample_ids) for one in packed_rows)
