"""Released checkpoints into run folders, run folders into released layouts, and released weights onto devices."""

import dataclasses
import os
from typing import Any

import jax
import numpy as np

from xgenmm_jax import files, hub
from xgenmm_jax.convert import exporting, importing, peft, trees
from xgenmm_jax.convert.exporting import Layout
from xgenmm_jax.convert.formats import llama_hf
from xgenmm_jax.convert.importing import Progress, Source
from xgenmm_jax.convert.parameter_store import ParameterReader
from xgenmm_jax.convert.safetensors_writer import SHARD_BYTES
from xgenmm_jax.convert.tensor_shapes import NO_OVERRIDES, Overrides
from xgenmm_jax.data.anyres import GRIDS_RELEASED, AnyRes
from xgenmm_jax.data.errors import shown
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.data.text.caption_tokens import for_queries
from xgenmm_jax.data.text.tokenizer import DECOUPLED, Tokenizer
from xgenmm_jax.data.text.wordpiece import is_wordpiece
from xgenmm_jax.files import partial_folder, whole_folder
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.layers import Dtype
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.paths import Path
from xgenmm_jax.reporting import model_card
from xgenmm_jax.training.config import TrainConfig, load_config, save_config
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.runs import adapters
from xgenmm_jax.training.runs.averages import average_reader
from xgenmm_jax.training.runs.checkpoint_files import check_place
from xgenmm_jax.training.runs.checkpoints import FOLDER, newest
from xgenmm_jax.training.runs.reading import open_parameters
from xgenmm_jax.training.runs.run_folder import COMMIT_FILE, CONFIG_FILE, commit
from xgenmm_jax.training.sharding import MeshConfig, make_mesh, param_shardings

LLAMA_FAMILIES = ("Llama", "Qwen2")
"""Whose tokenizer is a tokenizer.json."""
ROW_LENGTH = 4096
"""Positions of Phi-3 mini 4k."""


def import_run(
    source: Source,
    destination: Path,
    dtype: Dtype = "float32",
    base: bool | None = None,
    tokenizer: Path | None = None,
    progress: Progress = lambda _: None,
) -> Path | None:
    """Makes the run folder `destination` from an opened checkpoint; gives the tokenizer's file that it copied, if any.

    The folder is that of `xgenmm train`: config.json, commit, the tokenizer, checkpoints/0. A tower or a language
    model alone gives a folder for `Initialize(vision=...)` or `Initialize(decoder=...)`.

    dtype: of the stored parameters. base: the base model, which saw every image as one view, by default where
    preprocessor_config.json says so. tokenizer: a tokenizer.model or tokenizer.json, of BLIP-2's first stage BERT's
    vocab.txt too; by default the one beside the tensors. With Llama's form, ids that have no row of the embedding
    become extra tokens.

    Raises ValueError where the destination exists, or the tokenizer is another model's. Nothing half-written stays.
    """
    # Phi-3's folders hold both forms of its tokenizer, other models' tokenizer.model has other rules than Phi-3's.
    is_llama = source.family in LLAMA_FAMILIES
    is_blip2 = isinstance(source.config, Blip2Config)
    first = tokenizer_files.JSON_FILE if is_llama or is_blip2 else tokenizer_files.MODEL_FILE
    file = tokenizer_files.beside(source.folder, first) if tokenizer is None else tokenizer_files.chosen(tokenizer)
    if file is not None and not is_llama and tokenizer is None and file.name != tokenizer_files.MODEL_FILE:
        file = file if is_blip2 and is_wordpiece(file) else None
    if file is not None:
        source = _with_tokenizer(file, source) if is_llama else source
        _check_tokenizer(file, source)
    check_place(destination, "convert")
    refuse_existing(destination)
    with whole_folder(destination) as folder:
        step = folder / FOLDER / "0"
        importing.write_parameters(source, step / "params", np.dtype(jax.numpy.dtype(dtype)), progress)
        copied = {} if file is None else tokenizer_files.copies(file)
        for name, copy in copied.items():
            files.copy(copy, folder / name)
        files.write_whole(folder / COMMIT_FILE, commit() + "\n")
        # The tokenizer's path in the destination, not in the partial folder.
        name = next(iter(copied), tokenizer_files.MODEL_FILE)
        save_config(run_config(source, base, str(destination / name)), folder / CONFIG_FILE)
    return file


def _with_tokenizer(path: Path, source: Source) -> Source:
    """A language model alone whose text ids are the tokenizer's, and its extra ids those without a row."""
    decoder, ids = source.config, len(Tokenizer.load(path))
    assert isinstance(decoder, Phi3Config)
    text = min(decoder.vocab_size, ids - len(DECOUPLED))
    if ids - text > llama_hf.NUM_EXTRA_TOKENS:
        raise ValueError(
            f"tokenizer: '{path}' has {ids} ids, the checkpoint's embedding {text} rows; give its own with --tokenizer."
        )
    config = dataclasses.replace(decoder, num_text_tokens=text, num_extra_tokens=ids - text)
    return dataclasses.replace(source, config=config)


def _check_tokenizer(path: Path, source: Source) -> None:
    config = source.config
    if isinstance(config, Blip2Config):
        rows = for_queries(path).rows
        if rows != config.text.vocab_size:
            raise ValueError(
                f"tokenizer: '{path}' makes {rows} rows of text with [CLS] and [DEC], the checkpoint has "
                f"{config.text.vocab_size}; give its own with --tokenizer."
            )
        return
    tokenizer = Tokenizer.load(path)
    decoder = config.decoder if isinstance(config, VLMConfig) else config
    if isinstance(decoder, Phi3Config) and len(tokenizer) != decoder.logits:
        raise ValueError(
            f"tokenizer: '{path}' has {tokenizer.num_text_tokens} ids, the checkpoint's embedding "
            f"{decoder.num_text_tokens}; give its own with --tokenizer."
        )


def refuse_existing(destination: Path) -> None:
    """Raises ValueError where the destination exists, or the partial folder of an earlier attempt."""
    partial = partial_folder(destination)
    is_left = files.is_unfinished(destination) if partial == destination else partial.exists()
    if destination.exists() and not (is_left and partial == destination):
        raise ValueError(f"convert: '{destination}' exists; give a new folder, or delete it.")
    if is_left:
        raise ValueError(f"convert: '{partial}' is left of a conversion that was killed, or one runs now; delete it.")


def export_checkpoint(
    run: Path,
    destination: Path,
    layout: Layout,
    dtype: Dtype = "float32",
    progress: Progress = lambda _: None,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[str, ...]:
    """Writes a run's newest parameters in a released layout into a new folder, a slice of a leaf at a time.

    Of what a run keeps a moving average of (`TrainConfig.average_decay`) that one is written, as `load` takes it. A
    model card stands beside them, README.md (`reporting/model_card.py`).

    layout: "xgenmm", "siglip", "phi3", "llama", "blip3o", "blip2" or "lavis". Gives sentences on what the
    layout cannot hold.

    Raises ValueError where the destination exists, there is no checkpoint, or the layout has no room for the model.
    """
    config = load_config(run)
    model = _exported(config.model, run)
    facts = model_card.read(run, int(newest(run).name))
    file = tokenizer_files.beside(run)
    tokenizer = None if file is None or is_wordpiece(file) else Tokenizer.load(file)
    anyres = config.data.asking.anyres if isinstance(config.data, DataConfig) else AnyRes()
    refuse_existing(destination)
    reader = open_parameters(run)
    if config.average_decay:
        reader = average_reader(newest(run), reader)
    with whole_folder(destination) as folder:
        notes = exporting.export(
            reader,
            model,
            layout,
            folder,
            np.dtype(jax.numpy.dtype(dtype)),
            tokenizer=tokenizer,
            anyres=anyres,
            shard_bytes=shard_bytes,
            progress=progress,
        )
        files.write_whole(folder / model_card.CARD_FILE, model_card.markdown(facts, layout, notes))
    return notes


def export_adapter(run: Path, destination: Path, layout: peft.Layout) -> tuple[str, ...]:
    """Writes the low-rank updates of a run, and what it trained whole beside them, in PEFT's layout into a new folder.

    A model card stands beside them, as beside other exports, and the checksum of what they change.

    layout: "peft", over the official xGen-MM code's model, or "peft_phi3", over transformers' Phi3ForCausalLM. Gives
    sentences on what the layout cannot hold.

    Raises ValueError where the destination exists, the run has no updates, or the layout has no place for one.
    """
    config = load_config(run)
    if config.lora is None:
        raise ValueError(f"export: '{run}' trained no low-rank updates (lora); choose another --to.")
    facts = model_card.read(run, int(newest(run).name))
    refuse_existing(destination)
    reader = ParameterReader(newest(run) / "params")
    with whole_folder(destination) as folder:
        notes = peft.write(reader, _exported(config.model, run), config.lora, layout, folder)
        adapters.write_base(config, run, folder)
        files.write_whole(folder / model_card.CARD_FILE, model_card.markdown(facts, layout, notes))
    return notes


def _exported(model: Any, run: Path) -> trees.Config:
    """The run's model; of one that is no part of a VLM, as in a tower's pre-training, its tower.

    Raises ValueError where it has none.
    """
    if isinstance(model, trees.Config):
        return model
    # What trains beside a tower is dropped; parameters of the part `vision` are a tower's in every run.
    parts = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    tower = parts.get("vision")
    if not isinstance(tower, ViTConfig):
        raise ValueError(f"export: '{run}' holds a {type(model).__name__}; give a run of a model, tower or decoder.")
    return tower


def run_config(source: Source, base: bool | None, tokenizer: str) -> TrainConfig:
    """The config of an imported folder. It has no data: the run answers, is evaluated or initializes others."""
    model, data = source.config, None
    if isinstance(model, VLMConfig):
        anyres = AnyRes(
            grids=released_grids(source, model, base),
            view_px=model.vision.image_size_px,
            view_cells=model.vision.grid,
        )
        row = RowConfig(
            length=ROW_LENGTH, crops=anyres.max_crops, images=1, vision_tokens=model.tokens_per_group, too_long="drop"
        )
        data = DataConfig(mixture=(), tokenizer=tokenizer, row=row, anyres=anyres, batch_rows=1)
    # Released instruct models see grids of views, the base model one view.
    prompt = "chat" if data is not None and data.anyres.grids else "few_shot"
    name = f"imported/{hub.model_of(source.path) or source.path.stem}"
    return TrainConfig(name=name, model=model, data=data, objective=NextToken(), steps=1, prompt=prompt)


def released_grids(source: Source, model: VLMConfig, base: bool | None) -> tuple[tuple[int, int], ...]:
    """Candidates of the any-resolution views: those of the files, in pixels there, or the released five; none of base.

    Tensors and config.json of base and instruct models are the same. The base model's preprocessor_config.json has
    `"grids": null`.

    Raises ValueError for grids that are no pairs of multiples of a view's side.
    """
    processor = source.processor
    if base or base is None and processor.get("grids", ()) is None:
        return ()
    grids = next((grids for grids in grids_in_files(source).values() if grids), None)
    if not grids:
        return GRIDS_RELEASED
    side = model.vision.image_size_px
    odd = [grid for grid in grids if not _is_grid(grid, side)] if isinstance(grids, list) else [grids]
    if odd:
        raise ValueError(
            f"'{source.path}' has the grid {shown(odd[0])}, wanted [width, height] in multiples of views "
            f"of {side} px; copy the model's own config.json and preprocessor_config.json again."
        )
    return tuple((width // side, height // side) for width, height in grids)


def grids_in_files(source: Source) -> dict[str, Any]:
    """What each of a checkpoint's files says of grids, in pixels, by the file's name; the first that does counts."""
    encoder = source.settings.get("vision_encoder_config")
    return {
        importing.CONFIG_FILES[0]: encoder.get("anyres_grids") if isinstance(encoder, dict) else None,
        importing.PROCESSOR_FILE: source.processor.get("grids"),
    }


def _is_grid(grid: Any, side: int) -> bool:
    is_pair = isinstance(grid, list) and len(grid) == 2
    return is_pair and all(type(px) is int and px >= side and px % side == 0 for px in grid)


def load_params(
    source: str | os.PathLike,
    dtype: Dtype = "float32",
    mesh: jax.sharding.Mesh | None = None,
    overrides: Overrides = NO_OVERRIDES,
    progress: Progress = lambda _: None,
) -> tuple[VLMConfig, Any]:
    """Config and parameters of a released xGen-MM checkpoint, read onto the devices without a run folder.

    The host has a slice of a leaf in memory at a time. mesh: of `make_mesh`; all devices by default.

    Raises ValueError where the path is no checkpoint of a whole model, or its tensors do not fit.
    """
    with importing.open_source(hub.local_folder(source, "load"), overrides) as opened:
        config = opened.config
        if not isinstance(config, VLMConfig):
            raise ValueError(f"checkpoint: '{source}' is {opened.family}, a part of a model; give a whole xGen-MM.")
        boxed = trees.abstract(config)
        tree = param_shardings(make_mesh(MeshConfig()) if mesh is None else mesh, boxed)
        shardings = {
            "/".join(str(key.key) for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        leaves = importing.load_tree(opened, shardings, np.dtype(jax.numpy.dtype(dtype)), progress)
    return config, importing.unflatten(leaves)
