"""The scripts as such: shellcheck, and the parser of the real gcloud where it is installed."""

import os
from pathlib import Path
import shlex
import shutil
import subprocess
import sysconfig

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
TWO_SLICES = {"TPU_SLICES": "2", "TPU_TOPOLOGY": "v4:4x4x4"}


def test_shellcheck_finds_nothing():
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    words = [str(shellcheck), "--external-sources", *map(str, sorted(LAUNCH.glob("*.sh")))]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_can_be_called():
    parts = {"config", "lib", "topology", "workers", "code", "worker"}
    for path in LAUNCH.glob("*.sh"):
        assert os.access(path, os.X_OK) == (path.stem not in parts), path


@pytest.mark.slow  # gcloud takes a second or two for each
@pytest.mark.parametrize("variables", [{}, TWO_SLICES, {"TPU_CAPACITY": "reserved", "TPU_TOPOLOGY": "v6e:16x16"}])
def test_the_real_gcloud_understands_every_command(pod, variables):
    """It parses the words first (2: mistyped), and then stops for want of an account (1)."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed")
    printed = []
    calls = {"create": [], "setup": [], "run": ["experiments/stage1.py"], "stop": [], "logs": [], "delete": ["pod"]}
    for script, words in calls.items():
        printed += pod.launch(script, "--dry-run", *words, **variables).stdout.splitlines()
    pod.launch("status", **variables)
    printed += [shlex.join(["gcloud", *call]) for call in pod.calls("describe")]
    # No configuration, no account of the machine, and an address where nobody listens: nothing can be created.
    nowhere = {"CLOUDSDK_CONFIG": str(pod.folder), "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false"}
    nowhere |= {"CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": "http://127.0.0.1:1/", "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    assert len(printed) >= 8
    for line in printed:
        words = [gcloud, *shlex.split(line)[1:]]
        if "scp" in words:  # it looks at the files first, which dry runs do not leave
            words = [__file__ if word.startswith("/") and word != gcloud else word for word in words]
        done = subprocess.run(words, env={**os.environ, **nowhere}, capture_output=True, text=True)
        assert done.returncode == 1 and "active account" in done.stderr, f"{line}\n{done.stderr}"
