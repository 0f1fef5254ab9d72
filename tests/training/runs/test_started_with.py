"""A run that goes on is held to the data and the weights that it began with."""

import dataclasses
from dataclasses import dataclass
import json
import logging
import os
import shutil

import jax
import numpy as np
import pytest
import toy_run

from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.data.readers.records import RecordFiles, write_records
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import CheckpointConfig, Initialize
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs import started_with
from xgenmm_jax.training.runs.initialize import save_weights
from xgenmm_jax.training.runs.run_folder import CONFIG_FILE, STARTED_WITH_FILE


@dataclass(frozen=True)
class MixedData:
    """The toy's rows beside a mixture that nobody reads."""

    mixture: tuple
    rows: int = 16


@pytest.fixture(autouse=True)
def events(monkeypatch):
    events = toy_run.Events()
    monkeypatch.setattr(toy_run, "EVENTS", events)
    return events


def llava(path, count, answer="Yes."):
    turns = [{"from": "human", "value": "Red?"}, {"from": "gpt", "value": answer}]
    path.write_text(json.dumps([{"id": str(number), "conversations": turns} for number in range(count)]))
    return LlavaJson(str(path), str(path.parent))


def shard(path, count, answer="Yes."):
    turns = (Turn("user", "Red?"), Turn("assistant", answer))
    write_records(path, [(Conversation(f"{path.stem}/{number}", (), turns), []) for number in range(count)])


def weights(path, seed):
    kernel = np.random.default_rng(seed).normal(size=(4, 8))
    save_weights(path, {"vision": {"kernel": kernel}}, {})
    return Initialize(vision=str(path))


def stopped(config, folder, events, step=4):
    """A run that has saved a step and was told to stop."""
    events.terminate_at = step
    result = train(config, folder)
    events.terminate_at = 0
    assert result.step == step
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(config, folder, sentence):
    before = contents(folder)
    with pytest.raises(ValueError, match=sentence) as error:
        train(config, folder)
    assert "\n" not in str(error.value) and "or start anew with another --workdir" in str(error.value)
    assert contents(folder) == before, "before anything is written"


def test_data_that_changed_are_told_with_what_was_and_what_is(tmp_path, events):
    """A record more gave the rest of the run another order, silently."""
    shard(tmp_path / "1.array_record", 3)
    mixture = (
        (Synthetic("caption", 40), 1.0),
        (llava(tmp_path / "data.json", 64), 1.0),
        (dataclasses.replace(llava(tmp_path / "drawn.json", 9), samples=5), 1.0),
        (RecordFiles(str(tmp_path / "*.array_record")), 1.0),
    )
    config = dataclasses.replace(toy_run.config(), data=MixedData(mixture))
    run = stopped(config, tmp_path / "run", events)

    llava(tmp_path / "data.json", 65)
    refused(config, run, r"data: 'llava/data': 64 records before, 65 now .data.json: 6,\d+ bytes before, 6,\d+ now.:")
    llava(tmp_path / "data.json", 64, "No!.")
    refused(config, run, r"data: 'llava/data': data.json: sha256 \w{12} before, \w{12} now: not what the run in")
    llava(tmp_path / "data.json", 64)
    llava(tmp_path / "drawn.json", 10)  # as many are drawn, of others
    refused(config, run, r"data: 'llava/drawn': drawn.json: 918 bytes before, 1,020 now")
    llava(tmp_path / "drawn.json", 9)
    shard(tmp_path / "2.array_record", 2)
    refused(config, run, r"data: '\S*\*.array_record': 3 records before, 5 now .1 files before, 2 now.")
    (tmp_path / "2.array_record").unlink()
    (tmp_path / "shards.json").unlink()
    shard(tmp_path / "1.array_record", 3, "No!.")
    llava(tmp_path / "drawn.json", 8)
    refused(config, run, r"data: 'llava/drawn': .* \(1 more changed\)\.")
    llava(tmp_path / "drawn.json", 9)
    shard(tmp_path / "1.array_record", 3)
    for file in (tmp_path / "data.json", tmp_path / "1.array_record"):
        os.utime(file, (1, 1))
    assert train(config, run).step == config.steps


def test_a_run_that_is_done_needs_its_data_no_more(tmp_path):
    config = dataclasses.replace(toy_run.config(steps=3), data=MixedData(((llava(tmp_path / "data.json", 5), 1.0),)))
    train(config, tmp_path / "run")
    (tmp_path / "data.json").unlink()
    assert train(config, tmp_path / "run").step == 3


def test_data_and_run_may_be_moved_together(tmp_path, events):
    """Their places stand in config.json; bytes count."""

    def config(where):
        start = weights(where / "vision.safetensors", 1)
        mixture = ((llava(where / "set" / "data.json", 5), 1.0), (RecordFiles(str(where / "*.array_record")), 1.0))
        return dataclasses.replace(toy_run.config(), data=MixedData(mixture), initialize=start)

    (tmp_path / "a" / "set").mkdir(parents=True)
    shard(tmp_path / "a" / "1.array_record", 3)
    stopped(config(tmp_path / "a"), tmp_path / "a" / "run", events)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    weights(tmp_path / "a" / "vision.safetensors", 2)  # of the old place nothing is asked
    assert train(config(tmp_path / "b"), tmp_path / "b" / "run").step == 12

    (tmp_path / "a").rename(tmp_path / "c")
    moved = config(tmp_path / "c")
    llava(tmp_path / "c" / "set" / "data.json", 6)
    refused(moved, tmp_path / "c" / "run", "5 records before, 6 now")


def test_weights_with_other_bytes_are_refused_and_gone_ones_are_not(tmp_path, events):
    """Another tower under the same name passed for the one that the run began with."""
    config = dataclasses.replace(toy_run.config(), initialize=weights(tmp_path / "tower.safetensors", 1))
    unbroken = train(config, tmp_path / "unbroken")
    run = stopped(config, tmp_path / "run", events)
    weights(tmp_path / "tower.safetensors", 2)
    refused(config, run, r"initialize.vision: '.*tower.safetensors': sha256 \w+ before, \w+ now: .* move it away")
    (tmp_path / "tower.safetensors").unlink()
    (tmp_path / "tower.safetensors").mkdir()  # a run, now
    assert train(config, shutil.copytree(run, tmp_path / "again")).step == 12
    (tmp_path / "tower.safetensors").rmdir()
    resumed = train(config, run)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, unbroken.params)


@pytest.mark.parametrize("field", ["run", "decoder"])
def test_a_run_to_start_from_may_train_on_and_may_not_become_another(tmp_path, events, caplog, field):
    base = dataclasses.replace(toy_run.config(), checkpoint=CheckpointConfig(every_steps=3, every_seconds=0.0))
    stopped(base, tmp_path / "base", events, step=6)
    config = dataclasses.replace(toy_run.config(), seed=5, initialize=Initialize(**{field: str(tmp_path / "base")}))
    run = stopped(config, tmp_path / "run", events)
    shutil.copytree(tmp_path / "base", tmp_path / "kept")

    shutil.rmtree(tmp_path / "base")
    stopped(dataclasses.replace(base, seed=9), tmp_path / "base", events, step=6)
    refused(config, run, f"initialize.{field}: '.*base': sha256 .* before, .* now: not what the run in .* began with")

    shutil.rmtree(tmp_path / "base")
    shutil.copytree(tmp_path / "kept", tmp_path / "base")
    train(base, tmp_path / "base")
    with caplog.at_level(logging.WARNING):
        assert train(config, run).step == 12
    assert "checkpoint 6 before, 12 now; the run in" in caplog.text


def test_a_run_of_before_goes_on_and_its_data_are_kept_from_then_on(tmp_path, events, caplog):
    config = dataclasses.replace(toy_run.config(), data=MixedData(((llava(tmp_path / "data.json", 5), 1.0),)))
    run = stopped(config, tmp_path / "run", events)
    before = (run / STARTED_WITH_FILE).read_bytes()
    (run / STARTED_WITH_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        stopped(config, run, events, step=7)
    assert f"'{run}' is of before {STARTED_WITH_FILE} was kept, which is written now" in caplog.text
    assert (run / STARTED_WITH_FILE).read_bytes() == before
    llava(tmp_path / "data.json", 6)
    refused(config, run, "5 records before, 6 now")


def test_a_run_that_has_saved_nothing_begins_anew_and_says_with_what(tmp_path, caplog):
    """Killed before its first checkpoint, it has no order to keep to."""
    config = dataclasses.replace(toy_run.config(steps=3), data=MixedData(((llava(tmp_path / "data.json", 5), 1.0),)))
    train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    llava(tmp_path / "data.json", 6)
    with caplog.at_level(logging.WARNING):
        train(config, tmp_path / "run")
    assert "has saved nothing yet and begins anew with data: 'llava/data': 5 records before, 6 now" in caplog.text
    assert json.loads((tmp_path / "run" / STARTED_WITH_FILE).read_text())["data"][0]["records"] == 6


@pytest.mark.parametrize("text", ["", '{"data": []', "[]", '{"data": [3], "initialize": {}}', '{"data": []}'])
def test_a_damaged_record_of_the_beginning_is_named_with_what_to_do(tmp_path, events, text):
    run = stopped(toy_run.config(), tmp_path / "run", events)
    (run / STARTED_WITH_FILE).write_text(text)
    with pytest.raises(ValueError, match=f"{STARTED_WITH_FILE}' (is not JSON|holds ).*; delete it, and what is there"):
        train(toy_run.config(), run)
    (run / STARTED_WITH_FILE).unlink()
    assert train(toy_run.config(), run).step == 12


def test_it_is_written_before_the_config(tmp_path, monkeypatch):
    """A folder with a config is complete."""
    seen = []
    keep = started_with.keep
    monkeypatch.setattr(
        started_with, "keep", lambda config, run, *rest: (keep(config, run, *rest), seen.extend(os.listdir(run)))
    )
    train(toy_run.config(steps=3), tmp_path / "run")
    assert STARTED_WITH_FILE in seen and CONFIG_FILE not in seen
    assert read_metrics(tmp_path / "run")[-1]["step"] == 3
