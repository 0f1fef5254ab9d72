"""What the workers get, and from where."""

import subprocess

import pytest


def test_every_worker_gets_the_checkout_as_it_is_and_its_commit(pod, checkout):
    done = pod.launch("setup", TPU_SLICES="2")
    assert done.returncode == 0, done.stderr
    commit = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    for node in ("pod-0", "pod-1"):
        for worker in (0, 1):
            code = pod.home(worker, node) / "xgenmm_jax"
            names = {path.name for path in code.iterdir()}
            assert names == {".git", ".gitignore", "launch", "experiments", "changed.py", "with space.py", "new.py"}
            assert (code / "changed.py").read_text() == "2\n"
            assert f"[{node[-1]}.{worker}] ready: {commit[:7]}-dirty" in done.stdout
            home = pod.home(worker, node)
            # The environment lies outside of the checkout, so that a new one keeps it.
            venv = f"VENV={home}/xgenmm_launch/venv"
            made = (home / "make").read_text().split()
            assert made == ["-C", str(code), "setup", "ACCELERATOR=tpu", venv, f"PYTHON={pod.folder}/bin/python3.12"]
    assert "::launch" not in done.stdout
    assert list((pod.folder / "tmp").iterdir()) == []  # nothing is left behind


def test_it_may_be_repeated_and_replaces_the_code(pod, checkout):
    assert pod.launch("setup").returncode == 0
    (checkout / "new.py").unlink()
    assert pod.launch("setup").returncode == 0
    assert not (pod.home() / "xgenmm_jax" / "new.py").exists()
    assert (pod.home() / "mounted").read_text().count("\n") == 1


def test_a_commit_of_a_repository_is_cloned_by_the_workers(pod, checkout):
    commit = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    done = pod.launch("setup", TPU_CODE=f"file://{checkout}@{commit[:12]}")
    assert done.returncode == 0, done.stderr
    code = pod.home(1) / "xgenmm_jax"
    assert (code / "changed.py").read_text() == "1\n" and (code / "deleted.py").exists()
    assert f"[0.1] ready: {commit[:7]}\n" in done.stdout
    [call] = pod.calls("scp")
    assert [word for word in call if word.endswith(".gz")] == []


@pytest.mark.parametrize("code", ["https://host/repository", "https://host/repository@main", "elsewhere"])
def test_code_without_a_commit_is_refused(pod, code):
    done = pod.launch("setup", TPU_CODE=code)
    assert done.returncode == 2 and "wanted checkout or URL@COMMIT" in done.stderr


def test_a_bucket_is_mounted_by_folder_without_caches(pod):
    assert pod.launch("setup").returncode == 0
    options = "--implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 --only-dir=folder"
    assert (pod.home() / "mounted").read_text() == f"{options} bucket {pod.home()}/xgenmm_shared\n"


def test_data_are_mounted_apart_read_only_and_their_names_are_kept(pod):
    """Of runs nothing may be kept, so every opening of a record file asked the bucket."""
    assert pod.launch("setup", TPU_DATA="gs://other/prepared").returncode == 0
    runs, data = (pod.home() / "mounted").read_text().splitlines()
    assert runs.endswith(f"--only-dir=folder bucket {pod.home()}/xgenmm_shared")
    options = "-o ro --implicit-dirs --metadata-cache-ttl-secs=-1 --stat-cache-max-size-mb=-1"
    options += " --type-cache-max-size-mb=-1 --kernel-list-cache-ttl-secs=-1 --only-dir=prepared"
    assert data == f"{options} other {pod.home()}/xgenmm_shared/data"
    # Once, and again after a reboot.
    assert pod.launch("run", "experiments/stage1.py").returncode == 0
    assert len((pod.home() / "mounted").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "variables, sentence",
    [
        ({"TPU_DATA": "/mnt/data"}, "TPU_DATA: got '/mnt/data', wanted gs://BUCKET"),
        ({"TPU_DATA": "gs://data", "TPU_SHARED": "", "TPU_TOPOLOGY": "v5e:2x4"}, "TPU_SHARED, which is not set"),
    ],
)
def test_data_that_cannot_be_mounted_are_refused(pod, variables, sentence):
    done = pod.launch("setup", **variables)
    assert done.returncode == 2 and sentence in done.stderr and pod.calls() == []


def test_a_folder_that_cannot_rename_folders_is_refused(pod):
    """A bucket without hierarchical namespace would fail at the first checkpoint, hours later."""
    (pod.folder / "bin" / "mv").write_text('#!/bin/bash\n[[ $1 != -T ]] || exit 1\nexec /bin/mv "$@"\n')
    (pod.folder / "bin" / "mv").chmod(0o755)
    done = pod.launch("setup")
    assert done.returncode == 1 and "cannot rename a folder; give a bucket made with" in done.stdout
    assert list((pod.home() / "xgenmm_shared").iterdir()) == []


def test_a_worker_that_cannot_be_set_up_is_named(pod):
    (pod.folder / "make_fails").touch()
    done = pod.launch("setup")
    assert done.returncode == 4
    assert "pod: worker 0 failed with exit code 4" in done.stderr and "worker 1 failed" in done.stderr
    assert len(pod.calls("ssh")) == 1  # the worker answered: asking again would change nothing


def test_a_pod_that_is_not_active_is_not_set_up(pod):
    pod.set(states=["PROVISIONING"])
    done = pod.launch("setup")
    assert done.returncode == 1 and "'pod' is PROVISIONING, wanted ACTIVE" in done.stderr


def test_a_copy_that_the_network_broke_is_made_again(pod):
    pod.set(plan=[{"words": ["scp"], "code": 255, "err": "lost"}] * 2)
    assert pod.launch("setup").returncode == 0
    assert len(pod.calls("scp")) == 3


def test_a_copy_that_gcloud_refuses_is_not(pod):
    pod.set(plan=[{"words": ["scp"], "code": 1, "err": "SSH Key is not present in the SSH agent."}])
    done = pod.launch("setup")
    assert done.returncode == 1 and "SSH agent" in done.stderr and pod.calls("ssh") == []
