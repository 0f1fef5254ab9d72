"""The card of an export: what the files of a run say, and "not known" for what they do not."""

import dataclasses
import json

import pytest
import tiny_run
import yaml

from xgenmm_jax.data.readers.mint import MintArxiv
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.tars import Tars
from xgenmm_jax.evaluation import results
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.tasks.benchmark import Choice
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.reporting import model_card
from xgenmm_jax.training.config import Initialize, load_config, save_config

DRAWN = Synthetic("caption", 400)
SHA = "ab" * 32


@pytest.fixture
def run(tmp_path):
    """A run folder as training writes it, without checkpoints: two sources, begun from another run."""
    papers = ShardedSource(Tars("data/arXiv_*.tar"), MintArxiv())
    path = tiny_run.tokenizer(tmp_path)
    config = dataclasses.replace(
        tiny_run.config(path, steps=30),
        name="mine | odd\nname",
        data=tiny_run.data(path, mixture=((DRAWN, 3.0), (papers, 1.0))),
        initialize=Initialize(run=str(tmp_path / "secret_folder" / "stage2")),
    )
    folder = tmp_path / "run"
    folder.mkdir()
    save_config(config, folder / "config.json")
    (folder / "commit").write_text("c0ffee\n")
    started = {
        "data": [{"source": "drawn", "records": 400, "files": []}, {"source": "papers", "records": 7, "files": []}],
        "initialize": {"run": {"checkpoint": "130", "of": "checksums", "sha256": SHA}},
    }
    (folder / "started_with.json").write_text(json.dumps(started))
    rows = [
        row(10, 1.5), row(20, 1.25), {"step": 20, "held_out/loss": 1.75, "held_out/perplexity": 5.8},
        {"step": 20, "goodput": 0.9}, row(30, 0.5),
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows) + '{"step": 3')
    return folder


def row(step, loss):
    speeds = {"tokens_per_second": 800.0, "tokens_per_second_per_device": 100.0}
    speeds |= {"model_flops_per_second": 8 * 197e12 * 0.25, "mfu": 0.25}
    shares = {"share/samples/drawn": 0.75, "share/samples/papers": 0.25}
    shares |= {"share/tokens/drawn": 0.4, "share/tokens/papers": 0.6}
    counts = {"samples": 4 * step, "tokens": 100 * step, "seconds": 9.0 * step}
    return {"step": step, "loss": loss} | counts | speeds | shares


def result(task, tokens, value=61.5):
    estimate = Estimate(value, items=100, influence={"a": 0.5, "b": -0.5})
    return Result(task, task.upper(), Choice("paper"), "accuracy", value, {"accuracy": estimate}, "run", tokens=tokens)


def card(folder, step, layout="xgenmm", notes=()):
    text = model_card.markdown(model_card.read(folder, step), layout, notes)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_card_says_what_the_files_say_until_the_exported_step(run):
    scores = run / "evaluation" / "paper"
    scores.mkdir(parents=True)
    results.write(result("mmstar", 2000), scores)
    results.write(result("pope", 1000), scores)
    front, body = card(run, 20, notes=["Phi-3 has no bias."])
    # The front matter: of scores those of the exported step alone.
    assert front["license"] == "unknown" and front["pipeline_tag"] == "image-text-to-text"
    [index] = front["model-index"]
    assert index["name"] == "mine | odd name" and [one["dataset"]["type"] for one in index["results"]] == ["mmstar"]
    metric = {"type": "accuracy", "name": "accuracy (paper)", "value": 61.5}
    assert index["results"][0]["metrics"] == [metric]
    # Base, without the folders of the machine.
    assert f"| all parts | stage2 | checkpoint 130 | {SHA} |" in body and "secret_folder" not in body
    # Data: counts of the mixture's figures.
    assert "| drawn | 75.0% | 400 | 60 | 800 | none needed: drawn by this code |" in body
    assert "| papers | 25.0% | 7 | 20 | 1,200 | cc-by-4.0 |" in body
    # Recipe.
    for line in (
        "| commit of xgenmm_jax | c0ffee |", "| steps | 20 of 30 |", "| samples, tokens | 80, 2,000 |",
        "| hardware | 8 devices, v5e |", "| time of training | 3 min |", "| loss at the end | 1.2500 |",
        "| held-out loss | 1.7500 at step 20 |", "| frozen | vision |", "| objective | NextToken |",
    ):  # fmt: skip
        assert line in body
    assert "| MMSTAR | paper | accuracy | 61.50 | ±1.00 | 100 | none |  |" in body
    assert "| POPE | paper | accuracy | 61.50 | ±1.00 | 100 | none | another step |" in body
    assert "- Phi-3 has no bias." in body and "drawn by code" in body


def test_base_has_its_own_name_beside_its_folders(run):
    """Of released weights in runs/released the card said "released"."""
    started = json.loads((run / "started_with.json").read_text())
    started["initialize"]["run"]["name"] = "imported/instruct"
    (run / "started_with.json").write_text(json.dumps(started))
    assert f"| all parts | stage2 (imported/instruct) | checkpoint 130 | {SHA} |" in card(run, 30)[1]


def with_updates(folder, updates, **initialize):
    """The run's files as those of one with low-rank updates."""
    config = load_config(folder)
    config = dataclasses.replace(config, lora=updates, initialize=dataclasses.replace(config.initialize, **initialize))
    save_config(config, folder / "config.json")


def test_low_rank_updates_are_told_with_what_they_change(run, tmp_path):
    with_updates(run, LoRA(8, 16.0, 0.05, ("decoder/layers", "connector"), whole=("vision",)))
    _, body = card(run, 30)
    said = f"rank 8, alpha 16.0, dropout 0.05, of decoder/layers, connector, over stage2 (SHA-256 {SHA})"
    assert f"| low-rank updates | {said} |" in body
    assert "| frozen | all but the low-rank updates and vision |" in body


def test_the_card_of_an_adapter_is_pefts(run, tmp_path):
    with_updates(run, LoRA(), adapter=str(tmp_path / "secret_folder" / "theirs"))
    front, body = card(run, 30, "peft", notes=["It names no base."])
    assert front["library_name"] == "peft" and "model-index" not in front
    assert "Low-rank updates of a vision-language model, in PEFT's layout" in body and "secret_folder" not in body
    assert "| updates | theirs | not known | not known |" in body and "- It names no base." in body


def test_a_run_without_updates_has_no_line_of_them(run):
    assert "low-rank" not in card(run, 30)[1]


def test_what_no_file_says_is_not_known(run):
    for name in ("started_with.json", "metrics.jsonl", "commit"):
        (run / name).unlink()
    front, body = card(run, 30)
    assert "model-index" not in front
    assert "| all parts | stage2 | not known | not known |" in body
    assert "| Synthetic | 75.0% | not known | not known | not known | none needed" in body
    for what in ("commit of xgenmm_jax", "hardware", "time of training", "loss at the end"):
        assert f"| {what} | not known |" in body
    assert "Not measured" in body


@pytest.mark.parametrize(("layout", "task"), [("siglip", "image-feature-extraction"), ("phi3", "text-generation")])
def test_parts_are_of_transformers_and_carry_no_scores_of_the_whole(run, layout, task):
    (run / "evaluation" / "paper").mkdir(parents=True)
    results.write(result("mmstar", 3000), run / "evaluation" / "paper")
    front, _ = card(run, 30, layout)
    assert front["library_name"] == "transformers" and front["pipeline_tag"] == task and "model-index" not in front


def test_damaged_files_of_a_run_are_told_by_name(run):
    (run / "started_with.json").write_text("[1")
    with pytest.raises(ValueError, match=r"started_with\.json' is not JSON"):
        model_card.read(run, 30)
