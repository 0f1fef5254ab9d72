"""Ctrl-C in any command, at any time."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from xgenmm_jax.cli import main as cli

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


LOST = """
import gc, os, signal, time
from xgenmm_jax.cli import interrupts

def callback(phase, info):
    if phase == "start" and not pressed:
        pressed.append(True)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

pressed, began = [], time.monotonic()
try:
    with interrupts.raising():
        gc.callbacks.append(callback)
        while time.monotonic() < began + 20:
            gc.collect()
            time.sleep(0.01)
except KeyboardInterrupt:
    print("raised", pressed, time.monotonic() < began + 10)
"""


def test_one_that_is_lost_is_raised_again():
    """In a process of its own: the collector of one that has run hundreds of tests works longer than the repetition."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("raised [True] True\n", "")
