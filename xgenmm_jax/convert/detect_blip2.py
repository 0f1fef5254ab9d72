"""BLIP-2's files, and BERT's for its Q-Former: which config the shapes of their tensors stand for.

Source: docs/reference/blip2.md#checkpoint-names and docs/reference/blip2.md#berts-names.
"""

from collections.abc import Mapping
import re
from typing import Any

from xgenmm_jax.convert.detect_towers import Detected
from xgenmm_jax.convert.formats import bert, blip2
from xgenmm_jax.convert.formats.bert import BertStart
from xgenmm_jax.convert.formats.blip2 import Blip2Parts, Names
from xgenmm_jax.convert.tensor_shapes import Overrides, Settings, TensorShapes, head_count, square_grid
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.qformer import QFormerConfig, QFormerText
from xgenmm_jax.models.vit import CLIP_MEAN, CLIP_STD, ViTConfig

LANGUAGE_MODELS = ("opt_model.", "t5_model.", "language_model.")
TRANSFORMERS_EPSILON = 1e-6
"""Of the tower, and there of the features' norm too."""


def detect_blip2(names: TensorShapes, settings: Settings, overrides: Overrides) -> Detected | None:
    """None where the tensors are not BLIP-2's.

    Raises ValueError where sizes cannot be told, or the arithmetic is another.
    """
    kinds: tuple[Names, ...] = ("lavis", "transformers")
    kind = next((kind for kind in kinds if any(name.startswith(blip2.LAYER[kind]) for name in names.shapes)), None)
    if kind is None:
        return None
    if not any(name.startswith(f"{blip2.TOWER[kind]}") for name in names.shapes):
        raise ValueError(
            "checkpoint: this is a Q-Former of BLIP-2 without its image encoder (visual_encoder or vision_model); give "
            "the whole file."
        )
    vision = _tower(names, kind, settings.get("vision_config", {}), overrides)
    maps = [name for name in blip2.MAPS_TO_LANGUAGE_MODELS if f"{name}.bias" in names.shapes]
    connector = _connector(names, kind, settings.get("qformer_config", {}), overrides, vision, maps)

    def ignored(name: str) -> bool:
        return name.endswith(blip2.BUFFER) or name.startswith(LANGUAGE_MODELS)

    title = "BLIP-2 (LAVIS" if kind == "lavis" else "BLIP-2 (transformers"
    if maps:
        parts = Blip2Parts(vision, connector)
        return Detected(f"{title}, second stage)", parts, blip2.parts_rules(parts, kind, maps[0]), ignored)
    images, words = blip2.PROJECTIONS[kind][0], blip2.WORDS[kind]
    config = Blip2Config(
        vision,
        connector,
        QFormerText(names.size(30523, (words, 0)), names.size(512, (blip2.POSITIONS[kind], 0))),
        projection=names.size(256, (f"{images}.bias", 0)),
        language_head=kind == "lavis",
    )
    return Detected(f"{title}, first stage)", config, blip2.stage1_rules(config, kind), ignored)


def detect_bert(names: TensorShapes, settings: Settings, overrides: Overrides) -> Detected | None:
    """None where the tensors are not BERT's.

    Raises ValueError for another model in such names, and where sizes cannot be told.
    """
    root = names.prefix(re.escape(f"{bert.LAYER}0.") + r"attention\.self\.query\.weight")
    if root is None:
        return None
    kind = settings.get("model_type", "bert" if root in (bert.ROOT, "") else root.strip("."))
    positions = settings.get("position_embedding_type", "absolute")
    if kind != "bert" or positions != "absolute":
        raise ValueError(f"checkpoint: this is {kind} with {positions} positions; a Q-Former begins with BERT alone.")
    _check_activation(settings)
    layer, words = f"{root}{bert.LAYER}", f"{root}{bert.WORDS}"
    inner, default = names.size(768, (words, 1)), QFormerConfig()
    connector = QFormerConfig(
        inner=inner,
        hidden=names.size(default.hidden, (f"{layer}0.intermediate.dense.bias", 0)),
        layers=names.layers(layer, default.layers),
        heads=head_count(inner, overrides.connector_heads, settings, blip2.WIDTH_TO_HEADS, "--connector-heads"),
        epsilon=settings.get("layer_norm_eps", default.epsilon),
    )
    text = QFormerText(names.size(30522, (words, 0)) + 1, names.size(512, (f"{root}{bert.POSITIONS}", 0)))
    start = BertStart(connector, text, f"{bert.HEAD}bias" in names.shapes)
    read, spare = (f"{root}{bert.LAYER}", bert.HEAD), (f"{bert.HEAD}decoder.", blip2.BUFFER)

    def ignored(name: str) -> bool:
        return not name.startswith(read) or any(one in name for one in spare)

    has_old = any(name.endswith("LayerNorm.gamma") for name in names.shapes)
    return Detected("BERT, the start of a Q-Former", start, bert.rules(start, root, has_old), ignored)


def _tower(names: TensorShapes, kind: Names, settings: Mapping[str, Any], overrides: Overrides) -> ViTConfig:
    default, prefix = ViTConfig(), blip2.TOWER[kind]
    _check_activation(settings)
    if kind == "lavis":
        position, patch, blocks = f"{prefix}pos_embed", f"{prefix}patch_embed.proj.weight", f"{prefix}blocks."
    else:
        position, patch = f"{prefix}embeddings.position_embedding", f"{prefix}embeddings.patch_embedding.weight"
        blocks = f"{prefix}encoder.layers."
    if position not in names.shapes:
        raise ValueError(
            f"checkpoint: {position} is missing: the image encoder is not EVA-CLIP-g, the only one of BLIP-2's that is "
            "read; take a file of that one."
        )
    width = names.size(1408, (position, 2), (patch, 0))
    patch_px = names.size(default.patch_px, (patch, 2))
    return ViTConfig(
        image_size_px=patch_px * square_grid(names.size(257, (position, 1)) - 1),
        patch_px=patch_px,
        width=width,
        hidden=names.size(6144, (f"{blocks}0.mlp.fc1.bias", 0)),
        layers=names.layers(blocks, 39),
        heads=head_count(width, overrides.vision_heads, settings, blip2.TOWER_WIDTH_TO_HEADS, "--vision-heads"),
        activation="gelu",
        epsilon=settings.get("layer_norm_eps", TRANSFORMERS_EPSILON),
        class_token=True,
        bare=True,
        pixel_mean=CLIP_MEAN,
        pixel_std=CLIP_STD,
    )


def _connector(
    names: TensorShapes,
    kind: Names,
    settings: Mapping[str, Any],
    overrides: Overrides,
    vision: ViTConfig,
    maps: list[str],
) -> QFormerConfig:
    _check_activation(settings)
    default, stem = QFormerConfig(), blip2.LAYER[kind]
    inner = names.size(default.inner, ("query_tokens", 2))
    layers = names.layers(stem, default.layers)
    pattern = re.compile(re.escape(stem) + r"(\d+)\.crossattention\.")
    readers = sorted({int(match[1]) for name in names.shapes if (match := pattern.match(name))})
    every = readers[1] - readers[0] if len(readers) > 1 else layers
    if readers != list(range(0, layers, every)):
        raise ValueError(
            f"checkpoint: layers {readers} of {layers} have crossattention; wanted the first and every so many behind "
            "it: copy the file again."
        )
    return QFormerConfig(
        width=vision.width,
        inner=inner,
        hidden=names.size(default.hidden, (f"{stem}0.intermediate_query.dense.bias", 0)),
        layers=layers,
        heads=head_count(inner, overrides.connector_heads, settings, blip2.WIDTH_TO_HEADS, "--connector-heads"),
        queries=names.size(default.queries, ("query_tokens", 1)),
        out_width=names.size(0, (f"{maps[0]}.bias", 0)) if maps else 0,
        cross_every=every,
        epsilon=settings.get("layer_norm_eps", default.epsilon),
        feature_epsilon=default.feature_epsilon if kind == "lavis" else vision.epsilon,
    )


def _check_activation(settings: Mapping[str, Any]) -> None:
    if settings.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f'checkpoint: config.json: hidden_act is "{settings["hidden_act"]}", wanted "gelu".')
