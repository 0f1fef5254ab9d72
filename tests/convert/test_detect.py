"""Families and sizes from tensor names and shapes, at the released sizes too: nothing is allocated."""

from dataclasses import replace
import json
import math

from checkpoints_made import GOLDENS
import pytest

from xgenmm_jax.convert import trees
from xgenmm_jax.convert.detect import detect_format
from xgenmm_jax.convert.formats import open_clip, phi3_hf, siglip_big_vision, siglip_hf, xgenmm
from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.convert.safetensors_writer import index, plan_shards
from xgenmm_jax.convert.tensor_shapes import Overrides
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig

RELEASED = sizes.with_strips(VLMConfig(ViTConfig(), ResamplerConfig(), Phi3Config()))
MEDIUM = replace(sizes.PHI3_MEDIUM, remat="none")
DFN = sizes.DFN_H378
RELEASED_SHAPES = GOLDENS / "released_v1_5_shapes.json"


def released_shapes():
    text = json.loads(RELEASED_SHAPES.read_text())
    return {name: tuple(shape) for name, shape in text["shapes"].items()}


def shapes_of(rules, config):
    return their_shapes(rules, trees.shapes(config))


def test_export_of_the_released_size_has_the_718_released_tensors():
    shapes = shapes_of(xgenmm.rules(RELEASED), RELEASED)
    assert shapes == released_shapes() and len(shapes) == 718


def test_shards_of_the_released_size_are_the_released_ones():
    """Its index, tensor by tensor: four files of at most 5 GB, 17,437,028,876 bytes."""
    shapes = shapes_of(xgenmm.rules(RELEASED), RELEASED)
    shards = plan_shards(shapes, 4)
    written = index(shards, shapes, 4)
    assert written["weight_map"] == json.loads(RELEASED_SHAPES.read_text())["weight_map_base_v1_5"]
    assert written["metadata"]["total_size"] == 17_437_028_876
    assert all(sum(math.prod(shapes[name]) * 4 for name in names) <= 5e9 for names in shards.values())


@pytest.mark.parametrize("prefix", ["", "vlm.", "module.", "model.vlm."])
def test_prefix_is_whatever_stands_before_the_names(prefix):
    shapes = {prefix + name.removeprefix("vlm."): shape for name, shape in released_shapes().items()}
    detected = detect_format(shapes, {})
    assert detected.config == RELEASED and shapes_of(detected.rules, detected.config) == shapes


def test_released_shapes_are_detected_without_config():
    detected = detect_format(released_shapes(), {})
    assert detected.config == RELEASED and not detected.initialized


def test_training_checkpoint_needs_a_tower():
    shapes = {
        name.removeprefix("vlm."): shape for name, shape in released_shapes().items() if "vision_encoder" not in name
    }
    with pytest.raises(ValueError, match="lacks the frozen vision tower.*--vision"):
        detect_format(shapes, {})
    assert detect_format(shapes, {}, tower=ViTConfig()).config == RELEASED


@pytest.mark.parametrize(
    ("config", "rules"),
    [
        (ViTConfig(), siglip_hf.vision_rules(ViTConfig(), "vision_model.")),
        (ViTConfig(), siglip_hf.vision_rules(ViTConfig(), "")),
        (ViTConfig(), siglip_big_vision.vision_rules(ViTConfig(), "params/img/", True)),
        (ViTConfig(), siglip_big_vision.vision_rules(ViTConfig(), "params/img/", False)),
        (DFN, open_clip.vision_rules(DFN)),
        (Phi3Config(), phi3_hf.decoder_rules(Phi3Config(), "")),
        (MEDIUM, phi3_hf.decoder_rules(MEDIUM, "")),
    ],
    ids=["siglip", "siglip_bare", "big_vision", "big_vision_unrolled", "dfn", "phi3_mini", "phi3_medium"],
)
def test_released_parts_are_detected_by_their_shapes(config, rules):
    """Phi-3 medium's ten key-value heads are counted from its fused kernel."""
    detected = detect_format(shapes_of(rules, config), {})
    assert detected.config == config and detected.rules == rules
    covered = {rule.ours for rule in detected.rules} | set(detected.initialized)
    assert covered == trees.shapes(config).keys()


def test_other_siglip_sizes():
    base = ViTConfig(image_size_px=256, patch_px=16, width=768, hidden=3072, layers=12, heads=12)
    shapes = shapes_of(siglip_hf.vision_rules(base, "vision_model."), base)
    beside = {"text_model.encoder.layers.0.layer_norm1.weight": (768,), "logit_scale": (1,), "logit_bias": (1,)}
    detected = detect_format(beside | shapes, {})
    assert detected.config == base and all(detected.ignored(name) for name in beside)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("model.layers.0.self_attn.q_proj.weight",), "of no known family; wanted xGen-MM"),
        (("vlm.vision_tokenizer.latents", "vlm.vision_tokenizer.text_projection.0.weight"), "this is xGen-MM v1 "),
        (
            ("vision_model.embeddings.class_embedding", "vision_model.embeddings.patch_embedding.weight"),
            "CLIP in Hugging Face's layout",
        ),
        ((), "its tensors .none ..."),
    ],
)
def test_other_families_are_refused_by_name(names, sentence):
    with pytest.raises(ValueError, match=sentence):
        detect_format(dict.fromkeys(names, (4, 4)), {})


def test_long_context_phi_is_refused():
    shapes = shapes_of(phi3_hf.decoder_rules(Phi3Config(), ""), Phi3Config())
    with pytest.raises(ValueError, match='rotary embedding "longrope"'):
        detect_format(shapes, {"rope_scaling": {"type": "longrope"}})


def test_heads_that_do_not_fit_are_refused():
    shapes = shapes_of(phi3_hf.decoder_rules(Phi3Config(), ""), Phi3Config())
    with pytest.raises(ValueError, match="7 heads do not divide the width 3072"):
        detect_format(shapes, {}, Overrides(decoder_heads=7))
