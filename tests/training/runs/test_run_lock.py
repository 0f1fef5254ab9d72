"""One process at a time in a run folder: real ones that start, are killed or stopped, start at the same moment."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

import pytest
import toy_run

from xgenmm_jax.cli import evaluate
from xgenmm_jax.cli import main as cli
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.runs import run_lock
from xgenmm_jax.training.runs.checkpoints import Checkpoints
from xgenmm_jax.training.runs.run_lock import LOCK_FILE, RunLock, is_living, parse

REPOSITORY = Path(__file__).parents[3]

HOLD = """
import sys, time
from pathlib import Path
from xgenmm_jax.training.runs import run_lock
from xgenmm_jax.training.runs.checkpoints import Checkpoints
elsewhere, seconds = sys.argv[2], float(sys.argv[3])
if elsewhere:
    run_lock.machine = lambda: elsewhere
run_lock.BEAT_S, run_lock.SILENT_S, run_lock.SETTLE_S = 0.2, 3.0, 0.5
until = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
while time.time() < until:
    pass
try:
    with run_lock.RunLock(Path(sys.argv[1])) as lock:
        print("held", flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
            lock.check()
except ValueError as error:
    print(error, flush=True)
    sys.exit(1)
"""


@pytest.fixture
def start():
    """Starts a process that holds a folder for so many seconds; `elsewhere`: what it takes for its machine."""
    started = []

    def start(folder, seconds, elsewhere="", at=None):
        command = [sys.executable, "-c", HOLD, str(folder), elsewhere, str(seconds), *([] if at is None else [str(at)])]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def hurried(monkeypatch):
    for name, seconds in (("BEAT_S", 0.2), ("SILENT_S", 3.0), ("SETTLE_S", 0.5)):
        monkeypatch.setattr(run_lock, name, seconds)


def holding(process):
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_at_once_with_who_holds_the_folder(tmp_path, start):
    """Both wrote, and the second start killed the first."""
    first = holding(start(tmp_path / "run", 60))
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"another process is at work in '{tmp_path}/run' .*, pid {first.pid}, since "):
        RunLock(tmp_path / "run").acquire()
    assert time.monotonic() - began < 2
    assert (tmp_path / "run" / LOCK_FILE).is_file()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_process_that_was_killed_blocks_nothing(tmp_path, start, number, is_waited_for):
    """Whether its parent has looked after it or not: then it still has a number, as a zombie."""
    first = holding(start(tmp_path, 60))
    first.send_signal(number)
    if is_waited_for:
        first.wait()
    else:
        time.sleep(0.5)
    (tmp_path / f"{LOCK_FILE}.1-2.partial").write_text("{")
    began = time.monotonic()
    with RunLock(tmp_path):
        assert time.monotonic() - began < 4
        assert parse((tmp_path / LOCK_FILE).read_bytes()).pid == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_stopped_on_this_machine_keeps_its_folder(tmp_path, start, hurried):
    """Ctrl-Z; its count stands still, and it goes on some day."""
    first = holding(start(tmp_path, 60))
    first.send_signal(signal.SIGSTOP)
    time.sleep(4)
    with pytest.raises(ValueError, match="another process"):
        RunLock(tmp_path).acquire()


def test_a_number_that_was_given_to_another_process_holds_nothing(tmp_path, start, hurried):
    first = holding(start(tmp_path, 60))
    said = json.loads((tmp_path / LOCK_FILE).read_text())
    first.kill()
    first.wait()
    for other in ({"pid": os.getpid()}, {"pid": 1}, {"pid": 2**40}):
        (tmp_path / LOCK_FILE).write_text(json.dumps(said | other))
        with RunLock(tmp_path):
            pass


def test_a_holder_on_another_machine_lives_as_long_as_it_counts(tmp_path, start, hurried):
    """Where flock does not work and process numbers mean nothing."""
    first = holding(start(tmp_path, 60, "another machine"))
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"another process .*pid {first.pid}"):
        RunLock(tmp_path).acquire()
    assert time.monotonic() - began < 3  # as soon as it counts
    first.kill()
    with RunLock(tmp_path):
        assert 3 < time.monotonic() - began < 12


def test_a_run_that_was_held_for_dead_stops_when_it_wakes(tmp_path, start, hurried):
    """It would write over what the other one writes."""
    first = holding(start(tmp_path, 60, "another machine"))
    first.send_signal(signal.SIGSTOP)
    with RunLock(tmp_path) as lock:
        first.send_signal(signal.SIGCONT)
        said, _ = first.communicate(timeout=20)
        assert first.returncode == 1
        assert f"another process (host {lock._own.host}, pid {os.getpid()}" in said and "has taken over" in said
        lock.check()
        assert parse((tmp_path / LOCK_FILE).read_bytes()).pid == os.getpid()


@pytest.mark.parametrize(
    ("left", "elsewhere"),
    [
        ("nothing", ("a", "b", "c")),
        pytest.param("nothing", ("", "", ""), marks=pytest.mark.slow),
        pytest.param("dead", ("", "b", "b"), marks=pytest.mark.slow),
        pytest.param("garbage", ("", "", "c"), marks=pytest.mark.slow),
    ],
)
def test_of_several_that_start_at_the_same_moment_one_succeeds(tmp_path, start, left, elsewhere):
    """Also where a dead process has left its lock, which all of them find stale."""
    if left == "dead":
        dead = holding(start(tmp_path, 60, "somewhere"))
        dead.kill()
        dead.wait()
    elif left == "garbage":
        (tmp_path / LOCK_FILE).write_bytes(b"\x00\xff{")
    at = time.time() + 2  # all have imported what they need by then
    processes = [start(tmp_path, 7, machine, at) for machine in elsewhere]
    ends = [(process.communicate(timeout=60)[0], process.returncode) for process in processes]
    assert sorted(code for _, code in ends) == [0, 1, 1], ends
    assert sum(text.startswith("held") for text, _ in ends) == 1, ends
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_hard_links(monkeypatch):
    """As on a mounted bucket."""

    def link(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "link", link)


def test_without_hard_links_one_of_several_threads_succeeds(tmp_path, no_hard_links):
    """The folder goes again only where the one that holds it has made it, which the scheduler decides."""
    held, refused = [], []

    def acquire():
        lock = RunLock(tmp_path / "run")
        try:
            lock.acquire()
            held.append(lock)
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=acquire) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 5
    held[0].release()
    assert not list(tmp_path.glob("run/*"))


def test_without_hard_links_a_file_that_was_replaced_before_it_was_written_is_not_held(
    tmp_path, no_hard_links, monkeypatch, hurried
):
    """Two processes held the folder: the one that was slow to write, and the one that found its file empty."""
    slow, other = RunLock(tmp_path), RunLock(tmp_path)
    content, calls = run_lock._content, []

    def content_late(holder):
        calls.append(holder.token)
        if holder.token == slow._own.token and calls.count(holder.token) == 2:  # into the file, which is there
            assert other._take_over(b"")
        return content(holder)

    monkeypatch.setattr(run_lock, "_content", content_late)
    assert not slow._create()
    assert parse((tmp_path / LOCK_FILE).read_bytes()).token == other._own.token


def test_a_lock_that_somebody_deleted_is_there_again(tmp_path, start, hurried):
    """Deleted by hand, a second run would start; it is refused."""
    with RunLock(tmp_path) as lock:
        (tmp_path / LOCK_FILE).unlink()
        time.sleep(1)
        lock.check()
        second = start(tmp_path, 0)
        assert "another process" in second.communicate(timeout=60)[0] and second.returncode == 1


def test_a_program_may_change_its_working_folder(tmp_path, monkeypatch, hurried):
    """The folder is often given by a relative path."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with RunLock(Path("run")):
        os.chdir(tmp_path / "elsewhere")
        time.sleep(0.8)
        assert parse((tmp_path / "run" / LOCK_FILE).read_bytes()).count > 0
    assert [path.name for path in tmp_path.rglob("*")] == ["elsewhere"]


def test_the_folder_of_a_start_that_fails_goes_again(tmp_path):
    with RunLock(tmp_path / "runs" / "mine"):
        assert (tmp_path / "runs" / "mine").is_dir()
    assert not (tmp_path / "runs").exists()
    with RunLock(tmp_path / "runs" / "mine"):
        (tmp_path / "runs" / "mine" / "config.json").write_text("{}")
    assert [path.name for path in (tmp_path / "runs" / "mine").iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": 3}', "\x00" * 40])
def test_what_is_no_lock_is_nobodys(text):
    assert parse(text.encode()) is None


def test_this_process_lives_and_another_machines_is_not_judged():
    holder = RunLock(Path("never"))._own
    assert is_living(holder) and is_living(holder._replace(machine="another")) is None
    assert is_living(holder._replace(started="0")) is False and is_living(holder._replace(started="")) is None


def test_training_takes_the_folder_before_it_writes_and_gives_it_back(tmp_path, monkeypatch):
    files_seen = []
    batches, wait = toy_run.toy_batches, Checkpoints.wait

    def look():
        files_seen.append({path.name for path in (tmp_path / "run").iterdir()})

    def looking_at_each_batch(*arguments):
        for batch in batches(*arguments):
            look()
            yield batch

    def looking_at_the_end(checkpoints):
        wait(checkpoints)
        look()

    monkeypatch.setattr(toy_run, "toy_batches", looking_at_each_batch)
    monkeypatch.setattr(Checkpoints, "wait", looking_at_the_end)
    train(toy_run.config(steps=3), tmp_path / "run")
    assert files_seen[0] == {LOCK_FILE} and LOCK_FILE in files_seen[-1]
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_training_in_a_folder_that_is_held_writes_nothing(tmp_path, start):
    holding(start(tmp_path / "run", 60))
    with pytest.raises(ValueError, match="another process"):
        train(toy_run.config(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_FILE]


def test_a_run_whose_folder_was_taken_over_saves_nothing_more(tmp_path, monkeypatch, hurried):
    """It found out at its end, or never."""
    monkeypatch.setattr(toy_run, "EVENTS", toy_run.Events(slow_from=3))
    batches = toy_run.toy_batches

    def taking_over(*arguments):
        for batch in batches(*arguments):
            if batch[2][0] == 4:
                file = tmp_path / "run" / LOCK_FILE
                file.write_text(json.dumps(json.loads(file.read_text()) | {"token": "another", "host": "elsewhere"}))
            yield batch

    monkeypatch.setattr(toy_run, "toy_batches", taking_over)
    with pytest.raises(ValueError, match=r"another process .host elsewhere.* has taken over"):
        train(toy_run.config(steps=30), tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*0"))
    assert (tmp_path / "run" / LOCK_FILE).is_file()  # the other's


def test_a_demo_holds_its_folder(tmp_path, start, monkeypatch, capsys):
    """As before, with a lock that training heeds too."""
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    holding(start(tmp_path, 60))
    assert cli.main(["demo", "--workdir", str(tmp_path)]) == 1
    assert "another process is at work" in capsys.readouterr().err


def test_evaluations_that_write_into_one_folder_come_one_after_the_other(tmp_path, monkeypatch):
    """A run that trains does not keep an evaluation away, and --json writes nothing into the folder."""
    came = []
    monkeypatch.setattr(evaluate, "_evaluate", lambda arguments, target, is_first: came.append(target) or 0)
    with RunLock(tmp_path), RunLock(tmp_path, run_lock.EVALUATION_LOCK_FILE):
        with pytest.raises(ValueError, match="another process .* or give --json FILE"):
            evaluate.main([str(tmp_path)])
        evaluate.main([str(tmp_path), "--json", str(tmp_path / "a.json")])
    with RunLock(tmp_path):
        evaluate.main([str(tmp_path)])
    assert came == [tmp_path / "a.json", tmp_path / "evaluation.json"]
