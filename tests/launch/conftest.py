"""`pod`: a pod that exists, with two workers that are not set up."""

import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

from launched_pod import CONFIG, PROGRAMS, Pod
import pytest

ROOT = Path(__file__).parents[2]
STUB = ROOT / "tests/fixtures/gcloud_stub.py"


@pytest.fixture(scope="session")
def committed(tmp_path_factory):
    """A repository with the launch scripts and one commit."""
    folder = tmp_path_factory.mktemp("committed") / "a checkout"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "experiments").mkdir()
    for name in ("experiments/stage1.py", "changed.py", "deleted.py", "with space.py"):
        (folder / name).write_text("1\n")
    (folder / ".gitignore").write_text("runs/\n")
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm one"):
        subprocess.run(["git", "-C", str(folder), *words.split()], check=True)
    return folder


@pytest.fixture
def checkout(tmp_path, committed):
    folder = tmp_path / "a checkout"
    shutil.copytree(committed, folder)
    (folder / "changed.py").write_text("2\n")
    (folder / "new.py").write_text("3\n")
    (folder / "deleted.py").unlink()
    (folder / "runs").mkdir()
    (folder / "runs" / "big").write_text("4\n")
    return folder


def make_pod(folder, checkout) -> Pod:
    programs = {**PROGRAMS, "gcloud": f'exec {sys.executable} -SE {STUB} "$@"'}
    (folder / "bin").mkdir()
    for name, text in programs.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    cloud = {"states": ["ACTIVE"], "created": ["ACTIVE"], "plan": [], "workers": 2, "nodes": {}}
    (folder / "cloud.json").write_text(json.dumps(cloud))
    (folder / "tmp").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
    path = f"{folder / 'bin'}:{environment['PATH']}"
    pod = Pod(
        folder, checkout, {**environment, **CONFIG, "PATH": path, "STUB": str(folder), "TMPDIR": str(folder / "tmp")}
    )
    pod.behave("run")
    return pod


@pytest.fixture
def pod(tmp_path, checkout):
    pod = make_pod(tmp_path, checkout)
    yield pod
    pod.kill_runs()


@pytest.fixture(scope="session")
def workers_set_up(tmp_path_factory, committed):
    """The folders of the workers of a pod after setup.sh."""
    pod = make_pod(tmp_path_factory.mktemp("pod"), committed)
    done = pod.launch("setup")
    assert done.returncode == 0, done.stderr
    return pod.folder / "workers"


@pytest.fixture
def ready(pod, workers_set_up):
    """The same pod, set up."""
    shutil.copytree(workers_set_up, pod.folder / "workers")
    return pod
