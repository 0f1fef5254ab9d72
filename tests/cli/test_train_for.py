"""`xgenmm train FILE --for TOPOLOGY`, and what is said of memory before anything is opened."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import NonCallableMock

import jax
import pytest

from xgenmm_jax.cli import main as cli
from xgenmm_jax.planning.topology import find_topology

ROOT = Path(__file__).parents[2]
STAGE1 = str(ROOT / "experiments" / "stage1.py")


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """What `train` is called with; none is run."""
    seen = []

    def record(config, folder):
        seen.append(config)
        return SimpleNamespace(signal=None)

    monkeypatch.setattr("xgenmm_jax.training.loop.train", record)
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.chdir(tmp_path)
    return seen


@pytest.fixture
def pod(monkeypatch):
    """256 chips, as libtpu describes them."""
    pytest.importorskip("libtpu")
    devices = list(find_topology("v5e:16x16").devices)
    monkeypatch.setattr(jax, "devices", lambda *_: devices)


def test_the_settings_are_set_told_and_changed_by_what_is_typed(trained, pod, capsys):
    assert cli.main(["train", STAGE1, "--for", "v5e:16x16"]) == 0
    assert cli.main(["train", STAGE1, "--for=v5e:16x16", "--model.decoder.remat", "full", "--steps", "7"]) == 0
    preset, changed = trained
    assert (preset.mesh.replica, preset.mesh.fsdp, preset.accumulation) == (2, 128, 2)
    assert preset.model.decoder.remat == "minimal_with_context" and preset.steps == 48_657
    assert (changed.model.decoder.remat, changed.steps, changed.accumulation) == ("full", 7, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("xgenmm train: for v5e:16x16: mesh replica 2 x fsdp 128") and lines[0].endswith(".")
    assert len(lines) == 3, "the changed one is estimated"
    assert "by the estimate a step takes" in lines[2] and lines[2].endswith("on v5e:16x16: it should fit.")


def test_what_cannot_fit_ends_before_anything_is_written(trained, pod, capsys):
    assert cli.main(["train", STAGE1, "--workdir", "mine"]) == 1
    error = capsys.readouterr().err
    assert "it does not fit; add --for v5e:16x16" in error and error.count("\n") == 1
    assert not trained and not Path("mine").exists()
    assert cli.main(["train", STAGE1, "--workdir", "mine", "--ignore-estimate"]) == 0
    assert "it does not fit" in capsys.readouterr().err and len(trained) == 1


def test_none_is_the_experiment_as_it_stands(trained, capsys):
    assert cli.main(["train", STAGE1, "--for", "none"]) == 0
    assert cli.main(["train", STAGE1]) == 0
    assert trained[0] == trained[1] and capsys.readouterr().err == "", "nothing is said on a CPU"


def test_other_devices_than_those_are_refused(trained, capsys):
    assert cli.main(["train", STAGE1, "--for", "h200"]) == 1
    count = len(jax.devices())
    assert f"--for: h200 has 1 devices, but here are {count} (cpu)" in capsys.readouterr().err and not trained


def test_help_shows_the_values_of_the_topology(capsys):
    assert cli.main(["train", STAGE1, "--for", "h200", "--help"]) == 0
    page = capsys.readouterr().out
    assert "--for " in page and "--ignore-estimate" in page
    accumulation = page.split("--accumulation")[1].split("--mesh.replica")[0]
    assert "[512]" in accumulation


def test_one_gpu_gets_its_line(trained, monkeypatch, capsys):
    gpu = NonCallableMock(
        spec=jax.Device, device_kind="NVIDIA H200", platform="gpu", process_index=0, memory_stats=lambda: None
    )
    del gpu.slice_index
    monkeypatch.setattr(jax, "devices", lambda *_: [gpu])
    assert cli.main(["train", STAGE1, "--for", "h200"]) == 0
    error = capsys.readouterr().err
    assert "for h200: mesh replica 1 x fsdp 1 x tensor 1" in error and "by the estimate, not compiled" in error
