"""Several processes as one run: killed, hanging, told to stop; and the same rows on any number of hosts."""

import dataclasses
import json
import os
from pathlib import Path
import socket

import jax
import numpy as np
import pytest
from started_hosts import run_hosts
from tar_files import caption_tar
import tiny_run
import toy_run

from xgenmm_jax.cli.train import take_hosts
from xgenmm_jax.training.hosts import distributed
from xgenmm_jax.training.hosts.distributed import Distributed
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs import checkpoint_files, references
from xgenmm_jax.training.runs.run_folder import STARTED_WITH_FILE
from xgenmm_jax.training.runs.run_lock import LOCK_FILE, RunLock
from xgenmm_jax.training.sharding import MeshConfig

REAL = """
import dataclasses
from pathlib import Path
import tiny_run
from xgenmm_jax.training.sharding import MeshConfig

def config():
    return dataclasses.replace(tiny_run.config(Path("small.model"), steps=4), mesh={mesh})
"""


KILLED = """
import dataclasses, os, signal, sys, threading, time
from pathlib import Path
import tiny_run
from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.sharding import MeshConfig

def kill():
    while not Path("run/checkpoints/4").is_dir():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

def config():
    if sys.argv[-2:] == ["--distributed.process", "1"]:
        threading.Thread(target=kill, daemon=True).start()
    config = tiny_run.config(Path("small.model"), steps=24)
    checkpoint = CheckpointConfig(every_steps=4, every_seconds=3600)
    return dataclasses.replace(config, log_every=1, mesh=MeshConfig(), checkpoint=checkpoint)
"""


NOT_INDEXED = """
import dataclasses
from pathlib import Path
import sharded_data
import tiny_run
from xgenmm_jax.training.sharding import MeshConfig

def config():
    data = tiny_run.data(Path("small.model"), ((sharded_data.captions("tars"), 1.0),))
    config = tiny_run.config(Path("small.model"), steps=4)
    return dataclasses.replace(config, data=data, mesh=MeshConfig(fsdp=1, tensor=2))
"""


REFERENCE = """
import dataclasses
import toy_run
from xgenmm_jax.training.config import CheckpointConfig

def config():
    checkpoint = CheckpointConfig(every_steps=5, every_seconds=3600)
    loss = toy_run.ToyLoss(reference=True)
    return dataclasses.replace(toy_run.config(steps=12), objective=loss, log_every=1, checkpoint=checkpoint)
"""


def unbroken(folder: Path) -> list[dict]:
    config = dataclasses.replace(toy_run.config(steps=12), log_every=1)
    train(config, folder, devices=jax.devices()[:1])
    return read_metrics(folder)


def assert_same_curve(rows: list[dict], expected: list[dict]) -> None:
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for name in ("loss", "grad_norm", "error"):
        np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in expected], rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_one_of_two_processes_is_killed_and_the_run_ends_on_one(tmp_path):
    """SIGKILL while the other waits for it in a collective: the other says who is gone, to be started again."""
    survivor, killed = run_hosts(tmp_path, 2, events="host=1,kill_at=8")
    assert killed.returncode == -9
    assert survivor.returncode == 75, survivor.stderr
    assert "host 0 of 2 ends: host 1 gives no sign of life, last heard of" in survivor.stderr
    before = read_metrics(tmp_path / "run")
    assert 5 <= before[-1]["step"] < 8 and checkpoint_files.steps(tmp_path / "run" / "checkpoints") == [5]

    (alone,) = run_hosts(tmp_path, 1)
    assert alone.returncode == 0, alone.stderr
    expected = unbroken(tmp_path / "unbroken")
    assert_same_curve(before, expected[: len(before)])
    assert_same_curve(read_metrics(tmp_path / "run"), expected)
    assert checkpoint_files.steps(tmp_path / "run" / "checkpoints") == [12, 10]


@pytest.mark.slow
def test_a_host_that_hangs_is_named_by_both(tmp_path):
    ended = run_hosts(tmp_path, 2, events="host=1,hang_at=8", watchdog_s=45)
    assert [process.returncode for process in ended] == [75, 75], ended
    waiting, hanging = (process.stderr for process in ended)
    assert "host 1 is reading rows for step 8 while others wait for it" in waiting
    assert "has been reading rows for step 8" in hanging and "in happen" in hanging  # its stack


@pytest.mark.slow
def test_data_that_one_host_lacks_end_both_before_anything_is_written(tmp_path):
    waiting, failed = run_hosts(tmp_path, 2, events="host=1,fail_at=1")
    # 75 too: on a busy machine the other's first collective keeps it from saying that it lives.
    assert waiting.returncode == 75 and failed.returncode in (1, 75), (waiting.stderr, failed.stderr)
    assert "host 1 of 2: data: no file 'x.json'" in failed.stderr
    assert "host 1 gives no sign of life, last heard of opening data for step 1" in waiting.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"heartbeats"}


@pytest.mark.slow
def test_a_notice_to_one_host_saves_on_all_and_the_same_command_goes_on(tmp_path):
    ended = run_hosts(tmp_path, 2, events="host=1,terminate_at=4,slow_from=4")  # the notice travels
    assert [process.returncode for process in ended] == [143, 143], ended
    (step, *_) = checkpoint_files.steps(tmp_path / "run" / "checkpoints")
    assert 4 <= step < 12 and all(f"saved step {step}" in process.stderr for process in ended)
    again = run_hosts(tmp_path, 2)
    assert [process.returncode for process in again] == [0, 0], again
    assert_same_curve(read_metrics(tmp_path / "run"), unbroken(tmp_path / "unbroken"))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=2), MeshConfig(fsdp=1, tensor=2)])
def test_the_real_model_learns_the_same_on_two_hosts(tmp_path, mesh):
    """Also where both hold the same rows, because `tensor` lies across them."""
    tiny_run.tokenizer(tmp_path)
    ended = run_hosts(tmp_path, 2, experiment=REAL.format(mesh=mesh).replace("{", "{{").replace("}", "}}"))
    assert [process.returncode for process in ended] == [0, 0], ended
    config = dataclasses.replace(tiny_run.config(tmp_path / "small.model", steps=4), mesh=MeshConfig())
    train(config, tmp_path / "alone", devices=jax.devices()[:1])
    rows, expected = read_metrics(tmp_path / "run"), read_metrics(tmp_path / "alone")
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in expected], rtol=1e-5, err_msg=name)


MEASURED = """
import dataclasses
from pathlib import Path
import tiny_run
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.nano.tasks import DrawnWorld
from xgenmm_jax.training.config import HeldOut
from xgenmm_jax.training.sharding import MeshConfig

def config():
    config = tiny_run.config(Path("small.model"), steps=4)
    mixture = ((Synthetic("caption", 400), 3.0), (Synthetic("ocr", 400), 1.0))
    data = dataclasses.replace(config.data, mixture=mixture, held_out_one_in=10)
    suite = DrawnWorld(groups=("handwriting", "caption"), items=3)
    return dataclasses.replace(
        config, data=data, mesh=MeshConfig(), held_out=HeldOut(2, 96), evaluate=(suite,), evaluate_every=4
    )
"""


@pytest.mark.slow
def test_two_hosts_have_the_held_out_loss_and_the_evaluation_of_one(tmp_path):
    """Each reads its own held-out rows and all examples; the sums and the answers are those of both."""
    rows = []
    for hosts in (1, 2):
        folder = tmp_path / str(hosts)
        folder.mkdir()
        tiny_run.tokenizer(folder)
        ended = run_hosts(folder, hosts, experiment=MEASURED.replace("{", "{{").replace("}", "}}"))
        assert [process.returncode for process in ended] == [0] * hosts, ended
        lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
        rows.append([row for row in map(json.loads, lines) if "loss" not in row and "goodput" not in row])
    kinds = [sorted({name.partition("/")[0] for name in row} - {"step"}) for row in rows[0]]
    assert kinds == [["held_out"], ["held_out"], ["evaluation"]]
    for one, other in zip(*rows, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"held_out/seconds", "evaluation/seconds"}:
            assert other[name] == pytest.approx(one[name], rel=1e-5), name


@pytest.mark.slow
def test_a_run_whose_hosts_share_their_rows_refuses_data_without_an_index(tmp_path):
    """`tensor` lies across both, so each is host 0 of 1 in rows; neither writes."""
    tiny_run.tokenizer(tmp_path)
    caption_tar(tmp_path / "tars" / "0000.tar", 12)
    ended = run_hosts(tmp_path, 2, experiment=NOT_INDEXED.replace("{", "{{").replace("}", "}}"))
    # The later one may find the other gone, with the same sentence of its own.
    assert {1} <= {process.returncode for process in ended} <= {1, 75}, ended
    assert all("`xgenmm data index EXPERIMENT` on one machine first" in process.stderr for process in ended)
    assert not (tmp_path / "tars" / ".index").exists() and not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_the_real_model_goes_on_alone_when_a_host_was_killed(tmp_path):
    """SIGKILL in whatever it is at; the run on one host has the curve of an unbroken one."""
    tiny_run.tokenizer(tmp_path)
    experiment = KILLED.replace("{", "{{").replace("}", "}}")
    survivor, killed = run_hosts(tmp_path, 2, experiment=experiment)
    assert (survivor.returncode, killed.returncode) == (75, -9), survivor.stderr
    before = read_metrics(tmp_path / "run")
    assert 4 <= before[-1]["step"] < 24
    (alone,) = run_hosts(tmp_path, 1, experiment=experiment)
    assert alone.returncode == 0, alone.stderr
    config = tiny_run.config(tmp_path / "small.model", steps=24)
    config = dataclasses.replace(config, log_every=1, mesh=MeshConfig())
    train(config, tmp_path / "unbroken", devices=jax.devices()[:1])
    rows, expected = read_metrics(tmp_path / "run"), read_metrics(tmp_path / "unbroken")
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in expected], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_two_hosts_agree_that_a_checkpoint_is_damaged(tmp_path):
    """Each reads a share of the files; one of them finds the damage, host 0 puts it aside, both go on from before."""
    ended = run_hosts(tmp_path, 2)
    assert [process.returncode for process in ended] == [0, 0], ended
    checkpoints = tmp_path / "run" / "checkpoints"
    files = [path for path in (checkpoints / "12" / "params").rglob("*") if path.is_file() and "/d/" in str(path)]
    for file in files:
        file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    again = run_hosts(tmp_path, 2)
    assert [process.returncode for process in again] == [0, 0], again
    assert all("checkpoints/12' is damaged" in process.stderr for process in again)
    assert checkpoint_files.steps(checkpoints) == [12, 10] and (checkpoints / "12.damaged").is_dir()
    assert_same_curve(read_metrics(tmp_path / "run"), unbroken(tmp_path / "unbroken"))


def test_two_hosts_do_not_start_in_a_folder_that_another_process_holds(tmp_path):
    """The first takes it for both; the other one is not left waiting for it, and writes nothing."""
    with RunLock(tmp_path / "run"):
        first, second = run_hosts(tmp_path, 2)
    assert (first.returncode, second.returncode) == (1, 1), (first.stderr, second.stderr)
    assert f"another process is at work in 'run' (host {socket.gethostname()}, pid {os.getpid()}" in first.stderr
    assert "run folder: the run does not start on host 0, which says why" in second.stderr
    assert "Traceback" not in first.stderr + second.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_reference_of_two_hosts_is_read_by_one(tmp_path):
    ended = run_hosts(tmp_path, 2, events="host=1,terminate_at=4,slow_from=4", experiment=REFERENCE)
    assert [process.returncode for process in ended] == [143, 143], ended
    assert references.is_whole(tmp_path / "run") and not (tmp_path / "run" / LOCK_FILE).exists()
    file = tmp_path / "run" / STARTED_WITH_FILE
    assert json.loads(file.read_text()) == {"data": [], "initialize": {}}
    (alone,) = run_hosts(tmp_path, 1, experiment=REFERENCE)
    assert alone.returncode == 0, alone.stderr
    config = dataclasses.replace(toy_run.config(steps=12), objective=toy_run.ToyLoss(reference=True), log_every=1)
    train(config, tmp_path / "unbroken", devices=jax.devices()[:1])
    assert_same_curve(read_metrics(tmp_path / "run"), read_metrics(tmp_path / "unbroken"))


@pytest.mark.slow
def test_two_hosts_do_not_go_on_with_what_changed(tmp_path):
    ended = run_hosts(tmp_path, 2, events="host=1,terminate_at=4,slow_from=4", experiment=REFERENCE)
    assert [process.returncode for process in ended] == [143, 143], ended
    (tmp_path / "run" / STARTED_WITH_FILE).write_text("{")
    again = run_hosts(tmp_path, 2, experiment=REFERENCE)
    assert [process.returncode for process in again] == [1, 1], again
    assert "started_with.json' is not JSON" in again[0].stderr and "host 0, which says why" in again[1].stderr


@pytest.fixture
def joined(monkeypatch):
    """What jax.distributed.initialize was called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


def test_processes_join_where_they_are_told_to(joined, monkeypatch):
    for name in (distributed.COORDINATOR, distributed.PROCESSES, distributed.PROCESS):
        monkeypatch.delenv(name, raising=False)
    rest, hosts = take_hosts(["--seed", "1", "--distributed.coordinator", "a:1", "--distributed.processes=2"]
                             + ["--distributed.process", "1"])  # fmt: skip
    assert (rest, hosts) == (["--seed", "1"], Distributed("a:1", 2, 1))
    distributed.start(hosts)
    assert joined == [(("a:1", 2, 1), {"cluster_detection_method": "deactivate"})]
    monkeypatch.setenv(distributed.COORDINATOR, "b:2")
    monkeypatch.setenv(distributed.PROCESSES, "4")
    monkeypatch.setenv(distributed.PROCESS, "3")
    assert take_hosts([])[1] == Distributed("b:2", 4, 3)


def test_a_laptop_joins_nothing_and_a_tpu_pod_finds_itself(joined, monkeypatch):
    distributed.start(Distributed())
    assert not joined
    monkeypatch.setattr(distributed, "on_tpu_host", lambda: True)
    distributed.start(Distributed(processes=1))
    assert not joined
    distributed.start(Distributed())
    assert joined == [((), {})]


@pytest.mark.parametrize(
    "environment, sentence",
    [
        ({"JAX_NUM_PROCESSES": "2"}, "give all three, or none"),
        ({"JAX_NUM_PROCESSES": "two"}, "got 'two' for JAX_NUM_PROCESSES"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "got 2 of 2 processes; wanted 0 to 1",
        ),
    ],
)
def test_half_told_or_mistyped_hosts_are_refused(environment, sentence):
    with pytest.raises(ValueError, match=sentence):
        distributed.from_environment(environment)
