"""What is made is trained on, and a run answers about noised images: the smallest model, two steps."""

import dataclasses
import json
from pathlib import Path

import curated
import numpy as np
import PIL.Image
import pytest
import tiny_run

from xgenmm_jax import api
from xgenmm_jax.cli.curate_noised import RunAnswers
from xgenmm_jax.curation.images import Unread, opened_shard, read, unopened
from xgenmm_jax.curation.noised import NoisedPairs, noised
from xgenmm_jax.data.readers.llava import Llava
from xgenmm_jax.data.readers.ocr import Ocr
from xgenmm_jax.data.readers.preferences import Preferences
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.objectives.dpo import DPO

pytestmark = pytest.mark.slow


def config(tokenizer: Path, source: ShardedSource, steps: int = 2):
    base = tiny_run.config(tokenizer, steps)
    optimizer = dataclasses.replace(base.optimizer, warmup_steps=1)
    base = dataclasses.replace(base, optimizer=optimizer)
    return dataclasses.replace(base, data=dataclasses.replace(base.data, mixture=((source, 1.0),), window=8))


def test_ocr_and_pairs_of_a_run_are_trained_on(tmp_path):
    tokenizer = tiny_run.tokenizer(tmp_path)
    curated.made(curated.images(tmp_path / "tars"), tmp_path / "ocr")
    ocr = ShardedSource(Parquet(f"{tmp_path}/ocr/data/*.parquet"), Ocr(image=("image",)))
    assert train(config(tokenizer, ocr), tmp_path / "run").step == 2
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 2 and np.isfinite(losses).all()

    # The run answers a source's questions about noised images.
    (tmp_path / "files").mkdir()
    entries = []
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 40, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "files" / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\na red circle?"}, {"from": "gpt", "value": "the blue square"}]
        entries.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (tmp_path / "llava.json").write_text(json.dumps(entries), encoding="utf-8")
    questions = ShardedSource(JsonFiles(str(tmp_path / "llava.json"), images=str(tmp_path / "files")), Llava())
    maker = NoisedPairs(RunAnswers(str(tmp_path / "run"), 6), step=700)
    result = curated.made(questions, tmp_path / "pairs", maker, faces="none")
    assert result.failed == () and result.rows + sum(n for n, _ in result.left_out().values()) == 6 and result.rows
    pairs = ShardedSource(Parquet(f"{tmp_path}/pairs/data/*.parquet"), Preferences(image=("image",), image_name=""))

    # They are the run's own greedy answers, of one image as of six.
    lmm = api.load(tmp_path / "run")
    records = pairs.open()
    record = records.record(0, np.random.default_rng(0))
    shard, _ = opened_shard(questions, questions.source_index().paths[0])
    first = read(next(unopened(questions, shard, "x")), 0, 0)
    assert not isinstance(first, Unread)
    image = noised(first.pixels, 700, (0, int(first.digest, 16)))
    (answer,) = lmm.generate(["a red circle?"], images=[[image]], decoding=Decoding(max_new_tokens=6))
    assert record.rejected == answer.strip() and record.chosen == "the blue square"

    # And preference tuning goes on from the run with them.
    dpo = config(tokenizer, pairs)
    dpo = dataclasses.replace(dpo, objective=DPO(chunk=32))
    assert train(dpo, tmp_path / "dpo").step == 2
