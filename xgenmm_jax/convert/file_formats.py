"""config.json and its kin of the released layouts, as the official code and transformers read them.

Source: docs/reference/checkpoints.md#config-file.
"""

from collections.abc import Mapping
import json
from typing import Any

from xgenmm_jax.convert.formats import blip2_files, llama_hf
from xgenmm_jax.convert.formats.blip2 import Blip2Parts
from xgenmm_jax.convert.formats.blip3o import Blip3oParts
from xgenmm_jax.convert.trees import Config
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.tokenizer import DECOUPLED, PHI3_SPECIALS, STRIPS_RIGHT, Tokenizer
from xgenmm_jax.data.text.tokenizer_files import MODEL_FILE
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.ops.masks import WindowConvention

TRANSFORMERS = "4.41.1"
"""The version of the release."""
TORCH_NAMES = {"F32": "float32", "BF16": "bfloat16"}
ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}
CONTEXT = 4096
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def config_files(
    config: Config, layout: str, dtype: str, tokenizer: Tokenizer | None, anyres: AnyRes
) -> dict[str, str]:
    """File name to text. dtype: safetensors' name. The official config.json says nothing of BLIP3-o's own parts."""
    if isinstance(config, Blip3oParts) or layout == "lavis":
        return {}
    files: dict[str, Any]
    torch_dtype = TORCH_NAMES[dtype]
    if isinstance(config, Blip2Config | Blip2Parts):
        return _texts(blip2_files.config_files(config, torch_dtype))
    if isinstance(config, ViTConfig):
        files = {
            "config.json": {
                "architectures": ["SiglipVisionModel"],
                "model_type": "siglip_vision_model",
                **siglip_config(config),
                "torch_dtype": torch_dtype,
            },
            "preprocessor_config.json": {
                "image_processor_type": "SiglipImageProcessor",
                **_normalisation(config),
                "do_resize": True,
                "resample": 3,
                "size": {"height": config.image_size_px, "width": config.image_size_px},
            },
        }
        return _texts(files)
    if isinstance(config, Phi3Config) and layout == "llama":
        files = {"config.json": {**llama_hf.model_config(config), "torch_dtype": torch_dtype}}
        if tokenizer is not None:
            ends = {"eos_token_id": [tokenizer.eos_id, tokenizer.end_id], "_from_model_config": True}
            files["generation_config.json"] = {**ends, "bos_token_id": tokenizer.bos_id}
        # A tokenizer.json brings its own tokenizer_config.json.
        is_own = tokenizer is None or tokenizer.FILE != MODEL_FILE
        return _texts(files if is_own else {**files, **tokenizer_files(tokenizer)})
    if isinstance(config, Phi3Config):
        text = {"architectures": ["Phi3ForCausalLM"], **phi3_config(config), "torch_dtype": torch_dtype}
        files = {"config.json": text}
        eos, end, pad = special_ids(config)
    else:
        eos, end, pad = special_ids(config.decoder)
        files = {
            "config.json": xgenmm_config(config, torch_dtype, anyres),
            "preprocessor_config.json": preprocessor_config(config, anyres),
        }
    # Both ends stop it: a base model ends with the first, a tuned one with the second, and neither id is in vain.
    files["generation_config.json"] = {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": [eos, end],
        "pad_token_id": pad,
        "transformers_version": TRANSFORMERS,
    }
    if tokenizer is not None:
        files |= tokenizer_files(tokenizer)
    return _texts(files)


def _texts(files: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in files.items()}


def siglip_config(config: ViTConfig) -> dict[str, Any]:
    """SiglipVisionConfig's fields."""
    return {
        "attention_dropout": 0.0,
        "hidden_act": ACTIVATIONS[config.activation],
        "hidden_size": config.width,
        "image_size": config.image_size_px,
        "intermediate_size": config.hidden,
        "layer_norm_eps": config.epsilon,
        "num_attention_heads": config.heads,
        "num_channels": 3,
        "num_hidden_layers": config.layers,
        "patch_size": config.patch_px,
    }


def special_ids(config: Phi3Config) -> tuple[int, int, int]:
    """`<|endoftext|>`, `<|end|>` and `<pad>`: 32000, 32007 and 32011 in the release. `<pad>` is the last id."""
    pad = config.num_text_tokens - 1
    return max(pad - 11, 0), max(pad - 4, 0), pad


def phi3_config(config: Phi3Config) -> dict[str, Any]:
    """Phi3Config's fields. A window of w means w + 1 keys here and in the release, w in newer transformers."""
    eos = special_ids(config)[0]
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "eos_token_id": eos,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "initializer_range": config.init_std,
        "intermediate_size": config.hidden,
        "max_position_embeddings": CONTEXT,
        "model_type": "phi3",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "original_max_position_embeddings": CONTEXT,
        "pad_token_id": eos,
        "resid_pdrop": 0.0,
        "rms_norm_eps": config.epsilon,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "sliding_window": None if config.window is WindowConvention.NONE else config.window_size,
        "tie_word_embeddings": False,
        "transformers_version": TRANSFORMERS,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def xgenmm_config(config: VLMConfig, torch_dtype: str, anyres: AnyRes) -> dict[str, Any]:
    """The released fields, and the sizes of the parts that are not the released ones, as the class defaults are."""
    connector = config.connector
    assert isinstance(connector, ResamplerConfig)
    decoder, vision = config.decoder, config.vision
    text = {
        "initial_tokenizer_len": decoder.num_text_tokens,
        "model_type": "phi3",
        "sliding_window": None if decoder.window is WindowConvention.NONE else decoder.window_size,
        # The release says bfloat16 whatever its tensors are; transformers since 4.46 would then round them.
        "torch_dtype": torch_dtype,
    }
    if phi3_config(decoder) != phi3_config(Phi3Config()):
        text = {**phi3_config(decoder), **text}
    # "pad" with patch sampling crashes in the official code; the base release, which sees one view, says anyres too.
    encoder = {
        "anyres_patch_sampling": config.token_sampling in (TokenSampling.STRIPS, TokenSampling.CROPS),
        "image_aspect_ratio": "pad" if config.token_sampling is TokenSampling.FIXED_RESOLUTION else "anyres",
        "model_type": "xgenmm_vision_encoder",
    }
    grids = pixel_grids(anyres)
    if grids and grids != pixel_grids(AnyRes()):
        encoder["anyres_grids"] = grids
    if siglip_config(vision) != siglip_config(ViTConfig()):
        encoder["siglip_vision_config"] = siglip_config(vision)
    resampler = {"model_type": "xgenmm_vision_tokenizer"}
    default = ResamplerConfig()
    if (connector.width, connector.out_width, connector.queries) != (default.width, default.out_width, default.queries):
        resampler |= {
            "vis_feature_dim": connector.width,
            "lang_embedding_dim": connector.out_width,
            "num_vis_tokens": connector.queries,
        }
    if (connector.layers, connector.heads, connector.head_width) != (default.layers, default.heads, default.head_width):
        resampler |= {"depth": connector.layers, "heads": connector.heads, "dim_head": connector.head_width}
    return {
        "architectures": ["XGenMMModelForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": "modeling_xgenmm.XGenMMConfig",
            "AutoModelForVision2Seq": "modeling_xgenmm.XGenMMModelForConditionalGeneration",
        },
        "model_type": "xgenmm",
        "text_config": text,
        "torch_dtype": torch_dtype,
        "transformers_version": TRANSFORMERS,
        "vision_encoder_config": encoder,
        "vision_tokenizer_config": resampler,
    }


def pixel_grids(anyres: AnyRes) -> list[list[int]]:
    """Grids as the official code has them: [width, height] in pixels."""
    return [[columns * anyres.view_px, rows * anyres.view_px] for columns, rows in anyres.grids]


def preprocessor_config(config: VLMConfig, anyres: AnyRes) -> dict[str, Any]:
    """Of the official Blip3ImageProcessor."""
    size = config.vision.image_size_px
    return {
        "auto_map": {"AutoImageProcessor": "image_processing_blip_3.Blip3ImageProcessor"},
        "do_resize": True,
        "grids": pixel_grids(anyres) or None,
        "image_mean": list(config.vision.pixel_mean),
        "image_processor_type": "Blip3ImageProcessor",
        "image_std": list(config.vision.pixel_std),
        "interpolation_mode": "bicubic",
        "resize_mode": "squash",
        "size": [size, size],
    }


def _normalisation(config: ViTConfig) -> dict[str, Any]:
    return {
        "do_normalize": True,
        "do_rescale": True,
        "image_mean": list(config.pixel_mean),
        "image_std": list(config.pixel_std),
        "rescale_factor": 1 / 255,
    }


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, Any]:
    """Of transformers' slow LlamaTokenizer; the official code adds its three decoupled ids itself."""
    names = ("<unk>", "<s>", "</s>", *PHI3_SPECIALS, "<pad>")
    ids = {name: tokenizer.special_ids[name] for name in names}
    decoder = {
        str(id_): {**_token(name), "rstrip": name in STRIPS_RIGHT, "special": name != "</s>"}
        for name, id_ in sorted(ids.items(), key=lambda item: item[1])
    }
    special = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<pad>", "unk_token": "<unk>"}
    added = sorted(name for name in ids if name not in ("<unk>", "<s>", "</s>") and name not in DECOUPLED)
    return {
        "added_tokens.json": {name: ids[name] for name in added},
        "special_tokens_map.json": {key: _token(name) for key, name in special.items()},
        "tokenizer_config.json": {
            "add_bos_token": False,
            "add_eos_token": False,
            "added_tokens_decoder": decoder,
            **special,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "legacy": False,
            "model_max_length": CONTEXT,
            "padding_side": "left",
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer",
            "use_default_system_prompt": False,
        },
    }


def _token(name: str) -> dict[str, Any]:
    return {"content": name, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
