"""The scripts of launch/ against a recording gcloud, with folders for workers."""

from dataclasses import dataclass
import fcntl
import json
from pathlib import Path
import subprocess
import time

PATIENCE_S = 300.0
"""Only what hangs is cut off: other work may leave the tests little of the machine."""

CURL = 'echo "$STUB_WORKER"'  # the metadata server's answer: the worker's index
PYTHON = "exit 0"
GCSFUSE = 'echo "$@" >"$HOME/mounted"'
MOUNTPOINT = 'test -e "$HOME/mounted"'
# `make setup` leaves an xgenmm that notes its words, folder and environment, and ends as the file `behaviour` says.
MAKE = r"""
echo "$@" >>"$HOME/make"
test ! -e "$STUB/make_fails" || exit 4
mkdir -p "$HOME/xgenmm_launch/venv/bin"
cat >"$HOME/xgenmm_launch/venv/bin/xgenmm" <<'END'
#!/bin/bash
printf '%s\0' "$@" >"$HOME/argv.$BASHPID" && mv "$HOME/argv.$BASHPID" "$HOME/argv"
echo "$PWD $LIBTPU_INIT_ARGS" >"$HOME/place"
echo started >>"$HOME/starts"
echo "loss 1.234"
trap 'echo saved; exit 143' TERM
case $(cat "$STUB/behaviour") in
  run) for ((i = 0; i < 600; i++)); do sleep 0.05; done ;;
  stubborn) trap '' TERM; for ((i = 0; i < 600; i++)); do sleep 0.05; done ;;
  exit*) exit "$(sed 's/exit //' "$STUB/behaviour")" ;;
esac
END
chmod +x "$HOME/xgenmm_launch/venv/bin/xgenmm"
"""
PROGRAMS = {"curl": CURL, "python3.12": PYTHON, "make": MAKE, "gcsfuse": GCSFUSE, "mountpoint": MOUNTPOINT}
CONFIG = {
    "TPU_PROJECT": "my-project",
    "TPU_ZONE": "us-west4-a",
    "TPU_NAME": "pod",
    "TPU_SHARED": "gs://bucket/folder",
    "TPU_BACKOFF_S": "0",
    "TPU_POLL_S": "0",
}


@dataclass
class Pod:
    """What a test sees of it."""

    folder: Path
    checkout: Path
    """A small repository with the scripts: a commit, and changes since."""
    environment: dict[str, str]

    def set(self, **values) -> None:
        """Of cloud.json: states, created, plan, workers, nodes."""
        with (self.folder / "cloud.json").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            cloud = {**json.load(file), **values}
            file.seek(0)
            file.truncate()
            json.dump(cloud, file)

    def plan(self) -> list[dict]:
        """Of cloud.json, what is left of it."""
        with (self.folder / "cloud.json").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return json.load(file)["plan"]

    def behave(self, text: str) -> None:
        (self.folder / "behaviour").write_text(text)

    def launch(self, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(self.checkout / "launch" / f"{script}.sh"), *words],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def calls(self, *words: str) -> list[list[str]]:
        """Of gcloud, those that hold the words."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if set(words) <= set(call)]

    def home(self, worker: int = 0, node: str = "pod") -> Path:
        return self.folder / "workers" / node / str(worker)

    def argv(self, worker: int = 0, node: str = "pod") -> list[str]:
        """The words that xgenmm got on a worker."""
        path = self.home(worker, node) / "argv"
        wait_for(path.exists)
        return path.read_text().split("\0")[:-1]

    def kill_runs(self) -> None:
        for path in self.folder.glob("workers/*/*/xgenmm_launch/supervisor"):
            subprocess.run(["pkill", "-KILL", "-g", path.read_text().strip()], check=False)


def wait_for(condition, seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
