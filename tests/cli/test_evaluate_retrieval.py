"""`xgenmm evaluate RUN --tasks retrieval` on files of the published form."""

import json
import shutil

import blip2_goldens as goldens
from other_tokenizers import put_vocabulary
import pytest
from retrieval_files import put_set

from xgenmm_jax.api.conversion import import_run
from xgenmm_jax.cli import evaluate, evaluate_retrieval, main
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.data.text.tokenizer import train_tokenizer
from xgenmm_jax.data.text.wordpiece import WordPiece
from xgenmm_jax.nano.retrieval import drawn_pairs
from xgenmm_jax.training.config import load_config


def test_files_of_others_ask_for_berts_vocabulary(tmp_path):
    with open_source(goldens.RETRIEVAL.parent) as source:
        import_run(source, tmp_path / "run")
    put_set(tmp_path)
    options = [str(tmp_path / "run"), "--tasks", "retrieval", "--data", str(tmp_path)]
    with pytest.raises(ValueError, match="no tokenizer for 62 rows of text.*copy BERT's vocab.txt"):
        evaluate.main(options)
    train_tokenizer(["a red circle and the blue square"] * 9, tmp_path / "run" / "tokenizer.model", pieces=400)
    with pytest.raises(ValueError, match="a tokenizer of .* ids for 62 rows"):
        evaluate.main(options)


@pytest.mark.slow
@pytest.mark.parametrize("file", [goldens.LAVIS, goldens.RETRIEVAL.parent])
def test_files_of_others_retrieve_with_berts_vocabulary(tmp_path, capsys, file):
    """As typed: conversion takes the vocabulary along, the run is evaluated; captions are cleaned and cut as there."""
    vocabulary = put_vocabulary(tmp_path / "bert", 61)
    heads = ["--vision-heads", "4", "--connector-heads", "4"] if file == goldens.LAVIS else []
    words = [str(file), str(tmp_path / "run"), "--tokenizer", str(vocabulary), *heads]
    assert main.main(["convert", *words]) == 0
    told = capsys.readouterr().out
    assert ("not trained on in stage 1" in told) == (file != goldens.LAVIS)
    put_set(tmp_path)
    captions = tmp_path / "flickr30k/dataset_flickr30k.json"
    captions.write_text(captions.read_text().replace("a red circle 0", "A RED dog, " * 40))
    assert main.main(["evaluate", str(tmp_path / "run"), "--tasks", "retrieval", "--data", str(tmp_path)]) == 0
    read = min(32, load_config(tmp_path / "run").model.text.max_positions)
    shown = ("the blue square in the center", "a red circle 1")
    lengths = [2 + len(WordPiece.load(vocabulary).encode(text)) for text in shown]
    cut = 1 + 3 * (lengths[0] > read) + 2 * (lengths[1] > read)
    assert f"Flickr30k, 1k test: {cut} of 6 texts are longer than the model reads; cut." in capsys.readouterr().out
    found = json.loads((tmp_path / "run/evaluation/retrieval.json").read_text())["flickr30k_retrieval"]
    assert (found["images"], found["texts"], found["cut"]) == (3, 6, cut)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("blip2_pretrained.pth", r"blip2_pretrained.pth' is a pickle.*weights_only=True.*safetensors"),
        ("downloaded", r"downloaded/pytorch_model.bin' is a pickle"),
        ("released", r"released' is no run; released files become one first: xgenmm convert .*released runs/released"),
        ("nowhere", r"no folder '.*nowhere'; give a run of experiments/blip2/stage1.py"),
    ],
)
def test_what_is_no_run_says_how_it_becomes_one(tmp_path, name, sentence):
    put_set(tmp_path)
    (tmp_path / "blip2_pretrained.pth").write_bytes(b"\x80\x02}")
    (tmp_path / "downloaded").mkdir()
    (tmp_path / "downloaded/pytorch_model.bin").write_bytes(b"\x80\x02}")
    shutil.copytree(goldens.RETRIEVAL.parent, tmp_path / "released")
    with pytest.raises(ValueError, match=sentence):
        evaluate.main([str(tmp_path / name), "--tasks", "retrieval", "--data", str(tmp_path)])


@pytest.mark.parametrize("name", ["blip2_pretrained.pth", "."])
def test_a_pickle_in_place_of_a_run_says_how_it_becomes_safetensors(tmp_path, name):
    """It was called no JSON, and its folder one without a config.json."""
    (tmp_path / "blip2_pretrained.pth").write_bytes(b"\x80\x02}")
    with pytest.raises(ValueError, match="is a pickle.*weights_only=True.*safetensors"):
        load_config(tmp_path / name)


def test_names_and_folders_that_are_not_there_are_told(tmp_path):
    with pytest.raises(ValueError, match="--data: got none; .* and flickr30k/ .docs/evaluation.md, Retrieval.\\."):
        evaluate_retrieval.chosen("retrieval", None)
    with pytest.raises(ValueError, match="has none of coco/dataset_coco.json"):
        evaluate_retrieval.chosen("retrieval", tmp_path)
    with pytest.raises(ValueError, match="got mmstar beside retrieval"):
        evaluate_retrieval.chosen("coco_retrieval,mmstar", tmp_path)
    assert [one.name for one in evaluate_retrieval.chosen("flickr30k_retrieval", tmp_path)] == ["flickr30k_retrieval"]
    assert evaluate_retrieval.chosen("drawn_retrieval", None) == []


def test_a_users_own_benchmark_may_be_called_retrieval():
    assert evaluate_retrieval.is_asked("coco_retrieval, ") and not evaluate_retrieval.is_asked("mmstar")
    assert not evaluate_retrieval.is_asked("mine.py:retrieval")


def test_drawn_captions_differ_and_are_held_out():
    pairs = drawn_pairs(count=20)
    assert len(set(pairs.texts)) == 20 == len(pairs.images) and pairs.image_of_text == tuple(range(20))
    assert drawn_pairs(count=20, seed=1).texts != pairs.texts
