"""BERT's file as the start of a Q-Former, made of the official first stage's tensors, whose states are known."""

import dataclasses
import json

import blip2_goldens as goldens
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.blip2.stage1 import WITHOUT_BERT
from xgenmm_jax.api.conversion import export_checkpoint, import_run
from xgenmm_jax.convert import trees
from xgenmm_jax.convert.formats import bert
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.convert.tensor_shapes import Overrides
from xgenmm_jax.models import blip2
from xgenmm_jax.models.blip2 import Blip2
from xgenmm_jax.models.qformer import QFormerConfig, QFormerText
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.caption_rows import CaptionData
from xgenmm_jax.training.objectives.query_pretraining import QueryPretraining
from xgenmm_jax.training.runs.initialize import initialize_params
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import MeshConfig, make_mesh

HEADS = Overrides(connector_heads=4)


def tensors(root: str = "bert.", norms: tuple[str, str] = ("gamma", "beta"), head: bool = True) -> dict:
    """The golden's as BERT's: what text reads, without `[DEC]`; and what BERT has beside it."""
    found = {}
    for name, array in load_file(goldens.LAVIS).items():
        if not name.startswith("Qformer.") or any(one in name for one in ("_query", "crossattention", "position_ids")):
            continue
        name = name.removeprefix("Qformer.").replace("bert.", root)
        if name.startswith("cls") and not head:
            continue
        for new, old in zip((".weight", ".bias"), norms, strict=True):
            name = name.replace(f"LayerNorm{new}", f"LayerNorm.{old}")
        if "word_embeddings" in name or name.startswith("cls.predictions.") and "transform" not in name:
            array = array[:-1]
        found[name] = np.ascontiguousarray(array)
    spare = {f"{root}embeddings.token_type_embeddings.weight": (2, 24), f"{root}pooler.dense.weight": (24, 24)}
    found |= {name: np.ones(shape, np.float32) for name, shape in spare.items()}
    return found | ({"cls.seq_relationship.bias": np.ones(2, np.float32)} if head else {})


def start(folder) -> TrainConfig:
    """A first stage of the golden's size that begins with the converted file."""
    initialize = Initialize(connector=str(folder / "run"), fresh=WITHOUT_BERT)
    data = CaptionData((), tokenizer="", image_size_px=28, batch_rows=4, tokens=9)
    return TrainConfig("start", goldens.CONFIG, data, QueryPretraining(), steps=1, initialize=initialize)


def initialized(config: TrainConfig) -> dict:
    program = assemble(config, make_mesh(MeshConfig(), jax.devices()[:1]))
    return initialize_params(config.initialize, program.init, config.seed, program.abstract.params, config.model)


def test_text_has_the_states_of_the_official_model_and_queries_begin_as_text_does(tmp_path):
    save_file(tensors(), tmp_path / "model.safetensors")
    with open_source(tmp_path / "model.safetensors", HEADS) as source:
        import_run(source, tmp_path / "run")
    params = initialized(start(tmp_path))

    def states(module: Blip2):
        return module.connector.text_alone(*goldens.text())

    with jax.default_matmul_precision("highest"):
        got = jax.jit(lambda params: Blip2(goldens.CONFIG).apply(blip2.variables(params), method=states))(params)
    np.testing.assert_allclose(got, goldens.golden("lavis/stage1")["text_only"], rtol=0, atol=2e-5)
    for group in ("layer0", "layer1"):
        text, queries = params["text"]["layers"][group]["text_mlp"], params["connector"]["layers"][group]["mlp"]
        jax.tree.map(np.testing.assert_array_equal, text, queries)
    official = load_file(goldens.LAVIS)
    table = params["text"]["text_embedding"]
    words = official["Qformer.bert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(table[:-1], words[:-1])
    assert not np.array_equal(table[-1], words[-1]) and 0 < np.std(table[-1]) < 0.05, "[DEC] is drawn"
    heads = params["heads"]
    np.testing.assert_array_equal(heads["word_bias"][:-1], official["Qformer.cls.predictions.bias"][:-1])
    np.testing.assert_array_equal(
        heads["word_dense"]["kernel"], official["Qformer.cls.predictions.transform.dense.weight"].T
    )
    assert heads["word_bias"][-1] == 0


def test_what_bert_lacks_is_drawn_from_the_seed(tmp_path):
    save_file(tensors(), tmp_path / "model.safetensors")
    with open_source(tmp_path / "model.safetensors", HEADS) as source:
        import_run(source, tmp_path / "run")
    config = start(tmp_path)
    first, again, other = (initialized(dataclasses.replace(config, seed=seed)) for seed in (0, 0, 1))
    random = initialized(dataclasses.replace(config, initialize=Initialize()))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    queries = [params["connector"]["query_embedding"] for params in (first, random, other)]
    np.testing.assert_array_equal(queries[0], queries[1])
    assert not np.array_equal(queries[0], queries[2])
    with pytest.raises(ValueError, match=r"connector/feature_norm/bias is missing.*initialize\.fresh"):
        initialized(dataclasses.replace(config, initialize=dataclasses.replace(config.initialize, fresh=())))


@pytest.mark.parametrize(
    ("root", "norms", "head"), [("bert.", ("gamma", "beta"), True), ("", ("weight", "bias"), False)]
)
def test_both_spellings_of_the_file_are_read(tmp_path, root, norms, head):
    """As released, and as transformers writes a BertModel."""
    save_file(tensors(root, norms, head), tmp_path / "model.safetensors")
    settings = {"model_type": "bert", "num_attention_heads": 4, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with open_source(tmp_path) as source:
        connector = QFormerConfig(inner=24, hidden=44, layers=4, heads=4)
        assert source.config == bert.BertStart(connector, QFormerText(62, 20), head)
        assert any(path.startswith("heads/") for path in trees.shapes(source.config)) == head
        import_run(source, tmp_path / "run")
    with pytest.raises(ValueError, match="BERT's tensors alone"):
        export_checkpoint(tmp_path / "run", tmp_path / "back", "lavis")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "roberta"}, "this is roberta with absolute positions"),
        ({"position_embedding_type": "relative_key"}, "this is bert with relative_key positions"),
        ({"hidden_act": "relu"}, 'hidden_act is "relu", wanted "gelu"'),
        ({}, "tensors do not tell the number of heads"),
    ],
)
def test_another_model_in_such_names_is_refused(tmp_path, settings, message):
    save_file(tensors(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path)


def test_a_missing_tensor_is_named(tmp_path):
    found = tensors()
    del found["bert.encoder.layer.2.output.dense.weight"]
    save_file(found, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"bert\.encoder\.layer\.2\.output\.dense\.weight is missing"):
        open_source(tmp_path / "model.safetensors", HEADS)


def test_the_released_size_is_told_without_a_config():
    config = bert.BertStart(QFormerConfig(), QFormerText())
    shapes = their_shapes(bert.rules(config), trees.shapes(config))
    assert shapes["bert.embeddings.word_embeddings.weight"] == (30522, 768)
    assert shapes["bert.encoder.layer.11.output.LayerNorm.gamma"] == (768,)
    assert (
        sum(int(np.prod(shape)) for shape in shapes.values()) == 109_482_240 - 2 * 768 - 768 * 769 + 30522 + 768 * 771
    )
