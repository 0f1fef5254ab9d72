"""What is asked of Cloud, what is refused, and whose exit code comes back."""

import pytest

WHERE = ["--project=my-project", "--zone=us-west4-a"]
CREATE = ["compute", "tpus", "queued-resources", "create", "pod"]
QUOTA = {"words": ["create"], "code": 1, "err": "ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit exceeded"}


@pytest.mark.parametrize("capacity, words", [("spot", ["--spot"]), ("reserved", ["--reserved"]), ("on-demand", [])])
def test_one_slice_of_each_capacity(pod, capacity, words):
    pod.set(states=["NONE"], created=["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    done = pod.launch("create", TPU_CAPACITY=capacity, TPU_TOPOLOGY="v5e:16x16")
    assert done.returncode == 0, done.stderr
    type_and_image = ["--accelerator-type=v5litepod-256", "--runtime-version=v2-alpha-tpuv5-lite"]
    assert pod.calls("create") == [[*CREATE, "--node-id=pod", *type_and_image, *words, *WHERE]]
    assert [line.split(" is ")[1] for line in done.stderr.splitlines()] == [
        "WAITING_FOR_RESOURCES.",
        "PROVISIONING.",
        "ACTIVE.",
    ]


def test_slices_are_nodes_of_one_queued_resource(pod):
    pod.set(states=["NONE"])
    flags = "--network=mine --internal-ips"
    assert pod.launch("create", TPU_SLICES="2", TPU_TOPOLOGY="v4:4x4x4", TPU_CREATE_FLAGS=flags).returncode == 0
    [call] = pod.calls("create")
    assert call[5:] == [
        "--node-count=2",
        "--node-prefix=pod",
        "--type=v4",
        "--topology=4x4x4",
        "--runtime-version=tpu-ubuntu2204-base",
        "--spot",
        "--network=mine",
        "--internal-ips",
        *WHERE,
    ]


@pytest.mark.parametrize(
    "variables, words",
    [
        ({"TPU_PROJECT": ""}, "TPU_PROJECT is not set; edit launch/config.sh"),
        ({"TPU_ZONE": ""}, "TPU_ZONE is not set"),
        ({"TPU_NAME": ""}, "TPU_NAME is not set"),
        ({"TPU_NAME": "My_Pod"}, "TPU_NAME: got 'My_Pod'"),
        ({"TPU_SLICES": "two"}, "TPU_SLICES: got 'two'"),
        ({"TPU_CAPACITY": "cheap"}, "wanted spot, reserved or on-demand"),
        ({"TPU_TOPOLOGY": "v5e:3x3"}, "a v5e slice has one of the shapes"),
    ],
)
@pytest.mark.parametrize("script", ["create", "delete", "status"])
def test_unset_or_mistyped_settings_are_refused_before_cloud_is_asked(pod, script, variables, words):
    done = pod.launch(script, *(["pod"] if script == "delete" else []), **variables)
    assert done.returncode == 2 and words in done.stderr
    assert pod.calls() == []


@pytest.mark.parametrize("script", "create delete logs resume run setup status stop".split())
def test_unknown_words_are_usage_errors_and_help_is_not(pod, script):
    done = pod.launch(script, "--bogus")
    assert done.returncode == 2 and f"usage: launch/{script}.sh" in done.stderr and pod.calls() == []
    done = pod.launch(script, "--help")
    assert done.returncode == 0 and f"usage: launch/{script}.sh" in done.stdout and pod.calls() == []


def test_a_pod_that_exists_is_not_created_again(pod):
    done = pod.launch("create")
    assert done.returncode == 0 and "exists and is ACTIVE; nothing is created" in done.stderr
    assert pod.calls("create") == []


def test_create_never_deletes_a_suspended_pod(pod):
    pod.set(states=["SUSPENDED"])
    done = pod.launch("create")
    assert done.returncode == 1 and "launch/delete.sh pod first" in done.stderr
    assert pod.calls("create") == pod.calls("delete") == []


def test_clouds_refusal_passes_through_at_once(pod):
    pod.set(states=["NONE"], plan=[QUOTA])
    done = pod.launch("create")
    assert done.returncode == 1 and "Quota limit exceeded" in done.stderr
    assert len(pod.calls("create")) == 1
    pod.set(plan=[{"words": ["describe"], "code": 3, "err": "PERMISSION_DENIED"}])
    done = pod.launch("create")
    assert done.returncode == 3 and "PERMISSION_DENIED" in done.stderr


def test_a_network_failure_is_tried_again_a_limited_number_of_times(pod):
    failure = {"words": ["create"], "code": 1, "err": "UNAVAILABLE: try later"}
    pod.set(states=["NONE"], plan=[failure] * 2)
    assert pod.launch("create").returncode == 0
    assert len(pod.calls("create")) == 3
    pod.set(states=["NONE"], plan=[failure] * 9)
    assert pod.launch("create", TPU_TRIES="2").returncode == 1
    assert len(pod.calls("create")) == 5


def test_a_create_that_was_cut_off_behind_the_server_counts(pod):
    pod.set(states=["NONE", "ACTIVE"], plan=[{"words": ["create"], "code": 1, "err": "ALREADY_EXISTS"}])
    assert pod.launch("create").returncode == 0


def test_a_pod_that_fails_says_why(pod):
    pod.set(states=["NONE"], created=["PROVISIONING", "FAILED"])
    done = pod.launch("create")
    assert done.returncode == 1 and "will not become ACTIVE: no capacity" in done.stderr


def test_deleting_needs_the_name_and_deletes_nothing_else(pod):
    for words in ([], ["other"], ["pod", "other"]):
        assert pod.launch("delete", *words).returncode == 2
    assert pod.calls() == []
    assert pod.launch("delete", "pod").returncode == 0
    assert pod.calls("delete") == [
        ["compute", "tpus", "queued-resources", "delete", "pod", "--force", "--quiet", *WHERE]
    ]
    done = pod.launch("delete", "pod")
    assert done.returncode == 0 and "nothing is deleted" in done.stderr
    assert len(pod.calls("delete")) == 1


@pytest.mark.parametrize(
    "script, words, kind",
    [
        ("create", [], "create"),
        ("setup", [], "scp"),
        ("run", ["experiments/stage1.py"], "ssh"),
        ("stop", [], "ssh"),
        ("logs", [], "ssh"),
        ("delete", ["pod"], "delete"),
    ],
)
def test_dry_run_prints_the_commands_and_calls_nothing(pod, script, words, kind):
    done = pod.launch(script, "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    assert pod.calls() == []
    lines = done.stdout.splitlines()
    assert all(line.startswith("gcloud compute tpus ") for line in lines)
    assert any(f" {kind} pod" in line or f" {kind} " in line for line in lines)
