"""`xgenmm data show` as typed."""

from pathlib import Path

import pytest

from xgenmm_jax.cli import main as cli
from xgenmm_jax.cli.data_show import default_name

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NANO = EXPERIMENTS / "nano"
SMALL = ["--data.window", "30"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_page_is_written_into_the_current_folder(folder, capsys):
    assert cli.main(["data", "show", str(NANO / "stage1.py"), "--window", "7", *SMALL]) == 0
    (page,) = folder.iterdir()
    assert page.name == "nano-stage1-window-7.html"
    assert capsys.readouterr().out.startswith("nano-stage1-window-7.html: ")
    text = page.read_text(encoding="utf-8")
    assert "<h1>nano/stage1: window 7</h1>" in text and "synthetic/caption" in text
    assert text.count('<article class="row"') in range(1, 9)


def test_options_of_the_experiment_are_those_of_training(folder):
    """The seed is the run's, sizes of rows are overridden, an ablation takes the stages of nano."""
    pages = []
    for seed in ("0", "0", "1"):
        name = f"page{len(pages)}.html"
        options = ["--rows", "1", "--seed", seed, "--data.row.length", "400", "--output", name, *SMALL]
        assert cli.main(["data", "show", f"{EXPERIMENTS}/ablations/connector.py:mlp", "--at", "nano", *options]) == 0
        pages.append((folder / name).read_text(encoding="utf-8"))
    assert pages[0] == pages[1] != pages[2]
    assert "of 400 positions" in pages[0] and pages[0].count('<article class="row"') == 1


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["starting_weights/vision_tower.py"], "trains on CaptionData, which has no packed rows; give an experiment"),
        (["stage1.py", "--window", "-1"], "--window: got -1, wanted 0 or more."),
        (["stage1.py", "--window", "x"], "--window: got 'x', wanted a whole number"),
        (["stage1.py", "--windw", "1"], "no option --windw; did you mean --window"),
        (["stage1.py", "--rows", "65"], "--rows: got 65, wanted 1 to 64."),
        (["stage1.py", "--output", "no/page.html"], "--output: no folder 'no' for 'no/page.html'"),
        (["stage1.py", "--output", ""], "--output: got the empty path ''"),
        (["stage1.py", "--data.tokenizer", "gone.model"], "tokenizer: no file 'gone.model'"),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_line_and_nothing_is_written(folder, capsys, words, sentence):
    try:
        assert cli.main(["data", "show", str(NANO / words[0]), *words[1:]]) == 1
    except SystemExit as exit_:
        assert exit_.code == 2
    told = capsys.readouterr().err
    assert sentence in told and len(told.splitlines()) == 1
    assert not list(folder.iterdir())


def test_help_and_unknown_commands(capsys):
    for words, code in ((["data", "--help"], 0), (["data", "show", "--help"], 0), (["data", "show"], 2)):
        assert cli.main(words) == code
    told = capsys.readouterr()
    assert "  show " in told.out and "--window N" in told.out and "--window N" in told.err
    assert cli.main(["data", "shwo"]) == 2
    assert "xgenmm data: no command 'shwo'; did you mean show." in capsys.readouterr().err


@pytest.mark.parametrize(
    "run, name",
    [
        ("nano/stage1", "nano-stage1-window-7.html"),
        ("../../etc/x", "etc-x-window-7.html"),
        ("имя", "run-window-7.html"),
        ("a" * 999, "a" * 100 + "-window-7.html"),
    ],
)
def test_the_page_of_any_run_lies_in_the_current_folder(run, name):
    assert default_name(run, 7) == name
