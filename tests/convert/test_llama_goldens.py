"""transformers' tiny Llama and Qwen2: imported here, the same logits; exported, the same bytes.

Made by tools/make_llama_goldens.py with transformers 5.24.0 and torch 2.13.0.
"""

import json
from pathlib import Path
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from released_parameters import read_tree
from safetensors.numpy import load_file, save_file

from xgenmm_jax.api.conversion import export_checkpoint, import_run
from xgenmm_jax.convert import trees
from xgenmm_jax.convert.formats import llama_hf
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.models import kv_cache
from xgenmm_jax.models.phi3 import Phi3, Phi3Config
from xgenmm_jax.models.rotary import LongContext
from xgenmm_jax.ops.masks import WindowConvention

FOLDER = Path(__file__).parents[1] / "goldens/llama_tiny"
CASES = ("plain", "llama3_grouped_tied", "qwen2")
TOLERANCE = {"rtol": 0, "atol": 2e-5}


def tensors(folder):
    return {name: array for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}


def edited(tmp_path, case, **changes):
    """A copy of a golden folder with other fields in config.json; None takes a field out."""
    folder = tmp_path / "edited"
    shutil.copytree(FOLDER / case, folder)
    settings = json.loads((folder / "config.json").read_text()) | changes
    settings = {name: value for name, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def opened(folder):
    with open_source(folder) as source:
        return source.config, read_tree(source)["decoder"]


def logits_of(config, params, ids):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
    decoder = Phi3(config)
    return jax.jit(decoder.apply)({"params": params}, jnp.asarray(ids), jnp.ones_like(positions), positions)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case):
    golden = np.load(FOLDER / case / "outputs.npz")
    config, params = opened(FOLDER / case)
    logits = logits_of(config, params, golden["token_ids"])
    assert logits.shape[-1] == config.vocab_size + 4
    np.testing.assert_allclose(logits[..., : config.vocab_size], golden["logits"], **TOLERANCE)


def test_sizes_are_those_of_the_files():
    config, params = opened(FOLDER / "llama3_grouped_tied")
    assert (config.heads, config.kv_heads, config.head_width, config.width) == (4, 2, 8, 16)
    assert config.tied_head and "head_kernel" not in params and config.rope_theta == 500.0
    assert config.long_context == LongContext(4.0, 1.0, 4.0, 32)
    assert opened(FOLDER / "qwen2")[0].qkv_bias


def test_a_released_size_has_the_published_number_of_parameters():
    """Llama 3.2 1B: 1,235,814,400, and our rows, columns and biases for what Llama lacks."""
    config = Phi3Config(
        vocab_size=128256, num_text_tokens=128256, num_extra_tokens=4, width=2048, hidden=8192, layers=16, heads=32,
        kv_heads=8, head_dim=64, window=WindowConvention.NONE, tied_head=True,
    )  # fmt: skip
    shapes = trees.shapes(config)
    theirs = [rule.ours for rule in llama_hf.decoder_rules(config, "")]
    assert sum(int(np.prod(shapes[name])) for name in theirs) == 1_235_814_400
    assert shapes.keys() == {*theirs, *llama_hf.INITIALIZED}


@pytest.mark.parametrize("case", CASES)
def test_cached_decoding_gives_the_logits_of_whole_rows(case):
    golden = np.load(FOLDER / case / "outputs.npz")
    config, params = opened(FOLDER / case)
    decoder, ids = Phi3(config), jnp.asarray(golden["token_ids"])

    def cached(decoder):
        ones, cache = jnp.ones_like(ids), kv_cache.empty_cache(config, 2, 12, "float32")
        positions = jnp.broadcast_to(jnp.arange(12, dtype=jnp.int32)[None], ids.shape)
        parts = []
        for start, end in ((0, 9), (9, 10), (10, 11), (11, 12)):
            embeddings = decoder.embed(ids[:, start:end])
            of = slice(start, end)
            hidden, cache = decoder.extend(embeddings, ones[:, of], positions[:, of], cache, start)
            parts.append(decoder.logits(hidden))
        return jnp.concatenate(parts, axis=1)

    logits = jax.jit(lambda params: decoder.apply({"params": params}, method=cached))(params)
    np.testing.assert_allclose(logits[..., : config.vocab_size], golden["logits"], **TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_export_gives_back_every_byte(tmp_path, case):
    with open_source(FOLDER / case) as source:
        import_run(source, tmp_path / "run")
    export_checkpoint(tmp_path / "run", tmp_path / "back", "llama")
    theirs, ours = tensors(FOLDER / case), tensors(tmp_path / "back")
    assert theirs.keys() == ours.keys()
    assert all(theirs[name].tobytes() == ours[name].tobytes() for name in theirs)
    # And the config.json beside says the same model.
    assert opened(tmp_path / "back")[0] == opened(FOLDER / case)[0]


def test_a_copy_of_a_tied_head_is_left_alone(tmp_path):
    folder = edited(tmp_path, "llama3_grouped_tied")
    (folder / "model.safetensors.index.json").unlink()
    whole = tensors(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    save_file(whole | {"lm_head.weight": whole["model.embed_tokens.weight"]}, folder / "model.safetensors")
    config, params = opened(folder)
    assert config.tied_head and "head_kernel" not in params


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gemma"}, "model_type is 'gemma'; wanted llama or qwen2"),
        ({"model_type": None}, "of no known family; wanted .* Llama and Qwen2 with their config.json"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"'),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 'rotary scaling "yarn"; only "default"'),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, 'scaling "llama3" without low_freq_factor'),
        ({"num_attention_heads": 3}, "3 heads for 16 rows of q_proj"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"tie_word_embeddings": True}, None),
    ],
)
def test_what_computes_otherwise_is_refused(tmp_path, changes, said):
    """A tied head is no error: transformers too leaves the file's lm_head away then."""
    folder = edited(tmp_path, "plain", **changes)
    if said is None:
        assert opened(folder)[0].tied_head
        return
    with pytest.raises(ValueError, match=said):
        open_source(folder)


def test_layouts_of_another_form_are_refused(tmp_path):
    with open_source(FOLDER / "qwen2") as source:
        import_run(source, tmp_path / "run")
    with pytest.raises(ValueError, match="has Llama's form"):
        export_checkpoint(tmp_path / "run", tmp_path / "out", "phi3")
    assert not (tmp_path / "out").exists()
