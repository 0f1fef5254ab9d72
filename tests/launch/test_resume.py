"""A run that is kept alive: preempted, half gone, failing, stopped by hand."""

import subprocess

from launched_pod import PATIENCE_S, wait_for
import pytest

EXPERIMENT = "experiments/stage1.py"
WORDS = [EXPERIMENT, "--name", "it's mine"]


def resume(pod, **variables):
    return subprocess.Popen(
        [str(pod.checkout / "launch" / "resume.sh"), *WORDS],
        env={**pod.environment, "TPU_POLL_S": "0.1", "TPU_TRIES": "1", **variables},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process) -> str:
    _, told = process.communicate(timeout=PATIENCE_S)
    return told


def starts(pod, node="pod") -> int:
    path = pod.home(0, node) / "starts"
    return path.read_text().count("started") if path.exists() else 0


def looks(calls) -> int:
    return sum(any("status" in word for word in call) for call in calls)


@pytest.fixture
def resumed(pod):
    """A pod out of nothing, with the run under way."""
    pod.set(states=["NONE"], created=["WAITING_FOR_RESOURCES", "ACTIVE"])
    process = resume(pod)
    wait_for(lambda: starts(pod) == 1)
    yield process
    process.kill()
    process.communicate()


def test_a_preempted_pod_is_made_again_and_runs_the_same_command(pod, resumed):
    pod.set(states=["SUSPENDING", "SUSPENDED"], created=["PROVISIONING", "ACTIVE"])
    pod.kill_runs()
    wait_for(lambda: pod.calls("delete") and starts(pod) == 1)
    assert pod.argv(1)[2:] == ["--for", "v5e:4x4", *WORDS[1:]]
    pod.behave("exit 0")
    pod.kill_runs()  # a start again finds nothing left to do
    told = ended(resumed)
    assert resumed.returncode == 0 and "it was preempted; deleting 'pod'" in told and "finished" in told
    assert [call[4] for call in pod.calls("delete")] == ["pod"]
    created = [call for call in pod.calls("create")]
    assert len(created) == 2 and created[0] == created[1]


@pytest.mark.slow
def test_a_lost_node_of_an_active_pod_is_a_preemption(pod, resumed):
    pod.set(nodes={"pod": "PREEMPTED"})
    wait_for(lambda: pod.calls("delete"))
    wait_for(lambda: starts(pod) == 1)
    resumed.terminate()
    assert "node pod is PREEMPTED" in ended(resumed)


def test_a_run_that_keeps_failing_ends_with_its_code_and_keeps_the_pod(pod):
    pod.behave("exit 7")
    process = resume(pod, TPU_MAX_FAILURES="2")
    told = ended(process)
    assert process.returncode == 7 and "failure 2 in a row" in told and "giving up" in told
    assert "[0.0] failed 7: " in told
    assert starts(pod) == 2 and pod.calls("delete") == []


def test_one_dead_host_restarts_all(pod, resumed):
    wait_for(lambda: (pod.home(1) / "starts").exists())
    supervisor = (pod.home(1) / "xgenmm_launch" / "supervisor").read_text().strip()
    subprocess.run(["pkill", "-KILL", "-g", supervisor], check=True)
    wait_for(lambda: starts(pod) == 2)
    resumed.terminate()
    assert "[0.1] failed 137: killed, or the worker was restarted" in ended(resumed)


@pytest.mark.slow
def test_stopping_by_hand_is_not_a_failure(pod, resumed):
    assert pod.launch("stop").returncode == 0
    told = ended(resumed)
    assert resumed.returncode == 0 and "stopped by hand" in told and starts(pod) == 1


@pytest.mark.slow
def test_called_again_it_joins_the_run_that_is_under_way(pod, resumed):
    resumed.kill()
    before = len(pod.calls("ssh"))
    again = resume(pod)
    # Looks after the one that joined, whose start would else undo the stop; one may be left of the killed process.
    wait_for(lambda: again.poll() is not None or looks(pod.calls("ssh")[before:]) > 2)
    pod.launch("stop")
    ended(again)
    assert again.returncode == 0 and starts(pod) == 1


@pytest.mark.slow
def test_another_run_is_not_touched(pod, resumed):
    resumed.kill()
    done = pod.launch("resume", EXPERIMENT, "--name", "other")
    assert done.returncode == 1 and starts(pod) == 1


def test_a_pod_that_cannot_be_had_ends_with_clouds_code(pod):
    pod.set(states=["NONE"], plan=[{"words": ["create"], "code": 6, "err": "PERMISSION_DENIED"}])
    done = pod.launch("resume", *WORDS)
    assert done.returncode == 6 and "PERMISSION_DENIED" in done.stderr and len(pod.calls("create")) == 1


def test_a_pod_that_keeps_failing_is_given_up(pod):
    pod.set(states=["NONE"], created=["FAILED"])
    done = pod.launch("resume", *WORDS)
    assert done.returncode == 1 and "it failed: no capacity" in done.stderr
    assert len(pod.calls("create")) == 3 and len(pod.calls("delete")) == 2


NO_NETWORK = "gcloud crashed (ConnectionError): HTTPSConnectionPool(host='tpu.googleapis.com'): Max retries exceeded"


def silence(*words, looks=4, err="UNAVAILABLE"):
    return [{"words": list(words), "code": 1, "err": err}] * looks


def test_cloud_that_does_not_answer_is_waited_for(pod, resumed):
    """resume.sh gave up after three looks without network, while the run was healthy."""
    pod.set(plan=silence("describe"))
    wait_for(lambda: not pod.plan() or resumed.poll() is not None)
    resumed.terminate()
    told = ended(resumed)
    assert "the pod could not be looked at (exit code 1), waiting for" in told
    assert "failure" not in told and starts(pod) == 1


def test_a_pod_can_be_asked_for_while_the_network_comes_and_goes(pod):
    pod.set(
        states=["NONE"],
        created=["FAILED"],
        plan=silence("describe", err=NO_NETWORK) + silence("create", looks=1, err=NO_NETWORK),
    )
    done = pod.launch("resume", *WORDS, TPU_TRIES="1", TPU_MAX_FAILURES="1")
    assert "the pod was not created (exit code 1), waiting for" in done.stderr
    assert done.returncode == 1 and "it failed: no capacity (exit code 1), failure 1 in a row" in done.stderr


def test_a_worker_that_is_not_reached_is_waited_for(pod, resumed):
    pod.set(plan=[{"words": ["ssh"], "unreachable": [1]}] * 4)
    wait_for(lambda: not pod.plan() or resumed.poll() is not None)
    resumed.terminate()
    told = ended(resumed)
    assert "the workers do not answer (exit code 255), waiting for" in told
    assert "failure" not in told and starts(pod) == 1


def test_a_node_under_repair_is_left_alone(pod, resumed):
    """Three looks at a pod under repair were three failures, and the end."""
    looks = len(pod.calls("tpu-vm", "describe"))
    pod.set(nodes={"pod": "REPAIRING"}, plan=[{"words": ["ssh"], "unreachable": [1]}] * 9)
    wait_for(lambda: len(pod.calls("tpu-vm", "describe")) >= looks + 5 or resumed.poll() is not None)
    assert len(pod.plan()) >= 8, "but for the look that was under way"
    pod.set(nodes={}, plan=[])
    pod.launch("stop")
    told = ended(resumed)
    assert resumed.returncode == 0 and told.count("node pod is REPAIRING, waiting") == 1 and starts(pod) == 1


def test_silence_ends_with_its_code_after_so_long(pod):
    pod.set(plan=silence("describe"))
    done = pod.launch("resume", *WORDS, TPU_SILENCE_S="0", TPU_TRIES="1")
    assert done.returncode == 1 and "giving up; the pod stays" in done.stderr and len(pod.calls()) == 1


def test_a_refusal_of_the_first_look_is_not_waited_for(pod):
    """A mistyped project, or nobody logged in."""
    pod.set(plan=silence("describe", err="PERMISSION_DENIED"))
    done = pod.launch("resume", *WORDS)
    assert done.returncode == 1 and "PERMISSION_DENIED" in done.stderr and len(pod.calls()) == 1


def test_without_a_place_that_outlives_the_pod_it_refuses(pod):
    done = pod.launch("resume", *WORDS, TPU_SHARED="", TPU_TOPOLOGY="v5e:2x4")
    assert done.returncode == 2 and "TPU_SHARED is not set" in done.stderr and pod.calls() == []


@pytest.mark.slow
def test_a_slice_that_came_back_empty_is_set_up_and_all_start_again(pod):
    two = {"TPU_SLICES": "2", "TPU_TRIES": "2"}
    process = resume(pod, **two)
    wait_for(lambda: starts(pod, "pod-0") == starts(pod, "pod-1") == 1)
    for worker in (0, 1):
        home = pod.home(worker, "pod-1")
        supervisor = (home / "xgenmm_launch" / "supervisor").read_text().strip()
        subprocess.run(["pkill", "-KILL", "-g", supervisor], check=False)
        subprocess.run(["rm", "-rf", str(home)], check=True)
    wait_for(lambda: starts(pod, "pod-0") == 2 and starts(pod, "pod-1") == 1)
    process.terminate()
    assert "setting up" in ended(process)


def test_other_commands_than_training_are_for_run(pod):
    done = pod.launch("resume", "evaluate", "runs/mine")
    assert done.returncode == 2 and "launch/run.sh starts other commands" in done.stderr and pod.calls() == []
