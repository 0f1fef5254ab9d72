"""transformers' own torch classes at random sizes and weights: saved by them, imported here, the same outputs.

Needs the extra `parity`: pytest -m parity tests/convert
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from released_parameters import read_tree
from safetensors.numpy import load_file

from tools.make_llama_goldens import LLAMA3, make
from xgenmm_jax.api.conversion import export_checkpoint, import_run
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.models.phi3 import Phi3
from xgenmm_jax.models.vit import ViT
from xgenmm_jax.ops.masks import WindowConvention

# Torch's start warns of what does not concern us.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
TOLERANCE = {"rtol": 0, "atol": 1e-5}
SEEDS = range(4)


def randomize(model, torch, seed):
    """Norms and biases too, which torch starts at one and zero. Outputs are of the order of one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(std * torch.randn_like(parameter) + (parameter.ndim == 1))
    return model.eval()


def same_files(theirs, ours, prefix=""):
    """prefix: of our names, which transformers 5 leaves away; the released files and transformers 4 have it."""
    one, other = (
        {
            prefix + name.removeprefix(prefix): tensor
            for file in folder.glob("*.safetensors")
            for name, tensor in load_file(file).items()
        }
        for folder in (theirs, ours)
    )
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("seed", SEEDS)
def test_siglip(tmp_path, seed):
    """Images that are no whole number of patches, too: the pixels over are nobody's."""
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    random = np.random.default_rng(seed)
    heads, patch_px = int(random.integers(1, 7)), int(random.integers(4, 16))
    width = heads * int(random.integers(3, 20))
    image_px = patch_px * int(random.integers(1, 5)) + int(random.integers(patch_px))
    config = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=int(random.integers(5, 150)),
        num_hidden_layers=int(random.integers(1, 5)),
        num_attention_heads=heads,
        image_size=image_px,
        patch_size=patch_px,
    )
    model = randomize(SiglipVisionModel(config), torch, seed)
    model.save_pretrained(tmp_path / "theirs")
    pixels = random.standard_normal((2, 3, image_px, image_px), np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels))
    with open_source(tmp_path / "theirs") as source:
        assert source.config.image_size_px == image_px and source.config.heads == heads
        import_run(source, tmp_path / "run")
        params = read_tree(source)["vision"]
        tower = ViT(source.config)
    features, pooled = jax.jit(
        lambda params, pixels: tower.apply({"params": params}, pixels, method="features_and_pooled")
    )(params, jnp.asarray(pixels.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(features, expected.last_hidden_state.numpy(), **TOLERANCE)
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), **TOLERANCE)
    # And back: transformers loads what we write.
    export_checkpoint(tmp_path / "run", tmp_path / "ours", "siglip")
    same_files(tmp_path / "theirs", tmp_path / "ours", "vision_model.")
    with torch.no_grad():
        again = SiglipVisionModel.from_pretrained(tmp_path / "ours").eval()(torch.from_numpy(pixels))
    assert torch.equal(again.pooler_output, expected.pooler_output)


@pytest.mark.parametrize("seed", SEEDS)
def test_phi3(tmp_path, seed):
    """Saved in shards; grouped queries; a window shorter than the row."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    random = np.random.default_rng(seed)
    kv_heads = int(random.integers(1, 4))
    heads = kv_heads * int(random.integers(1, 4))
    rows, length = int(random.integers(20, 90)), 9
    config = Phi3Config(
        vocab_size=rows,
        hidden_size=heads * 2 * int(random.integers(2, 10)),
        intermediate_size=int(random.integers(5, 150)),
        num_hidden_layers=int(random.integers(1, 5)),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        sliding_window=int(random.integers(2, 8)),
        pad_token_id=0,
        attn_implementation="eager",
    )
    model = randomize(Phi3ForCausalLM(config), torch, seed)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    ids = random.integers(0, rows, (2, length)).astype(np.int32)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids).long()).logits.numpy()
    with open_source(tmp_path / "theirs") as source:
        assert source.config.kv_heads == kv_heads and source.config.window is WindowConvention.W_PLUS_1
        import_run(source, tmp_path / "run")
        params = read_tree(source)["decoder"]
        # transformers of today sees as many keys as the window says, the released model one more.
        decoder = Phi3(replace(source.config, window=WindowConvention.W))
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], ids.shape)
    logits = jax.jit(decoder.apply)({"params": params}, jnp.asarray(ids), jnp.ones_like(positions), positions)
    np.testing.assert_allclose(logits[..., :rows], expected, **TOLERANCE)
    export_checkpoint(tmp_path / "run", tmp_path / "ours", "phi3")
    same_files(tmp_path / "theirs", tmp_path / "ours")
    with torch.no_grad():
        again = Phi3ForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
        assert np.array_equal(again(torch.from_numpy(ids).long()).logits.numpy(), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_llama(tmp_path, kind, seed):
    """Saved in shards; grouped queries; with odd seeds a tied head and heads of a width of their own; Llama 3's
    stretched angles, or not."""
    import torch
    from transformers import AutoModelForCausalLM

    random = np.random.default_rng(seed)
    kv_heads, group, half = (int(random.integers(1, 4)) for _ in range(3))
    heads, rows = kv_heads * group, int(random.integers(20, 90))
    head_width = 2 * half + 2
    options = {
        "vocab_size": rows,
        "hidden_size": heads * (head_width if seed % 2 == 0 or kind == "qwen2" else 10),
        "intermediate_size": int(random.integers(5, 150)),
        "num_hidden_layers": int(random.integers(1, 5)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": seed % 2 == 1,
        "rms_norm_eps": float(random.choice([1e-5, 1e-6])),
    }
    if kind == "llama":
        options["head_dim"] = head_width
        options["rope_parameters"] = {**LLAMA3, "rope_type": "llama3" if seed > 1 else "default"}
    ids, expected = make(kind, options, tmp_path / "theirs", seed)
    with open_source(tmp_path / "theirs") as source:
        assert source.config.kv_heads == kv_heads and source.config.tied_head == (seed % 2 == 1)
        assert (source.config.long_context is not None) == (kind == "llama" and seed > 1)
        import_run(source, tmp_path / "run")
        params, decoder = read_tree(source)["decoder"], Phi3(source.config)
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
    logits = jax.jit(decoder.apply)({"params": params}, jnp.asarray(ids), jnp.ones_like(positions), positions)
    np.testing.assert_allclose(logits[..., :rows], expected, rtol=0, atol=2e-5)
    export_checkpoint(tmp_path / "run", tmp_path / "ours", "llama")
    same_files(tmp_path / "theirs", tmp_path / "ours")
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
        assert np.array_equal(again(torch.from_numpy(ids).long()).logits.numpy(), expected)
