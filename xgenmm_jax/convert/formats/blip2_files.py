"""config.json and preprocessor_config.json of a BLIP-2 as transformers reads them.

Source: docs/reference/blip2.md#checkpoint-names.
"""

from typing import Any

from xgenmm_jax.convert.formats.blip2 import Blip2Parts
from xgenmm_jax.models.blip2 import Blip2Config


def config_files(config: Blip2Config | Blip2Parts, torch_dtype: str) -> dict[str, dict[str, Any]]:
    """File name to contents. The language model's fields are left to whoever adds one: parts have none."""
    connector, vision, is_first = config.connector, config.vision, isinstance(config, Blip2Config)
    text = {"vocab_size": config.text.vocab_size} if isinstance(config, Blip2Config) else {}
    positions = {"max_position_embeddings": config.text.max_positions} if isinstance(config, Blip2Config) else {}
    settings: dict[str, Any] = {
        "architectures": ["Blip2ForImageTextRetrieval" if is_first else "Blip2ForConditionalGeneration"],
        "dtype": torch_dtype,
        "image_token_index": None,
        "model_type": "blip-2",
        "num_query_tokens": connector.queries,
        "qformer_config": {
            "cross_attention_frequency": connector.cross_every,
            "encoder_hidden_size": vision.width,
            "hidden_act": "gelu",
            "hidden_size": connector.inner,
            "intermediate_size": connector.hidden,
            "layer_norm_eps": connector.epsilon,
            "model_type": "blip_2_qformer",
            "num_attention_heads": connector.heads,
            "num_hidden_layers": connector.layers,
            "use_qformer_text_input": is_first,
            **text,
            **positions,
        },
        "vision_config": {
            "hidden_act": vision.activation,
            "hidden_size": vision.width,
            "image_size": vision.image_size_px,
            "intermediate_size": vision.hidden,
            "layer_norm_eps": vision.epsilon,
            "model_type": "blip_2_vision_model",
            "num_attention_heads": vision.heads,
            "num_hidden_layers": vision.layers,
            "patch_size": vision.patch_px,
            "qkv_bias": True,
        },
    }
    if isinstance(config, Blip2Config):
        settings["image_text_hidden_size"] = config.projection
    processor = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(vision.pixel_mean),
        "image_processor_type": "BlipImageProcessor",
        "image_std": list(vision.pixel_std),
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": vision.image_size_px, "width": vision.image_size_px},
    }
    return {"config.json": settings, "preprocessor_config.json": processor}
