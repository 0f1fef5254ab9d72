"""Devices that were asked for and are not there."""

from pathlib import Path

from command_runs import EXPERIMENT, environment, one_line, xgenmm
import pytest

from xgenmm_jax.cli import errors
from xgenmm_jax.cli import main as cli
from xgenmm_jax.training.hosts import distributed


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    return tmp_path


@pytest.mark.parametrize("platforms", ["cuda", "nonsense", "cpu,rocm"])
def test_devices_that_are_not_there_are_one_sentence(experiment, platforms):
    """It was a traceback through JAX, for CUDA one that ends in an assertion without a word."""
    done = xgenmm("train", "mine.py", "--workdir", "w", cwd=experiment, env=environment(JAX_PLATFORMS=platforms))
    assert done.returncode == 1 and one_line(done.stderr), done.stderr
    assert f"devices: JAX_PLATFORMS={platforms} asks for what JAX does not find" in done.stderr
    assert "leave JAX_PLATFORMS away, or set it to cpu" in done.stderr and not (experiment / "w").exists()


@pytest.mark.parametrize(
    "error, variables, seen, plugin, words",
    [
        (
            "Unable to initialize backend 'cuda': FAILED_PRECONDITION: No visible GPU devices. (set JAX_PLATFORMS=",
            {"JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": ""},
            ("/dev/nvidia0",),
            True,
            ("(FAILED_PRECONDITION: No visible GPU devices)", "this machine has /dev/nvidia0", "hides all GPUs"),
        ),
        (
            "Unable to initialize backend 'cuda': no driver\nat all (you may need to uninstall the failing plugin",
            {},
            (),
            True,
            ("JAX does not start (no driver at all)", "shows no GPU and no TPU", "JAX_PLATFORMS=cpu computes without"),
        ),
        (
            "Unknown backend: 'gpu' requested, but no platforms that are instances of gpu are present. Platforms",
            {"JAX_PLATFORMS": "cpu"},
            ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia3"),
            False,
            ("'gpu' requested", "has /dev/nvidia0, /dev/nvidia1, /dev/nvidia2, and JAX is installed without CUDA"),
        ),
    ],
)
def test_devices_are_told_with_what_is_there(monkeypatch, error, variables, seen, plugin, words):
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sentence = errors.devices_sentence(RuntimeError(error), [Path(node) for node in seen], plugin)
    assert sentence is not None and "\n" not in sentence and all(word in sentence for word in words), sentence


def test_other_errors_are_shown_whole(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for error in (RuntimeError("a bug"), AssertionError("ours"), TypeError("x"), KeyError("backend")):
        assert cli.say(error) is None
    monkeypatch.delenv("JAX_PLATFORMS")
    assert cli.say(AssertionError()) is None


def test_a_pod_that_is_asked_for_and_not_there_is_told(monkeypatch):
    def initialize(*arguments, **options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(distributed, "on_tpu_host", lambda: True)
    monkeypatch.setattr("jax.distributed.initialize", initialize)
    with pytest.raises(ValueError, match="asks for a TPU host, which .* does not look like .*--distributed.p"):
        distributed.start(distributed.Distributed())
