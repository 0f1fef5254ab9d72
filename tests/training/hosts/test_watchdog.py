"""The watchdog on a clock of its own, and what it says about hosts."""

import subprocess
import sys

import pytest

from xgenmm_jax.training.hosts.activity import work_of
from xgenmm_jax.training.hosts.watchdog import EXIT_CODE, OPENING, Beat, Watchdog, describe, read_beats


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def watchdog(folder, clock, ended, timeout_s=100.0, **hosts):
    dog = Watchdog(folder, timeout_s, clock=clock, end=ended.append, **hosts)
    dog.interval_s = 0.001
    return dog


def test_it_ends_the_process_when_nothing_moves_for_so_long(tmp_path, clock, capfd):
    ended = []
    dog = watchdog(tmp_path, clock, ended)
    dog.at(4, "reading rows")
    clock.now = 99.0
    dog.check()
    dog.at(5, "waiting for the devices")
    clock.now = 198.0
    dog.check()
    assert not ended
    (tmp_path / "heartbeats").mkdir()
    clock.now = 199.0
    dog.check()
    said = capfd.readouterr().err
    assert ended == [EXIT_CODE] == [75]
    assert "waiting for the devices for step 5 for 100 s (watchdog_seconds 100)" in said
    assert "test_it_ends_the_process" in said, "the stacks of all threads"


def test_without_a_timeout_one_host_has_no_thread_and_writes_nothing(tmp_path, clock):
    ended = []
    with watchdog(tmp_path, clock, ended, timeout_s=0.0) as dog:
        clock.now = 1e9
        dog.check()
    assert not ended and not (tmp_path / "heartbeats").exists()


def test_hosts_tell_what_they_do(tmp_path, clock):
    with watchdog(tmp_path, clock, [], host=3, hosts=8) as dog:
        dog.at(7, "saving")
        dog.beat()
    beat = read_beats(tmp_path / "heartbeats")[3]
    assert (beat.step, beat.doing) == (7, "saving") and beat.count >= 1


def beats(*states):
    return {host: Beat(count, step, doing) for host, (count, step, doing) in enumerate(states)}


WAITING = "waiting for the devices"


@pytest.mark.parametrize(
    "first, later, sentence",
    [
        # Host 1 is dead: its count stands. Host 2 never wrote.
        (
            beats((5, 9, WAITING), (5, 7, "saving")),
            beats((6, 9, WAITING), (5, 7, "saving")),
            "host 1 gives no sign of life, last heard of saving for step 7, host 2 never began",
        ),
        # All live; one reads rows for an earlier step.
        (
            beats((5, 9, WAITING), (5, 9, WAITING), (5, 7, "reading rows")),
            beats((6, 9, WAITING), (6, 9, WAITING), (6, 7, "reading rows")),
            "host 2 is reading rows for step 7 while others wait for it at step 9",
        ),
        # All at one step: one is not as far with it.
        (
            beats((5, 9, WAITING), (5, 9, "reading rows"), (5, 9, WAITING)),
            beats((6, 9, WAITING), (6, 9, "reading rows"), (6, 9, WAITING)),
            "host 1 is reading rows for step 9 while others wait for it",
        ),
        (
            beats((5, 9, WAITING), (5, 9, WAITING), (5, 9, WAITING)),
            beats((6, 9, WAITING), (6, 9, WAITING), (6, 9, WAITING)),
            "all hosts have reached step 9 and live: the devices or the network between them hang",
        ),
    ],
)
def test_the_host_that_holds_up_the_others_is_named(first, later, sentence):
    assert describe(first, later, hosts=3, this_host=0) == sentence


def test_opening_data_may_last_while_the_host_works(tmp_path, clock):
    """It was timed as the first batch: 18,000 files on a mounted bucket ended each start after half an hour."""
    ended, is_active = [], True
    dog = watchdog(tmp_path, clock, ended, is_active=lambda: is_active)
    (tmp_path / "heartbeats").mkdir()
    dog.at(1, OPENING)
    for clock.now in range(0, 1000, 50):
        dog.check()
    assert not ended
    is_active = False
    for clock.now in range(1000, 1051, 50):
        dog.check()
    assert ended == [EXIT_CODE], "it hangs"


def test_a_host_waits_for_another_that_opens_data(tmp_path, clock, capfd):
    ended, is_active = [], True
    dogs = [
        watchdog(tmp_path, clock, ended, host=host, hosts=2, is_active=lambda host=host: is_active and host == 1)
        for host in range(2)
    ]
    (tmp_path / "heartbeats").mkdir()
    dogs[0].at(1, WAITING)
    dogs[1].at(1, OPENING)

    def pass_time(until: int) -> None:
        while clock.now < until and not ended:
            clock.now += 30
            for dog in dogs:
                dog.beat()
            for dog in dogs:
                dog.check()

    pass_time(900)
    assert not ended
    is_active = False
    pass_time(1500)
    assert ended and clock.now < 900 + 3 * 100
    assert "host 1 of 2 has been opening data for step 1 for 120 s" in capfd.readouterr().err


def test_rows_of_a_later_batch_are_timed_though_the_host_works(tmp_path, clock):
    ended = []
    dog = watchdog(tmp_path, clock, ended, is_active=lambda: True)
    (tmp_path / "heartbeats").mkdir()
    dog.at(2, "reading rows")
    clock.now = 100.0
    dog.check()
    assert ended == [EXIT_CODE]


ACTIVE = """
import pathlib, subprocess, sys, time
from xgenmm_jax.training.hosts.activity import Activity

activity = Activity()
time.sleep(0.5)
assert not activity.is_active()
until = time.process_time() + 0.1
while time.process_time() < until:
    pass
assert activity.is_active()
file = pathlib.Path(sys.argv[1])
file.write_bytes(b"0" * 10**6)
time.sleep(0.5)
activity.is_active()
file.read_bytes()
assert activity.is_active()
# So is one that a process of its own works for.
with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
    time.sleep(1.0)
    assert activity.is_active()
    time.sleep(0.5)
    assert activity.is_active()
    child.kill()
"""


def test_a_process_that_computes_or_reads_is_active_and_one_that_waits_is_not(tmp_path):
    """In a process of its own: threads of other tests would work in this one."""
    subprocess.run([sys.executable, "-c", ACTIVE, tmp_path / "file"], check=True, timeout=120)


def test_of_a_system_that_counts_nothing_every_process_is_active(tmp_path):
    assert work_of(1, proc=tmp_path) == {}
