"""SIGKILL at any step: the rows go on as if nothing had been, and nothing is left behind."""

import contextlib
import itertools
from pathlib import Path
import shutil
import signal
import time

import mixed_sources
import numpy as np
from printed_rows import Printer, Step, is_running, unfinished
import pytest
import row_printer

from xgenmm_jax.data.rows import loader, order
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.rows.window import open_sources, shards_of
from xgenmm_jax.data.storage.files import UNFINISHED

pytestmark = pytest.mark.slow

STEPS, KILLS = 100, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mixed"
    mixed_sources.write(folder)
    shutil.copytree(folder, folder.with_name("not indexed"))
    return folder


@pytest.fixture(scope="module")
def unbroken(data) -> list[Step]:
    with contextlib.closing(loader.batches(mixed_sources.config(data), row_printer.SEED)) as batches:
        return [Step(one.state, mixed_sources.row_hashes(one)) for one in itertools.islice(batches, STEPS)]


def windows_that_end_an_epoch(config, windows: range) -> set[int]:
    """Windows in which a source begins its records anew."""
    shards = shards_of(config, open_sources(config))
    found = set()
    for window in windows:
        draws = order.draws(config.order_phases, shards, row_printer.SEED, config.window, window)
        epochs = [draws.epoch[draws.component == component] for component in range(len(shards))]
        found |= {window} if any(len(np.unique(one)) > 1 for one in epochs) else set()
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("hosts", [1, 2])
def test_rows_after_kills_are_those_of_an_unbroken_run(data, unbroken, hosts, workers):
    """Ten kills at random steps, one of them inside a window in which a source ends an epoch."""
    rng = np.random.default_rng((hosts, workers))
    config, steps = mixed_sources.config(data), range(2, STEPS - 3)
    ends = windows_that_end_an_epoch(config, range(unbroken[-1].state.window + 1))
    inside = [step for step in steps if unbroken[step - 1].state.row and unbroken[step - 1].state.window in ends]
    first = int(rng.choice(inside))
    others = rng.choice([step for step in steps if step != first], KILLS - 1, replace=False)
    kills = sorted([first, *others.tolist()])
    share = config.batch_rows // hosts
    compared = {host: set() for host in range(hosts)}

    def compare(step: int, host: int, got: Step) -> None:
        if step < STEPS:
            want = unbroken[step]
            assert got == Step(want.state, want.rows[host * share : (host + 1) * share]), (step, host)
            compared[host].add(step)

    done = 0
    for kill in [*kills, STEPS]:
        state = unbroken[done - 1].state if done else State()
        printers = [Printer.start(data, state, host, hosts, workers) for host in range(hosts)]
        # Hosts are not at the same step when they are killed; the run goes on from the last that all have done.
        reached = [max(done + 1, kill - int(rng.integers(3)) * (host > 0)) for host in range(hosts)]
        for host, printer in enumerate(printers):
            for step in range(done, reached[host]):
                compare(step, host, printer.step())
        for host, printer in enumerate(printers):
            for step, one in enumerate(printer.kill(), start=reached[host]):
                compare(step, host, one)
            assert len(printer.children) >= workers
            printer.check_nothing_is_left(data)
        done = min(reached)
    assert all(steps >= set(range(done)) for steps in compared.values()) and done >= STEPS - 2


def test_an_index_that_was_killed_while_it_was_made_is_made_to_its_end(data, unbroken, tmp_path):
    """Kills while shards are walked and measured, and one in the middle of each of the first files' writing."""
    folder = tmp_path / "killed"
    shutil.copytree(data.with_name("not indexed"), folder)
    rng = np.random.default_rng(3)
    left = 0
    for number in range(1, 9):
        printer = Printer.start(folder, (0, 0), 0, 1, 0, 1 + number % 2)
        printer.process.wait()
        printer.process.stdout.close()
        assert printer.process.returncode == -signal.SIGKILL
        left += len(unfinished(folder))
    assert left >= 8, "some were not killed while a file had no name yet"
    for _ in range(6):
        printer = Printer.start(folder)
        wanted = min(len(index_files(folder)) + int(rng.integers(1, 3)), len(index_files(data)))
        while len(index_files(folder)) < wanted:
            assert is_running(printer.process.pid)
            time.sleep(0.0005)
        printer.kill()
    printer = Printer.start(folder)
    for want in unbroken[:30]:
        assert printer.step() == want
    printer.kill()
    printer.check_nothing_is_left(folder)
    assert {path.relative_to(folder): path.read_bytes() for path in index_files(folder)} == {
        path.relative_to(data): path.read_bytes() for path in index_files(data)
    }


def index_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".index/*/*") if not path.name.endswith(UNFINISHED)]
