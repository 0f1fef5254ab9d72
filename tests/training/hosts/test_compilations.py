"""Programs of several hosts are kept where all of them find them."""

from pathlib import Path
import re
import shutil
import zlib

from etils import epath
import jax
import pytest
from started_hosts import run_hosts

from xgenmm_jax.cli import compilation_cache
from xgenmm_jax.training.hosts import compilations

NANO = """
import dataclasses
import started_hosts
from experiments.nano import stage1
from xgenmm_jax.training.config import CheckpointConfig
from xgenmm_jax.training.sharding import MeshConfig

started_hosts.same_keys()

def config():
    config = stage1.config()
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=1)
    checkpoint = CheckpointConfig(every_steps=2, every_seconds=0.0)
    return dataclasses.replace(config, steps=4, optimizer=optimizer, checkpoint=checkpoint, mesh=MeshConfig(fsdp=2))
"""
OWN = {"jit_slice", "jit_convert_element_type", "jit__threefry_seed", "jit_schedule", "jit_stage", "jit__identity_fn"}
"""Programs of single arrays: on a host's own device, which their keys name, or before the run may write."""


def missed(stderr: str) -> list[str]:
    """The programs that a process compiled although it has a cache."""
    return re.findall(r"PERSISTENT COMPILATION CACHE MISS for '(\w+)'", stderr)


@pytest.mark.slow
def test_a_second_start_compiles_no_step_on_either_host(tmp_path):
    """Each host had a folder of its own, in which JAX writes on process 0 alone: all others compiled at each start."""
    experiment = NANO.replace("{", "{{").replace("}", "}}")
    explained = {"JAX_EXPLAIN_CACHE_MISSES": "1"}
    first = run_hosts(tmp_path, 2, experiment=experiment, variables=explained)
    assert [process.returncode for process in first] == [0, 0], first
    assert {"jit_traced", "jit_init_state"} <= set(missed(first[0].stderr))  # host 1 may come late to one of them
    kept = [path.name for path in (tmp_path / "run" / compilations.FOLDER).iterdir()]
    assert any(name.startswith("jit_traced-") for name in kept)
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache" / "xgenmm" / "jax").iterdir())
    # The last two steps once more.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    second = run_hosts(tmp_path, 2, experiment=experiment, variables=explained)
    assert [process.returncode for process in second] == [0, 0], second
    for process in second:
        assert set(missed(process.stderr)) <= OWN, process.stderr


@pytest.fixture(autouse=True)
def unchanged_options():
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_enable_xla_caches",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    ("hosts", "before", "after"),
    [
        (2, None, "run/compilation_cache"),
        (1, None, None),
        (2, "", ""),
        (2, "elsewhere", "elsewhere"),
    ],
)
def test_several_hosts_keep_programs_in_their_run_unless_a_folder_is_set(monkeypatch, hosts, before, after):
    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    jax.config.update("jax_compilation_cache_dir", before)
    compilations.share(Path("run"))
    assert jax.config.jax_compilation_cache_dir == after
    assert jax.config.jax_persistent_cache_enable_xla_caches != "none"


def test_a_bucket_keeps_its_scheme_and_nothing_that_opens_local_paths(monkeypatch, unchecked_signatures):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)  # the first looks for torn programs there
    jax.config.update("jax_compilation_cache_dir", None)
    compilations.share(epath.Path("gs://bucket/run"))
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/run/compilation_cache"
    assert jax.config.jax_persistent_cache_enable_xla_caches == "none"


def test_a_program_that_a_killed_host_wrote_in_part_is_compiled_again(tmp_path, caplog):
    """JAX writes nothing over a file that is there, so it would warn and compile at every start on every host."""
    whole = zlib.compress(b"program" * 1000)
    changed = whole[:20] + b"???" + whole[23:]
    contents = {"a": whole, "cut": whole[:-9], "empty": b"", "changed": changed, "zstd": b"\x28\xb5"}
    for name, content in contents.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
    compilations.delete_torn(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a-cache", "zstd-cache"}
    assert f"'{tmp_path}/cut-cache' was not written to its end and is deleted" in caplog.text
    compilations.delete_torn(tmp_path / "not there")


@pytest.mark.parametrize(("hosts", "given", "stays"), [(2, None, False), (2, "named", True), (1, None, True)])
def test_only_the_default_folder_is_left_for_the_run(tmp_path, monkeypatch, hosts, given, stays):
    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "put back when the test ends")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    if given is None:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    else:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", given)
    monkeypatch.setattr(compilation_cache, "_is_named", True)
    compilation_cache.keep_compilations()
    jax.config.update("jax_compilation_cache_dir", "set")
    compilation_cache.leave_to_run()
    assert (jax.config.jax_compilation_cache_dir == "set") == stays
