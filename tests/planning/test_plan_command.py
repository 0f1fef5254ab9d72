"""`xgenmm plan` as typed: libtpu compiles, in a process of its own as a user has it."""

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

from xgenmm_jax.planning import program

pytest.importorskip("libtpu")
ROOT = Path(__file__).parents[2]
SMALL = """
from dataclasses import replace
from experiments.nano import recipes, stage1
from xgenmm_jax.training.optimizer import OptimizerConfig

def config():
    '''Nano with one layer a part; its data set is never read.'''
    base = stage1.config()
    model = base.model
    parts = {name: replace(getattr(model, name), layers=1, remat="full") for name in ("vision", "connector", "decoder")}
    return replace(base, name="small", model=replace(model, **parts), optimizer=OptimizerConfig(), steps=1000)
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "small.py"
    path.write_text(SMALL)
    return path


def plan(experiment: Path, *options: str, folder: Path | None = None) -> subprocess.CompletedProcess:
    code = "import sys; from xgenmm_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "", "XLA_FLAGS": "", "COLUMNS": "100"}
    command = [sys.executable, "-c", code, "plan", str(experiment), *options]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=3000)


@pytest.mark.slow
def test_a_small_run_is_planned(experiment, tmp_path):
    """The step compiles for four chips that are not there, and the figures hang together."""
    options = ["--topology", "v5e:2x2", "--data.batch-rows", "8", "--json", "plan.json", "--tokens", "1e9"]
    options += ["--compiler-option", "xla_tpu_scoped_vmem_limit_kib=32768"]
    done = plan(experiment, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "small on v5e:2x2, 4 chips" in done.stdout and "fits: " in done.stdout
    report = json.loads((tmp_path / "plan.json").read_text())
    assert (program.another_libtpu() or "None") in [*done.stdout.splitlines(), "None"]
    assert report["compiler_options"] == {"xla_tpu_scoped_vmem_limit_kib": "32768"}
    assert "LIBTPU_INIT_ARGS=--xla_tpu_scoped_vmem_limit_kib=32768" in done.stdout
    memory = report["memory"]
    assert report["fits"] and report["chips"] == 4 and report["rows_per_chip"] == 2
    assert report["mesh"] == {"replica": 1, "fsdp": 4, "tensor": 1}
    # Two moments of whatever trains, and the tower does not.
    assert 0 < memory["optimizer"] < 2 * memory["parameters"] + 1000
    assert memory["parameters"] + memory["optimizer"] + memory["batch"] < memory["peak"] < memory["available"]
    assert memory["temporaries"] > 0 and memory["code"] > 0 and memory["reference"] == 0
    assert report["collectives"]["all-gather"]["link_bytes"] > 0
    assert all(sent["network_bytes"] == 0 for sent in report["collectives"].values())
    assert report["flops"]["hardware"]["vision"] == report["flops"]["model"]["vision"] > 0
    expected = report["expected"]
    assert expected["chip_hours"] == pytest.approx(1e9 / expected["tokens_per_second"] / 3600 * 4)
    assert set(tmp_path.iterdir()) == {tmp_path / "plan.json"}  # no run folder, no data


def test_bad_compiler_options_are_one_sentence(experiment):
    done = plan(experiment, "--topology", "v5e:2x2", "--compiler-option", "xla_tpu_made_up=1")
    assert done.returncode == 1 and "libtpu knows no 'xla_tpu_made_up'" in done.stderr
    done = plan(experiment, "--topology", "v5e:2x2", "--compiler-option", "xla_tpu_made_up")
    assert done.returncode == 1 and "got 'xla_tpu_made_up', wanted NAME=VALUE" in done.stderr
    done = plan(experiment)
    assert done.returncode == 2 and "--topology --for" in done.stderr and done.stderr.count("\n") == 1
    done = plan(experiment, "--topology", "h200", "--compiler-option", "a=1")
    assert done.returncode == 1 and "nothing is compiled for h200" in done.stderr


@pytest.mark.slow
def test_a_device_of_tpu7x_is_half_a_chip(experiment, tmp_path):
    done = plan(experiment, "--for", "tpu7x:2x2x1", "--json", "plan.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "small on tpu7x:2x2x1, 8 devices" in done.stdout and "GiB of 94.74 GiB a device" in done.stdout
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["chips"] == 4 and report["mesh"]["replica"] * report["mesh"]["fsdp"] * report["mesh"]["tensor"] == 8
    expected = report["expected"]
    assert expected["chip_hours"] == pytest.approx(expected["days"] * 24 * 4)


@pytest.mark.slow
def test_a_step_is_kept_once_and_what_no_tpu_has_shown_is_said(experiment, tmp_path):
    options = ["--topology", "v5e:2x2", "--data.batch-rows", "8", "--cache", "kept"]
    done = plan(experiment, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the step is kept in 'kept' (" in done.stdout and "no TPU has shown yet that it is" in done.stdout
    (kept,) = (tmp_path / "kept").glob("jit_traced-*")
    content = kept.read_bytes()
    again = plan(experiment, *options, folder=tmp_path)
    assert again.returncode == 0 and "'kept' holds steps already" in again.stdout, again.stderr
    assert "Error reading" not in again.stderr and kept.read_bytes() == content
    assert list((tmp_path / "kept").glob("jit_traced-*")) == [kept]


@pytest.mark.slow
def test_two_slices_send_gradients_over_the_network(experiment, tmp_path):
    options = ["--topology", "v5e:2x2", "--slices", "2", "--mesh.replica", "2", "--json", "plan.json"]
    done = plan(experiment, *options, "--data.batch-rows", "8", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["chips"] == 8 and report["mesh"]["replica"] == 2
    gathered = report["collectives"]["all-gather"]
    assert gathered["link_bytes"] > 0 and gathered["network_bytes"] == 0
    assert sum(sent["network_bytes"] for sent in report["collectives"].values()) > 0


@pytest.mark.slow
def test_what_does_not_fit_ends_with_code_3_and_advice(experiment):
    done = plan(experiment, "--topology", "v5e:1x1", "--data.batch-rows", "8192")
    assert done.returncode == 3, done.stderr
    assert "does not fit: the step needs" in done.stdout and "--accumulation 2" in done.stdout


@pytest.mark.slow
def test_a_shape_that_libtpu_refuses(experiment):
    done = plan(experiment, "--topology", "v5e:3x5")
    assert done.returncode == 1 and "which libtpu refuses" in done.stderr and "wanted v5e:16x16" in done.stderr


@pytest.mark.slow
def test_search_prints_settings_that_fit(experiment):
    done = plan(experiment, "--topology", "v5e:2x2", "--search", "--data.batch-rows", "16")
    assert done.returncode == 0, done.stderr
    assert "best settings: --mesh.replica=1" in done.stdout and "tokens/s a chip at most" in done.stderr


@pytest.mark.slow  # 7 minutes of processor time
def test_stage_1_of_the_4b_fits_v5e_with_its_preset(tmp_path):
    """The command of README, docs/launch.md and docs/pods.md."""
    options = ["--for", "v5e:16x16", "--json", "plan.json"]
    done = plan(ROOT / "experiments" / "stage1.py", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["mesh"] == {"replica": 2, "fsdp": 128, "tensor": 1} and report["accumulation"] == 2
    assert report["rows"] == 512 and report["remat"] == "minimal_with_context"
    # Rows have 12 crops, compiled were 16.
    assert 9.5 < report["memory"]["peak"] / 2**30 < 12
