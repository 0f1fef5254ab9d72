"""Ctrl-C in any command, at any time."""

import gc
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from xgenmm_jax.cli import interrupts
from xgenmm_jax.cli import main as cli
from xgenmm_jax.convert import importing
from xgenmm_jax.training.signals import Signals

ROOT = Path(__file__).parents[2]
TINY28 = ROOT / "tests" / "goldens" / "xgenmm_tiny28"

# A command that is nothing but what is inside, on a machine that is given no time: it says when it has begun.
COMMAND = """
import gc, sys, time
import xgenmm_jax.cli.main as cli
import importlib

def work(rest):
    print("begun", flush=True)
{work}

importlib.import_module = lambda name: type("Module", (), {{"main": staticmethod(work)}})
sys.exit(cli.main())
"""
IN_COLLECTIONS = "gc.callbacks.append(lambda *_: time.sleep(0.01))\nwhile True: gc.collect()"
SWALLOWED = "while True:\n  try: time.sleep(0.01)\n  except BaseException: pass"
AS_ANOTHER = "try: time.sleep(60)\nexcept BaseException as error: raise ImportError('numpy') from error"


@pytest.mark.parametrize("command", ["evaluate", "generate", "plan"])
@pytest.mark.parametrize("work", ["time.sleep(60)", IN_COLLECTIONS, SWALLOWED, AS_ANOTHER])
def test_ctrl_c_is_one_line_and_130(command, work):
    """It was a traceback; where JAX was being imported, one of four was lost and the command went on."""
    code = COMMAND.format(work="\n".join(f"    {line}" for line in work.splitlines()))
    process = subprocess.Popen(
        [sys.executable, "-c", code, command], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=20)
    assert (process.returncode, out, told) == (130, "", f"xgenmm {command}: interrupted.\n")


def test_what_a_script_runs_in_the_background_does_not_hear_it():
    """A shell without job control starts it with Ctrl-C ignored."""
    code = COMMAND.format(work="    time.sleep(0.5)")
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", code, "plan"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_called_from_python_it_gives_the_code(monkeypatch, capsys):
    def work(rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr("xgenmm_jax.cli.generate.main", work)
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["generate"]) == 130
    assert capsys.readouterr().err == "xgenmm generate: interrupted.\n"
    assert signal.getsignal(signal.SIGINT) is before


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_one_that_is_lost_is_raised_again(capsys):
    def callback(phase, info):
        if phase == "start" and not pressed:
            pressed.append(True)
            press()
            time.sleep(0.01)

    pressed: list[bool] = []
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.raising():
            gc.callbacks.append(callback)
            while time.monotonic() < began + 20:
                gc.collect()
                time.sleep(0.01)
    finally:
        gc.callbacks.remove(callback)
    assert pressed and time.monotonic() < began + 10 and capsys.readouterr().err == ""


def test_blocks_that_put_things_away_are_left_alone():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        try:
            press()
            time.sleep(5)
        finally:
            time.sleep(4 * interrupts.AGAIN_S)
            done.append("put away")
    assert done == ["put away"] and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    time.sleep(2 * interrupts.AGAIN_S)


@pytest.mark.parametrize("error", [ImportError("numpy"), RuntimeError("in C++"), ValueError("half a file")])
def test_what_a_library_makes_of_it_is_an_interrupt(error):
    with pytest.raises(KeyboardInterrupt), interrupts.raising():
        try:
            press()
            time.sleep(5)
        except KeyboardInterrupt:
            raise error from None
    with pytest.raises(type(error)), interrupts.raising():
        raise error
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_convert_leaves_nothing_half_written(monkeypatch, tmp_path, capsys):
    def write(source, folder, dtype, progress):
        folder.mkdir()
        (folder / "half").touch()
        press()
        time.sleep(5)

    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(importing, "write_parameters", write)
    assert cli.main(["convert", str(TINY28), str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "xgenmm convert: interrupted.\n" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_run_asks_for_the_first_signal(number):
    before = signal.getsignal(number)
    with Signals() as signals:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGHUP)  # a second: the first is being followed
        assert signals.received(3) == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(number)
            assert signals.received(3) is None
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
