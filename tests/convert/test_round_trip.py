"""Import then export gives the same bytes; export then import the same parameters."""

import json
import tracemalloc

from checkpoints_made import TINY28, random_tensors, same_bytes, tiny28, tiny28_settings, write
import jax
import ml_dtypes
import numpy as np
import pytest
from released_parameters import read_tree
from safetensors.numpy import load_file

from xgenmm_jax.api.conversion import export_checkpoint, import_run
from xgenmm_jax.convert.exporting import NO_TOKENIZER, OFFICIAL_CODE, SMALL_IMAGES
from xgenmm_jax.convert.formats import phi3_hf, siglip_hf
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.parameter_store import ParameterReader
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.vit import ViTConfig

PHI3_TOKENIZER = TINY28.parent / "phi3_tokenizer"


def import_into(source, folder, dtype="float32", **options):
    with open_source(source, **options) as opened:
        import_run(opened, folder, dtype)
    return folder


def read_all(folder):
    """Tensors of every shard of a folder."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_released_layout_comes_out_as_it_went_in(tmp_path):
    run = import_into(TINY28, tmp_path / "run")
    notes = export_checkpoint(run, tmp_path / "out", "xgenmm")
    same_bytes(tiny28(), load_file(tmp_path / "out" / "model.safetensors"))
    assert notes == (OFFICIAL_CODE, NO_TOKENIZER)
    written, released = json.loads((tmp_path / "out/config.json").read_text()), json.loads(tiny28_settings())
    for part in ("text_config", "vision_encoder_config", "vision_tokenizer_config"):
        differing = {key for key in released[part] if written[part].get(key) != released[part][key]}
        # Ids that the golden chose; and what the resampler is never asked.
        assert differing <= {"eos_token_id", "pad_token_id", "image_aspect_ratio"}
    for key in ("architectures", "auto_map", "model_type", "torch_dtype"):
        assert written[key] == released[key]


def test_small_images_kept_whole_are_told(tmp_path):
    """The official code lays them on a grid all the same."""
    run = import_into(TINY28, tmp_path / "run")
    config = (run / "config.json").read_text()
    assert config.count('"single_view_up_to_px": 0') == 1
    (run / "config.json").write_text(config.replace('"single_view_up_to_px": 0', '"single_view_up_to_px": 28'))
    notes = export_checkpoint(run, tmp_path / "out", "xgenmm")
    assert notes == (SMALL_IMAGES, OFFICIAL_CODE, NO_TOKENIZER)


def test_bfloat16_comes_out_as_it_went_in_and_is_float32_in_between(tmp_path):
    tensors = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tiny28().items()}
    source = write(tmp_path / "half", tensors, tiny28_settings())
    run = import_into(source, tmp_path / "run")
    assert ParameterReader(run / "checkpoints/0/params").read("decoder/norm/scale").dtype == np.float32
    export_checkpoint(run, tmp_path / "out", "xgenmm", "bfloat16")
    same_bytes(tensors, load_file(tmp_path / "out" / "model.safetensors"))
    assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "bfloat16"
    # Kept as bfloat16 if asked.
    half_run = import_into(source, tmp_path / "half_run", "bfloat16")
    export_checkpoint(half_run, tmp_path / "again", "xgenmm", "bfloat16")
    same_bytes(tensors, load_file(tmp_path / "again" / "model.safetensors"))


def test_shards_and_their_index(tmp_path):
    run = import_into(TINY28, tmp_path / "run")
    limit = 2_000_000
    export_checkpoint(run, tmp_path / "out", "xgenmm", shard_bytes=limit)
    files = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert files == [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    original = tiny28()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in original.values())
    for file in files:
        tensors = load_file(tmp_path / "out" / file)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= limit
        assert {name for name, where in index["weight_map"].items() if where == file} == tensors.keys()
    same_bytes(original, read_all(tmp_path / "out"))
    with open_source(tmp_path / "out") as sharded, open_source(TINY28) as whole:
        assert sharded.config == whole.config
        jax.tree.map(np.testing.assert_array_equal, read_tree(sharded), read_tree(whole))


def test_training_checkpoint_with_a_tower_from_elsewhere_is_the_whole_model(tmp_path):
    """The official training code saves neither the prefix nor the frozen tower."""
    original = tiny28()
    trained = {name.removeprefix("vlm."): t for name, t in original.items() if "vision_encoder" not in name}
    tower = {
        f"vision_model.{name.removeprefix('vlm.vision_encoder.')}": t
        for name, t in original.items()
        if "vision_encoder" in name
    }
    vision_config = json.dumps(json.loads(tiny28_settings())["vision_encoder_config"]["siglip_vision_config"])
    source = write(tmp_path / "trained", trained, tiny28_settings())
    vision = write(tmp_path / "tower", tower, vision_config)
    with open_source(source, vision=vision) as both, open_source(TINY28) as whole:
        assert both.config == whole.config
        jax.tree.map(np.testing.assert_array_equal, read_tree(both), read_tree(whole))
    with pytest.raises(ValueError, match="has its own tower; leave --vision away"):
        open_source(TINY28, vision=vision)


def test_siglip_export_is_the_tower(tmp_path):
    run = import_into(TINY28, tmp_path / "run")
    export_checkpoint(run, tmp_path / "siglip", "siglip")
    tower = {
        f"vision_model.{name.removeprefix('vlm.vision_encoder.')}": tensor
        for name, tensor in tiny28().items()
        if "vision_encoder" in name
    }
    same_bytes(tower, load_file(tmp_path / "siglip" / "model.safetensors"))
    with open_source(tmp_path / "siglip") as part, open_source(TINY28) as whole:
        assert part.config == whole.config.vision
        jax.tree.map(np.testing.assert_array_equal, read_tree(part)["vision"], read_tree(whole)["vision"])


def test_siglip_comes_out_as_it_went_in(tmp_path):
    """The pooled head too, which no forward of xGen-MM uses; the text part beside it is left out."""
    config = ViTConfig(image_size_px=32, patch_px=8, width=24, hidden=20, layers=2, heads=3)
    tensors = random_tensors(siglip_hf.vision_rules(config, "vision_model."), config)
    beside = {"text_model.encoder.layers.0.layer_norm1.weight": np.ones(24, np.float32), "logit_scale": np.ones(1)}
    settings = '{"model_type": "siglip", "vision_config": {"num_attention_heads": 3}}'
    run = import_into(write(tmp_path / "siglip", tensors | beside, settings), tmp_path / "run")
    assert export_checkpoint(run, tmp_path / "out", "siglip") == ()
    same_bytes(tensors, load_file(tmp_path / "out" / "model.safetensors"))


def test_float16_is_read_exactly(tmp_path):
    """Every float16 is a float32."""
    tensors = {name: tensor.astype(np.float16) for name, tensor in tiny28().items()}
    run = import_into(write(tmp_path / "half", tensors, tiny28_settings()), tmp_path / "run")
    export_checkpoint(run, tmp_path / "out", "xgenmm")
    wide = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    same_bytes(wide, load_file(tmp_path / "out" / "model.safetensors"))


def test_no_whole_leaf_stands_in_memory(tmp_path):
    """A leaf of 64 layers is more than four times what both directions allocate at once, Python's own included."""
    config = Phi3Config(vocab_size=64, num_text_tokens=64, width=64, hidden=1536, layers=64, heads=4, kv_heads=4)
    tensors = random_tensors(phi3_hf.decoder_rules(config, ""), config)
    leaf = 64 * 64 * 2 * 1536 * 4
    source = write(tmp_path / "phi3", tensors, '{"num_attention_heads": 4}')
    del tensors
    # What JAX and Python keep of the first time is not counted.
    export_checkpoint(import_into(source, tmp_path / "warm"), tmp_path / "warm_out", "phi3")
    tracemalloc.start()
    try:
        run = import_into(source, tmp_path / "run")
        export_checkpoint(run, tmp_path / "out", "phi3")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < leaf / 4


def test_phi3_comes_out_as_it_went_in(tmp_path):
    """With grouped queries, as Phi-3 medium; what xGen-MM adds is made and left out again."""
    config = Phi3Config(vocab_size=50, num_text_tokens=50, width=24, hidden=20, layers=3, heads=6, kv_heads=2)
    tensors = random_tensors(phi3_hf.decoder_rules(config, ""), config)
    source = write(tmp_path / "phi3", tensors, '{"model_type": "phi3", "num_attention_heads": 6}')
    run = import_into(source, tmp_path / "run")
    notes = export_checkpoint(run, tmp_path / "out", "phi3")
    same_bytes(tensors, load_file(tmp_path / "out" / "model.safetensors"))
    assert "no bias of the head" in notes[0] and notes[1:] == (NO_TOKENIZER,)
    with open_source(tmp_path / "out") as again:
        assert again.config == config
        initialized = read_tree(again)["decoder"]
    assert not initialized["head_bias"].any() and not initialized["additional_head_bias"].any()
    assert 0.01 < initialized["additional_embedding"].std() < 0.03


def test_grouped_queries_stand_before_their_key_and_value():
    """Rows of two key-value heads with two queries each, width 1 a head: q0 q1 q2 q3 k0 k1 v0 v1."""
    transform = phi3_hf.GroupedQKV(heads=4, kv_heads=2)
    fused = np.arange(8.0).reshape(8, 1)
    ours = transform.into([fused])
    np.testing.assert_array_equal(ours[0, :, :, 0], [[0, 1, 4, 6], [2, 3, 5, 7]])
    np.testing.assert_array_equal(transform.back(ours, 1)[0], fused)


def test_tokenizer_files_are_those_of_phi3(tmp_path):
    """They are made from tokenizer.model alone."""
    from xgenmm_jax.convert.file_formats import tokenizer_files

    files = tokenizer_files(Tokenizer.load(PHI3_TOKENIZER / "tokenizer.model"))
    for name, value in files.items():
        assert value == json.loads((PHI3_TOKENIZER / name).read_text()), name


def test_a_part_alone_is_not_a_released_model(tmp_path):
    run = import_into(TINY28.parent / "big_vision_scanned/siglip.npz", tmp_path / "tower")
    with pytest.raises(ValueError, match="a part of a model; choose --to siglip"):
        export_checkpoint(run, tmp_path / "out", "xgenmm")
    with pytest.raises(ValueError, match="no language model"):
        export_checkpoint(run, tmp_path / "out", "phi3")
    assert not list(tmp_path.glob("out*"))
