"""Configs to JSON and back."""

import dataclasses
from dataclasses import dataclass
import json
from pathlib import Path

import pytest
import tiny_run
import toy_run

from xgenmm_jax.cli import main as cli
from xgenmm_jax.data.readers.records import RecordFiles
from xgenmm_jax.models import sizes
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import Initialize, check_rows, load_config, save_config
from xgenmm_jax.training.config_json import from_json, to_json
from xgenmm_jax.training.objectives.dpo import DPO
from xgenmm_jax.training.runs.run_folder import check_same, commit, prepare


@pytest.fixture
def config(tmp_path):
    config = tiny_run.config(tiny_run.tokenizer(tmp_path))
    mixture = ((Synthetic("caption", 400), 2.5), (RecordFiles("*.array_record"), 1.0))
    data = dataclasses.replace(config.data, mixture=mixture)
    return dataclasses.replace(config, data=data, objective=DPO(beta=0.3), freeze=("vision", "decoder/embedding"))


def test_json_and_back_is_the_same_config(config, tmp_path):
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path) == config
    big = dataclasses.replace(config, model=sizes.with_strips(sizes.B4))
    assert from_json(json.loads(json.dumps(to_json(big))), type(big)) == big


def test_foreign_classes_are_not_imported():
    with pytest.raises(ValueError, match="not part of xgenmm_jax"):
        from_json({"class": "os:system", "command": "true"}, None)


def test_what_is_no_config_is_one_sentence(config, tmp_path):
    with pytest.raises(ValueError, match="has no config.json; .*that `xgenmm convert RELEASED RUN` made"):
        load_config(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"architectures": ["XGenMMModel"], "model_type": "xgenmm"}')
    with pytest.raises(ValueError, match="holds released weights and is no run; make one of them: xgenmm convert"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_config(tmp_path)
    save_config(config, tmp_path / "config.json")
    whole = json.loads((tmp_path / "config.json").read_text())
    spare = whole | {"stepz": 3}
    (tmp_path / "config.json").write_text(json.dumps(spare))
    with pytest.raises(ValueError, match="has no field stepz"):
        load_config(tmp_path)

    damaged = [
        ({}, "got {} .*'class'"),
        ([], "holds .., wanted an object"),
        ({name: whole[name] for name in whole if name != "objective"}, "TrainConfig.*missing .*'objective'"),
        (whole | {"steps": "many"}, "Type(Check)?Error"),
        (
            whole | {"model": {"enum": "xgenmm_jax.models.token_sampling:TokenSampling", "name": "SOME"}},
            "KeyError: 'SOME'",
        ),
        (whole | {"model": {"class": 3}}, 'got {"class": 3}'),
    ]
    for settings, sentence in damaged:
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match=f"(?s)^'.*config.json'.*{sentence}.*copy"):
            load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"class":')
    with pytest.raises(ValueError, match="config.json' is not JSON .*; copy it again, or delete"):
        prepare(config, tmp_path)

    @dataclass(frozen=True)
    class Local:
        value: object = object()

    with pytest.raises(ValueError, match="got a value of type object"):
        to_json(Local())


OLD_RUN = Path(__file__).parents[1] / "goldens" / "run_config_d833a01.json"
"""config.json of experiments/nano/stage1.py as commit d833a01 wrote it, with two of its eight sources."""


def test_a_run_of_an_earlier_format_is_refused_with_the_commit_that_reads_it(config, tmp_path):
    """Its classes and fields have other names now, so it would fail at whichever was met first."""
    file = tmp_path / "config.json"
    file.write_text(OLD_RUN.read_text())
    sentence = f"'{file}' was written before .* read it with commit d833a01 .git checkout d833a01., or start .*run '"
    for read in (lambda: load_config(tmp_path), lambda: load_config(file), lambda: check_same(config, tmp_path)):
        with pytest.raises(ValueError, match=sentence):
            read()
    for unknown in (3, "2", None, [2]):
        file.write_text(json.dumps({"version": unknown, **to_json(config)}))
        with pytest.raises(ValueError, match="got version .*, wanted 2; .*'commit'"):
            load_config(tmp_path)


def test_a_run_of_earlier_rows_is_still_read(config, tmp_path):
    """To be evaluated, converted or started from; `train` alone refuses to go on with it."""
    file = tmp_path / "config.json"
    save_config(config, file)
    settings = json.loads(file.read_text())
    assert settings.pop("rows") == 3
    for rows, by in (({}, "9950b99"), ({"rows": 2}, "9dde55d")):
        file.write_text(json.dumps(settings | rows))
        assert load_config(tmp_path) == config and check_same(config, tmp_path)
        with pytest.raises(ValueError, match=f"rows ., now 3.* go on with commit {by} .git checkout {by}., or"):
            check_rows(file)


def test_every_command_refuses_a_run_of_an_earlier_format_in_one_line(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(OLD_RUN.read_text())
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    repository = Path(__file__).parents[2]
    commands = [
        ["train", str(repository / "experiments/nano/stage1.py"), "--workdir", str(run)],
        ["generate", str(run), "What is this?"],
        ["evaluate", str(run)],
        ["convert", str(run), str(tmp_path / "out"), "--to", "xgenmm"],
    ]
    for command in commands:
        assert cli.main(command) == 1
        error = capsys.readouterr().err
        assert "read it with commit d833a01" in error and error.count("\n") == 1, (command, error)
    assert [path.name for path in run.iterdir()] == ["config.json"] and not (tmp_path / "out").exists()


def test_run_folder_is_complete_or_absent(config, tmp_path):
    folder = tmp_path / "run"
    missing = dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer="nowhere.model"))
    with pytest.raises(ValueError, match="no file 'nowhere.model'"):
        prepare(missing, folder)
    assert not (folder / "config.json").exists()
    prepare(config, folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "commit", "tokenizer.model"}
    assert commit() == (folder / "commit").read_text().strip()


def test_steps_below_one_are_refused():
    with pytest.raises(ValueError, match="steps: got 0, wanted at least 1"):
        toy_run.config(steps=0)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed: got -1, wanted at least 0"):
        dataclasses.replace(toy_run.config(), seed=-1)


def test_a_run_of_before_a_field_was_added_goes_on(config, tmp_path):
    """Fields that a later version adds have their defaults in older runs; another value is another config."""
    prepare(config, tmp_path)
    file = tmp_path / "config.json"
    older = json.loads(file.read_text())
    del older["model"]["vision"]["activation"]
    file.write_text(json.dumps(older))
    prepare(config, tmp_path)
    other = dataclasses.replace(config.model.vision, activation="gelu")
    with pytest.raises(ValueError, match='model.vision.activation "gelu_tanh" before, "gelu" now'):
        prepare(dataclasses.replace(config, model=dataclasses.replace(config.model, vision=other)), tmp_path)
    prepare(dataclasses.replace(config, prompt="few_shot"), tmp_path)


def test_a_run_goes_on_where_it_was_moved_to(config, tmp_path):
    """The demo of a checkout that was renamed was refused for the tokenizer's old place."""
    started = dataclasses.replace(config, initialize=Initialize(run="/before/runs/demo/stage1"))
    prepare(started, tmp_path / "run")
    moved = tmp_path / "elsewhere.model"
    moved.write_bytes(Path(config.data.tokenizer).read_bytes())
    data = dataclasses.replace(config.data, tokenizer=str(moved))
    now = dataclasses.replace(started, data=data, initialize=Initialize(run="/now/runs/demo/stage1"))
    assert check_same(now, tmp_path / "run")
    with pytest.raises(ValueError, match='initialize.run .*stage1" before, "/now/runs/demo/stage2" now'):
        check_same(dataclasses.replace(now, initialize=Initialize(run="/now/runs/demo/stage2")), tmp_path / "run")
    moved.write_bytes(b"another")
    with pytest.raises(ValueError, match="another tokenizer than '.*elsewhere.model'; give --data.tokenizer"):
        check_same(now, tmp_path / "run")


def test_a_run_goes_on_from_a_copy_of_its_start_and_from_no_other(config, tmp_path):
    """Another seed's stage of the same name is another start; this run is of before started_with.json was kept."""

    def stage(source, checksum):
        folder = tmp_path / source / "sft_multi" / "checkpoints" / "3"
        (folder / "params").mkdir(parents=True)
        (folder / "params" / "_METADATA").write_text("{}")
        listed = {"params/_METADATA": {"bytes": 2, "crc32": checksum}}
        (folder / "files.json").write_text(json.dumps(listed))
        return Initialize(run=str(tmp_path / source / "sft_multi"))

    started, copied, other = stage("a", 1), stage("b", 1), stage("c", 2)
    prepare(dataclasses.replace(config, initialize=started), tmp_path / "run")
    assert check_same(dataclasses.replace(config, initialize=copied), tmp_path / "run")
    for source in (other, Initialize(run=str(tmp_path / "nowhere" / "sft_multi"))):
        with pytest.raises(ValueError, match="initialize.run .* before"):
            check_same(dataclasses.replace(config, initialize=source), tmp_path / "run")


def test_a_run_goes_on_with_the_memory_of_another_machine(config, tmp_path):
    """With what `xgenmm plan` advises where a step does not fit; the published batch is no such thing."""
    prepare(config, tmp_path / "run")
    decoder = dataclasses.replace(config.model.decoder, remat="full", attention="xla")
    model = dataclasses.replace(config.model, decoder=decoder)
    loss = dataclasses.replace(config.objective, chunk=32)
    assert check_same(dataclasses.replace(config, accumulation=2, model=model, objective=loss), tmp_path / "run")
    more = dataclasses.replace(config.data, batch_rows=2 * config.data.batch_rows)
    with pytest.raises(ValueError, match="data.batch_rows"):
        check_same(dataclasses.replace(config, data=more), tmp_path / "run")
