"""transformers' own torch classes at random sizes and weights: saved by them, imported here, the same outputs.

Needs the extra `parity`: pytest -m parity tests/convert
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from xgenmm_jax.convert.importing import open_source, read_tree
from xgenmm_jax.models.attention import Window
from xgenmm_jax.models.phi3 import Phi3
from xgenmm_jax.models.vit import ViT
from xgenmm_jax.training.imported import export_checkpoint, import_run

# Torch's start warns of what does not concern us.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def randomize(model, torch):
    """Norms and biases too, which torch starts at one and zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + (parameter.ndim == 1))
    return model.eval()


@pytest.mark.parametrize(("image_px", "patch_px", "width", "heads"), [(30, 14, 24, 3), (32, 8, 40, 5)])
def test_siglip(tmp_path, image_px, patch_px, width, heads):
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width + 1,
        num_hidden_layers=3,
        num_attention_heads=heads,
        image_size=image_px,
        patch_size=patch_px,
    )
    model = randomize(SiglipVisionModel(config), torch)
    model.save_pretrained(tmp_path / "theirs")
    pixels = np.random.default_rng(0).standard_normal((2, 3, image_px, image_px), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(pixels))
    with open_source(tmp_path / "theirs") as source:
        assert source.config.image_size_px == image_px and source.config.heads == heads
        import_run(source, tmp_path / "run")
        params = read_tree(source)["vision"]
        tower = ViT(source.config)
    features, pooled = jax.jit(
        lambda params, pixels: tower.apply({"params": params}, pixels, method="features_and_pooled")
    )(params, jnp.asarray(pixels.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(features, wanted.last_hidden_state.numpy(), **TOLERANCE)
    np.testing.assert_allclose(pooled, wanted.pooler_output.numpy(), **TOLERANCE)
    # And back: transformers loads what we write.
    export_checkpoint(tmp_path / "run", tmp_path / "ours", "siglip")
    with torch.no_grad():
        again = SiglipVisionModel.from_pretrained(tmp_path / "ours").eval()(torch.from_numpy(pixels))
    assert torch.equal(again.pooler_output, wanted.pooler_output)


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 4, 32), (6, 2, 48), (4, 1, 24)])
def test_phi3(tmp_path, heads, kv_heads, width):
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=61,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        sliding_window=5,
        pad_token_id=0,
        attn_implementation="eager",
    )
    model = randomize(Phi3ForCausalLM(config), torch)
    model.save_pretrained(tmp_path / "theirs")
    ids = np.random.default_rng(0).integers(0, 61, (2, 9)).astype(np.int32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids).long()).logits.numpy()
    with open_source(tmp_path / "theirs") as source:
        assert source.config.kv_heads == kv_heads and source.config.window is Window.W_PLUS_1
        import_run(source, tmp_path / "run")
        params = read_tree(source)["decoder"]
        # transformers of today sees as many keys as the window says, the released model one more.
        decoder = Phi3(source.config.__class__(**{**vars(source.config), "window": Window.W}))
    positions = jnp.broadcast_to(jnp.arange(9, dtype=jnp.int32)[None], (2, 9))
    logits = jax.jit(decoder.apply)({"params": params}, jnp.asarray(ids), jnp.ones((2, 9), jnp.int32), positions)
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(logits[..., :61] / scale, wanted / scale, **TOLERANCE)
    export_checkpoint(tmp_path / "run", tmp_path / "ours", "phi3")
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    assert theirs.keys() == ours.keys() and all(np.array_equal(theirs[name], ours[name]) for name in theirs)
    with torch.no_grad():
        again = Phi3ForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
        assert np.array_equal(again(torch.from_numpy(ids).long()).logits.numpy(), wanted)
