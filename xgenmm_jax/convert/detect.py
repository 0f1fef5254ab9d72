"""Which family a checkpoint is of, from its tensors' names, and the config that their shapes stand for.

What tensors do not tell comes from the config.json beside them, from the released sizes, or from the caller: numbers
of heads, the activation, the number of ids in use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
import math
import re
from typing import Any

from xgenmm_jax.convert.formats import open_clip, phi3_hf, siglip_big_vision, siglip_hf, xgenmm
from xgenmm_jax.convert.rules import Rule, Shape
from xgenmm_jax.convert.trees import Config
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import CLIP_MEAN, CLIP_STD, Activation, ViTConfig
from xgenmm_jax.ops.masks import WindowConvention

Settings = Mapping[str, Any]
"""A config.json, or a part of it."""

FAMILIES = "xGen-MM v1.5, SigLIP (Hugging Face, big_vision), a CLIP tower of open_clip, Phi-3"


@dataclass(frozen=True)
class Given:
    """What the caller says where tensors and config.json do not. None: not said."""

    vision_heads: int | None = None
    decoder_heads: int | None = None
    activation: Activation | None = None


NOTHING = Given()


@dataclass(frozen=True)
class Recognized:
    """A family at a size.

    made: leaves of ours that the family lacks. ignored: whether a spare tensor may be left alone.
    """

    family: str
    config: Config
    rules: tuple[Rule, ...]
    ignored: Callable[[str], bool]
    made: tuple[str, ...] = ()


class Shapes:
    """Shapes by name, with fallbacks: a missing tensor must not keep the others from being listed."""

    def __init__(self, shapes: Mapping[str, Shape]):
        self.shapes = shapes

    def size(self, default: int, *places: tuple[str, int]) -> int:
        """The first of these (name, axis) that is there."""
        for name, axis in places:
            shape = self.shapes.get(name, ())
            if axis < len(shape):
                return shape[axis]
        return default

    def layers(self, stem: str, default: int) -> int:
        """One more than the largest number behind a stem."""
        pattern = re.compile(re.escape(stem) + r"(\d+)")
        found = [int(match[1]) for name in self.shapes if (match := pattern.match(name))]
        return max(found) + 1 if found else default

    def prefix(self, *patterns: str) -> str | None:
        """What stands before the first name that matches one of these."""
        for pattern in patterns:
            for name in self.shapes:
                if match := re.fullmatch(f"(.*?){pattern}", name):
                    return match[1]
        return None


def recognize(
    shapes: Mapping[str, Shape], settings: Settings, given: Given = NOTHING, tower: ViTConfig | None = None
) -> Recognized:
    """The family and size of a checkpoint.

    shapes: of its tensors. settings: its config.json, {} where there is none. tower: config of a tower from elsewhere,
    for a training checkpoint of xGen-MM, which lacks its own.

    Raises ValueError for other families, and where a size cannot be told.
    """
    names = Shapes(shapes)
    if (prefix := names.prefix(r"vision_tokenizer\.(?:latents|layers\..*|projection\..*)")) is not None:
        return _xgenmm(names, prefix, settings, given, tower)
    tower_name = re.escape(siglip_hf.PATCH)
    # A whole SigLIP has a text part of the same make beside its tower.
    if (prefix := names.prefix(tower_name, r"(?<!text_model\.)encoder\.layers\.\d+\.layer_norm1\.weight")) is not None:
        return _siglip(names, prefix, settings, given)
    if (prefix := names.prefix(r"model\.layers\.\d+\.self_attn\.qkv_proj\.weight")) is not None:
        config = _decoder(names, prefix, settings, given)
        config = config if config.num_text_tokens else replace(config, num_text_tokens=config.vocab_size)
        rules = phi3_hf.decoder_rules(config, prefix)
        return Recognized("Phi-3", config, rules, _ends(phi3_hf.IGNORED_ENDING), phi3_hf.MADE)
    if (prefix := names.prefix(open_clip.CLASS, r"visual\.transformer\.resblocks\.\d+\.ln_1\.weight")) is not None:
        prefix = open_clip.PREFIX if any(name.startswith(open_clip.PREFIX) for name in shapes) else prefix
        return _open_clip(names, prefix, settings, given)
    for root in siglip_big_vision.ROOTS:
        if f"{root}{siglip_big_vision.PATCH}" in shapes or f"{root}{siglip_big_vision.POSITION}" in shapes:
            return _big_vision(names, root, given)
    some = ", ".join(list(shapes)[:3]) or "none"
    raise ValueError(f"checkpoint: its tensors ({some} ...) are of no known family; wanted {FAMILIES}.")


def _xgenmm(
    names: Shapes, prefix: str, settings: Settings, given: Given, tower: ViTConfig | None
) -> Recognized:
    vision, connector, decoder = (f"{prefix}{part}" for part in (xgenmm.VISION, xgenmm.CONNECTOR, xgenmm.DECODER))
    if any(name.startswith(f"{connector}text_projection") for name in names.shapes):
        raise ValueError(
            "checkpoint: this is xGen-MM v1 (vision_tokenizer.text_projection reads the prompt); only v1.5 is "
            "imported: take a checkpoint whose name ends in v1.5."
        )
    has_tower = any(name.startswith(vision) for name in names.shapes)
    if not has_tower and tower is None:
        raise ValueError(
            "checkpoint: this is a training checkpoint of xGen-MM, which lacks the frozen vision tower; give SigLIP's "
            "so400m/14 at 384 px beside it: --vision FILE_OR_FOLDER."
        )
    encoder = settings.get("vision_encoder_config", {})
    if has_tower:
        tower = _siglip_config(names, vision, encoder.get("siglip_vision_config", {}), given)
    assert tower is not None
    default = ResamplerConfig()
    layer = f"{connector}layers.0."
    tokenizer = settings.get("vision_tokenizer_config", {})
    inner = names.size(default.heads * default.head_width, (f"{layer}0.to_q.weight", 0), (f"{layer}0.to_out.weight", 1))
    head_width = tokenizer.get("dim_head", xgenmm.HEAD_WIDTH)
    if inner % head_width:
        raise ValueError(
            f"checkpoint: the resampler's {inner} inner widths are no multiple of its heads' {head_width}; put the "
            'config.json with its "vision_tokenizer_config": {"dim_head": ...} beside the checkpoint.'
        )
    resampler = ResamplerConfig(
        width=names.size(tower.width, (f"{connector}latents", 1), (f"{connector}norm.weight", 0)),
        layers=names.layers(f"{connector}layers.", default.layers),
        heads=inner // head_width,
        head_width=head_width,
        hidden=names.size(default.hidden, (f"{layer}1.1.weight", 0), (f"{layer}1.3.weight", 1)),
        queries=names.size(default.queries, (f"{connector}latents", 0)),
        out_width=names.size(default.out_width, (f"{connector}projection.bias", 0)),
    )
    language = _decoder(names, decoder, settings.get("text_config", {}), given)
    if not language.num_text_tokens:
        raise ValueError(
            f"checkpoint: how many of the {language.vocab_size} embedding rows are ids cannot be told; put the "
            'config.json with its "text_config": {"initial_tokenizer_len": ...} beside the checkpoint.'
        )
    # The crops of an image are regrouped into strips: with them the released weights were trained
    # (docs/reference/xgenmm.md#strips).
    config = VLMConfig(tower, resampler, language, token_sampling=TokenSampling.STRIPS, max_image_crops=5)
    rules = xgenmm.rules(config, prefix) if has_tower else xgenmm.trained_rules(config, prefix)
    family = "xGen-MM v1.5" if has_tower else "xGen-MM v1.5 (training checkpoint)"
    return Recognized(family, config, rules, _ends(phi3_hf.IGNORED_ENDING, siglip_hf.BUFFER))


def _siglip(names: Shapes, prefix: str, settings: Settings, given: Given) -> Recognized:
    if f"{prefix}embeddings.class_embedding" in names.shapes:
        raise ValueError(
            "checkpoint: this is CLIP in Hugging Face's layout (embeddings.class_embedding), which is not read; take "
            "the same weights in open_clip's layout."
        )
    config = _siglip_config(names, prefix, settings.get("vision_config", settings), given)

    def ignored(name: str) -> bool:
        return name.endswith(siglip_hf.BUFFER) or name.startswith(siglip_hf.IGNORED) and prefix != ""

    return Recognized("SigLIP (Hugging Face)", config, siglip_hf.vision_rules(config, prefix), ignored)


def _siglip_config(names: Shapes, prefix: str, settings: Settings, given: Given) -> ViTConfig:
    default, layer = ViTConfig(), f"{prefix}encoder.layers.0."
    position = f"{prefix}embeddings.position_embedding.weight"
    width = names.size(default.width, (f"{prefix}post_layernorm.weight", 0), (position, 1))
    patch_px = names.size(default.patch_px, (f"{prefix}{siglip_hf.PATCH}", 2))
    grid = _grid(names.size(default.patches, (position, 0)))
    # 384 px are 27 patches of 14 and 6 pixels that nobody reads; other sizes are whole patches.
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
        heads=_heads(width, given.vision_heads, settings, siglip_hf.WIDTH_TO_HEADS, "--vision-heads"),
        activation=given.activation or activations[name],
        epsilon=settings.get("layer_norm_eps", default.epsilon),
    )


def _big_vision(names: Shapes, root: str, given: Given) -> Recognized:
    scanned = any(name.startswith(f"{root}{siglip_big_vision.SCANNED}") for name in names.shapes)
    stem = f"{root}{siglip_big_vision.SCANNED}"
    default = ViTConfig()
    position = f"{root}{siglip_big_vision.POSITION}"
    mlp = f"{root}MAPHead_0/MlpBlock_0/Dense_0/kernel"
    query = f"{root}MAPHead_0/MultiHeadDotProductAttention_0/query/kernel"
    width = names.size(default.width, (position, 2), (query, 0))
    patch_px = names.size(default.patch_px, (f"{root}{siglip_big_vision.PATCH}", 0))
    grid = _grid(names.size(default.patches, (position, 1)))
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
        activation=given.activation or "gelu_tanh",
    )
    rules = siglip_big_vision.vision_rules(config, root, scanned)

    def ignored(name: str) -> bool:
        return root.endswith("img/") and not name.startswith(root)

    return Recognized("SigLIP (big_vision)", config, rules, ignored)


def _open_clip(names: Shapes, prefix: str, settings: Settings, given: Given) -> Recognized:
    model = settings.get("model_cfg", settings)
    vision = model.get("vision_cfg", {})
    position, block = f"{prefix}positional_embedding", f"{prefix}transformer.resblocks."
    default = ViTConfig(width=1280, hidden=5120, class_token=True, projection=1024)
    width = names.size(default.width, (f"{prefix}{open_clip.CLASS}", 0))
    patch_px = names.size(default.patch_px, (f"{prefix}conv1.weight", 2))
    grid = _grid(names.size(default.patches + 1, (position, 0)) - 1)
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
        heads=_heads(width, given.vision_heads, known, open_clip.WIDTH_TO_HEADS, "--vision-heads"),
        activation=given.activation or quick,
        epsilon=open_clip.EPSILON,
        class_token=True,
        projection=names.size(default.projection, (f"{prefix}proj", 1)),
        pixel_mean=CLIP_MEAN,
        pixel_std=CLIP_STD,
    )
    rules = open_clip.vision_rules(config, prefix)
    return Recognized("CLIP tower (open_clip)", config, rules, lambda name: not name.startswith(prefix))


def _decoder(names: Shapes, prefix: str, settings: Settings, given: Given) -> Phi3Config:
    """num_text_tokens is 0 where it cannot be told."""
    default, layer = Phi3Config(), f"{prefix}model.layers.0."
    embedding, qkv = f"{prefix}{phi3_hf.EMBEDDING}", f"{layer}{phi3_hf.QKV}"
    width = names.size(default.width, (embedding, 1), (f"{prefix}model.norm.weight", 0))
    rows = names.size(default.vocab_size, (embedding, 0), (f"{prefix}lm_head.weight", 0))
    heads = _heads(width, given.decoder_heads, settings, phi3_hf.WIDTH_TO_HEADS, "--decoder-heads")
    qkv_heads = names.size(3 * width, (qkv, 0)) // (width // heads)
    kv_heads = (qkv_heads - heads) // 2
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(
            f"checkpoint: {qkv} has room for {qkv_heads} heads of {width // heads}, which {heads} query heads do not "
            "divide; give the right number with --decoder-heads."
        )
    _check_rotary(settings)
    window = settings.get("sliding_window", default.window_size)
    return Phi3Config(
        vocab_size=rows,
        num_text_tokens=settings.get("initial_tokenizer_len", phi3_hf.RELEASED_IDS.get(rows, 0)),
        num_extra_tokens=names.size(default.num_extra_tokens, (f"{prefix}{phi3_hf.ADDITIONAL}", 0)),
        width=width,
        hidden=names.size(default.hidden, (f"{layer}mlp.down_proj.weight", 1)),
        layers=names.layers(f"{prefix}model.layers.", default.layers),
        heads=heads,
        kv_heads=kv_heads,
        rope_theta=(settings.get("rope_parameters") or settings).get("rope_theta", default.rope_theta),
        epsilon=settings.get("rms_norm_eps", default.epsilon),
        # transformers' versions disagree on what the size means; training saw window + 1 keys
        # (docs/reference/xgenmm.md#sliding-window).
        window=WindowConvention.W_PLUS_1 if window else WindowConvention.NONE,
        window_size=window or default.window_size,
        init_std=settings.get("initializer_range", default.init_std),
    )


def _check_rotary(settings: Settings) -> None:
    scaling = settings.get("rope_scaling") or settings.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default" or settings.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(
            f'checkpoint: config.json: rotary embedding "{kind}" of a long-context or partly rotated Phi; only the '
            "plain one of Phi-3 mini 4k and medium 4k is built."
        )


def _grid(patches: int) -> int:
    grid = math.isqrt(patches)
    if grid * grid != patches:
        raise ValueError(f"checkpoint: {patches} positions of patches are no square; only square towers are read.")
    return grid


def _heads(width: int, given: int | None, settings: Settings, released: Mapping[int, int], option: str) -> int:
    heads = given or settings.get("num_attention_heads") or released.get(width)
    if heads is None:
        raise ValueError(
            f"checkpoint: tensors do not tell the number of heads, and {width} is no released width; put its "
            f"config.json beside it, or give {option}."
        )
    if width % heads:
        raise ValueError(f"checkpoint: {heads} heads do not divide the width {width}; give the right {option}.")
    return heads


def _ends(*endings: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(endings)


def problems(
    rules: Sequence[Rule], wanted: Mapping[str, Shape], have: Mapping[str, Shape], ignored: Callable[[str], bool]
) -> list[str]:
    """What keeps a checkpoint from being read: misshapen, missing, spare; a phrase each, layers alike in one."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, shape in wanted.items():
        if name not in have:
            _note(found, name, "is missing")
        elif have[name] != shape:
            _note(found, name, f"has {list(have[name])} for {list(shape)}")
    for name in have:
        if name not in wanted and not ignored(name):
            _note(found, name, "is spare")
    return [
        f"{', '.join(names) if len(names) <= 3 else f'{names[0]} ... {names[-1]} ({len(names)} layers)'} {what}"
        for (_, what), names in found.items()
    ]


def _note(found: dict[tuple[str, str], list[str]], name: str, what: str) -> None:
    found.setdefault((re.sub(r"\d+", "#", name), what), []).append(name)
