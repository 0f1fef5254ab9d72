"""Which family a checkpoint is of, from its tensors' names, and the config that their shapes stand for.

What tensors do not tell comes from the config.json beside them, from the released sizes, or from the caller: numbers
of heads, the activation, the number of ids in use.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
import re

from xgenmm_jax.convert import detect_towers
from xgenmm_jax.convert.detect_blip2 import detect_bert, detect_blip2
from xgenmm_jax.convert.detect_towers import Detected
from xgenmm_jax.convert.formats import blip3o, eva, llama_hf, open_clip, phi3_hf, siglip_big_vision, siglip_hf, xgenmm
from xgenmm_jax.convert.rules import Shape
from xgenmm_jax.convert.tensor_shapes import NO_OVERRIDES, Overrides, Settings, TensorShapes, head_count
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.ops.masks import WindowConvention

FAMILIES = (
    "xGen-MM v1.5, SigLIP (Hugging Face, big_vision), a CLIP tower of open_clip, BLIP3-o, BLIP-2 (LAVIS, "
    "transformers), BERT, Phi-3, Llama and Qwen2 with their config.json"
)


def detect_format(
    shapes: Mapping[str, Shape], settings: Settings, overrides: Overrides = NO_OVERRIDES, tower: ViTConfig | None = None
) -> Detected:
    """The family and size of a checkpoint.

    shapes: of its tensors. settings: its config.json, {} where there is none. tower: config of a tower from elsewhere,
    for a training checkpoint of xGen-MM, which lacks its own.

    Raises ValueError for other families, and where a size cannot be told.
    """
    names = TensorShapes(shapes)
    # From the family with the most telling names to the least: xGen-MM holds a SigLIP and a Phi-3.
    if (prefix := names.prefix(r"vision_tokenizer\.(?:latents|layers\..*|projection\..*)")) is not None:
        return _xgenmm(names, prefix, settings, overrides, tower)
    # BLIP3-o's file holds a whole language model beside its own parts.
    if (prefix := names.prefix(blip3o.TIME)) is not None:
        return _blip3o(names, prefix, overrides)
    # BLIP-2's tower has names of SigLIP's, and its file may hold a Phi-3.
    if (detected := detect_blip2(names, settings, overrides)) is not None:
        return detected
    if (detected := detect_bert(names, settings, overrides)) is not None:
        return detected
    tower_name = re.escape(siglip_hf.PATCH)
    # A whole SigLIP has a text part with the same names beside its tower.
    if (prefix := names.prefix(tower_name, r"(?<!text_model\.)encoder\.layers\.\d+\.layer_norm1\.weight")) is not None:
        return detect_towers.detect_siglip(names, prefix, settings, overrides)
    if (prefix := names.prefix(r"model\.layers\.\d+\.self_attn\.qkv_proj\.weight")) is not None:
        config = _decoder(names, prefix, settings, overrides)
        config = config if config.num_text_tokens else replace(config, num_text_tokens=config.vocab_size)
        rules = phi3_hf.decoder_rules(config, prefix)
        return Detected("Phi-3", config, rules, _ends(phi3_hf.IGNORED_ENDING), phi3_hf.INITIALIZED)
    # These names alone tell no arithmetic: config.json must.
    prefix = names.prefix(r"model\.layers\.\d+\." + re.escape(llama_hf.QUERY))
    if prefix is not None and "model_type" in settings:
        return _llama(names, prefix, settings, overrides)
    if (prefix := names.prefix(open_clip.CLASS, r"visual\.transformer\.resblocks\.\d+\.ln_1\.weight")) is not None:
        prefix = open_clip.PREFIX if any(name.startswith(open_clip.PREFIX) for name in shapes) else prefix
        return detect_towers.detect_open_clip(names, prefix, settings, overrides)
    for root in siglip_big_vision.ROOTS:
        if f"{root}{siglip_big_vision.PATCH}" in shapes or f"{root}{siglip_big_vision.POSITION}" in shapes:
            return detect_towers.detect_big_vision(names, root, overrides)
    some = ", ".join(list(shapes)[:3]) or "none"
    raise ValueError(f"checkpoint: its tensors ({some} ...) are of no known family; wanted {FAMILIES}.")


def _xgenmm(
    names: TensorShapes, prefix: str, settings: Settings, overrides: Overrides, tower: ViTConfig | None
) -> Detected:
    vision, connector, decoder = (f"{prefix}{part}" for part in (xgenmm.VISION, xgenmm.CONNECTOR, xgenmm.DECODER))
    if any(name.startswith(f"{connector}text_projection") for name in names.shapes):
        raise ValueError(
            "checkpoint: this is xGen-MM v1 (vision_tokenizer.text_projection reads the prompt); only v1.5 is "
            "converted: take a checkpoint whose name ends in v1.5."
        )
    # The tower: in the file, or given beside a training checkpoint, which has none.
    has_tower = any(name.startswith(vision) for name in names.shapes)
    if not has_tower and tower is None:
        raise ValueError(
            "checkpoint: this is a training checkpoint of xGen-MM, which lacks the frozen vision tower; give SigLIP's "
            "so400m/14 at 384 px beside it: --vision FILE_OR_FOLDER."
        )
    encoder = settings.get("vision_encoder_config", {})
    if has_tower:
        tower = detect_towers.siglip_config(names, vision, encoder.get("siglip_vision_config", {}), overrides)
    assert tower is not None
    # The resampler, by the shapes of its tensors; the width of a head is in the settings alone.
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
    # The language model, and how many rows of its embedding are ids.
    language = _decoder(names, decoder, settings.get("text_config", {}), overrides)
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
    return Detected(family, config, rules, _ends(phi3_hf.IGNORED_ENDING, siglip_hf.BUFFER))


def _blip3o(names: TensorShapes, prefix: str, overrides: Overrides) -> Detected:
    """The parts that draw; the language model stays in its file."""
    if not prefix.endswith(blip3o.DIT):
        raise ValueError(
            f"checkpoint: its diffusion transformer stands behind '{prefix}', BLIP3-o's behind "
            f"'{blip3o.ROOT}{blip3o.DIT}'; give the whole file."
        )
    root = prefix.removesuffix(blip3o.DIT)
    parts = blip3o.parts_of(names, root, overrides.vision_heads)
    read = (prefix, f"{root}{blip3o.QUERIES}", f"{root}{eva.PREFIX}")
    return Detected("BLIP3-o", parts, blip3o.rules(parts, root), lambda name: not name.startswith(read))


def _llama(names: TensorShapes, prefix: str, settings: Settings, overrides: Overrides) -> Detected:
    embedding, layer = f"{prefix}{phi3_hf.EMBEDDING}", f"{prefix}model.layers.0."
    width = names.size(0, (embedding, 1), (f"{prefix}model.norm.weight", 0))
    config = llama_hf.config_of(
        settings,
        vocab_size=names.size(0, (embedding, 0), (f"{prefix}{llama_hf.HEAD}", 0)),
        width=width,
        hidden=names.size(0, (f"{layer}mlp.down_proj.weight", 1), (f"{layer}mlp.up_proj.weight", 0)),
        layers=names.layers(f"{prefix}model.layers.", 0),
        query_rows=names.size(width, (f"{layer}{llama_hf.QUERY}", 0)),
        key_rows=names.size(width, (f"{layer}{llama_hf.KEY}", 0)),
        heads=overrides.decoder_heads,
        has_head=f"{prefix}{llama_hf.HEAD}" in names.shapes,
    )
    # A tied head may be in the file all the same: a copy of the embedding, which transformers reads over too.
    ignored = _ends(phi3_hf.IGNORED_ENDING, *((llama_hf.HEAD,) if config.tied_head else ()))
    family = "Qwen2" if settings["model_type"] == "qwen2" else "Llama"
    return Detected(family, config, llama_hf.decoder_rules(config, prefix), ignored, llama_hf.INITIALIZED)


def _decoder(names: TensorShapes, prefix: str, settings: Settings, overrides: Overrides) -> Phi3Config:
    """num_text_tokens is 0 where it cannot be told."""
    default, layer = Phi3Config(), f"{prefix}model.layers.0."
    embedding, qkv = f"{prefix}{phi3_hf.EMBEDDING}", f"{layer}{phi3_hf.QKV}"
    width = names.size(default.width, (embedding, 1), (f"{prefix}model.norm.weight", 0))
    rows = names.size(default.vocab_size, (embedding, 0), (f"{prefix}lm_head.weight", 0))
    heads = head_count(width, overrides.decoder_heads, settings, phi3_hf.WIDTH_TO_HEADS, "--decoder-heads")
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


def _ends(*endings: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(endings)
