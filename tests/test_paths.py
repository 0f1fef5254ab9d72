"""Paths as people type them, in commands, configs and Python."""

import dataclasses
import os
from pathlib import Path
import pwd
import subprocess
import sys

import pytest

import xgenmm_jax
from xgenmm_jax import paths
from xgenmm_jax.cli import main as cli
from xgenmm_jax.cli.options import take_option
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer
from xgenmm_jax.training.config import Initialize

TRAINING_TESTS = Path(__file__).parent / "training"
EXPERIMENT = """
import dataclasses
import toy_run

def config():
    return dataclasses.replace(toy_run.config(), name="mine")
"""
EMPTY = ("", " ", "\t", "\n ")


@pytest.fixture
def nobody(monkeypatch):
    """A user without a home folder, as in a container that is started with another user's number."""
    monkeypatch.delenv("HOME", raising=False)

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The folders that runs were started in; the loop itself is left out."""
    folders = []

    def record(config, folder):
        folders.append(folder)
        return type("Result", (), {"signal": None})()

    monkeypatch.setattr("xgenmm_jax.training.loop.train", record)
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.syspath_prepend(str(TRAINING_TESTS))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    return folders


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("~", "/home/me"),
        ("~/", "/home/me"),
        ("~//runs/a", "/home/me/runs/a"),
        ("~/a b/[c]", "/home/me/a b/[c]"),
        ("./~", "~"),
        ("a/~/b", "a/~/b"),
        ("~nobody-of-that-name.png", "~nobody-of-that-name.png"),
        (Path("~/runs"), "/home/me/runs"),
        ("-x", "-x"),
        ("/a/../b", "/a/../b"),
    ],
)
def test_a_tilde_that_begins_a_path_is_home(monkeypatch, typed, expected):
    """In quotes, behind an equals sign and in configs the shell leaves it; a folder `~` was made."""
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.user_path(typed, "--workdir") == Path(expected)


def test_anothers_home_is_that_of_the_list_of_users():
    root = pwd.getpwuid(0)
    assert paths.user_path(f"~{root.pw_name}/x", "run") == Path(root.pw_dir) / "x"


@pytest.mark.parametrize("given", ["", "relative/home", "~"])
def test_a_home_that_is_no_path_is_looked_up(monkeypatch, given):
    monkeypatch.setenv("HOME", given)
    assert paths.home() == Path(pwd.getpwuid(os.getuid()).pw_dir)


def test_without_a_home_other_paths_are_read_and_a_tilde_is_told(nobody):
    assert paths.home() is None and paths.user_path("runs/a", "run") == Path("runs/a")
    with pytest.raises(ValueError, match=r"--workdir: got '~/runs', but no home folder is known .* write it out"):
        paths.user_path("~/runs", "--workdir")


@pytest.mark.parametrize("empty", EMPTY)
def test_an_empty_path_is_refused(empty):
    with pytest.raises(ValueError, match="--image: got the empty path '.*'; give one .was a variable of the shell"):
        paths.user_path(empty, "--image")


def test_what_is_no_path_is_refused():
    for wrong in (None, 3, b"runs", ["runs"]):
        with pytest.raises(ValueError, match=f"load: got a {type(wrong).__name__}, wanted a path"):
            paths.user_path(wrong, "load")
    with pytest.raises(ValueError, match="zero byte"):
        paths.user_path("a\0b", "load")


@pytest.mark.parametrize("name", [b"r\xff", b"caf\xe9/run", b"\x80"])
def test_a_run_whose_name_is_no_utf8_is_told(tmp_path, monkeypatch, name):
    """Checkpoints ended in a cast of C++ that failed, behind the first steps."""
    with pytest.raises(ValueError, match=r"--workdir: the name of '.*udc.*is not UTF-8.*rename it"):
        paths.run_path(os.fsdecode(name), "--workdir")
    folder = tmp_path / os.fsdecode(name.split(b"/")[0])
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match="or of a folder that it lies in, is not UTF-8"):
        paths.run_path("run", "--workdir")
    assert paths.user_path(os.fsdecode(name), "--image") == Path(os.fsdecode(name))


@pytest.mark.parametrize(
    "words",
    [
        ["train", "mine.py", "--workdir"],
        ["train", "mine.py", "--workdir="],
        ["evaluate"],
        ["evaluate", "run", "--json"],
        ["generate", "run", "what?", "--image"],
        ["convert", "a"],
        ["convert", "a", "b", "--vision"],
        ["convert", "a", "b", "--tokenizer"],
        ["demo", "--workdir"],
        ["demo"],
        ["train"],
        ["plan", "--topology", "v5e:2x2"],
        ["plan", "mine.py", "--topology", "v5e:2x2", "--json"],
    ],
)
@pytest.mark.parametrize("empty", EMPTY[:2])
def test_an_empty_path_ends_every_command(started, capsys, tmp_path, words, empty):
    """It was the current folder: `--workdir "$OUT"` with OUT unset trained among the user's files."""
    before = sorted(tmp_path.iterdir())
    words = [*words[:-1], words[-1] + empty] if words[-1].endswith("=") else [*words, empty]
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert "got the empty path" in error and error.count("\n") == 1
    assert not started and sorted(tmp_path.iterdir()) == before


def test_an_unset_variable_without_quotes_is_told(started, capsys):
    """`--workdir $OUT --steps 3` trained into a folder `--steps`."""
    assert cli.main(["train", "mine.py", "--workdir", "--steps", "3"]) == 1
    assert "--workdir: got no value, but the option --steps" in capsys.readouterr().err
    assert cli.main(["train", "mine.py", "--workdir"]) == 1
    assert "--workdir: got no value; give one" in capsys.readouterr().err
    assert cli.main(["train", "mine.py", "--workdir", "a", "--workdir=b"]) == 1
    assert "--workdir: got 'a' and 'b'; give one" in capsys.readouterr().err and not started
    assert take_option(["-x", "--a=--b", "y"], "--a") == (["-x", "y"], "--b")


@pytest.mark.parametrize(
    "workdir, folder",
    [
        ("~/runs/a", "home/runs/a"),
        ("~", "home"),
        ("with space", "with space"),
        ("lr[1e-3]", "lr[1e-3]"),
        ("[/b]", "[/b]"),
        ("-x", "-x"),
        ("имя", "имя"),
        ("~a", "~a"),
    ],
)
def test_a_workdir_is_what_was_typed(started, tmp_path, workdir, folder):
    assert cli.main(["train", "~/../mine.py", "--workdir", workdir]) == 0
    assert cli.main(["train", "mine.py", f"--workdir={workdir}"]) == 0
    assert [tmp_path / path for path in started] == [tmp_path / folder] * 2


def test_paths_in_a_config_begin_with_home(started, tmp_path, monkeypatch):
    """`--initialize.run '~/runs/a'` was a folder `~` that is not there; an empty one the current folder."""
    start = Initialize(run="~/runs/a", vision="~/w.safetensors", decoder="nano.safetensors")
    home = tmp_path / "home"
    assert (start.run, start.vision) == (str(home / "runs/a"), str(home / "w.safetensors"))
    assert start.decoder == "nano.safetensors" and start.connector is None
    assert dataclasses.replace(start) == start
    for field in ("run", "vision", "connector", "decoder"):
        with pytest.raises(ValueError, match=rf"initialize\.{field}: got the empty path"):
            Initialize(**{field: " "})
    words = train_tokenizer(["a b"] * 3, home / "words.model", 400)
    assert len(Tokenizer.load("~/words.model")) == len(words)
    with pytest.raises(ValueError, match="tokenizer: got the empty path"):
        Tokenizer.load("")
    with pytest.raises(ValueError, match="load: got the empty path"):
        xgenmm_jax.load("")
    with pytest.raises(ValueError, match=f"'{home}/nothing'"):
        xgenmm_jax.load("~/nothing")


def test_an_empty_name_of_a_run_is_refused(started, capsys):
    """Its folder would be that of all runs."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "mine.py", "--name", ""])
    assert exit_.value.code == 2 and "name: got ''; give one" in capsys.readouterr().err and not started


@pytest.mark.parametrize(
    "words, code, sentence",
    [
        (["generate", "run", "-what is it?"], 2, "what begins with a dash and is none goes behind --"),
        (["generate", "run", "--what is it?"], 2, "what begins with a dash and is none goes behind --"),
        (["generate", "--", "run", "-what is it?"], 1, "no file or folder 'run'"),
        (["generate", "--", "-run", "-5 + 3?"], 1, "no file or folder '-run'"),
        (["generate", "run", "-5 + 3?"], 1, "no file or folder 'run'"),
    ],
)
def test_a_text_that_begins_with_a_dash_goes_behind_two(started, capsys, words, code, sentence):
    with pytest.raises(SystemExit) as exit_:
        raise SystemExit(cli.main(words))
    error = capsys.readouterr().err
    assert exit_.value.code == code and sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda path: path.mkdir(), "is a folder; give a Python file in it"),
        (lambda path: path.write_text(EXPERIMENT), "is no Python file; give one whose name ends in .py"),
        (lambda path: path.symlink_to("gone.py"), "no file"),
    ],
)
@pytest.mark.parametrize("name", ["stage", "a[b] c", "x.txt"])
def test_an_experiment_that_is_none_is_one_sentence(started, capsys, make, sentence, name):
    make(Path(name))
    assert cli.main(["train", name]) == 1
    error = capsys.readouterr().err
    assert sentence in error and f"'{name}'" in error and error.count("\n") == 1 and not started


@pytest.mark.skipif(os.getuid() != 0, reason="another user is needed")
def test_an_experiment_that_may_not_be_read_is_one_sentence(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    (tmp_path / "mine.py").chmod(0)
    # The folders above may be closed to others: the file is opened from where the process stands.
    program = (
        "import os; from pathlib import Path; from xgenmm_jax.cli.experiment_files import load_experiment\n"
        "os.setuid(54321)\n"
        "try:\n    load_experiment(Path('mine.py'))\nexcept ValueError as error:\n    print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(TRAINING_TESTS.parents[1])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "experiment: 'mine.py' may not be read by you; change its rights (chmod).\n", done.stderr
