"""The step of a plan, kept where a run finds it."""

import dataclasses
import logging

import jax
from jax.experimental.compilation_cache import compilation_cache
import pytest
import tiny_run

from xgenmm_jax.cli import plan as command
from xgenmm_jax.planning.kept import STEP, keeping
from xgenmm_jax.planning.program import compile_step, lower_step
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.sharding import MeshConfig, make_mesh


@pytest.fixture(autouse=True)
def own_cache():
    """Not the tests' common one; JAX forgets what it compiled before."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_explain_cache_misses")
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(fsdp=2, tensor=2)])
def test_a_run_compiles_no_step_that_a_plan_kept(tmp_path, mesh, caplog):
    """From shapes alone, of a mesh of one device or more; what it found trains as what it would have compiled."""
    config = dataclasses.replace(tiny_run.config(tiny_run.tokenizer(tmp_path), steps=3), mesh=mesh)
    devices = jax.devices()[: max(mesh.fsdp, 1) * mesh.tensor]
    with keeping(tmp_path / "kept") as said:
        compile_step(lower_step(config, make_mesh(config.mesh, devices))[0], {})
    (kept,) = (tmp_path / "kept").glob(STEP)
    assert f"the step is kept in '{tmp_path}/kept' (" in said() and "no TPU has shown" in said()
    jax.clear_caches()
    jax.config.update("jax_explain_cache_misses", True)
    with caplog.at_level(logging.WARNING, "jax._src.compiler"):
        train(config, tmp_path / "run", devices=devices)
    assert "CACHE MISS for 'jit_draw'" in caplog.text and "CACHE MISS for 'jit_traced'" not in caplog.text
    assert list((tmp_path / "kept").glob(STEP)) == [kept]


def test_nothing_is_kept_that_a_run_would_not_look_for(tmp_path):
    words = ["experiments/nano/stage1.py", "--topology", "v5e:1x1", "--cache", str(tmp_path / "kept")]
    with pytest.raises(ValueError, match="--cache: --search compiles steps of other settings"):
        command.main([*words, "--search"])
    with pytest.raises(ValueError, match="--cache: a run takes the compiler's options from LIBTPU_INIT_ARGS"):
        command.main([*words, "--compiler-option", "xla_tpu_scoped_vmem_limit_kib=98304"])
    assert not (tmp_path / "kept").exists()
