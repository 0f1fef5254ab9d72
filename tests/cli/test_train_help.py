"""`xgenmm train FILE --help`: one page for a person; `--help-all`: every option, as tyro lists them."""

import dataclasses
from pathlib import Path
import re

import pytest

from xgenmm_jax.cli import main as cli
from xgenmm_jax.cli import train_help
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.data.readers.llava import Llava
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.models.lora import LoRA

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def printed(monkeypatch, capsys):
    """What a command prints in a terminal of so many columns."""
    monkeypatch.setattr(cli, "keep_memory", lambda: True)

    def run(columns: int, *words: str) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        try:
            code = cli.main(["train", *words])
        except SystemExit as exit_:
            code = exit_.code
        told = capsys.readouterr()
        assert code == 0 and not told.err
        return told.out

    return run


def options(page: str) -> list[str]:
    return re.findall(r"^\W*(--[\w.-]+)", page, re.MULTILINE)


ORDER = ("--workdir", "--steps", "--optimizer.peak-lr", "--data.batch-rows", "--mesh.fsdp", "--distributed.coordinator",
         "--initialize.run", "--checkpoint.every-steps", "--data.mixture.N.1")  # fmt: skip


@pytest.mark.parametrize("file", ["stage1.py", "stage2.py", "dpo.py", "nano/stage1.py", "nano/dpo.py"])
def test_help_is_one_page_in_the_order_of_use(printed, file):
    """It was tyro's list of 551 lines, with the learning rate after 240 and neither --workdir nor --distributed."""
    page = printed(200, str(EXPERIMENTS / file), "--help")
    listed = options(page)
    assert 20 <= len(listed) <= 40 and len(set(listed)) == len(listed)
    assert [option for option in listed if option in ORDER] == list(ORDER)
    assert max(map(len, page.splitlines())) <= 100 and len(page.splitlines()) <= 80


def test_help_has_the_options_of_low_rank_updates_where_a_run_has_them(monkeypatch):
    """finetune.py:lora listed 35 options and none of those that it is for."""
    monkeypatch.setenv("COLUMNS", "100")
    config = load_experiment(EXPERIMENTS / "nano/sft_multi.py")
    listed = options(train_help.text(dataclasses.replace(config, lora=LoRA()), "x.py"))
    more = ["--lora.rank", "--lora.alpha", "--lora.dropout", "--lora.targets", "--lora.whole", "--initialize.adapter"]
    assert [one for one in listed if one not in options(train_help.text(config, "x.py"))] == more


def test_help_names_the_sources_of_the_mixture_and_their_weights(printed):
    page = " ".join(printed(100, str(EXPERIMENTS / "stage1.py"), "--help").split())
    assert "0 obelics 17.5, 1 mint1t_html 17.5, 2 mint1t_pdf 12.5," in page and "RecordFiles" not in page
    page = " ".join(printed(100, str(EXPERIMENTS / "nano/stage2.py"), "--help").split())
    assert "0 caption 0.14," in page and "5 pages/64px 0.08" in page


def test_a_source_without_a_path_is_named_by_its_class_and_one_with_an_index_by_its_name():
    """Help ended in an IndexError for a user's own source without fields."""
    own = dataclasses.make_dataclass("Sums", [], frozen=True)
    assert train_help.source_name(own()) == "Sums"
    source = ShardedSource(JsonFiles("data/mine.json", "data/images"), Llava())
    assert train_help.source_name(source) == "llava"
    assert train_help.source_name(dataclasses.replace(source, name="mine")) == "mine"


def test_help_shows_the_values_of_the_experiment(printed):
    page = printed(100, str(EXPERIMENTS / "nano/stage1.py"), "--help")
    assert re.search(r"--optimizer.peak-lr +Learning rate after the warmup. \[0.003\]", page)


@pytest.mark.parametrize("columns", [40, 59, 60, 99])
def test_help_fits_a_narrow_terminal(printed, columns):
    page = printed(columns, "experiments/nano/stage1.py", "--help")
    assert "--optimizer.peak-lr" in page and max(map(len, page.splitlines())) <= columns


@pytest.mark.parametrize("file", ["stage1.py", "nano/starting_weights/vision_tower.py"])
def test_every_option_of_the_page_is_one_of_all(printed, file):
    """The page is written by hand: an option that was renamed since would be advertised and refused."""
    page = printed(100, str(EXPERIMENTS / file), "-h")
    every = options(printed(100, str(EXPERIMENTS / file), "--help-all"))
    assert len(every) > 60
    assert {option.replace(".N.", ".0.") for option in options(page)} <= set(every)
