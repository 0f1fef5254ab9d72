"""Fine-tuning on a user's own pictures, from a released folder to answers, by the command line alone."""

from dataclasses import replace
import json
from pathlib import Path
import shutil

import jax
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
import tiny28

import xgenmm_jax
from xgenmm_jax.api.conversion import export_checkpoint
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.cli.main import main
from xgenmm_jax.data.anyres import GRIDS_RELEASED, AnyRes
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.tokenizer import train_tokenizer
from xgenmm_jax.models import blip3
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress, param_shapes
from xgenmm_jax.training.runs.run_folder import prepare
from xgenmm_jax.training.sharding import MeshConfig, make_mesh
from xgenmm_jax.training.step import TrainState

EXPERIMENT = str(tiny28.FOLDER.parents[2] / "experiments/finetune.py")
STEPS = ("--steps", "3", "--optimizer.warmup-steps", "1", "--data.batch-rows", "8", "--data.row.length", "256")


def released(folder, grids):
    """A folder in the released layout: strips, the official sizes but smaller, a tokenizer of its own."""
    words = train_tokenizer(["What is it? A red cat."] * 3, folder / "words.model", 400)
    decoder = replace(
        tiny28.CONFIG.decoder, vocab_size=words.vocab_size, num_text_tokens=words.num_text_tokens, layers=1
    )
    connector = replace(tiny28.CONFIG.connector, layers=6)
    assert isinstance(connector, ResamplerConfig)
    model = replace(tiny28.CONFIG, decoder=decoder, connector=connector)
    data = DataConfig(
        mixture=(),
        tokenizer=str(folder / "words.model"),
        row=RowConfig(length=256, crops=5, images=1, vision_tokens=8, too_long="drop"),
        anyres=AnyRes(grids=grids, view_px=28, view_cells=2),
        batch_rows=1,
    )
    params = unboxed(jax.jit(blip3.initialize, static_argnums=0)(model, jax.random.key(0)))
    prepare(TrainConfig("toy", model, data, NextToken(), steps=1), folder / "toy")
    with Checkpoints(folder / "toy", keep=1) as saved:
        count = {"count": jax.numpy.zeros(())}
        saved.save(TrainState(jax.numpy.int32(1), params, count, jax.numpy.ones((), bool)), Progress())
    export_checkpoint(folder / "toy", folder / "released", "xgenmm")


def write_rows(folder, count=24, name="my.json"):
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        pixels = random.integers(0, 256, (24 + number, 30, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"pictures/{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A red cat."}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).write_text(text)


def as_table(folder, name, image):
    """The rows of my.json as a Parquet file. image: what its column holds of a row's picture."""
    rows = [row | {"image": image(row["image"])} for row in json.loads((folder / "my.json").read_text())]
    pq.write_table(pa.Table.from_pylist(rows), folder / name, row_group_size=10)


def own(run="base", file="my.json"):
    return ("--initialize.run", run, "--data.json", file, "--data.images", "pictures")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user begins: a released folder, imported, pictures and conversations."""
    folder = tmp_path_factory.mktemp("user")
    released(folder, GRIDS_RELEASED)
    write_rows(folder)
    assert main(["convert", str(folder / "released"), str(folder / "base")]) == 0
    return folder


def load(path, adapter):
    return xgenmm_jax.load(path, adapter=adapter, mesh=make_mesh(MeshConfig(), jax.devices()[:1]))


def run(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


def test_updates_from_a_released_folder_to_answers(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    run("train", f"{EXPERIMENT}:lora", *own(), *STEPS, "--lora.rank", 2, "--held-out.every-steps", 3)
    rows = [json.loads(line) for line in (folder / "runs/base-my/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "held_out/loss" in row] == [3]
    names = param_shapes(folder / "runs/base-my/checkpoints/3/params")
    assert names and all("lora_" in name for name in names)
    run("convert", "runs/base-my", "merged", "--to", "xgenmm")
    run("convert", "runs/base-my", "adapter", "--to", "peft")
    cards = [(folder / name / "README.md").read_text() for name in ("merged", "adapter")]
    assert all("| rank 2, alpha 32.0, dropout 0.0, of decoder/layers, over base (SHA-256 " in card for card in cards)
    assert all("| all parts | base (imported/released) | checkpoint 0 | " in card for card in cards)
    capsys.readouterr()
    assert main(["verify", "adapter"]) == 1
    assert "holds an adapter and no model; give the released weights or the run" in capsys.readouterr().err
    for command in ("convert", "adapter", "again"), ("generate", "adapter", "What is it?"):
        assert main(list(command)) == 1
        assert "holds an adapter and no model; give the model that it was trained over" in capsys.readouterr().err
    before, after = (load_file(folder / name / "model.safetensors") for name in ("released", "merged"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name.rsplit(".", 2)[1] for name in changed} == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    adapted, trained = (load(*one).params for one in ((folder / "base", "adapter"), (folder / "runs/base-my", None)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), adapted, trained)
    # An adapter of another base was merged without a word, where the sizes were the same.
    shutil.copytree(folder / "adapter", folder / "other")
    base = json.loads((folder / "other/xgenmm_base.json").read_text())
    assert base["name"] == "imported/released" and base["checkpoint"] == "0"
    (folder / "other/xgenmm_base.json").write_text(json.dumps(base | {"sha256": "0" * 64}))
    with pytest.raises(ValueError, match="trained over another base .'imported/released'. than .*base': sha256 0000"):
        load(folder / "base", "other")
    assert main(["verify", "base", "--adapter", "other"]) == 1
    assert "trained over another base" in capsys.readouterr().err
    # The run, and what it was merged into, answer alike.
    answers = []
    for source in ("runs/base-my", "merged"):
        capsys.readouterr()
        run("generate", source, "--image", "pictures/3.png", "--max-new-tokens", 4, "What is it?")
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_whole_fine_tuning_and_an_adapter_that_goes_on(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write_rows(folder, name="lines.jsonl")
    run("train", EXPERIMENT, *own(file="lines.jsonl"), *STEPS, "--workdir", "runs/whole")
    run("train", f"{EXPERIMENT}:lora", *own("runs/whole"), *STEPS, "--lora.rank", 2, "--workdir", "runs/second")
    run("convert", "runs/second", "second", "--to", "peft")
    adapter = ("--initialize.adapter", "second", "--lora.rank", 3)
    run("train", f"{EXPERIMENT}:lora", *own("runs/whole"), *STEPS, *adapter, "--workdir", "runs/third")
    first, last = (read_metrics(folder / f"runs/{name}") for name in ("second", "third"))
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in (first, last)]
    assert losses[1][0] < losses[0][0]  # it begins where the other ended
    assert main(["train", f"{EXPERIMENT}:lora", *map(str, (*own(), *STEPS, *adapter)), "--workdir", "runs/no"]) == 1
    assert not (folder / "runs/no/config.json").exists()


@pytest.mark.slow
def test_verify_looks_at_updates_with_what_they_change(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(folder)
    run("train", f"{EXPERIMENT}:lora", *own(), *STEPS, "--lora.rank", 2, "--workdir", tmp_path / "run")
    run("convert", tmp_path / "run", tmp_path / "adapter", "--to", "peft")
    looked_at = {"adapter": ("base", "--adapter", tmp_path / "adapter", "--steps", 0), "run": (tmp_path / "run",)}
    logits = []
    for name, arguments in looked_at.items():
        file, page = tmp_path / f"{name}.npz", tmp_path / f"{name}.html"
        # Random weights have biases of zeros, which is told of the base and not of the updates.
        code = main(["verify", *map(str, arguments), "--write-reference", str(file), "--output", str(page)])
        said = capsys.readouterr().out
        assert code == (1 if name == "adapter" else 0)
        assert ("Tensors of the adapter" in said, "These are low-rank updates." in said) == (code == 1, code == 0)
        with np.load(file) as arrays:
            logits.append(arrays["logits/0"])
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_base_that_sees_one_view(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    released(tmp_path, ())
    write_rows(tmp_path)
    run("convert", "released", "base")
    run("train", f"{EXPERIMENT}:lora", *own(), *STEPS, "--lora.rank", 2)
    config = json.loads((tmp_path / "runs/base-my/config.json").read_text())
    assert config["data"]["anyres"]["grids"] == [] and config["prompt"] == "few_shot"


def bytes_of(name):
    return (Path("pictures") / name).read_bytes()


@pytest.mark.parametrize(
    "image",
    [
        str,
        bytes_of,
        lambda name: {"bytes": bytes_of(name), "path": None},
        lambda name: {"bytes": bytes_of(name), "path": "elsewhere.png"},
        lambda name: {"bytes": None, "path": name},
        lambda name: [{"bytes": bytes_of(name), "path": None}],
    ],
    ids=["path", "bytes", "struct", "struct_with_path", "struct_of_path", "list"],
)
def test_tables_of_paths_and_of_pictures_are_read_as_json_is(folder, monkeypatch, tmp_path, image):
    """Pictures inside of a table were refused; my.parquet beside my.json was taken for a changed my.json."""
    monkeypatch.chdir(folder)
    (tmp_path / "my.json").write_text((folder / "my.json").read_text())
    as_table(tmp_path, "my.parquet", image)
    opened = []
    for file in ("my.json", "my.parquet"):
        given = {"initialize_run": "base", "data_json": str(tmp_path / file), "data_images": "pictures"}
        data = load_experiment(Path(EXPERIMENT), given=given).data
        records = data.mixture[0][0].open()
        opened.append([records.record(number, np.random.default_rng(0)) for number in range(len(records))])
        assert data.held_out_one_in == 10
    assert len(opened[0]) == len(opened[1]) == 24
    for theirs, ours in zip(*opened, strict=True):
        assert ours.turns == theirs.turns
        [[picture], [its]] = ours.images, theirs.images
        assert picture.load().tobytes() == its.load().tobytes()


@pytest.mark.slow
def test_a_table_with_its_pictures_inside_needs_no_folder(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    as_table(folder, "inside.parquet", lambda name: {"bytes": bytes_of(name), "path": name})
    arguments = ("--initialize.run", "base", "--data.json", "inside.parquet", "--workdir", tmp_path / "run")
    run("train", f"{EXPERIMENT}:lora", *arguments, *STEPS, "--lora.rank", 2, "--held-out.every-steps", 3)
    losses = [row["loss"] for row in read_metrics(tmp_path / "run")]
    assert len(losses) == 1 and np.isfinite(losses[0])


def refused(capsys, *arguments):
    """The sentence with which the command ends."""
    capsys.readouterr()
    assert main(["train", f"{EXPERIMENT}:lora", *map(str, arguments)]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--lora.targets", "decoder/layer"), "lora.targets: 'decoder/layer' names no linear map; the nearest are"),
        (("--lora.rank", "65"), "lora.rank: got 65"),
        (("--initialize.adapter", "pictures"), "has no adapter_config.json"),
    ],
)
def test_settings_that_do_not_fit_leave_nothing(folder, monkeypatch, capsys, change, message):
    monkeypatch.chdir(folder)
    assert message in refused(capsys, *own(), *STEPS, *change, "--workdir", "runs/refused")
    assert not (folder / "runs/refused/config.json").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[]", "has 0 records"),
        ('[{"text": "a"}]', "the ones wanted: 'conversations'"),
        ("{", "is no JSON, or torn"),
    ],
)
def test_a_file_without_a_usable_row_is_refused(folder, monkeypatch, capsys, tmp_path, rows, message):
    monkeypatch.chdir(folder)
    (tmp_path / "my.json").write_text(rows)
    arguments = own(file=str(tmp_path / "my.json"))
    assert message in refused(capsys, *arguments, *STEPS, "--workdir", tmp_path / "run")
    assert not (tmp_path / "run/config.json").exists()


def test_pictures_that_are_missing_are_refused(folder, monkeypatch, capsys, caplog, tmp_path):
    monkeypatch.chdir(folder)
    (tmp_path / "my.json").write_text((folder / "my.json").read_text())
    (tmp_path / "none").mkdir()
    arguments = ("--initialize.run", "base", "--data.json", tmp_path / "my.json", "--data.images", tmp_path / "none")
    sentence = refused(capsys, *arguments, *STEPS, "--workdir", tmp_path / "run")
    assert "none of 2 held-out samples can be used" in sentence and "9.png'; check the path" in sentence
    assert "24 records that cannot be used" in caplog.text
    assert not (tmp_path / "run/config.json").exists()


def test_a_table_without_a_usable_row_is_refused(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(folder)
    pq.write_table(pa.table({"image": ["0.png"], "text": ["a cat"]}), tmp_path / "other.parquet")
    pq.write_table(pa.Table.from_pylist([], pa.schema([("conversations", pa.string())])), tmp_path / "empty.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 cut off")
    said = {
        "other": "has no column 'conversations'; the columns found: 'image', 'text'",
        "empty": "has 0 records",
        "torn": "is not whole, or not Parquet",
    }
    for name, message in said.items():
        file = tmp_path / f"{name}.parquet"
        arguments = ("--initialize.run", "base", "--data.json", file, *STEPS, "--workdir", tmp_path / "run")
        assert message in refused(capsys, *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (lambda name: name, "the storage has no folder of images; give it one"),
        (lambda name: {"bytes": None, "path": name}, "the storage has no folder of images; give it one"),
        (lambda name: {"bytes": b"torn", "path": name}, "is not an image or its header is damaged"),
        (lambda name: 7, "'image' is neither a path nor a list of paths"),
    ],
    ids=["path", "struct_of_path", "damaged", "number"],
)
def test_a_table_none_of_whose_pictures_can_be_used_is_refused(
    folder, monkeypatch, capsys, caplog, tmp_path, image, message
):
    monkeypatch.chdir(folder)
    (tmp_path / "my.json").write_text((folder / "my.json").read_text())
    as_table(tmp_path, "my.parquet", image)
    arguments = ("--initialize.run", "base", "--data.json", tmp_path / "my.parquet")
    sentence = refused(capsys, *arguments, *STEPS, "--workdir", tmp_path / "run")
    assert message in sentence and sentence.count("\n") == 1
    assert "24 records that cannot be used" in caplog.text
    assert not (tmp_path / "run/config.json").exists()


def test_what_is_needed_is_told(capsys):
    assert "needs --data.json; " in refused(capsys, "--initialize.run", "base")
    assert main(["train", EXPERIMENT, "--help"]) == 0
    assert "--data.json JSON [--data.images IMAGES]" in capsys.readouterr().out
