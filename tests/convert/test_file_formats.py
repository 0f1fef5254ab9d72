"""config.json and its kin at the released size: the fields of docs/reference/checkpoints.md#config-file."""

import json

import pytest

from xgenmm_jax.convert.file_formats import config_files
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig

RELEASED = sizes.with_strips(VLMConfig(ViTConfig(), ResamplerConfig(), Phi3Config()))


def files(config, layout, dtype="F32", anyres=AnyRes()):  # noqa: B008 - frozen
    return {name: json.loads(text) for name, text in config_files(config, layout, dtype, None, anyres).items()}


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("F32", "float32"), ("BF16", "bfloat16")])
def test_released_config_holds_the_released_fields_and_no_more(dtype, torch_dtype):
    """All else are defaults of the official code, whose configs take no sizes of the parts."""
    config = files(RELEASED, "xgenmm", dtype)["config.json"]
    assert config.pop("auto_map").keys() == {"AutoConfig", "AutoModelForVision2Seq"}
    assert config == {
        "architectures": ["XGenMMModelForConditionalGeneration"],
        "model_type": "xgenmm",
        "text_config": {
            "initial_tokenizer_len": 32012,
            "model_type": "phi3",
            "sliding_window": 2047,
            "torch_dtype": torch_dtype,
        },
        "torch_dtype": torch_dtype,
        "transformers_version": "4.41.1",
        "vision_encoder_config": {
            "anyres_patch_sampling": True,
            "image_aspect_ratio": "anyres",
            "model_type": "xgenmm_vision_encoder",
        },
        "vision_tokenizer_config": {"model_type": "xgenmm_vision_tokenizer"},
    }


@pytest.mark.parametrize(
    ("anyres", "grids"),
    [
        (AnyRes(), [[384, 768], [768, 384], [768, 768], [1152, 384], [384, 1152]]),
        (AnyRes(grids=()), None),
    ],
    ids=["instruct", "base"],
)
def test_released_processor(anyres, grids):
    processor = files(RELEASED, "xgenmm", anyres=anyres)["preprocessor_config.json"]
    assert processor["image_processor_type"] == "Blip3ImageProcessor" and processor["grids"] == grids
    assert processor["size"] == [384, 384] and processor["image_mean"] == processor["image_std"] == [0.5] * 3
    assert (processor["resize_mode"], processor["interpolation_mode"]) == ("squash", "bicubic")


def test_generation_stops_at_both_ends():
    generation = files(RELEASED, "xgenmm")["generation_config.json"]
    assert generation["eos_token_id"] == [32000, 32007] and generation["pad_token_id"] == 32011


def test_phi3_mini_is_the_released_config():
    config = files(Phi3Config(), "phi3")["config.json"]
    expected = {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32064,
        "sliding_window": 2047,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 32000,
        "pad_token_id": 32000,
        "tie_word_embeddings": False,
    }
    assert {name: config[name] for name in expected} == expected


def test_siglip_so400m_is_the_released_config():
    config = files(ViTConfig(), "siglip")["config.json"]
    expected = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    }
    assert {name: config[name] for name in expected} == expected
