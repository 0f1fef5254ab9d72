"""A run that goes on with other weights, with more sources, or that began with other rows."""

import dataclasses
import json
import logging
import shutil
import signal

import jax
import numpy as np
import pytest
import real_rows
import tiny_run

from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.order import Phase, State
from xgenmm_jax.training.config import read_settings
from xgenmm_jax.training.config_json import from_json, to_json
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs.mixture_changes import phases_now
from xgenmm_jax.training.runs.run_folder import CONFIG_FILE, STARTED_WITH_FILE

BEFORE, AFTER = (3.0, 1.0), (1.0, 2.0)


@pytest.fixture(autouse=True)
def no_events():
    real_rows.EVENTS.clear()


@pytest.fixture
def config(tmp_path):
    """Makes configs by weights, of up to three sources whose answers tell them apart; a step takes half a window."""
    tokenizer = tiny_run.tokenizer(tmp_path)
    sources = [llava(tmp_path / f"{color}.json", color) for color in ("red", "blue", "center")]

    def make(weights, phases=(), steps=9):
        mixture = tuple(zip(sources, weights, strict=False))
        data = dataclasses.replace(tiny_run.data(tokenizer, mixture, rows=8), window=40, phases=phases)
        return real_rows.config("changing", dataclasses.replace(data, row=row(data)), steps)

    def row(data):
        return dataclasses.replace(data.row, length=96, segments=2)

    return make


def llava(path, color):
    rows = []
    for n in range(30):
        turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": f"{color} " * (1 + n % 5) + str(n)}]
        rows.append({"id": f"{n}", "conversations": turns})
    path.write_text(json.dumps(rows))
    return LlavaJson(str(path), str(path.parent))


def figures(folder):
    clock = ("seconds", "tokens_per_second", "tokens_per_second_per_device")
    return [{name: value for name, value in row.items() if name not in clock} for row in read_metrics(folder)]


def stopped(config, folder, step, batch=None):
    real_rows.EVENTS[batch or step] = signal.SIGTERM
    assert train(config, folder).step == step
    return folder


def killed(config, folder, batch):
    real_rows.EVENTS[batch] = real_rows.KilledError()
    with pytest.raises(real_rows.KilledError):
        train(config, folder)


def phases_in(folder):
    return json.loads((folder / CONFIG_FILE).read_text())["data"]["phases"]


def data_in(folder):
    return from_json(json.loads((folder / CONFIG_FILE).read_text())["data"], DataConfig)


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(config, folder, sentence):
    before = contents(folder)
    with pytest.raises(ValueError, match=sentence) as error:
        train(config, folder)
    assert "\n" not in str(error.value) and contents(folder) == before, "before anything is written"


def state_of(folder):
    [*_, newest] = sorted((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    [file] = [path for path in (newest / "progress").iterdir() if path.is_file() and path.name.startswith("metadata")]
    return State(*json.loads(file.read_text())["data"])


def test_a_run_goes_on_with_other_weights_as_if_they_had_been_its_phases(tmp_path, config, caplog):
    """They begin with the first window that is not begun, stand in config.json, and later resumes keep to them."""
    run = stopped(config(BEFORE), tmp_path / "run", 3)
    window, row = state_of(run)
    assert row > 0, "a window is begun"
    with caplog.at_level(logging.WARNING):
        stopped(config(AFTER), run, 6, batch=3)
        resumed = train(config(AFTER), run)
    [line] = [record.message for record in caplog.records if "the weights are" in record.message]
    assert line == f"data: from window {window + 1} on the weights are llava/red 3 -> 1, llava/blue 1 -> 2"
    assert phases_in(run) == [[0, list(BEFORE)], [window + 1, list(AFTER)]]
    assert data_in(run).phases == ((0, BEFORE), (window + 1, AFTER))

    unbroken = train(config(AFTER, ((0, BEFORE), (window + 1, AFTER))), tmp_path / "unbroken")
    assert figures(run) == figures(tmp_path / "unbroken")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, unbroken.params)
    train(config(BEFORE), tmp_path / "before")
    assert figures(tmp_path / "before") != figures(run) and figures(tmp_path / "before")[:3] == figures(run)[:3]


def test_a_kill_between_a_change_and_the_next_checkpoint_changes_no_row(tmp_path, config):
    run = stopped(config(BEFORE), tmp_path / "run", 3)
    unharmed = shutil.copytree(run, tmp_path / "unharmed")
    train(config(AFTER), unharmed)
    killed(config(AFTER), run, 5)
    kept = phases_in(run)
    assert len(kept) == 2
    back = shutil.copytree(run, tmp_path / "back")
    train(config(AFTER), run)
    assert figures(run) == figures(unharmed) and phases_in(run) == kept == phases_in(unharmed)

    # The weights of before again: what the killed process wrote never began.
    train(config(BEFORE), back)
    train(config(BEFORE), tmp_path / "before")
    assert figures(back) == figures(tmp_path / "before") and phases_in(back) == []


def test_an_older_checkpoint_goes_through_the_change_again_or_never(tmp_path, config, caplog):
    """The newest one may be damaged, and the state then lies before a phase that is written already."""
    run = stopped(config(BEFORE), tmp_path / "run", 1)
    stopped(config(BEFORE), run, 5, batch=4)
    stopped(config(AFTER), run, 7, batch=2)
    [_, [window, _]] = kept = phases_in(run)
    for step in (5, 7):
        shutil.rmtree(run / "checkpoints" / str(step), ignore_errors=True)
    other = shutil.copytree(run, tmp_path / "other")
    train(config(AFTER), run)
    train(config(AFTER, ((0, BEFORE), (window, AFTER))), tmp_path / "unbroken")
    assert figures(run) == figures(tmp_path / "unbroken") and phases_in(run) == kept

    with caplog.at_level(logging.WARNING):
        train(config((1.0, 0.0)), other)
    assert f"llava/blue 1 -> 0 (those that were to begin with window {window} never do)" in caplog.text
    assert phases_in(other) == [[0, list(BEFORE)], [1, [1.0, 0.0]]] and window > 1


def test_a_source_may_be_added_at_the_end_and_is_kept_from_then_on(tmp_path, config):
    run = stopped(config(BEFORE), tmp_path / "run", 3)
    stopped(config((3.0, 1.0, 4.0)), run, 5, batch=2)
    begun = json.loads((run / STARTED_WITH_FILE).read_text())["data"]
    assert [source["source"] for source in begun] == ["llava/red", "llava/blue", "llava/center"]
    refused(config(BEFORE), run, "another config .data.mixture ")
    (tmp_path / "center.json").write_text((tmp_path / "center.json").read_text().replace("center", "square"))
    refused(config((3.0, 1.0, 4.0)), run, "'llava/center': .*before, .*now")
    (tmp_path / "center.json").write_text((tmp_path / "center.json").read_text().replace("square", "center"))
    phases = tuple((window, tuple(weights)) for window, weights in phases_in(run))
    assert phases[0] == (0, BEFORE) and phases[1][1] == (3.0, 1.0, 4.0)
    train(config((3.0, 1.0, 4.0)), run)
    train(config((3.0, 1.0, 4.0), phases), tmp_path / "unbroken")
    assert figures(run) == figures(tmp_path / "unbroken")


def test_another_mixture_stays_another_config(tmp_path, config):
    run = stopped(config(BEFORE), tmp_path / "run", 2)
    first = config(BEFORE)
    swapped = dataclasses.replace(first, data=dataclasses.replace(first.data, mixture=first.data.mixture[::-1]))
    refused(swapped, run, "another config .data.mixture.0.0.path .* data.mixture.1.0.path ")
    refused(config(AFTER, ((0, BEFORE), (7, AFTER))), run, "data.phases ")


def test_a_run_that_has_saved_nothing_begins_anew_with_the_weights_of_now(tmp_path, config):
    killed(config(BEFORE), tmp_path / "run", 3)
    train(config(AFTER), tmp_path / "run")
    train(config(AFTER), tmp_path / "other")
    assert figures(tmp_path / "run") == figures(tmp_path / "other") and phases_in(tmp_path / "run") == []
    assert data_in(tmp_path / "run") == config(AFTER).data


def test_phases_of_a_run_that_goes_on(config):
    """Which are kept, which begin, by the state that it goes on from."""
    a, b, c = BEFORE, AFTER, (5.0, 5.0)
    kept = (Phase(0, a), Phase(812, b))
    for weights, state, expected in [
        (b, (812, 3), kept),
        (b, (700, 3), kept),
        (c, (812, 3), (*kept, (813, c))),
        (c, (813, 0), (*kept, (813, c))),
        (c, (812, 0), ((0, a), (812, c))),
        (c, (811, 1), ((0, a), (812, c))),
        (c, (811, 0), ((0, a), (811, c))),
        (a, (800, 0), ((0, a),)),
        (a, (812, 1), (*kept, (813, a))),
        (c, (0, 0), ((0, c),)),
        ((*b, 0.0), (900, 2), ((0, a), (812, (*b, 0.0)))),
        ((*b, 1.0), (900, 2), (*kept, (901, (*b, 1.0)))),
    ]:
        assert phases_now(kept, config(weights).data, State(*state)) == expected, (weights, state)


def test_rows_of_before_are_refused_on_resume_alone(tmp_path, config):
    """The run would go on with records that it has seen, and without others."""
    run = stopped(config(BEFORE), tmp_path / "run", 3)
    file = run / CONFIG_FILE
    settings = json.loads(file.read_text())
    assert settings["rows"] == 3
    for rows, sentence in [
        ({}, r"began before the order and packing of rows changed .rows 1, now 3.* go on with commit 9950b99"),
        ({"rows": 2}, "rows 2, now 3.* go on with commit 9dde55d"),
        ({"rows": 4}, "got rows 4, wanted 3; .*'commit'"),
        ({"rows": "2"}, 'got rows "2", wanted 3'),
    ]:
        file.write_text(json.dumps({name: value for name, value in settings.items() if name != "rows"} | rows))
        refused(config(BEFORE), run, sentence)
        assert read_settings(file, "") == to_json(config(BEFORE)), "evaluate and generate read it"
    file.write_text(json.dumps(settings))
    done = config(BEFORE)
    train(done, run)
    file.write_text(json.dumps({name: value for name, value in settings.items() if name != "rows"}))
    assert train(done, run).step == 9, "done: no row is asked for"
