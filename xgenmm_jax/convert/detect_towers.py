"""Vision towers: which config the shapes of a SigLIP or a CLIP stand for."""

from collections.abc import Callable
from dataclasses import dataclass

from xgenmm_jax.convert.formats import open_clip, siglip_big_vision, siglip_hf
from xgenmm_jax.convert.rules import Rule
from xgenmm_jax.convert.tensor_shapes import Overrides, Settings, TensorShapes, head_count, square_grid
from xgenmm_jax.convert.trees import Config
from xgenmm_jax.models.vit import CLIP_MEAN, CLIP_STD, Activation, ViTConfig


@dataclass(frozen=True)
class Detected:
    """A family at a size.

    initialized: leaves of ours that the family lacks. ignored: whether a spare tensor may be left alone.
    """

    family: str
    config: Config
    rules: tuple[Rule, ...]
    ignored: Callable[[str], bool]
    initialized: tuple[str, ...] = ()


def detect_siglip(names: TensorShapes, prefix: str, settings: Settings, overrides: Overrides) -> Detected:
    """SigLIP in Hugging Face's names. Raises ValueError for CLIP in them."""
    if f"{prefix}embeddings.class_embedding" in names.shapes:
        raise ValueError(
            "checkpoint: this is CLIP in Hugging Face's layout (embeddings.class_embedding), which is not read; take "
            "the same weights in open_clip's layout."
        )
    config = siglip_config(names, prefix, settings.get("vision_config", settings), overrides)

    def ignored(name: str) -> bool:
        return name.endswith(siglip_hf.BUFFER) or name.startswith(siglip_hf.IGNORED) and prefix != ""

    return Detected("SigLIP (Hugging Face)", config, siglip_hf.vision_rules(config, prefix), ignored)


def siglip_config(names: TensorShapes, prefix: str, settings: Settings, overrides: Overrides) -> ViTConfig:
    """Of SigLIP's tower, alone or in xGen-MM."""
    default, layer = ViTConfig(), f"{prefix}encoder.layers.0."
    position = f"{prefix}embeddings.position_embedding.weight"
    width = names.size(default.width, (f"{prefix}post_layernorm.weight", 0), (position, 1))
    patch_px = names.size(default.patch_px, (f"{prefix}{siglip_hf.PATCH}", 2))
    grid = square_grid(names.size(default.patches, (position, 0)))
    # 384 px are 27 patches of 14 and 6 pixels that no patch covers; other sizes are whole patches.
    size_px = 384 if (grid, patch_px) == (27, 14) else grid * patch_px
    activations: dict[str, Activation] = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}
    name = settings.get("hidden_act", "gelu_pytorch_tanh")
    if name not in activations:
        raise ValueError(f'checkpoint: config.json: hidden_act is "{name}", wanted {" or ".join(activations)}.')
    return ViTConfig(
        image_size_px=settings.get("image_size", size_px),
        patch_px=patch_px,
        width=width,
        hidden=names.size(default.hidden, (f"{layer}mlp.fc1.bias", 0), (f"{layer}mlp.fc2.weight", 1)),
        layers=names.layers(f"{prefix}encoder.layers.", default.layers),
        heads=head_count(width, overrides.vision_heads, settings, siglip_hf.WIDTH_TO_HEADS, "--vision-heads"),
        activation=overrides.activation or activations[name],
        epsilon=settings.get("layer_norm_eps", default.epsilon),
    )


def detect_big_vision(names: TensorShapes, root: str, overrides: Overrides) -> Detected:
    """SigLIP in big_vision's names."""
    scanned = any(name.startswith(f"{root}{siglip_big_vision.SCANNED}") for name in names.shapes)
    stem = f"{root}{siglip_big_vision.SCANNED}"
    default = ViTConfig()
    position = f"{root}{siglip_big_vision.POSITION}"
    mlp = f"{root}MAPHead_0/MlpBlock_0/Dense_0/kernel"
    query = f"{root}MAPHead_0/MultiHeadDotProductAttention_0/query/kernel"
    width = names.size(default.width, (position, 2), (query, 0))
    patch_px = names.size(default.patch_px, (f"{root}{siglip_big_vision.PATCH}", 0))
    grid = square_grid(names.size(default.patches, (position, 1)))
    if scanned:
        layers = names.size(default.layers, (f"{stem}LayerNorm_0/scale", 0), (f"{stem}LayerNorm_1/scale", 0))
    else:
        layers = names.layers(f"{stem.removesuffix('/')}_", default.layers)
    config = ViTConfig(
        image_size_px=384 if (grid, patch_px) == (27, 14) else grid * patch_px,
        patch_px=patch_px,
        width=width,
        hidden=names.size(default.hidden, (mlp, 1)),
        layers=layers,
        heads=names.size(default.heads, (query, 1)),
        activation=overrides.activation or "gelu_tanh",
    )
    rules = siglip_big_vision.vision_rules(config, root, scanned)

    def ignored(name: str) -> bool:
        return root.endswith("img/") and not name.startswith(root)

    return Detected("SigLIP (big_vision)", config, rules, ignored)


def detect_open_clip(names: TensorShapes, prefix: str, settings: Settings, overrides: Overrides) -> Detected:
    """A CLIP tower in open_clip's names."""
    model = settings.get("model_cfg", settings)
    vision = model.get("vision_cfg", {})
    position, block = f"{prefix}positional_embedding", f"{prefix}transformer.resblocks."
    default = ViTConfig(width=1280, hidden=5120, class_token=True, projection=1024)
    width = names.size(default.width, (f"{prefix}{open_clip.CLASS}", 0))
    patch_px = names.size(default.patch_px, (f"{prefix}conv1.weight", 2))
    grid = square_grid(names.size(default.patches + 1, (position, 0)) - 1)
    # The file does not say which GELU; DFN's is the quick one, and a config.json says otherwise.
    quick: Activation = "quick_gelu" if model.get("quick_gelu", not vision) else "gelu"
    head_width = vision.get("head_width", open_clip.HEAD_WIDTH if vision else None)
    known = {"num_attention_heads": width // head_width} if head_width else {}
    config = ViTConfig(
        image_size_px=grid * patch_px,
        patch_px=patch_px,
        width=width,
        hidden=names.size(default.hidden, (f"{block}0.mlp.c_fc.bias", 0)),
        layers=names.layers(block, 32),
        heads=head_count(width, overrides.vision_heads, known, open_clip.WIDTH_TO_HEADS, "--vision-heads"),
        activation=overrides.activation or quick,
        epsilon=open_clip.EPSILON,
        class_token=True,
        projection=names.size(default.projection, (f"{prefix}proj", 1)),
        pixel_mean=CLIP_MEAN,
        pixel_std=CLIP_STD,
    )
    rules = open_clip.vision_rules(config, prefix)
    return Detected("CLIP tower (open_clip)", config, rules, lambda name: not name.startswith(prefix))
