"""All checks of a released folder or a run folder, in order; what cannot be opened is a fault, and the rest goes on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from xgenmm_jax import hub
from xgenmm_jax.api.conversion import grids_in_files, load_params, run_config
from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.loading import load_run_params
from xgenmm_jax.api.processor import IdsOnly, Processor
from xgenmm_jax.convert import peft, peft_settings
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.layers import Dtype
from xgenmm_jax.paths import Path
from xgenmm_jax.training.config import TrainConfig, load_config
from xgenmm_jax.training.runs.adapters import check_base, merge_into
from xgenmm_jax.training.runs.checkpoints import newest
from xgenmm_jax.training.runs.run_folder import CONFIG_FILE
from xgenmm_jax.training.sharding import MeshConfig, make_mesh
from xgenmm_jax.verifying import images, outputs, steps, tensors, tokens
from xgenmm_jax.verifying.section import Section

UPDATES_ALONE = (
    "These are low-rank updates. What they change is read from where the run began and held to its checksums; its "
    "tensors are shown by `xgenmm verify` of that."
)


@dataclass(frozen=True)
class Options:
    """dtype: of computation; parameters are float32. base, tokenizer: of released weights, as `xgenmm_jax.load`.
    reference: a file of `write_reference`; None: the one in the folder, where there is one. train_steps: 0 for none.
    adapter: a folder in PEFT's layout, whose updates are merged into the model before anything is computed."""

    dtype: Dtype = "float32"
    base: bool | None = None
    tokenizer: Path | None = None
    reference: Path | None = None
    write_reference: Path | None = None
    train_steps: int = 5
    adapter: Path | None = None


def check(source: Path, options: Options, say: Callable[[str], None] = lambda _: None) -> list[Section]:
    """The sections in the order of the page. say: told what is looked at now.

    Raises ValueError where the path is no folder or file, or an adapter without its model, or a given reference or
    adapter is none.
    """
    if not source.exists():
        raise ValueError(
            f"verify: no file or folder '{source}'; give released weights or a run folder that is "
            f"here{hub.hint(source)}."
        )
    if peft_settings.is_adapter(source):
        raise ValueError(
            f"verify: '{source}' holds an adapter and no model; give the released weights or the run that it was "
            f"trained over, and --adapter {source}."
        )
    is_run = _is_run(source)
    if options.adapter is not None:
        peft_settings.read_settings(options.adapter)
        if is_run:
            check_base(options.adapter, source)
    folder = source if source.is_dir() else source.parent
    beside = folder / outputs.REFERENCE_FILE
    file = options.reference or (beside if beside.is_file() else None)
    reference = None if file is None else outputs.read_reference(file)
    # Tensors first, from the files alone: they say most where a model does not open.
    say("tensors")
    try:
        measured = list(tensors.measure(newest(source) / "params" if is_run else source))
        sections = [tensors.check(measured)]
        if options.adapter is not None:
            of_adapter = tensors.check(list(tensors.measure(options.adapter / peft.MODEL_FILE)))
            sections.append(replace(of_adapter, title="Tensors of the adapter"))
    except ValueError as error:
        return [Section("Tensors", faults=(str(error),), notes=("Nothing else could be looked at.",))]
    try:
        run, grids = (load_config(source), {}) if is_run else _released(source, options.base)
    except (ValueError, TypeError) as error:
        return [*sections, Section("Model", faults=(f"config: {error}",), notes=("The model does not open.",))]
    if is_run and run.lora is not None:
        sections[0] = replace(sections[0], notes=(*sections[0].notes, UPDATES_ALONE))
    if not isinstance(run.model, VLMConfig):
        note = f"A {type(run.model).__name__} alone: views, outputs and steps are those of a whole model."
        return [*sections, Section("Model", notes=(note,))]
    say("tokenizer and views")
    section, tokenizer = _tokenizer(folder, options, run.model, reference)
    sections.append(section)
    anyres = getattr(run.data, "anyres", AnyRes())
    sections.append(images.check(anyres, grids, None if reference is None else reference.views))
    if anyres.view_px != run.model.vision.image_size_px:
        fault = f"views: {anyres.view_px} px, the tower takes {run.model.vision.image_size_px}; correct config.json."
        return [*sections, Section("Features, vision tokens and logits", faults=(fault,))]
    say("features, vision tokens, logits")
    model = _loaded(source, is_run, run, tokenizer, options)
    rows = _rows(model, reference)
    arrays = outputs.compute(model, rows)
    sections.append(outputs.check(arrays, reference, options.dtype, measured))
    if options.write_reference is not None:
        outputs.write_reference(options.write_reference, arrays, model, rows, measured)
    if options.train_steps:
        say("training steps")
        sections.append(steps.check(model, options.train_steps))
    return sections


def _is_run(source: Path) -> bool:
    """A run has its parameters in checkpoints/, released weights beside config.json."""
    return source.is_dir() and (source / "checkpoints").is_dir() and (source / CONFIG_FILE).is_file()


def _released(source: Path, base: bool | None) -> tuple[TrainConfig, dict[str, Any]]:
    """What it would be imported as, and the grids that its files have, in pixels."""
    with open_source(source) as opened:
        run = run_config(opened, base, tokenizer_files.MODEL_FILE)
        return run, {name: grids for name, grids in grids_in_files(opened).items() if grids}


def _tokenizer(
    folder: Path, options: Options, model: VLMConfig, reference: outputs.Reference | None
) -> tuple[Section, Tokenizer | None]:
    """The section, and the tokenizer where it is one of so many ids as the model has."""
    first = tokenizer_files.MODEL_FILE  # Phi-3's folders hold both forms of its tokenizer
    file = options.tokenizer or tokenizer_files.beside(folder, first) or folder / first
    ids = None if reference is None else reference.ids
    try:
        there = file.is_file() or options.tokenizer is not None
        tokenizer = Tokenizer.load(file) if there else None
        section = tokens.check(tokenizer, model.decoder, folder, ids)
    except ValueError as error:
        return Section("Tokenizer", faults=(str(error),)), None
    fits = tokenizer is not None and tokenizer.num_text_tokens == model.decoder.num_text_tokens
    return section, tokenizer if fits else None


def _loaded(source: Path, is_run: bool, run: TrainConfig, tokenizer: Tokenizer | None, options: Options) -> LMM:
    """As `api.load`, which refuses a tokenizer that does not fit: here the model is looked at all the same."""
    model = replace(run.model, dtype=options.dtype)
    mesh = make_mesh(MeshConfig())
    if is_run:
        params = load_run_params(source, model, mesh)
    else:
        _, params = load_params(source, "float32", mesh)
    words = tokenizer or IdsOnly(model.decoder.num_text_tokens)
    if options.adapter is not None:
        params = merge_into(params, peft.read(options.adapter, model))
    asking = run.data.asking
    processor = Processor(words, asking.anyres, asking.chat, model.vision.pixel_mean, model.vision.pixel_std)
    return LMM(source, replace(run, model=model), params, processor, mesh)


def _rows(model: LMM, reference: outputs.Reference | None) -> list[list[int]]:
    """The reference's, where the model has their ids."""
    if reference is None or max(map(max, reference.rows)) >= model.config.decoder.logits:
        return outputs.token_rows(model)
    return [list(row) for row in reference.rows]
