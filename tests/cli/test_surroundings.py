"""Commands without a home, a terminal, a reader, a disk or the devices that were asked for."""

import functools
import io
import os
from pathlib import Path
import pwd
import signal
import subprocess
import sys
import time

from command_runs import EXPERIMENT, command, environment, one_line, xgenmm
import pytest

from xgenmm_jax.cli import errors, streams
from xgenmm_jax.cli import main as cli

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    return tmp_path


# ---------------------------------------------------------------- home and caches


@pytest.fixture
def nobody(monkeypatch):
    """A user without a home folder, and no cache named."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "")  # so that what a test changes is put back
        monkeypatch.delenv(name)


CACHES = [
    ({}, None),
    ({"HOME": ""}, None),
    ({"HOME": "relative"}, None),
    ({"HOME": "{here}/home"}, "{here}/home/.cache/xgenmm/jax"),
    ({"HOME": "{here}/file"}, None),
    ({"HOME": "{here}/home", "XDG_CACHE_HOME": ""}, "{here}/home/.cache/xgenmm/jax"),
    ({"HOME": "{here}/home", "XDG_CACHE_HOME": "cache"}, "{here}/home/.cache/xgenmm/jax"),
    ({"XDG_CACHE_HOME": "cache"}, None),
    ({"XDG_CACHE_HOME": "{here}/cache"}, "{here}/cache/xgenmm/jax"),
    ({"JAX_COMPILATION_CACHE_DIR": "programs"}, "programs"),
    ({"JAX_COMPILATION_CACHE_DIR": ""}, ""),
    ({"JAX_COMPILATION_CACHE_DIR": "gs://bucket/programs"}, "gs://bucket/programs"),
    ({"HOME": "{here}/home", "JAX_COMPILATION_CACHE_DIR": "~/p"}, "{here}/home/p"),
    ({"JAX_COMPILATION_CACHE_DIR": "{here}/file/p"}, None),
    ({"JAX_COMPILATION_CACHE_DIR": "/dev/null"}, None),
]


@pytest.mark.parametrize("given, expected", CACHES)
def test_programs_are_kept_where_something_can_be_written(nobody, monkeypatch, tmp_path, capsys, given, expected):
    """Without a home every command ended in a traceback, even --help; even where a folder was named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name, value in given.items():
        monkeypatch.setenv(name, value.format(here=tmp_path))
    cli.keep_compilations()
    assert os.environ.get("JAX_COMPILATION_CACHE_DIR") == (expected and expected.format(here=tmp_path))
    is_told = expected is None and "JAX_COMPILATION_CACHE_DIR" in given
    assert capsys.readouterr().err.count("cannot be written; programs are not kept.\n") == is_told


def test_a_cache_that_can_only_be_read_warns_of_no_program(nobody, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    cli.keep_compilations()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
    assert float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) > 1e6
    assert capsys.readouterr().err == ""


def test_help_makes_no_cache(tmp_path):
    given = environment(HOME=str(tmp_path))
    given.pop("JAX_COMPILATION_CACHE_DIR")
    assert xgenmm("generate", "--help", env=given).returncode == 0
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- terminals and pipes


@pytest.mark.parametrize(
    "given, columns",
    [("0", None), ("1", "40"), ("5", "40"), ("39", "40"), ("40", "40"), ("132", "132"), ("-3", None), ("²", None),
     ("", None), ("wide", None), ("99999999999999999999", "99999999999999999999")],
)  # fmt: skip
def test_a_width_that_is_none_is_mended(monkeypatch, given, columns):
    monkeypatch.setenv("COLUMNS", given)
    monkeypatch.setenv("LINES", given)
    streams.mend_size()
    assert os.environ.get("COLUMNS") == columns


@pytest.mark.parametrize("columns", ["1", "3", "0"])
def test_help_ends_in_any_width(columns):
    """tyro looked for room for a word for ever."""
    done = xgenmm("evaluate", "--help", env=environment(COLUMNS=columns), timeout=60)
    assert done.returncode == 0 and "--items" in done.stdout


@pytest.mark.parametrize(
    "encoding, errors_before, shown",
    [("ascii", "strict", rb"a\xe9 \u4e2d\u6587 \udcff [b]"), ("utf-8", "strict", "aé 中文 \\udcff [b]".encode()),
     ("ascii", "surrogateescape", rb"a\xe9 \u4e2d\u6587 \udcff [b]"),
     ("latin-1", "strict", b"a\xe9 \\u4e2d\\u6587 \\udcff [b]")],
)  # fmt: skip
def test_any_text_goes_to_any_terminal(monkeypatch, encoding, errors_before, shown):
    """An answer with é ended `xgenmm generate` under LC_ALL=C, a file's name of other bytes any command."""
    out = io.BytesIO()
    err = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding, errors_before))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding, errors_before))
    before = sys.stdout
    with streams.usable():
        print("aé 中文 \udcff [b]", flush=True)
        print("aé 中文 \udcff", file=sys.stderr, flush=True)
    assert out.getvalue() == shown + b"\n" and b"\\udcff" in err.getvalue()
    assert sys.stdout is before


def closed_reader() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("words", [("--help",), ("generate", "--help"), ("train", "--help"), ("nothing",)])
def test_a_reader_that_leaves_ends_a_command_without_a_word(words):
    """`xgenmm ... | head -1` ended in a traceback at the end of Python."""
    writing = closed_reader()
    done = xgenmm(*words, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    told = {"train": (0, ""), "nothing": (2, done.stderr)}.get(words[0], (streams.READER_GONE, ""))
    assert (done.returncode, done.stderr) == told and "Traceback" not in done.stderr


@pytest.mark.parametrize("words, code", [(("--help",), 1), (("nothing",), 2), (("train", "x.py"), 1)])
def test_a_full_disk_behind_the_output_is_one_sentence(words, code):
    with open("/dev/full", "w") as full:
        done = xgenmm(*words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == code and done.stderr.count("\n") == 1
        assert words != ("--help",) or "'stdout': No space left on device; free some" in done.stderr
        assert xgenmm(*words, capture_output=False, stdout=full, stderr=full).returncode == code


@pytest.mark.parametrize("how", ["reader", slow("closed"), slow("full")])
def test_a_run_goes_on_where_nobody_reads_it(experiment, how):
    """A progress line ended runs of hours: `| head`, a terminal that is gone, a log on a full disk."""
    options = {"cwd": experiment, "capture_output": False}
    if how == "closed":
        done = xgenmm("train", "mine.py", "--workdir", "w", before="exec >&- 2>&-", **options)
    else:
        writing = closed_reader() if how == "reader" else os.open("/dev/full", os.O_WRONLY)
        done = xgenmm("train", "mine.py", "--workdir", "w", stdout=writing, stderr=writing, **options)
        os.close(writing)
    assert done.returncode == 0 and (experiment / "w/checkpoints/12").is_dir()
    assert (experiment / "w/metrics.jsonl").read_text().count('"loss"') == 3


# ---------------------------------------------------------------- signals


def started(experiment: Path, *, before: str = ":") -> subprocess.Popen:
    """A run whose steps take half a second each, when it has begun to take them."""
    given = environment(XGENMM_TOY_EVENTS="slow_from=2")
    words = ["train", "mine.py", "--workdir", "w", "--log-every", "1"]
    process = subprocess.Popen(
        command(*words, before=before), env=given, cwd=experiment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    rows = experiment / "w/metrics.jsonl"
    until = time.monotonic() + 60
    while not (rows.is_file() and rows.read_text()) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("times", [1, slow(3)])
def test_a_closed_terminal_saves_the_run(experiment, times):
    """SIGHUP ended it where it was; bash sends it more than once."""
    process = started(experiment)
    for _ in range(times):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 129 and "saved step" in one_line(told)
    (saved,) = (int(path.name) for path in (experiment / "w/checkpoints").iterdir())
    assert 0 < saved < 12


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_is_nothing(experiment):
    process = started(experiment, before='trap "" HUP')
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0 and (experiment / "w/checkpoints/12").is_dir()


# ---------------------------------------------------------------- the system's refusals

FRAGMENT = (
    'RESOURCE_EXHAUSTED: Error writing "vision.kernel/0.0" in OCDBT database at local file "/a b/run/5/params/": '
    'Failed writing: "/a b/run/5/params/d/3b": Failed to write 505765 bytes to file 8: No space left on device '
    "[os_error_code='28']"
)


@pytest.mark.parametrize(
    "error, sentence",
    [
        (OSError(28, "No space left on device", "/a/b"), "'/a/b': No space left on device; free some, or choose a"),
        (OSError(28, "No space left on device"), "No space left on device; free some"),
        (PermissionError(13, "Permission denied", b"/r\xff"), "'/r\udcff': Permission denied; choose another folder"),
        (OSError(30, "Read-only file system", "x.partial", None, "x"), "'x': Read-only file system; choose a folder"),
        (IsADirectoryError(21, "Is a directory", "x"), "'x': Is a directory; give a file."),
        (OSError(122, "Disk quota exceeded", "x"), "'x': Disk quota exceeded; free some"),
        (OSError(99999, "Strange", "x"), "'x': Strange."),
        (OSError("image file is truncated"), "image file is truncated"),
        (errors.of_the_system(ValueError(FRAGMENT)), "'/a b/run/5/params/': No space left on device; free some"),
    ],
)
def test_the_systems_errors_are_told_with_path_and_remedy(error, sentence):
    assert errors.os_sentence(error).startswith(sentence) and "Errno" not in errors.os_sentence(error)


def test_other_errors_are_not_the_systems():
    for text in ("loss: nan", "os_error_code", 'local file "x"'):
        assert errors.of_the_system(ValueError(text)) is None


@pytest.mark.parametrize("number, error", [(28, OSError), (5, OSError), (13, PermissionError)])
def test_a_write_that_knows_no_path_is_told_with_the_folder(number, error):
    with pytest.raises(error) as told, errors.writing(Path("runs/a")):
        raise OSError(number, os.strerror(number))
    assert told.value.filename == (None if number == 13 else "runs/a")


@pytest.mark.parametrize("blocks", [200, slow(1)])
def test_a_disk_that_is_full_ends_a_run_with_one_line(experiment, blocks):
    """It was a trace for each thread under checkpoints, and more as the process ended."""
    words = ["train", "mine.py", "--workdir", "w", "--model.width", "40000"]
    done = xgenmm(*words, cwd=experiment, before=f"ulimit -f {blocks}")
    assert done.returncode == 1 and one_line(done.stderr), done.stderr
    assert one_line(done.stderr).startswith("xgenmm train: '") and "/w" in done.stderr.replace("'w", "'/w")
    assert "File too large; choose a folder on another disk" in done.stderr
