"""`xgenmm evaluate RUN --tasks retrieval` on files of the published form."""

import blip2_goldens as goldens
import pytest
from retrieval_files import put_set

from xgenmm_jax.api.conversion import import_run
from xgenmm_jax.cli import evaluate, evaluate_retrieval
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.data.text.tokenizer import train_tokenizer
from xgenmm_jax.nano.retrieval import drawn_pairs


def test_files_of_others_ask_for_a_run_of_ours(tmp_path):
    """Their text is BERT's, whose tokenizer is not built."""
    with open_source(goldens.RETRIEVAL.parent) as source:
        import_run(source, tmp_path / "run")
    put_set(tmp_path)
    options = [str(tmp_path / "run"), "--tasks", "retrieval", "--data", str(tmp_path)]
    with pytest.raises(ValueError, match="no tokenizer for 62 rows of text.*BERT's"):
        evaluate.main(options)
    train_tokenizer(["a red circle and the blue square"] * 9, tmp_path / "run" / "tokenizer.model", pieces=400)
    with pytest.raises(ValueError, match="a tokenizer of .* ids for 62 rows"):
        evaluate.main(options)


def test_names_and_folders_that_are_not_there_are_told(tmp_path):
    with pytest.raises(ValueError, match="--data: got none"):
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
