"""Running on all workers: quoting, detachment, who failed, who is asked again."""

import os
import shlex
import subprocess

from launched_pod import wait_for
import pytest

from xgenmm_jax.cli.main import COMMANDS

EXPERIMENT = "experiments/stage1.py"


@pytest.mark.parametrize(
    "words",
    [
        ["--optimizer.peak-lr", "1e-4"],
        ["--name", "two  spaces and 'quotes' and \"more\""],
        ["--name", "$HOME `id` $(id) ; & | > < * ? [a] {a,b} ~ ! # \\ \\\\"],
        ["--name", "tab\there\nand a line", ""],
        ["--name", "héllo wörld", "-"],
    ],
)
def test_overrides_reach_xgenmm_as_typed(ready, words):
    done = ready.launch("run", EXPERIMENT, *words)
    assert done.returncode == 0, done.stderr
    for worker in (0, 1):
        home = ready.home(worker)
        assert ready.argv(worker) == ["train", f"{home}/xgenmm_jax/{EXPERIMENT}", "--for", "v5e:4x4", *words]
    [call] = ready.calls("ssh")
    assert call[:5] == ["compute", "tpus", "tpu-vm", "ssh", "pod"] and "--worker=all" in call


def test_the_printed_command_is_a_command(ready):
    """What --dry-run prints can be pasted into a shell."""
    words = ["--name", "it's $5"]
    done = ready.launch("run", "--dry-run", EXPERIMENT, *words)
    [command] = [word for word in shlex.split(done.stdout) if word.startswith("--command=")]
    assert ready.launch("run", EXPERIMENT, *words).returncode == 0
    [call] = ready.calls("ssh")
    assert command in call


def test_the_run_outlives_its_ssh_and_works_in_the_shared_folder(ready):
    done = ready.launch("run", EXPERIMENT, LIBTPU_INIT_ARGS="--a=1 --b=2")
    assert "[0.0] started in" in done.stdout and "[0.1] started in" in done.stdout
    ready.argv(0)
    home = ready.home()
    wait_for((home / "place").exists)
    assert (home / "place").read_text() == f"{home}/xgenmm_shared --a=1 --b=2\n"
    supervisor = int((home / "xgenmm_launch" / "supervisor").read_text())
    assert os.getsid(supervisor) == supervisor != os.getsid(0)
    done = ready.launch("status")
    assert "[0.0] running for" in done.stdout and "loss 1.234" in done.stdout


@pytest.mark.slow
def test_the_same_command_again_changes_nothing_another_is_refused(ready):
    ready.launch("run", EXPERIMENT, "--steps", "5")
    done = ready.launch("run", EXPERIMENT, "--steps", "5")
    assert done.returncode == 0 and done.stdout.count("running already") == 2
    done = ready.launch("run", EXPERIMENT, "--steps", "6")
    assert done.returncode == 1 and "another run is under way" in done.stdout
    assert "worker 0 failed with exit code 1" in done.stderr
    ready.argv()
    assert (ready.home() / "starts").read_text() == "started\n"
    done = ready.launch("setup")
    assert done.returncode == 1 and "a run is under way" in done.stdout


def test_all_workers_of_all_slices(pod):
    two = {"TPU_SLICES": "2", "TPU_TOPOLOGY": "v4:4x4x4"}
    assert pod.launch("setup", **two).returncode == 0
    assert pod.launch("run", EXPERIMENT, **two).returncode == 0
    assert {call[4] for call in pod.calls("ssh")} == {"pod-0", "pod-1"}
    for node in ("pod-0", "pod-1"):
        assert pod.argv(1, node)[-2:] == ["--for", "2xv4:4x4x4"]


def test_only_workers_that_did_not_answer_are_asked_again(ready):
    ready.set(workers=4, plan=[{"words": ["ssh"], "unreachable": [1, 3]}, {"words": ["ssh"], "unreachable": [3]}])
    assert ready.launch("setup").returncode == 0
    asked = [word for call in ready.calls("ssh") for word in call if word.startswith("--worker=")]
    assert asked == ["--worker=all", "--worker=1,3", "--worker=3"]


def test_a_worker_that_never_answers_is_named(ready):
    ready.set(plan=[{"words": ["ssh"], "unreachable": [1]}] * 9)
    done = ready.launch("status", TPU_TRIES="3")
    assert done.returncode == 255
    assert "pod: worker 1 did not answer (gcloud's exit code 255)" in done.stderr
    assert "worker 0" not in done.stderr.replace("worker 0,1", "")
    assert len(ready.calls("ssh")) == 3


def test_success_of_gcloud_does_not_hide_a_silent_worker(ready):
    """gcloud ends with 0 where the failed worker's index is above the number of the asked ones."""
    ready.set(plan=[{"words": ["ssh"], "code": 0, "out": "::launch 0.0 exit 0\n"}])
    assert ready.launch("status").returncode == 0
    assert "--worker=1" in ready.calls("ssh")[1]


def test_a_refusal_of_gcloud_is_not_repeated(ready):
    ready.set(plan=[{"words": ["ssh"], "code": 1, "err": "PERMISSION_DENIED"}])
    done = ready.launch("run", EXPERIMENT)
    assert done.returncode == 1 and "PERMISSION_DENIED" in done.stderr and len(ready.calls("ssh")) == 1


def test_a_worker_without_setup_says_so(pod):
    done = pod.launch("run", EXPERIMENT)
    assert done.returncode == 127 and "worker 0 did not answer" in done.stderr


def test_the_settings_are_those_for_the_pod_unless_others_are_asked_for(pod):
    def planned(*words, **variables):
        done = pod.launch("run", "--dry-run", EXPERIMENT, *words, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"train {EXPERIMENT} --for v5e:4x4" in bare(planned())
    two = {"TPU_SLICES": "2", "TPU_TOPOLOGY": "v5e:16x16"}
    assert f"train {EXPERIMENT} --for 2xv5e:16x16 --steps 5" in bare(planned("--steps", "5", **two))
    for typed in (["--for", "v5e:4x4"], ["--for=none"]):
        assert f"train {EXPERIMENT} {' '.join(typed)}" in bare(planned(*typed))
    done = pod.launch("run", EXPERIMENT, "--for", "v5e:16x16")
    assert done.returncode == 2 and "--for: got v5e:16x16, but the pod is v5e:4x4" in done.stderr


def bare(printed: str) -> str:
    return printed.replace("\\", "")


@pytest.mark.parametrize(
    "words, given",
    [
        (["evaluate", "runs/mine", "--items", "5"], ["evaluate", "runs/mine", "--items", "5"]),
        (["generate", "runs/mine", "What  is it?"], ["generate", "runs/mine", "What  is it?"]),
        (["data", "index", EXPERIMENT], ["data", "index", f"HOME/xgenmm_jax/{EXPERIMENT}"]),
        (["train", f"{EXPERIMENT}:b"], ["train", f"HOME/xgenmm_jax/{EXPERIMENT}:b", "--for", "v5e:4x4"]),
    ],
)
def test_any_command_runs_on_all_workers(ready, words, given):
    done = ready.launch("run", *words)
    assert done.returncode == 0, done.stderr
    for worker in (0, 1):
        assert ready.argv(worker) == [word.replace("HOME", str(ready.home(worker))) for word in given]


def test_the_commands_are_those_of_xgenmm(checkout):
    script = f'source "{checkout}/launch/lib.sh"; source "{checkout}/launch/code.sh"; echo $COMMANDS'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == list(COMMANDS)


def test_a_run_folder_in_a_bucket_needs_no_shared_folder(pod):
    """`xgenmm` reads and writes gs:// itself."""
    for words in (["--workdir", "gs://bucket/run"], ["--workdir=gs://bucket/run"]):
        assert pod.launch("run", "--dry-run", EXPERIMENT, *words, TPU_SHARED="").returncode == 0
    assert pod.launch("run", "--dry-run", "evaluate", "gs://bucket/run", TPU_SHARED="").returncode == 0
    elsewhere = ["--initialize.run", "gs://bucket/run"]
    assert pod.launch("run", "--dry-run", EXPERIMENT, *elsewhere, TPU_SHARED="").returncode == 2


def test_several_hosts_need_a_shared_folder_one_does_not(pod):
    done = pod.launch("run", EXPERIMENT, TPU_SHARED="")
    assert done.returncode == 2 and "TPU_SHARED is not set" in done.stderr
    one = {"TPU_SHARED": "", "TPU_TOPOLOGY": "v5e:2x4"}
    pod.set(workers=1)
    assert pod.launch("setup", **one).returncode == 0
    assert pod.launch("run", EXPERIMENT, **one).returncode == 0
    pod.argv()
    wait_for((pod.home() / "place").exists)
    assert (pod.home() / "place").read_text().split()[0] == f"{pod.home()}/xgenmm_jax"


def test_an_experiment_that_is_not_there_is_refused(pod):
    done = pod.launch("run", "experiments/stage9.py")
    assert done.returncode == 2 and "no file 'experiments/stage9.py'" in done.stderr and pod.calls() == []
    assert pod.launch("run", "--dry-run", "experiments/stage1.py:config_14b").returncode == 0


def test_stopping_saves_and_waits(ready):
    ready.launch("run", EXPERIMENT)
    ready.argv(0), ready.argv(1)
    done = ready.launch("stop")
    assert done.returncode == 0 and done.stdout.count("stopped with exit code 143") == 2
    assert "[0.0] stopped: === " in ready.launch("status").stdout
    assert "saved" in (ready.home() / "xgenmm_launch" / "log").read_text()
    assert ready.launch("stop").stdout.count("nothing is running") == 2


@pytest.mark.slow
def test_what_does_not_stop_is_said_and_may_be_killed(ready):
    ready.behave("stubborn")
    ready.launch("run", EXPERIMENT)
    ready.argv(0), ready.argv(1)
    done = ready.launch("stop", TPU_STOP_WAIT_S="1")
    assert done.returncode == 1 and "launch/stop.sh --now kills it" in done.stdout
    assert ready.launch("stop", "--now").stdout.count("killed") == 2
    assert "[0.1] stopped" in ready.launch("status").stdout


def test_killing_does_not_wait_for_a_polite_stop(ready):
    """The stop that waits for a checkpoint held the lock, so that `--now` waited as long."""
    ready.behave("stubborn")
    ready.launch("run", EXPERIMENT)
    ready.argv(0), ready.argv(1)
    stop = [str(ready.checkout / "launch" / "stop.sh")]
    with subprocess.Popen(stop, env=ready.environment, stdout=subprocess.PIPE, text=True) as polite:
        wait_for(lambda: all((ready.home(worker) / "xgenmm_launch" / "stopped").exists() for worker in (0, 1)))
        assert ready.launch("stop", "--now").stdout.count("killed") == 2
        told, _ = polite.communicate()
    assert polite.returncode == 0 and told.count("stopped with exit code 137") == 2


@pytest.mark.parametrize("behaviour, status", [("exit 0", "finished"), ("exit 7", "failed 7")])
def test_status_tells_how_a_run_ended(ready, behaviour, status):
    ready.behave(behaviour)
    assert ready.launch("run", EXPERIMENT).returncode == 0
    wait_for(lambda: (ready.home() / "xgenmm_launch" / "exit").exists())
    done = ready.launch("status")
    assert done.returncode == 0
    assert done.stdout.splitlines()[:2] == ["pod (v5e:4x4, slices: 1, spot): ACTIVE", "node pod: READY"]
    assert f"[0.0] {status}: === " in done.stdout


def test_logs_of_one_worker_or_of_all(ready):
    done = ready.launch("logs", "--no-follow")
    assert done.returncode == 1 and "no log yet" in done.stdout
    ready.launch("run", EXPERIMENT)
    ready.argv(0), ready.argv(1)
    done = ready.launch("logs", "--no-follow", "--worker", "1")
    assert "[0.1] loss 1.234" in done.stdout and "[0.0]" not in done.stdout
    done = ready.launch("logs", "--no-follow", "--worker", "all", "--lines", "1")
    assert sorted(done.stdout.splitlines()) == ["[0.0] loss 1.234", "[0.1] loss 1.234"]
    for words in (["--worker", "x"], ["--slice", "1"], ["--lines"]):
        assert ready.launch("logs", *words).returncode == 2


@pytest.mark.slow
def test_a_dropped_connection_is_picked_up_while_following(ready):
    ready.launch("run", EXPERIMENT)
    ready.argv(0)
    ready.set(plan=[{"words": ["ssh"], "code": 255}, {"words": ["ssh"], "code": 0, "out": "::launch 0.0 exit 0\n"}])
    assert ready.launch("logs").returncode == 0
    follows = [call for call in ready.calls("ssh") if any("logs 100 follow" in word for word in call)]
    assert len(follows) == 2
