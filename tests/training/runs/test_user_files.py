"""A run whose source is a class of the user's own file: kept with the file's checksum, held to it, asked without it."""

import dataclasses
import json
import os
from pathlib import Path
import sys

import jax
import PIL.Image
import pytest
import tiny_run

from xgenmm_jax import user_files
from xgenmm_jax.cli import main as cli
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import LoaderConfig
from xgenmm_jax.data.source import UnloadedSource
from xgenmm_jax.training.config import load_config
from xgenmm_jax.training.config_json import from_json, to_json
from xgenmm_jax.training.runs import run_folder

SUMS = """
from dataclasses import dataclass, replace
import os
from pathlib import Path

from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.source import records_of

with open(Path(__file__).with_name("executed"), "a") as file:
    print(os.getpid(), file=file)


@dataclass(frozen=True)
class Sums:
    length: int = 50

    def open(self):
        return records_of([sum_of(n) for n in range(self.length)], "sums")

    def files(self):
        return []


@dataclass(frozen=True)
class Shout:
    label = "loud"

    def __call__(self, record):
        return replace(record, turns=tuple(replace(turn, text=turn.text.upper()) for turn in record.turns))


def sum_of(n):
    return Conversation(f"sums/{n}", (), (Turn("user", f"1 + {n}?"), Turn("assistant", str(n + 1))))
"""
CONFIG = """
from dataclasses import replace
from pathlib import Path

import tiny_run
from xgenmm_jax.data.rows.config import LoaderConfig
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.training.sharding import MeshConfig


def config():
    base = tiny_run.config(Path(__file__).with_name("small.model"), steps=3)
    data = replace(base.data, mixture=((Sums(40), 2.0), (Mapped(Sums(30), Shout()), 1.0)), loader=LoaderConfig(1, 2, 1))
    return replace(base, data=data, name="mine", mesh=MeshConfig())
"""
EXPERIMENT = SUMS + CONFIG


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Path:
    """mine.py, its tokenizer, and "executed" with a line for each time that mine.py was."""
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    tiny_run.tokenizer(tmp_path)
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    return tmp_path / "mine.py"


def executed(experiment: Path) -> list[int]:
    file = experiment.with_name("executed")
    return list(map(int, file.read_text().split())) if file.exists() else []


def settings_of(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


def refused(config, run: Path) -> str:
    with pytest.raises(ValueError, match="was started with") as error:
        run_folder.check_same(config, run)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_config_of_a_run_names_the_file_beside_the_class(experiment):
    config = load_experiment(experiment)
    first, second = (source for source, _ in to_json(config)["data"]["mixture"])
    file = {"file": "mine.py", "sha256": user_files.file_of(type(config.data.mixture[0][0])).sha256}
    assert first == {"class": "experiment_mine:Sums", "from": file, "length": 40}
    assert second["class"] == "xgenmm_jax.data.source:Mapped" and "from" not in second
    assert second["change"] == {"class": "experiment_mine:Shout", "from": file}


def test_a_class_that_stands_in_no_file_is_refused(monkeypatch):
    typed = dataclasses.make_dataclass("Typed", [("length", int)], frozen=True)
    typed.__module__ = "__main__"
    monkeypatch.setitem(sys.modules, "__main__", type(sys)("__main__"))
    with pytest.raises(ValueError, match="Typed of '__main__' stands in no file.*write it into the experiment's file"):
        to_json(typed(3))


def test_a_run_goes_on_with_the_file_of_before_wherever_it_lies_and_with_no_other(experiment, tmp_path):
    run = tmp_path / "run"
    run_folder.prepare(load_experiment(experiment), run)
    moved = tmp_path / "elsewhere" / "own.py"
    moved.parent.mkdir()
    moved.write_bytes(experiment.read_bytes())
    (moved.parent / "small.model").write_bytes((tmp_path / "small.model").read_bytes())
    assert run_folder.check_same(load_experiment(moved), run)

    before = settings_of(run)["data"]["mixture"][0][0]["from"]["sha256"]
    moved.write_text(EXPERIMENT.replace("str(n + 1)", "str(n + 2)"))
    other = load_experiment(moved)
    now = user_files.file_of(type(other.data.mixture[0][0])).sha256
    sentence = refused(other, run)
    assert f"Sums of 'mine.py' with sha256 {before[:12]}, and 'own.py'" in sentence and now[:12] in sentence
    assert "put it back as it was, or choose another folder" in sentence

    # The same bytes, another of its classes or values: another config, as for classes of the package.
    moved.write_text(EXPERIMENT)
    same = load_experiment(moved)
    (first, weight), *rest = same.data.mixture
    for source in (dataclasses.replace(first, length=41), rest[0][0]):
        data = dataclasses.replace(same.data, mixture=((source, weight), *rest))
        assert "another config (data.mixture.0.0" in refused(dataclasses.replace(same, data=data), run)


def test_a_class_in_a_file_beside_leaves_the_experiment_free_to_change(experiment, tmp_path):
    """Its own file's bytes count, so that weights and other settings may be typed into the experiment."""
    (tmp_path / "own_sums.py").write_text(SUMS)
    text = f"from own_sums import Shout, Sums\n{CONFIG}"
    experiment.write_text(text)
    try:
        run_folder.prepare(load_experiment(experiment), tmp_path / "run")
        file = settings_of(tmp_path / "run")["data"]["mixture"][0][0]
        assert (file["class"], file["from"]["file"]) == ("own_sums:Sums", "own_sums.py")
        experiment.write_text(text.replace("(Sums(40), 2.0)", "(Sums(40), 5.0)"))
        assert run_folder.check_same(load_experiment(experiment), tmp_path / "run")
    finally:
        sys.modules.pop("own_sums", None)


def test_a_run_of_before_files_were_kept_goes_on(experiment, tmp_path):
    config, run = load_experiment(experiment), tmp_path / "run"
    run_folder.prepare(config, run)
    settings = settings_of(run)
    for source in (settings["data"]["mixture"][0][0], settings["data"]["mixture"][1][0]["change"]):
        del source["from"]
    (run / "config.json").write_text(json.dumps(settings))
    assert run_folder.check_same(config, run)
    assert isinstance(load_config(run).data.mixture[0][0], UnloadedSource)


def test_reading_a_run_loads_no_file_whatever_its_config_names(experiment, tmp_path):
    run = tmp_path / "run"
    run_folder.prepare(load_experiment(experiment), run)
    times, settings = executed(experiment), settings_of(run)
    evil = settings["data"]["mixture"][0][0]
    evil["class"], evil["from"] = "antigravity:Source", {"file": str(experiment), "sha256": "0" * 64}
    (run / "config.json").write_text(json.dumps(settings))
    config = load_config(run)
    assert executed(experiment) == times and "antigravity" not in sys.modules
    assert all(isinstance(source, UnloadedSource) for source, _ in config.data.mixture)
    assert to_json(config) == {name: value for name, value in settings.items() if name not in ("version", "rows")}
    with pytest.raises(SourceError, match="'antigravity:Source' needs a file of yours.*xgenmm train FILE"):
        config.data.mixture[0][0].open()
    # Where something else than a source is meant, there is nothing that could stand for it.
    with pytest.raises(ValueError, match="'antigravity:Source' is not part of xgenmm_jax"):
        from_json({**to_json(config), "objective": evil}, None)


def test_a_worker_executes_no_file_that_changed_since(experiment):
    files = user_files.loaded_for(load_experiment(experiment).data)
    assert [(file.module, Path(file.path)) for file in files] == [("experiment_mine", experiment.resolve())]
    times = executed(experiment)
    experiment.write_text(EXPERIMENT + "\n# another\n")
    with pytest.raises(ValueError, match="changed while the run was starting .*start the command again"):
        user_files.load_again(files)
    assert executed(experiment) == times


def test_workers_load_the_file_and_give_the_same_rows(experiment):
    """A spawned process cannot import a module that was loaded by path; it failed while the config was unpickled."""
    experiment.write_text(SUMS)
    module = user_files.load("experiment_mine", experiment)
    data = tiny_run.data(experiment.with_name("small.model"), ((module.Sums(40), 1.0),), rows=2)
    ids = []
    for workers in (0, 2):
        batches = loader.batches(dataclasses.replace(data, loader=LoaderConfig(1, workers, 1)), 7)
        ids.append([next(batches).sample_ids for _ in range(3)])
        batches.close()
    assert ids[0] == ids[1] and "sums/" in ids[0][0][0]
    assert len(executed(experiment)) == 3 and len(set(executed(experiment))) == 3


@pytest.mark.slow
def test_an_own_source_is_trained_on_by_workers_and_its_run_is_asked_without_the_file(
    experiment, tmp_path, monkeypatch, capsys
):
    """As typed: train, and again to go on; then generate, evaluate and convert, where the file is another or gone."""
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: one)
    run = str(tmp_path / "run")
    assert cli.main(["train", str(experiment), "--workdir", run]) == 0, capsys.readouterr().err
    assert len(set(executed(experiment)) - {os.getpid()}) == 2, "each worker has loaded it"
    experiment.write_text(EXPERIMENT + "\n")
    capsys.readouterr()
    assert cli.main(["train", str(experiment), "--workdir", run]) == 1
    error = capsys.readouterr().err
    assert "was started with Sums of 'mine.py'" in error and error.count("\n") == 1
    times = executed(experiment)
    experiment.unlink()
    PIL.Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    assert cli.main(["generate", run, "1 + 1?", "--image", str(tmp_path / "red.png"), "--max-new-tokens", "2"]) == 0
    assert cli.main(["evaluate", run, "--items", "1", "--kinds", "safety", "--style", "chat"]) == 0
    assert cli.main(["convert", run, str(tmp_path / "released"), "--to", "phi3"]) == 0
    assert executed(experiment) == times
