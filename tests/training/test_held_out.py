"""The held-out loss: it is that of its rows, in total and by source, and changes nothing of the run."""

import contextlib
import dataclasses
import functools
import json
import math
import re
import signal

import jax
import numpy as np
import pytest
from random_parameters import random_parameters
import tiny_run
import toy_run

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.rows.held_out import HeldOutRows
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.config import HeldOut, load_config
from xgenmm_jax.training.held_out import HeldOutLoss
from xgenmm_jax.training.hosts.watchdog import Watchdog
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import ProgressBar, read_metrics
from xgenmm_jax.training.objectives.dpo import DPO
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import MeshConfig, make_mesh

KEY = jax.random.key(0)
ONE = jax.devices()[:1]
MIXTURE = ((Synthetic("caption", 400), 3.0), (Synthetic("ocr", 400), 1.0))
EVERY_2 = HeldOut(every_steps=2, samples=96)


def config(folder, held_out=EVERY_2, mixture=MIXTURE, **options):
    """The tower trains too; one record in ten is set aside, whether or not the loss is asked for."""
    base = tiny_run.config(tiny_run.tokenizer(folder), steps=5)
    data = dataclasses.replace(base.data, mixture=mixture, held_out_one_in=10)
    options = {"mesh": MeshConfig(), "freeze": (), "data": data, "held_out": held_out} | options
    return dataclasses.replace(base, **options)


def held_out_rows(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "held_out/loss" in row]


def without_time(rows):
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


def assert_same_run(folder, result, other_folder, other):
    rows = [without_time(read_metrics(path)) for path in (folder, other_folder)]
    assert rows[0] == rows[1] and len(rows[0]) == 5
    jax.tree.map(np.testing.assert_array_equal, result.params, other.params)
    assert result.progress[:3] == other.progress[:3]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    return folder / "run", train(config(folder), folder / "run", devices=ONE)


def test_a_run_with_a_held_out_loss_is_the_run_without(tmp_path, measured):
    """Every figure of every step and all parameters, to the bit."""
    folder, result = measured
    plain = train(config(tmp_path, HeldOut()), tmp_path / "run", devices=ONE)
    assert_same_run(tmp_path / "run", plain, folder, result)
    assert not held_out_rows(tmp_path / "run")
    rows = held_out_rows(folder)
    assert [row["step"] for row in rows] == [2, 4, 5]  # after the last step too
    names = {"loss", "perplexity", "items", "seconds", "synthetic/caption/loss", "synthetic/ocr/perplexity"}
    assert {f"held_out/{name}" for name in names} <= rows[0].keys()
    assert rows[-1]["held_out/loss"] < rows[0]["held_out/loss"]
    assert len({row["held_out/items"] for row in rows}) == 1  # the same tokens each time
    assert rows[0]["held_out/perplexity"] == pytest.approx(math.exp(rows[0]["held_out/loss"]))


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_losses(tmp_path, measured, monkeypatch):
    """SIGTERM after the third step, and one in the middle of an evaluation, which is not made up for."""
    folder, unbroken = measured
    at = Watchdog.at

    def told(self, step, doing):
        if (step, doing) == when:
            signal.raise_signal(signal.SIGTERM)
        at(self, step, doing)

    monkeypatch.setattr(Watchdog, "at", told)
    for number, when in enumerate([(3, "starting the step"), (4, "evaluating")]):
        stopped = train(config(tmp_path), tmp_path / f"run{number}", devices=ONE)
        assert (stopped.step, stopped.signal) == (when[0], signal.SIGTERM)
        when = (0, "")
        resumed = train(load_config(tmp_path / f"run{number}"), tmp_path / f"run{number}", devices=ONE)
        assert_same_run(tmp_path / f"run{number}", resumed, folder, unbroken)
        expected = [row for row in without_time(held_out_rows(folder)) if number == 0 or row["step"] != 4]
        assert without_time(held_out_rows(tmp_path / f"run{number}")) == expected


@pytest.mark.parametrize("objective", ["next token", pytest.param("dpo", marks=pytest.mark.slow)])
def test_the_loss_is_the_objectives_own_of_the_rows_by_source_too(tmp_path, objective):
    """By source it is that of the rows in which the tokens of the other source are not supervised."""
    mixture, options = MIXTURE, {}
    if objective == "dpo":
        mixture = ((Synthetic("preference", 400), 1.0), (Synthetic("safety", 400), 1.0))
        options = {"objective": DPO(beta=0.5, chosen_weight=1.0, chunk=32)}
    run = config(tmp_path, HeldOut(1, 40), mixture, **options)
    program = assemble(run, make_mesh(run.mesh, ONE))
    with jax.set_mesh(program.mesh), contextlib.ExitStack() as stack:
        params = unboxed(program.init(jax.random.key(1)))
        reference = jax.tree.map(lambda leaf: 1.5 * leaf, params) if objective == "dpo" else None
        loss = HeldOutLoss(run, program)
        loss.open(stack)
        row = loss.run(3, params, reference, lambda: None)
        rows = stack.enter_context(contextlib.closing(HeldOutRows(run.data, (), 40, 8)))
        batches = list(rows.batches())
        of_batch = jax.jit(lambda batch: run.objective.loss(run.model, params, reference, batch, KEY, run.freeze))
        for number, name in enumerate(("", *rows.names)):
            parts = []
            for one in batches:
                source = np.take_along_axis(one.source_of, one.batch.segment_ids, axis=1)
                is_counted = one.batch.loss_mask & ((source == number - 1) | (not name))
                parts.append(of_batch(one.batch._replace(loss_mask=is_counted)))
            total, others = jax.tree.map(lambda *leaves: sum(leaves), *parts)
            for figure, value in {"loss": total, **others}.items():
                expected = float(value.total) / float(value.weight)
                assert row["/".join(filter(None, ("held_out", name, figure)))] == pytest.approx(expected, rel=1e-5)
        assert ("held_out/perplexity" in row) == (objective == "next token")
        assert ("held_out/synthetic/safety/preferred" in row) == (objective == "dpo")


LOST = []
"""Not empty: no record can be read."""


def unless_lost(record):
    if LOST:
        raise ValueError("its image is gone")
    return record


def test_held_out_data_of_which_nothing_can_be_read_end_a_run_at_its_first_evaluation_alone(tmp_path, caplog, capsys):
    """Images that went away in the middle of a run ended it, which the held-out loss was to leave as it is."""
    run = config(tmp_path, HeldOut(1, 8), ((Mapped(Synthetic("caption", 400), unless_lost), 1.0),))
    program = assemble(run, make_mesh(run.mesh, ONE))
    with jax.set_mesh(program.mesh), contextlib.ExitStack() as stack:
        stack.callback(LOST.clear)
        params = random_parameters(functools.partial(run.objective.init, run.model))
        loss = HeldOutLoss(run, program)
        loss.open(stack)
        LOST.append("images")
        said = "none of 8 held-out samples can be used: 8 .*its image is gone.* or give --held-out.every-steps 0"
        with pytest.raises(SourceError, match=said):
            loss.run(1, params, None, lambda: None)
        LOST.clear()
        assert loss.run(2, params, None, lambda: None)["held_out/items"] > 8
        LOST.append("images")
        row = loss.run(3, params, None, lambda: None)
    assert row == {"step": 3, "held_out/items": 0, "held_out/seconds": row["held_out/seconds"]}  # no loss of 0
    assert re.search(said, caplog.text)
    ProgressBar("run", 0, 10).show_evaluation(row)
    assert "run held-out loss at step 3 in" in capsys.readouterr().err


@pytest.mark.slow
def test_the_second_evaluation_compiles_nothing(tmp_path, monkeypatch):
    compiled, counting = [], False
    run = HeldOutLoss.run

    def listen(event, *_, **__):
        if counting and event == "/jax/core/compile/backend_compile_duration":
            compiled[-1] += 1

    def counted(self, *arguments):
        nonlocal counting
        counting = True
        compiled.append(0)
        try:
            return run(self, *arguments)
        finally:
            counting = False

    jax.monitoring.register_event_duration_secs_listener(listen)
    monkeypatch.setattr(HeldOutLoss, "run", counted)
    train(config(tmp_path), tmp_path / "run", devices=ONE)
    assert len(compiled) == 3 and not any(compiled[1:])


@pytest.mark.slow
def test_rows_that_are_cut_over_eight_devices_and_accumulated_have_the_same_loss(tmp_path, measured):
    folder, _ = measured
    mesh = MeshConfig(fsdp=4, tensor=2)
    train(config(tmp_path, mesh=mesh, accumulation=2), tmp_path / "run")
    for row, expected in zip(held_out_rows(tmp_path / "run"), held_out_rows(folder), strict=True):
        for name, value in without_time([expected])[0].items():
            assert row[name] == pytest.approx(value, rel=1e-4), name


def test_what_has_no_held_out_loss_is_refused_before_a_folder_is_made(tmp_path):
    toy = dataclasses.replace(toy_run.config(steps=3), held_out=HeldOut(1))
    with pytest.raises(ValueError, match="objective ToyLoss, which has no held-out loss .*; give 0"):
        train(toy, tmp_path / "run")
    nothing = config(tmp_path)
    nothing = dataclasses.replace(nothing, data=dataclasses.replace(nothing.data, held_out_one_in=0))
    with pytest.raises(ValueError, match="'synthetic/caption' sets nothing aside; .*--data.held-out-one-in 100"):
        train(nothing, tmp_path / "run", devices=ONE)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="held_out: got every_steps -1 and samples 512; wanted 0 or more"):
        HeldOut(-1)


def test_another_held_out_setting_does_not_keep_a_run_from_going_on(tmp_path, measured):
    folder, result = measured
    own = HeldOut(1, 8, ((Synthetic("caption", 50, split="held_out"), 1.0),))
    again = train(config(tmp_path, own), folder, devices=ONE)
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)


def test_the_progress_line_shows_it(capsys):
    bar = ProgressBar("run", 0, 10)
    bar.show_evaluation({"step": 4, "held_out/loss": 2.5, "held_out/perplexity": 12.18, "held_out/seconds": 1.2})
    bar.show({"step": 10, "loss": 2.25, "tokens_per_second": 1000.0, "fill": 0.5})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "run held-out loss at step 4 in 1 s: loss 2.500  perplexity 12.180"
    assert lines[1].startswith("run 10/10  loss 2.250 (held out 2.500)  1,000 tokens/s  fill 50%")
