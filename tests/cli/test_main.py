"""What the `xgenmm` command sets up before a subcommand runs."""

import os
import subprocess
import sys

import pytest

from xgenmm_jax.cli import main as cli

PROGRAM = """
import resource
from xgenmm_jax.cli.main import keep_memory

kept = keep_memory()
len(bytes([1]) * (48 << 20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for value in range(4):
    len(bytes([value]) * (48 << 20))
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 4 * (48 << 20) // os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another C library: there is nothing to keep")
@pytest.mark.parametrize(
    "variables, keeps",
    [
        ({"JAX_PLATFORMS": "cpu"}, True),
        ({"JAX_PLATFORMS": "cuda"}, False),
        ({"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "2"}, False),
    ],
)
def test_freed_memory_is_kept_where_the_cpu_computes(variables, keeps):
    """Blocks of 48 MB are always mapped by themselves otherwise (at most 32 MB are not): each is faulted in anew."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**given, **variables}, capture_output=True, text=True, check=True
    )
    keeps_memory, faults = done.stdout.split()
    assert keeps_memory == str(keeps)
    assert int(faults) < PAGES / 10 if keeps else int(faults) > PAGES / 2


@pytest.mark.parametrize(
    "installed, node, set_before, platforms",
    [
        (["libtpu"], "null", None, "cpu"),
        (["libtpu"], "null", "tpu", "tpu"),
        (["libtpu", "jax_plugins"], "null", None, None),
        ([], "null", None, None),
        *((["libtpu"], node, None, None) for node in ("accel0", "vfio/0", "nvidia0", "nvidiactl", "dxg", "kfd")),
    ],
)
def test_libtpu_is_passed_over_where_no_accelerator_is(monkeypatch, tmp_path, installed, node, set_before, platforms):
    """Commands began with five lines of libtpu about a TPU that is not there."""
    monkeypatch.delenv("JAX_PLATFORMS")
    if set_before is not None:
        monkeypatch.setenv("JAX_PLATFORMS", set_before)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    (tmp_path / node).parent.mkdir(exist_ok=True)
    (tmp_path / node).touch()
    cli.pass_over_libtpu(tmp_path)
    assert os.environ.get("JAX_PLATFORMS") == platforms


def test_help_says_what_each_command_does_above_examples_of_it(capsys):
    """It said "train     train: xgenmm train", in lines of 110 columns."""
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    for name in cli.COMMANDS:
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {name} "))
        assert lines[at].split()[1] != name and lines[at + 1].split()[:2] == ["xgenmm", name]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["generate", "run", "--imge", "ok.png", "hi"], "no option --imge; did you mean --image; --help lists all"),
        (["generate", "run", "how", "many"], "'many' belongs to no option"),
        (["generate", "run", "--no-stream"], "STR question (required)"),
        (["generate", "run", "hi", "--max_new_tokens", "x"], "--max-new-tokens: got 'x', wanted a whole number"),
        (["evaluate", "run", "--itms", "3"], "no option --itms; did you mean --items"),
        (["evaluate", "run", "--items", "x"], "--items: got 'x', wanted a whole number or None."),
        (["evaluate"], "A folder that `xgenmm train` wrote"),
        (["plan", "x.py", "--slices", "two"], "xgenmm plan: --slices: got 'two', wanted a whole number; "),
        (["plan", "x.py", "--tokens", "many"], "xgenmm plan: --tokens: got 'many', wanted a number; "),
        (["demo", "--work-dir", "w"], "no option --work-dir; did you mean --workdir"),
        (["convert", "a", "b", "--too", "phi3"], "no option --too; did you mean --to"),
    ],
)
def test_what_is_mistyped_is_one_sentence_and_code_two(monkeypatch, capsys, words, sentence):
    """They were boxes of many lines, and of the question that --imge took away."""
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(cli, "keep_memory", lambda: True)
    with pytest.raises(SystemExit) as exit_:
        cli.main(words)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, error",
    [
        (["data", "check", "tars:gone/*.tar"], "xgenmm data: no file matches 'gone/*.tar'; "),
        (["data", "index"], "xgenmm data index: got no source; "),
        (["train", "gone.py"], "xgenmm train: experiment: no file 'gone.py'."),
        (["convert", "gone", "there"], "xgenmm convert: "),
    ],
)
def test_an_error_names_its_command_once(monkeypatch, tmp_path, capsys, words, error):
    """It said "xgenmm data: data: no file matches"."""
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(cli, "keep_memory", lambda: True)
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    told = capsys.readouterr().err
    assert told.startswith(error) and told.count("\n") == 1
    assert f"{words[0]}: {words[0]}" not in told
