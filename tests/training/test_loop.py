"""The loop from outside: killed, resumed, poisoned, misused."""

import contextlib
import dataclasses
import json
import signal
from unittest import mock
import weakref

from bound_objective import Bound
import jax
import numpy as np
import pytest
import real_rows
import sharded_data
from tar_files import caption_tar
import tiny_run
import toy_run

from xgenmm_jax.cli import main as cli
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.index.indexing import index_experiment, index_source
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.training import device_memory, loop, setup
from xgenmm_jax.training.config import Initialize
from xgenmm_jax.training.hosts.watchdog import Watchdog
from xgenmm_jax.training.loop import NonFiniteLossError, train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs.checkpoints import Checkpoints, newest
from xgenmm_jax.training.sharding import make_mesh


@pytest.fixture(autouse=True)
def events(monkeypatch):
    events = toy_run.Events()
    monkeypatch.setattr(toy_run, "EVENTS", events)
    return events


def figures(folder):
    """Rows of metrics without what the clock decides."""
    clock = ("seconds", "tokens_per_second", "tokens_per_second_per_device", "model_flops_per_second")
    return [{name: value for name, value in row.items() if name not in clock} for row in read_metrics(folder)]


def assert_same_params(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one.params, other.params)


def test_the_watchdog_times_the_last_two_saves_apart(tmp_path, monkeypatch):
    """The last save waits for the one before; timed as one wait, two large ones ended a run that was done."""
    calls = mock.Mock()
    for owner, name in ((Watchdog, "at"), (Checkpoints, "save"), (Checkpoints, "wait")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, mock.create_autospec(original, side_effect=original))
        calls.attach_mock(getattr(owner, name), name)
    train(toy_run.config(), tmp_path / "run")
    assert [name for name, _, _ in calls.mock_calls[-4:]] == ["at", "save", "at", "wait"]


@pytest.mark.parametrize(("algorithm", "terminate_at"), [("adamw", 1), ("adamw", 6), ("adamw", 11), ("muon", 6)])
def test_terminated_and_resumed_equals_unbroken(tmp_path, events, algorithm, terminate_at):
    config = toy_run.config()
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, algorithm=algorithm))
    if algorithm == "muon":
        config = dataclasses.replace(config, freeze=())  # the only kernel with two axes is the tower's
    unbroken = train(config, tmp_path / "unbroken")
    events.terminate_at = terminate_at
    stopped = train(config, tmp_path / "stopped")
    assert (stopped.signal, stopped.step) == (signal.SIGTERM, terminate_at)
    events.terminate_at = 0
    resumed = train(config, tmp_path / "stopped")
    assert resumed.signal is None and resumed.step == config.steps
    assert figures(tmp_path / "stopped") == figures(tmp_path / "unbroken")
    assert [row["step"] for row in figures(tmp_path / "unbroken")] == [4, 8, 12]
    assert resumed.progress[:3] == unbroken.progress[:3]
    assert_same_params(resumed, unbroken)


def test_rows_of_metrics_behind_the_last_checkpoint_are_written_once(tmp_path, events):
    """A killed run has logged steps that it did not save."""
    config = dataclasses.replace(toy_run.config(), log_every=1)
    train(config, tmp_path / "unbroken")
    events.terminate_at = 7
    train(config, tmp_path / "killed")
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 8, "loss": 0.0}) + "\n" + '{"step": 9, "lo')
    events.terminate_at = 0
    train(config, tmp_path / "killed")
    assert figures(tmp_path / "killed") == figures(tmp_path / "unbroken")


def test_finished_run_is_left_alone(tmp_path):
    config = toy_run.config()
    first = train(config, tmp_path)
    again = train(config, tmp_path)
    assert again.step == config.steps
    assert_same_params(first, again)


@pytest.mark.parametrize("poison_at", [1, 6])
def test_non_finite_loss_stops_with_step_and_samples(tmp_path, events, poison_at):
    config = toy_run.config()
    events.poison_at = poison_at
    with pytest.raises(NonFiniteLossError, match=f"nan .* at step {poison_at} of 12") as error:
        train(config, tmp_path / "poisoned")
    assert f"toy/{poison_at}/3" in str(error.value) and "optimizer.peak_lr" in str(error.value)
    assert newest(tmp_path / "poisoned").name == str(poison_at - 1)
    # The state before the bad step is whole: without the poison the run goes on as if nothing had been.
    events.poison_at = 0
    resumed = train(config, tmp_path / "poisoned")
    assert_same_params(resumed, train(config, tmp_path / "unbroken"))


@pytest.mark.parametrize("error", [ValueError("data: record x"), KeyError("x"), OSError(5, "x"), MemoryError("x")])
@pytest.mark.parametrize("fail_at", [2, 6, 7, 12])
def test_an_error_of_the_data_passes_when_the_steps_before_it_are_saved(tmp_path, events, monkeypatch, fail_at, error):
    """A run lost what it had done since its last checkpoint, at each start again."""

    def failing(step: int) -> None:
        if step == events.fail_at:
            raise error

    monkeypatch.setattr(toy_run, "happen", failing)
    config = toy_run.config()
    unbroken = train(config, tmp_path / "unbroken")
    events.fail_at = fail_at
    for _ in range(2):  # the second start finds the same error and loses nothing
        with pytest.raises(type(error)) as raised:
            train(config, tmp_path / "failed")
        assert raised.value is error
        assert newest(tmp_path / "failed").name == str(fail_at - 1)
    events.fail_at = 0
    assert_same_params(train(config, tmp_path / "failed"), unbroken)
    assert figures(tmp_path / "failed") == figures(tmp_path / "unbroken")


@pytest.mark.parametrize("poison_at", [2, 3])
def test_an_error_of_the_data_behind_a_loss_that_is_not_finite_tells_the_loss(tmp_path, events, poison_at):
    """What is saved then is the state before the bad step, not one that is said to be further."""
    events.poison_at, events.fail_at = poison_at, 4
    with pytest.raises(NonFiniteLossError, match=f"nan .* at step {poison_at} of 12"):
        train(toy_run.config(), tmp_path / "run")
    assert newest(tmp_path / "run").name == str(poison_at - 1)


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory allocating 40000000000000 bytes.\n\tmore", True),
        ("RESOURCE_EXHAUSTED: Failed to allocate request for 3.1GiB (3328599654B) on device ordinal 0", True),
        ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM", True),
        ("RESOURCE_EXHAUSTED: Received message larger than max", False),
        ("RESOURCE_EXHAUSTED: Failed to allocate block [os_error_code='28']", False),
        ("INTERNAL: a bug that names memory", False),
    ],
)
def test_a_device_without_memory_is_one_sentence_with_the_remedies(tmp_path, monkeypatch, capsys, text, is_memory):
    """It was a traceback through JAX. What the sentence names continues the run from its newest checkpoint."""
    programs = []

    def assemble(config, mesh):
        program = setup.assemble(config, mesh)
        programs.append(program)
        return program._replace(step=step) if len(programs) == 1 else program

    def step(state, *arguments):
        if int(state.step) == 7:
            raise jax.errors.JaxRuntimeError(text)
        return programs[0].step(state, *arguments)

    monkeypatch.setattr(loop, "assemble", assemble)
    (tmp_path / "mine.py").write_text("import toy_run\n\n\ndef config():\n    return toy_run.config()\n")
    words = ["train", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "run")]
    if not is_memory:
        with pytest.raises(jax.errors.JaxRuntimeError):
            cli.run(words[0], words[1:])
        return
    assert cli.run(words[0], words[1:]) == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith(f"xgenmm train: memory: a device has too little for this run ({text[:30]}")
    assert "--accumulation, now 1" in sentence and "--model.decoder.remat full" in sentence and "chips" in sentence
    assert newest(tmp_path / "run").name == "5"
    assert cli.run(words[0], [*words[1:], "--accumulation", "2"]) == 0


def test_fewer_rows_are_named_where_the_data_have_rows():
    config = dataclasses.replace(toy_run.config(), data=mock.Mock(batch_rows=64), accumulation=4)
    with pytest.raises(ValueError, match=r"now 4.*--data.batch-rows, now 64"), device_memory.explained_for(config):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")


def test_an_error_of_the_first_batch_leaves_no_run_behind(tmp_path, events):
    events.fail_at = 1
    with pytest.raises(ValueError, match="no file 'x.json'"):
        train(toy_run.config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_frozen_parameters_do_not_move(tmp_path):
    config = toy_run.config(steps=3)
    start = train(dataclasses.replace(config, steps=3), tmp_path / "long")
    random = config.objective.init(config.model, jax.random.key(config.seed))
    np.testing.assert_array_equal(start.params["vision"]["kernel"], random["vision"]["kernel"].value)
    assert not np.array_equal(start.params["decoder"]["kernel"], random["decoder"]["kernel"].value)


def test_accumulation_is_one_big_batch(tmp_path):
    config = dataclasses.replace(toy_run.config(), log_every=1, mesh=toy_run.MeshConfig(fsdp=4, tensor=2))
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, peak_lr=1e-3))
    whole = train(config, tmp_path / "whole")
    parts = train(dataclasses.replace(config, accumulation=4), tmp_path / "parts")
    errors = [[row["error"] for row in figures(tmp_path / name)] for name in ("whole", "parts")]
    np.testing.assert_allclose(errors[0], errors[1], rtol=2e-3)  # the toy's noise has another key
    assert whole.step == parts.step


def test_a_folder_of_another_config_is_refused(tmp_path):
    config = toy_run.config(steps=3)
    train(config, tmp_path)
    other = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, peak_lr=0.5))
    with pytest.raises(ValueError, match="optimizer.peak_lr 0.05 before, 0.5 now.*--workdir"):
        train(other, tmp_path)
    # What cannot change the figures may change.
    train(dataclasses.replace(config, log_every=1, mesh=toy_run.MeshConfig(fsdp=2, tensor=4)), tmp_path)


def test_start_from_another_run(tmp_path):
    first = train(toy_run.config(steps=3), tmp_path / "first")
    seed = dataclasses.replace(toy_run.config(steps=3), seed=5, freeze=("decoder",))
    second = train(dataclasses.replace(seed, initialize=Initialize(run=str(tmp_path / "first"))), tmp_path / "second")
    np.testing.assert_array_equal(first.params["decoder"]["kernel"], second.params["decoder"]["kernel"])
    third = train(dataclasses.replace(seed, initialize=Initialize(decoder=str(tmp_path / "first"))), tmp_path / "third")
    np.testing.assert_array_equal(first.params["decoder"]["kernel"], third.params["decoder"]["kernel"])
    assert not np.array_equal(second.params["vision"]["kernel"], third.params["vision"]["kernel"])


def test_a_checkpoint_of_another_size_is_one_sentence(tmp_path):
    train(toy_run.config(steps=3), tmp_path / "first")
    wide = dataclasses.replace(
        toy_run.config(), model=toy_run.ToyModel(width=16), initialize=Initialize(run=str(tmp_path / "first"))
    )
    with pytest.raises(ValueError, match=r"of another size than the model: decoder/kernel has 8 for 16"):
        train(wide, tmp_path / "second")
    missing = dataclasses.replace(toy_run.config(), initialize=Initialize(run=str(tmp_path / "nothing")))
    with pytest.raises(ValueError, match="no such folder"):
        train(missing, tmp_path / "third")


def test_reference_is_the_start_of_the_run_also_after_a_restart(tmp_path, events):
    config = dataclasses.replace(toy_run.config(), objective=toy_run.ToyLoss(reference=True))
    unbroken = train(config, tmp_path / "unbroken")
    events.terminate_at = 7
    train(config, tmp_path / "stopped")
    events.terminate_at = 0
    assert_same_params(train(config, tmp_path / "stopped"), unbroken)


def test_rows_that_do_not_divide_are_refused(tmp_path):
    config = dataclasses.replace(toy_run.config(), data=toy_run.ToyData(rows=12))
    with pytest.raises(ValueError, match="12 rows .* 8 row shards; choose a multiple of 8"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # where the corrected command goes
    with pytest.raises(ValueError, match="-1 on at most one axis"):
        train(dataclasses.replace(config, mesh=toy_run.MeshConfig(fsdp=3)), tmp_path)


def test_mistyped_freeze_names_the_parts(tmp_path):
    with pytest.raises(ValueError, match="'visoin' names no parameter; the parts are decoder, vision"):
        train(dataclasses.replace(toy_run.config(), freeze=("visoin",)), tmp_path)


def test_a_start_that_is_not_there_leaves_no_folder_in_the_way(tmp_path):
    mistyped = dataclasses.replace(toy_run.config(), initialize=Initialize(run=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="nowhere': no such folder"):
        train(mistyped, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_first_batch_does_not_stay_in_memory():
    """At the paper's size it is 3.6 GB of pixels."""
    first, second = np.zeros(3), np.ones(3)
    gone = weakref.ref(first)
    batches = loop._with_first((first,), iter([(second,)]))
    del first
    assert next(batches)[0] is gone()
    assert next(batches)[0] is second and gone() is None


def test_of_several_hosts_none_measures(tmp_path, monkeypatch):
    """Each would walk and measure the same shards; the first step says what to run before it."""
    caption_tar(tmp_path / "tars" / "0000.tar", 12)
    words, source = sharded_data.small_tokenizer(tmp_path), sharded_data.captions(tmp_path / "tars")
    data = sharded_data.data(words, source, batch_rows=8)
    config = real_rows.config("run", data, 2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with contextlib.ExitStack() as stack, pytest.raises(SourceError, match="`xgenmm data index EXPERIMENT`"):
        loop._open(config, make_mesh(config.mesh), State(), stack)
    assert not (tmp_path / "tars" / ".index").exists()
    index_experiment(data, config.seed, config.steps)
    with contextlib.ExitStack() as stack:
        assert next(loop._open(config, make_mesh(config.mesh), State(), stack))[0].ids.size


def test_of_processes_that_share_their_rows_none_measures_in_the_middle_of_a_run(tmp_path, monkeypatch):
    """Where `tensor` alone spans them they are one host in rows, so all wrote what the check had not come upon."""
    caption_tar(tmp_path / "tars" / "0000.tar", 12)
    path, source = tiny_run.tokenizer(tmp_path), sharded_data.captions(tmp_path / "tars")
    config = dataclasses.replace(tiny_run.config(path), data=tiny_run.data(path, ((source, 1.0),), rows=2))
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: 2)
        for lacks in ("has no index", "lacks the sizes of '0000.tar'"):
            with pytest.raises(SourceError, match=f"{lacks}.*`xgenmm data index EXPERIMENT`"):
                next(Bound.of(config).batches(0, State(), 0, 1))
            index_source(source, None)
        assert not list((tmp_path / "tars" / ".index").rglob("*.sizes.npz"))
    with contextlib.closing(Bound.of(config).batches(0, State(), 0, 1)) as batches:
        assert next(batches)[1]
