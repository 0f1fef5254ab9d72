"""`xgenmm plan` where nothing is compiled: GPUs that are not here, --estimate, and which libtpu compiled."""

import importlib.metadata
import json
from pathlib import Path
from unittest.mock import NonCallableMock

import jax
import pytest

from experiments import stage1
from xgenmm_jax.cli import main as cli
from xgenmm_jax.cli import plan as command
from xgenmm_jax.planning import plan as planning
from xgenmm_jax.planning import program, topology
from xgenmm_jax.planning.topology import named_topology
from xgenmm_jax.training.sharding import make_mesh

ROOT = Path(__file__).parents[2]
STAGE1 = str(ROOT / "experiments" / "stage1.py")


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """The command sets what JAX reads when it is imported, which it is already."""
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(command, "prepare_environment", lambda name: None)


def test_gpus_that_are_not_here_are_estimated(tmp_path, capsys):
    file = tmp_path / "plan.json"
    assert cli.main(["plan", STAGE1, "--for", "h200:8", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("for h200:8: mesh replica 1 x fsdp 8") and "4b/stage1 on h200:8, 8 chips" in printed
    assert "by the estimate, nothing is compiled" in " ".join(printed.split())
    assert "should fit, by the estimate: " in printed and "libtpu" not in printed
    report = json.loads(file.read_text())
    estimate = report["estimate"]
    assert estimate["least"] < estimate["bytes"] < estimate["most"] < report["memory"]["available"]
    assert "--accumulation=16" in report["settings"] and report["fits"]
    expected = report["expected"]
    assert expected["tokens_per_second"] * 3600 * expected["chip_hours"] == pytest.approx(report["tokens"] * 8)
    assert expected["tokens_per_second"] < report["bound"]["tokens_per_second"]


def test_the_estimate_needs_no_compiler_for_tpus_either(capsys):
    assert cli.main(["plan", STAGE1, "--topology", "v5e:16x16", "--estimate"]) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "does not fit by the estimate: " in printed and "take fewer rows at a time (--accumulation 2)" in printed
    assert cli.main(["plan", STAGE1, "--topology", "v5e:16x16", "--estimate", "--search"]) == 0
    assert "best settings: --mesh.replica=" in capsys.readouterr().out
    assert cli.main(["plan", STAGE1, "--for", "2xv5e:16x16", "--estimate", "--data.batch-rows", "640"]) == 1
    assert "batch: got 640 rows" in capsys.readouterr().err
    assert cli.main(["plan", STAGE1, "--topology", "2xv5e:16x16", "--estimate"]) == 1
    assert "got replica 1 for 2 slices" in capsys.readouterr().err


def test_gpus_of_this_machine_are_compiled_for(monkeypatch):
    gpu = NonCallableMock(spec=jax.Device, device_kind="NVIDIA H200")
    monkeypatch.setattr(topology.jax, "devices", lambda: [gpu] * 4)
    assert topology.find_topology("h200:2").devices == (gpu, gpu)
    assert topology.find_topology("h200:8").is_named and topology.find_topology("h100").is_named


def test_what_a_gpus_compiler_lets_through_is_refused_by_its_memory(monkeypatch):
    config = stage1.config()
    memory = program.Memory(*[0] * 8, peak=int(200e9))
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    monkeypatch.setattr(planning, "make_mesh", lambda *_: mesh)
    monkeypatch.setattr(planning, "lower_step", lambda *_: (None, None))
    monkeypatch.setattr(planning, "compile_step", lambda *_: None)
    monkeypatch.setattr(planning, "memory_of", lambda *_: memory)
    made = planning.make_plan("4b", config, named_topology("h200"), {}, 0.5, 1e9)
    assert not made.fits and made.advice.startswith("does not fit: the step needs 186.26 GiB of 98.49 GiB a chip")


@pytest.mark.parametrize(
    "needs, used, is_told",
    [
        (["numpy", 'libtpu==0.0.42.*; extra == "tpu"'], "0.0.51", True),
        (['libtpu==0.0.42.*; extra == "tpu"'], "0.0.42.1", False),
        (['libtpu==0.0.50; extra == "tpu"'], "0.0.50", False),
        (["numpy"], "0.0.51", False),
        (['libtpu==0.0.50; extra == "tpu"'], None, False),
    ],
)
def test_another_libtpu_than_the_runs_is_told(monkeypatch, needs, used, is_told):
    """The plan's was pinned, and every jax[tpu] has another."""
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needs)
    monkeypatch.setattr(program, "installed", lambda name: used if name == "libtpu" else "0.10.2")
    told = program.another_libtpu()
    assert (told is not None) == is_told
    if told is not None:
        assert told.startswith("compiled with libtpu 0.0.51; a run with jax 0.10.2 has 0.0.42 ")
