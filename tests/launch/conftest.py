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
STUB = Path(__file__).parent / "gcloud_stub.py"


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


@pytest.fixture
def pod(tmp_path, checkout):
    programs = {**PROGRAMS, "gcloud": f'exec {sys.executable} -SE {STUB} "$@"'}
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    cloud = {"states": ["ACTIVE"], "created": ["ACTIVE"], "plan": [], "workers": 2, "nodes": {}}
    (tmp_path / "cloud.json").write_text(json.dumps(cloud))
    (tmp_path / "tmp").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
    path = f"{tmp_path / 'bin'}:{kept['PATH']}"
    pod = Pod(
        tmp_path, checkout, {**kept, **CONFIG, "PATH": path, "STUB": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    )
    pod.behave("run")
    yield pod
    pod.kill_runs()
    shutil.rmtree(tmp_path / "workers", ignore_errors=True)
