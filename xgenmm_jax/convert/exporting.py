"""Our parameters in the released layouts: shards written slice by slice, with config files beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import functools
from typing import Literal

import numpy as np

from xgenmm_jax import files
from xgenmm_jax.convert import file_formats, trees
from xgenmm_jax.convert.formats import bert, blip2, blip3o, llama_hf, phi3_hf, siglip_hf, xgenmm
from xgenmm_jax.convert.importing import Progress, in_threads
from xgenmm_jax.convert.parameter_store import Reader
from xgenmm_jax.convert.rules import Rule, Shape, grouped, their_shapes
from xgenmm_jax.convert.safetensors_writer import NAMES, SHARD_BYTES, SafetensorsWriter
from xgenmm_jax.convert.scratch import Scratch, cast
from xgenmm_jax.convert.trees import Config
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.blip3o import Blip3oConfig, EVATarget
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.ops.masks import WindowConvention
from xgenmm_jax.paths import Path

Layout = Literal["xgenmm", "siglip", "phi3", "llama", "blip3o", "blip2", "lavis"]
"""What the official xGen-MM code loads, transformers' SiglipVisionModel, Phi3ForCausalLM and LlamaForCausalLM, what
BLIP3-o has beside its language model, and BLIP-2 without one in transformers' and in LAVIS' names."""
WITHOUT_TOKENIZER = ("siglip", "blip3o", "blip2", "lavis")


NO_TOKENIZER = "The run has no tokenizer, so no tokenizer files are written."
SMALL_IMAGES = (
    "This run keeps images no larger than a view in one view (anyres.single_view_up_to_px), the official code lays "
    "each on a grid: answers about small images can differ."
)
NOT_DRAWN = "The layout has no part that draws: it is left out, and --to blip3o writes it."
OFFICIAL_CODE = (
    "config.json names the official code, which is not written: copy modeling_xgenmm.py, image_processing_blip_3.py "
    "and what they import from a released folder."
)


@dataclass(frozen=True)
class Export:
    """What an export writes: rules, the part of the config that they are for, and what is lost, a sentence each."""

    rules: tuple[Rule, ...]
    config: Config
    notes: tuple[str, ...]


def plan(config: Config, layout: Layout) -> Export:
    """The rules of a layout for a run's model. Raises ValueError where the layout has no room for it."""
    if isinstance(config, bert.BertStart):
        raise ValueError("export: the run has BERT's tensors alone, the start of a Q-Former; train it first.")
    if layout == "blip3o":
        return _drawing(config)
    if layout in ("blip2", "lavis"):
        return _blip2(config, layout)
    if isinstance(config, Blip2Config | blip2.Blip2Parts):
        raise ValueError("export: the run has BLIP-2's parts alone; choose --to blip2 or lavis.")
    if isinstance(config, blip3o.Blip3oParts):
        raise ValueError("export: the run has what draws images alone; choose --to blip3o.")
    if layout == "siglip":
        vision = config.vision if isinstance(config, VLMConfig) else config
        if not isinstance(vision, ViTConfig):
            raise ValueError("export: the run has no vision tower; choose --to phi3.")
        _refuse_clip(vision)
        return Export(siglip_hf.vision_rules(vision, "vision_model."), vision, ())
    if layout in ("phi3", "llama"):
        decoder = config.decoder if isinstance(config, VLMConfig) else config
        if not isinstance(decoder, Phi3Config):
            raise ValueError("export: the run has no language model; choose --to siglip.")
        note = (
            "The layout has no bias of the head and no rows for <image> and its kin: left out; logits change by the "
            "bias."
        )
        _refuse_other_decoder(decoder, layout)
        rules = llama_hf.decoder_rules if layout == "llama" else phi3_hf.decoder_rules
        return Export(rules(decoder, ""), decoder, (note,))
    if not isinstance(config, VLMConfig):
        raise ValueError("export: the run has a part of a model; choose --to siglip, phi3 or llama.")
    _refuse_clip(config.vision)
    _refuse_other_decoder(config.decoder, layout)
    left_out = (NOT_DRAWN,) if isinstance(config, Blip3oConfig) else ()
    return Export(xgenmm.rules(config), config, (*_differences(config), *left_out, OFFICIAL_CODE))


def _drawing(config: Config) -> Export:
    """The diffusion transformer and the queries, and EVA-CLIP-E where its features are drawn."""
    if isinstance(config, blip3o.Blip3oParts):
        return Export(blip3o.rules(config), config, ())
    head = config.drawing.head if isinstance(config, Blip3oConfig) else None
    if not isinstance(head, DiTConfig):
        raise ValueError("export: the run has no diffusion transformer; choose another --to.")
    target = config.drawing.target
    tower = target.tower if isinstance(target, EVATarget) else None
    parts = blip3o.Blip3oParts(head, config.drawing.queries, tower)
    notes = [
        "The layout's [IMG] is a row of the language model's embedding: the vector that opens an image is left out, "
        "and so is what makes pixels of features."
    ]
    if config.drawing.normalised:
        notes.append("The official code does not normalise features: mean and std of this run's are left out.")
    return Export(blip3o.rules(parts), parts, tuple(notes))


def _blip2(config: Config, layout: Layout) -> Export:
    """Tower and Q-Former, of a first stage with its heads."""
    notes = []
    is_first = isinstance(config, Blip2Config)
    if isinstance(config, VLMConfig) and isinstance(config.connector, QFormerConfig):
        config = blip2.Blip2Parts(config.vision, config.connector)
        notes.append("The language model is left out: export it with --to phi3 or llama.")
    if not isinstance(config, Blip2Config | blip2.Blip2Parts):
        raise ValueError("export: the run has no Q-Former; choose another --to.")
    epsilons = config.vision.epsilon, config.connector.feature_epsilon
    if layout == "blip2" and epsilons[0] != epsilons[1]:
        notes.append(
            f"transformers normalises features with the tower's epsilon, {epsilons[0]:g}, this run with "
            f"{epsilons[1]:g}: states differ by some 1e-5."
        )
    if layout == "blip2" and is_first:
        notes.append("The layout has neither temperature nor language head: the first stage cannot go on from it.")
        return Export(blip2.stage1_rules(config, "transformers"), config, tuple(notes))
    if layout == "blip2":
        return Export(blip2.parts_rules(config), config, tuple(notes))
    if not is_first or not config.language_head:
        raise ValueError(
            "export: LAVIS' layout is that of the first stage, with temperature and language head, which the run lacks;"
            " choose --to blip2."
        )
    return Export(blip2.stage1_rules(config, "lavis"), config, tuple(notes))


def _refuse_other_decoder(decoder: Phi3Config, layout: Layout) -> None:
    if layout == "llama":
        if decoder.window is not WindowConvention.NONE:
            raise ValueError("export: the language model has a sliding window, which Llama lacks; choose --to phi3.")
    elif decoder.head_dim is not None or decoder.long_context or decoder.qkv_bias or decoder.tied_head:
        raise ValueError(
            "export: the language model has Llama's form (head_dim, long_context, qkv_bias or tied_head), the layout "
            "Phi-3's; choose --to llama, which takes the language model alone."
        )


def _refuse_clip(vision: ViTConfig) -> None:
    if vision.class_token:
        raise ValueError("export: the tower has CLIP's form, the layout SigLIP's; nothing else reads it back than us.")


def _differences(config: VLMConfig) -> tuple[str, ...]:
    """What the official code would do otherwise than the run."""
    notes = []
    if config.token_sampling is TokenSampling.CROPS:
        notes.append(
            "This run resamples each crop, the official code strips across them (config.token_sampling): where an "
            "image's grid has more than one column it sees vision tokens that the run was not trained on."
        )
    elif config.token_sampling is not TokenSampling.STRIPS:
        notes.append(f"The official code must be told the run's token sampling, {config.token_sampling.value}.")
    connector = config.connector
    assert isinstance(connector, ResamplerConfig)
    default = ResamplerConfig()
    fixed = (default.layers, default.heads, default.head_width)
    if (connector.layers, connector.heads, connector.head_width) != fixed:
        notes.append(
            f"The official code builds resamplers of {fixed[0]} layers with {fixed[1]} heads of {fixed[2]} alone; this "
            f"one has {connector.layers} with {connector.heads} of {connector.head_width}."
        )
    return tuple(notes)


def export(
    reader: Reader,
    config: Config,
    layout: Layout,
    folder: Path,
    dtype: np.dtype,
    *,
    tokenizer: Tokenizer | None = None,
    anyres: AnyRes = AnyRes(),  # noqa: B008 - frozen
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda _: None,
) -> tuple[str, ...]:
    """Writes shards and config files into a folder that is there; gives sentences on what the layout cannot hold.

    reader: of the parameters. dtype: float32 or bfloat16. anyres: the run's views.

    Raises ValueError where the layout has no room for the model, or the checkpoint is of another size.
    """
    # The checkpoint must hold what its config says: found out before anything is written.
    planned = plan(config, layout)
    whole = trees.shapes(planned.config)
    shapes = {rule.ours: whole[rule.ours] for rule in planned.rules}
    have = reader.shapes
    wrong = {path: shape for path, shape in shapes.items() if have.get(path) != shape}
    if wrong:
        bad = [f"{path} has {have.get(path, 'nothing')} for {shape}" for path, shape in wrong.items()]
        raise ValueError(f"export: the checkpoint is of another size than the run's config.json: {'; '.join(bad)}.")
    if tokenizer is not None and tokenizer.FILE != tokenizer_files.MODEL_FILE and layout in ("xgenmm", "phi3"):
        raise ValueError(
            f"export: the run's tokenizer is a {tokenizer.FILE}, the layout's Phi-3's tokenizer.model; choose --to "
            "llama, which takes the language model alone."
        )
    # Tensors, then the config files of the layout, then the tokenizer.
    write_tensors(reader, planned.rules, shapes, folder, dtype, shard_bytes, progress)
    for name, text in file_formats.config_files(planned.config, layout, NAMES[dtype], tokenizer, anyres).items():
        files.write_whole(folder / name, text)
    if tokenizer is not None and layout not in WITHOUT_TOKENIZER:
        # After the config files: another model's tokenizer brings its own.
        tokenizer.save(folder / tokenizer.FILE)
    # What the layout cannot say, for the user to know.
    missing = () if tokenizer is not None or layout in WITHOUT_TOKENIZER else (NO_TOKENIZER,)
    uncut = (SMALL_IMAGES,) if layout == "xgenmm" and anyres.grids and anyres.single_view_up_to_px else ()
    return (*uncut, *planned.notes, *missing)


def write_tensors(
    reader: Reader,
    rules: Sequence[Rule],
    shapes: Mapping[str, Shape],
    folder: Path,
    dtype: np.dtype,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda _: None,
) -> None:
    """The leaves of these rules as safetensors, in the rules' order, the tensors of a layer together."""
    scratch = Scratch()
    with SafetensorsWriter(folder, their_shapes(rules, shapes), dtype, shard_bytes) as writer:

        def copy(rule: Rule, layer: int | None) -> int:
            scratch.reset()
            array = reader.read(rule.ours, layer, scratch)
            pieces = rule.pieces(layer)
            for piece, part in zip(pieces, rule.transform.back(array, len(pieces)), strict=True):
                writer.write(piece.name, cast(np.asarray(part), dtype, scratch), piece.part)
            return array.size

        # In the order of the files, so that these become whole one after the other.
        jobs = (
            functools.partial(copy, rule, layer)
            for group in grouped(rules)
            for layer in group[0].slices()
            for rule in group
        )
        in_threads(jobs, progress)
