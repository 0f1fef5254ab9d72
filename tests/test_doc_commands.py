"""Every command of README and docs is one: its options exist, its files are there, and it fits the chips it names.

A reader copies them; a stage that did not fit its pod was told by the compiler, hours after it was queued.
"""

from collections.abc import Iterator
import itertools
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest

from xgenmm_jax.cli import data, options
from xgenmm_jax.cli import main as cli
from xgenmm_jax.cli import plan as plan_command

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = r"(?:[A-Z_]+=\S+ +)*(?:xgenmm|launch/[a-z]+\.sh)(?: |$)"
PLACES = {
    "EXPERIMENT": "experiments/nano/stage1.py",
    "FILE": "experiments/nano/stage1.py",
    "TOPOLOGY": "v5e:16x16",
}
"""What stands for a file of the reader's own, where the command opens it before it has read its options."""
MINE = """
from experiments.nano import sft_single
from xgenmm_jax.data.readers.llava import Llava
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.json_files import JsonFiles

captions = pages = ShardedSource(JsonFiles("data/mine.json", images="data/images"), Llava())

def config():
    return sft_single.config()
"""
SCRIPTS = ("config", "lib", "topology", "workers", "code", "worker")
"""Of launch/, those that are no commands."""


class Parsed(Exception):
    """The command has read its options."""


def commands(text: str) -> Iterator[str]:
    """Those of indented lines, their continuations joined, and those between backticks, a line or two long."""
    without_fences = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    joined = re.sub(r" *\\\n +", " ", without_fences)
    for line in joined.splitlines():
        if re.match(rf" {{3,}}{COMMAND}", line):
            yield line.strip()
    for inline in re.findall(r"`([^`]+)`", without_fences):
        words = " ".join(inline.split())
        if re.match(COMMAND, words):
            yield words


def words_of(command: str) -> list[str]:
    """Without variables before it, comments behind it, and what a shell does with its output."""
    words = shlex.split(command, comments=True)
    return list(itertools.dropwhile(lambda word: re.fullmatch(r"[A-Z_]+=.*", word), words))


CASES = [(page, command) for page in PAGES for command in dict.fromkeys(commands(page.read_text(encoding="utf-8")))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reader's: the checkout's experiments, and mine.py."""
    (tmp_path / "experiments").mkdir()
    for entry in (ROOT / "experiments").iterdir():
        (tmp_path / "experiments" / entry.name).symlink_to(entry)
    for place in ("mine.py", "llama.py", "experiments/mine.py"):
        (tmp_path / place).write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(plan_command, "prepare_environment", lambda topology: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def stopped_behind_its_options(monkeypatch):
    tyro = options._tyro

    def parsed(*arguments):
        value, box = tyro(*arguments)
        if box is None:
            raise Parsed
        return value, box

    monkeypatch.setattr(options, "_tyro", parsed)


def launched(words: list[str], **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
    page = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
    environment |= dict(re.findall(r"(TPU_[A-Z]+)=(\S+)", page.split("the lines that matter:")[1].split("(In the")[0]))
    return subprocess.run(words, env=environment | variables, cwd=ROOT, capture_output=True, text=True)


def on_workers(words: list[str]) -> list[str]:
    """What launch/run.sh and resume.sh give to `xgenmm` on the pod of launch.md's config.sh."""
    script = 'source launch/lib.sh; source launch/code.sh; command_words "$@"; printf "%s\\0" "${COMMAND[@]}"'
    done = launched(["bash", "-c", script, "bash", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


def named_chips(words: list[str]) -> str | None:
    return next((after for word, after in itertools.pairwise(words) if word in ("--for", "--topology")), None)


def without(words: list[str], *options: str) -> list[str]:
    """The words but for options and their values."""
    kept, skip = [], False
    for word in words:
        skip, skipped = False, skip
        if not skipped and word in options:
            skip = True
        elif not skipped:
            kept.append(word)
    return kept


def planned(words: list[str]) -> list[str]:
    """`xgenmm plan --estimate` of a `train` or `plan`."""
    return ["plan", *without(words[1:], "--workdir", "--json", "--compiler-option", "--cache"), "--estimate"]


@pytest.mark.parametrize("page, command", CASES, ids=[f"{page.stem}: {command[:60]}" for page, command in CASES])
def test_a_command_of_the_documents_is_one(page, command, folder, stopped_behind_its_options, capsys):
    program, *words = words_of(command)
    if program.startswith("launch/"):
        script = ROOT / program
        assert script.is_file()
        if script.stem in SCRIPTS:
            return
        if not words or script.stem not in ("run", "resume"):
            done = launched([str(script), *(["--dry-run", *words] if words else ["--help"])])
            assert done.returncode == 0, done.stderr
            return
        words = on_workers(words)
    if len(words) < 2 or words[1:] == ["..."] or words[0] == "data" and len(words) == 2:
        known = not words or words[0] in cli.COMMANDS
        assert known and (words[:1] != ["data"] or set(words[1:]) <= set(data.COMMANDS))
        return
    if words[1].startswith("experiments/finetune.py"):  # it reads a run and a user's files: tests/cli/test_finetune.py
        return
    # An option that is named, not a command to type, has no file or no value.
    is_part = words[1][0] == "-" or words[-1][0] == "-"
    if words[0] in ("train", "plan", "data"):
        words = [PLACES.get(word, word) for word in words]
        words[1:1] = [PLACES["FILE"]] if words[1].startswith("-") else []
        if words[0] == "plan":  # libtpu would be asked for the chips
            words = [*without(words, "--cache"), "--estimate"]
    try:
        code = cli.main(words)
    except Parsed:
        return
    except SystemExit as exit_:
        code = exit_.code
    error = capsys.readouterr().err
    assert code == 0 or is_part and re.search(r"got no value|[Mm]issing|required", error), error


def trains(command: str) -> bool:
    """Whether it is a run on chips that it, or launch.md's config.sh, names."""
    words = words_of(command)
    if words[0] in ("launch/run.sh", "launch/resume.sh"):
        return len(words) > 1 and words[1].endswith(".py")
    is_run = words[1:2] in (["train"], ["plan"]) and len(words) > 2 and words[2][0] != "-"
    return is_run and named_chips(words) is not None


RUNS = [(page, command) for page, command in CASES if trains(command)]


@pytest.mark.parametrize("command", [command for _, command in RUNS], ids=[f"{p.stem}: {c[:60]}" for p, c in RUNS])
def test_a_run_of_the_documents_fits_the_chips_that_it_names(command, folder, capsys):
    program, *words = words_of(command)
    if program.startswith("launch/"):
        words = on_workers(words)
    words = [PLACES.get(word, word) for word in words]
    code = cli.main(planned(words))
    printed = capsys.readouterr()
    assert code == 0, printed.err or printed.out
    assert "should fit, by the estimate" in printed.out or "compiled as" in printed.out


def test_the_command_of_launch_md_for_xpk_fits(folder, capsys):
    """It is put together in a variable of the shell."""
    page = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
    lines = "\n".join(line for line in page.splitlines() if line.strip().startswith("TRAIN="))
    done = subprocess.run(["bash", "-c", f'{lines}\necho "$TRAIN"'], capture_output=True, text=True, check=True)
    _, _, *words = done.stdout.replace("/app/experiments", "experiments").split()
    assert words[0] == "train" and cli.main(planned(words)) == 0
    assert "for 2xv5e:16x16: mesh replica 4" in capsys.readouterr().out


def test_a_command_that_is_none_would_be_found(folder, stopped_behind_its_options, capsys):
    assert "xgenmm plan FILE --for v5e:16x16" in commands("Type `xgenmm plan FILE --for\nv5e:16x16`.")
    assert list(commands("    A=b xgenmm train x.py \\\n      --seed 3 # c")) == ["A=b xgenmm train x.py --seed 3 # c"]
    for words in (["train", "experiments/stage1.py", "--slices", "2"], ["evaluate", "RUN", "--task", "table1"]):
        with pytest.raises(SystemExit):
            cli.main(words)
    assert cli.main(["train", "experiments/stage9.py"]) == 1


def test_a_run_that_does_not_fit_would_be_found(folder):
    assert cli.main(planned(["train", "experiments/stage1.py", "--for", "v5e:16x16", "--accumulation", "1"])) == 3
