"""BLIP-2's files: read as LAVIS and transformers write them, exported with every byte, and their numbers."""

from dataclasses import replace

import blip2_goldens as goldens
import jax
import numpy as np
import pytest
from released_parameters import read_tree
from safetensors.numpy import load_file, save_file

from xgenmm_jax.api.conversion import export_checkpoint, import_run
from xgenmm_jax.convert import exporting, trees
from xgenmm_jax.convert.detect import detect_format
from xgenmm_jax.convert.formats import blip2
from xgenmm_jax.convert.formats.blip2 import Blip2Parts
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.convert.tensor_shapes import Overrides
from xgenmm_jax.models import blip2 as model
from xgenmm_jax.models.blip2 import Blip2, Blip2Config
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.models.vit import ViTConfig

HEADS = Overrides(vision_heads=4, connector_heads=4)
HF_CONNECTOR = replace(goldens.CONNECTOR, feature_epsilon=1e-6)


@pytest.mark.parametrize(
    ("file", "layout", "overrides"),
    [
        (goldens.LAVIS, "lavis", HEADS),
        (goldens.RETRIEVAL.parent, "blip2", Overrides()),
        (goldens.PHI3.parent, "blip2", Overrides()),
    ],
)
def test_export_gives_back_every_byte(tmp_path, file, layout, overrides):
    """Tensors that are read: LAVIS' counter of positions is none, nor is a language model's."""
    with open_source(file, overrides) as source:
        import_run(source, tmp_path / "run")
    notes = export_checkpoint(tmp_path / "run", tmp_path / "back", layout)
    path = file if file.is_file() else file / "model.safetensors"
    left_out = (blip2.BUFFER, "language_model.")
    theirs = {name: x for name, x in load_file(path).items() if not any(word in name for word in left_out)}
    ours = load_file(tmp_path / "back" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    if file == goldens.RETRIEVAL.parent:
        assert any("cannot go on" in note for note in notes)
        with open_source(tmp_path / "back") as again, open_source(file) as source:
            assert again.config == source.config


def test_sizes_are_those_of_the_files():
    with open_source(goldens.LAVIS, HEADS) as source:
        assert source.config == goldens.CONFIG
    with open_source(goldens.RETRIEVAL.parent) as source:
        assert source.config == replace(goldens.CONFIG, connector=HF_CONNECTOR, language_head=False)
    with open_source(goldens.PHI3.parent) as source:
        assert source.config == Blip2Parts(goldens.VISION, replace(HF_CONNECTOR, out_width=24))


@pytest.mark.slow
def test_a_file_of_transformers_retrieves_as_it_does_there():
    with open_source(goldens.RETRIEVAL.parent) as source:
        config, params = source.config, jax.tree.map(jax.numpy.asarray, read_tree(source))

    def outputs(module: Blip2):
        ids, valid = goldens.text("retrieval")
        seen, texts = module.see(module.encode(goldens.pixels())), module.text_vectors(ids, valid)
        return {
            "image_embeds": seen.features,
            "image_feats": seen.vectors,
            "text_feats": texts,
            "similarity": model.similarity(seen.vectors, texts),
            "itm_logits": module.match(seen.features, ids, valid),
        }

    with jax.default_matmul_precision("highest"):
        got = jax.jit(lambda params: Blip2(config).apply(model.variables(params), method=outputs))(params)
    for name, value in got.items():
        np.testing.assert_allclose(value, goldens.golden("retrieval")[name], rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_a_file_with_a_layer_less_gives_the_states_before_it_and_comes_back(tmp_path):
    """Three layers, of which the last reads features in a group of its own."""
    tensors = {name: x for name, x in load_file(goldens.LAVIS).items() if ".encoder.layer.3." not in name}
    save_file(tensors, tmp_path / "three.safetensors")
    with open_source(tmp_path / "three.safetensors", HEADS) as source:
        assert (source.config.connector.layers, source.config.connector.readers) == (3, 2)
        config, params = source.config, jax.tree.map(jax.numpy.asarray, read_tree(source))
        import_run(source, tmp_path / "run")

    def states(module: Blip2):
        (ids, valid), features = goldens.text(), module.connector.normalize(module.encode(goldens.pixels()))
        queries, cache = module.connector.read(features)
        return queries, module.connector.text_after(cache, ids, valid), module.connector.text_alone(ids, valid)

    with jax.default_matmul_precision("highest"):
        queries, *texts = jax.jit(lambda params: Blip2(config).apply(model.variables(params), method=states))(params)
    np.testing.assert_allclose(queries, goldens.golden("lavis/stage1")["queries_only_3"], rtol=0, atol=2e-5)
    assert all(np.isfinite(text).all() for text in texts)
    export_checkpoint(tmp_path / "run", tmp_path / "back", "lavis")
    ours = load_file(tmp_path / "back" / "model.safetensors")
    theirs = {name: x for name, x in tensors.items() if blip2.BUFFER not in name}
    assert ours.keys() == theirs.keys() and all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_the_released_sizes_need_no_config_file():
    config = Blip2Config(
        replace(goldens.VISION, image_size_px=224, patch_px=14, width=1408, hidden=6144, layers=39, heads=16),
        QFormerConfig(),
    )
    shapes = their_shapes(blip2.stage1_rules(config, "lavis"), trees.shapes(config))
    detected = detect_format({**shapes, "Qformer.bert.embeddings.position_ids": (1, 512)}, {})
    assert detected.config == config and detected.ignored("Qformer.bert.embeddings.position_ids")
    assert shapes["Qformer.bert.encoder.layer.10.crossattention.self.key.weight"] == (768, 1408)
    assert "Qformer.bert.encoder.layer.11.crossattention.self.key.weight" not in shapes
    parts = Blip2Parts(config.vision, replace(config.connector, out_width=2560))
    sizes = [np.prod(shape) for path, shape in trees.shapes(parts).items() if path.startswith("connector/")]
    assert round(sum(sizes) / 1e6) == 107  # as published of the second stage with OPT-2.7B


@pytest.mark.parametrize(("layers", "every"), [(3, 2), (5, 2), (7, 3), (3, 1), (2, 2)])
def test_any_number_of_layers_is_told_from_a_file(layers, every):
    """The official layers read features where their number divides by the frequency, however many there are."""
    config = replace(goldens.CONFIG, connector=replace(goldens.CONNECTOR, layers=layers, cross_every=every))
    shapes = their_shapes(blip2.stage1_rules(config, "lavis"), trees.shapes(config))
    readers = {int(name.split(".")[4]) for name in shapes if ".crossattention." in name}
    assert readers == set(range(0, layers, every)) and len(readers) == config.connector.readers
    assert {int(name.split(".")[4]) for name in shapes if ".intermediate.dense." in name} == set(range(layers))
    assert detect_format(shapes, {}, HEADS).config == config


def test_what_is_no_such_file_says_why(tmp_path):
    tensors = load_file(goldens.LAVIS)
    tensors["Qformer.cls.predictions.decoder.weight"] = tensors["Qformer.cls.predictions.decoder.weight"] + 1
    save_file(tensors, tmp_path / "untied.safetensors")
    with open_source(tmp_path / "untied.safetensors", HEADS) as source:
        with pytest.raises(ValueError, match="language head's table or bias differs"):
            import_run(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    del tensors["visual_encoder.pos_embed"]
    save_file(tensors, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match="not EVA-CLIP-g"):
        open_source(tmp_path / "clip.safetensors", HEADS)
    (tmp_path / "blip2_pretrained.pth").write_bytes(b"\x80\x02}")
    with pytest.raises(ValueError, match=r"is a pickle.*t.get\('model', t\)"):
        open_source(tmp_path / "blip2_pretrained.pth")
    with pytest.raises(ValueError, match="heads; --connector-heads|give --connector-heads"):
        open_source(goldens.LAVIS, Overrides(vision_heads=4))


def test_layouts_without_room_are_refused():
    with pytest.raises(ValueError, match="temperature and language head, which the run lacks"):
        exporting.plan(replace(goldens.CONFIG, language_head=False), "lavis")
    with pytest.raises(ValueError, match="choose --to blip2 or lavis"):
        exporting.plan(goldens.CONFIG, "siglip")
    with pytest.raises(ValueError, match="no Q-Former"):
        exporting.plan(ViTConfig(), "blip2")
    with pytest.raises(ValueError, match="EVA-CLIP-g's form"):
        other = ViTConfig(image_size_px=28, patch_px=7, width=20, hidden=87, layers=2, heads=4)
        exporting.plan(replace(goldens.CONFIG, vision=other), "blip2")
