"""Runs and released checkpoints as models ready for use."""

from dataclasses import replace
import functools
import os
import typing
from typing import Any

from flax import linen as nn
import jax

from xgenmm_jax import files, hub
from xgenmm_jax.api.conversion import load_params, run_config
from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.processor import IdsOnly, Processor
from xgenmm_jax.convert import peft
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.tensor_shapes import NO_OVERRIDES, Overrides
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.arguments import shown
from xgenmm_jax.models import blip3, blip3o
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.blip3o import STATISTICS, Blip3oConfig
from xgenmm_jax.models.layers import Dtype
from xgenmm_jax.models.lora import is_below
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.ops.partitioning import path_name
from xgenmm_jax.paths import Path, run_path
from xgenmm_jax.training.config import TrainConfig, load_config
from xgenmm_jax.training.runs import checkpoints, run_folder
from xgenmm_jax.training.runs.adapters import check_base, merge_into
from xgenmm_jax.training.runs.averages import with_average
from xgenmm_jax.training.runs.reading import restore_run
from xgenmm_jax.training.sharding import AXES, MeshConfig, make_mesh, param_shardings

TENSORS = ("*.safetensors", "*.index.json", "*.npz", "*.pt", "*.bin")
"""Tensor files of a released folder; the last two are refused with an error."""


def load(
    path: str | os.PathLike | object,
    *,
    dtype: Dtype | object | None = None,
    mesh: jax.sharding.Mesh | object | None = None,
    tokenizer: str | os.PathLike | None = None,
    base: bool | None = None,
    overrides: Overrides | object = NO_OVERRIDES,
    official_images: bool = False,
    adapter: str | os.PathLike | None = None,
    average: bool = True,
) -> LMM:
    """A run folder of ours, or a released xGen-MM folder or file, with its parameters on the devices.

    path: `~` is the home folder. gs:// and s3:// are read as they lie there. A string may name a model of the Hugging
    Face hub instead, "org/model" or "org/model@revision", where no folder lies here by the name (`hub.py`); so may
    `tokenizer` and `adapter`.
    dtype: of parameters and computation; by default the run's computation in float32 parameters, and float32 for
    released weights; bfloat16 moves logits by up to 4e-2 of the largest (docs/design.md, Precision). mesh: of
    `training.sharding.make_mesh`; by default all devices, parameters cut over them.
    official_images: read images as in the released code and in training, see `Processor`.
    adapter: a folder in PEFT's layout that was trained over these parameters, which is merged into them in float32;
    they are float32 on the devices until then. average: of a run that keeps a moving average of what it trains
    (`TrainConfig.average_decay`), take that; False: the parameters of its last step. An adapter is always merged into
    these, as runs begin with them.
    Released weights only: tokenizer: a tokenizer.model, by default the one beside the weights; without one, prompts and
    answers are ids. base: whether it is the base model, which sees one view of an image, by default by
    preprocessor_config.json. overrides: numbers of heads, where the files do not have them.

    Released tensors stream to the devices a layer at a time; nothing is written.

    Raises ValueError where the folder is neither of these, its model is no whole vision-language model, or a tensor is
    missing, spare or misshapen, and where the hub does not give the model.
    """
    path = hub.fetch(hub.path_or_name(path, "load", run_path), "load")
    files.check_bucket(path, "load")
    if not path.exists():
        raise ValueError(
            f"run folder: no file or folder '{path}'; give the folder of a run or of released weights that is here"
            f"{hub.hint(path)}."
        )
    if path.is_dir():
        files.check_whole(path, "load")
    # Everything that a caller can get wrong, before devices are touched.
    dtype = _checked_dtype(dtype)
    if not isinstance(overrides, Overrides):
        raise ValueError(
            f"load: got {shown(overrides)} for overrides; give convert.tensor_shapes.Overrides(vision_heads=...)."
        )
    if mesh is not None and getattr(mesh, "axis_names", None) != AXES:
        raise ValueError(f"load: got {shown(mesh)} for mesh; give one of training.sharding.make_mesh.")
    mesh = make_mesh(MeshConfig()) if mesh is None else mesh
    final_dtype, dtype = dtype, dtype if adapter is None else None  # None: parameters in float32
    folder = None if adapter is None else hub.local_folder(adapter, "adapter")
    # A folder with tensors and no config of a run is a released one.
    if path.is_file() or (not is_run(path) and any(any(path.glob(pattern)) for pattern in TENSORS)):
        loaded = _load_released(path, dtype, mesh, tokenizer, base, overrides)
    else:
        loaded = _load_run(path, dtype, mesh, takes_average=average and folder is None)
    if folder is not None:
        loaded = _with_adapter(loaded, folder, final_dtype)
    loaded.processor = replace(loaded.processor, official_images=official_images)
    return loaded


def _with_adapter(loaded: LMM, folder: Path, dtype: Dtype | None) -> LMM:
    """A model whose parameters are float32, with an adapter merged, in the dtype that the caller asked for."""
    if is_run(loaded.folder):
        check_base(folder, loaded.folder)
    params = merge_into(loaded.params, peft.read(folder, loaded.config))
    if dtype is not None:
        cast = functools.partial(_cast, loaded.config, dtype)
        params = jax.tree_util.tree_map_with_path(cast, params)
    return _loaded(loaded.folder, loaded.run, dtype, params, loaded.tokenizer, loaded.mesh)


def _cast(model: VLMConfig, dtype: Dtype, path: tuple, leaf: jax.Array) -> jax.Array:
    return leaf.astype(_dtype_of(path, model, dtype))


def _checked_dtype(dtype: Any) -> Dtype | None:
    """Its name. Raises ValueError for another than the two that models compute in."""
    try:
        name = None if dtype is None else jax.numpy.dtype(dtype).name
    except TypeError:
        name = dtype
    if name not in (None, *typing.get_args(Dtype)):
        raise ValueError(f"load: got dtype {shown(name)}; give one of {', '.join(typing.get_args(Dtype))}.")
    return name


def is_run(folder: Path) -> bool:
    """Whether its config.json is that of a run of ours."""
    try:
        config = files.parse_json(files.read_text(folder / run_folder.CONFIG_FILE))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "class" in config


def _load_run(folder: Path, dtype: Dtype | None, mesh: jax.sharding.Mesh, takes_average: bool) -> LMM:
    run = load_config(folder)
    if not isinstance(run.model, VLMConfig):
        raise ValueError(
            f"run folder: '{folder}' holds a {type(run.model).__name__.removesuffix('Config')} alone, which answers "
            "no questions; give a run of a vision-language model, or start one from it: --initialize."
        )
    checkpoint = checkpoints.newest(folder)
    tokenizer = Tokenizer.load(tokenizer_files.beside(folder) or folder / tokenizer_files.MODEL_FILE)
    params = load_run_params(folder, run.model, mesh, dtype or "float32")
    if run.average_decay and takes_average:
        params = with_average(checkpoint, params)
    return _loaded(folder, run, dtype, params, tokenizer, mesh)


def load_run_params(folder: Path, model: VLMConfig, mesh: jax.sharding.Mesh, dtype: Dtype = "float32") -> Any:
    """Of a run's newest checkpoint, on the mesh's devices, low-rank updates merged.

    Raises ValueError where there is none, or it is damaged.
    """
    return restore_run(folder, _abstract(model, dtype, mesh))


def _load_released(
    path: Path,
    dtype: Dtype | None,
    mesh: jax.sharding.Mesh,
    tokenizer: str | os.PathLike | None,
    base: bool | None,
    overrides: Overrides,
) -> LMM:
    with open_source(path, overrides) as source:
        beside = source.folder / tokenizer_files.MODEL_FILE
        file = beside if tokenizer is None else hub.local_folder(tokenizer, "tokenizer", "tokenizer")
        run = run_config(source, base, str(file))
    config, params = load_params(path, dtype or "float32", mesh, overrides)
    words = Tokenizer.load(file) if tokenizer is not None or file.is_file() else IdsOnly(config.decoder.num_text_tokens)
    if words.num_text_tokens != config.decoder.num_text_tokens:
        raise ValueError(
            f"tokenizer: '{file}' has {words.num_text_tokens} ids, the embedding {config.decoder.num_text_tokens}; "
            "give the checkpoint's own with tokenizer=FILE."
        )
    return _loaded(path, run, dtype, params, words, mesh)


def _loaded(
    folder: Path, run: TrainConfig, dtype: Dtype | None, params: Any, tokenizer: Tokenizer, mesh: jax.sharding.Mesh
) -> LMM:
    if dtype is not None:
        run = replace(run, model=replace(run.model, dtype=dtype))
    vision, asking = run.model.vision, run.data.asking
    processor = Processor(tokenizer, asking.anyres, asking.chat, vision.pixel_mean, vision.pixel_std)
    return LMM(folder, run, params, processor, mesh)


def _abstract(model: VLMConfig, dtype: Dtype, mesh: jax.sharding.Mesh) -> Any:
    """Shapes and shardings over the mesh, whatever mesh the run had."""
    initialize = blip3o.initialize if isinstance(model, Blip3oConfig) else blip3.initialize
    boxed = jax.eval_shape(functools.partial(initialize, model), jax.random.key(0))

    def one(path: tuple, leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, _dtype_of(path, model, dtype), sharding=sharding)

    return jax.tree_util.tree_map_with_path(one, nn.unbox(boxed), param_shardings(mesh, boxed))


def _dtype_of(path: tuple, model: VLMConfig, dtype: Dtype) -> Dtype:
    """Of the parameter there in a model that is loaded in `dtype`."""
    # Statistics of what is drawn keep their digits, and a Q-Former computes in float32.
    name = path_name(path)
    is_exact = name in STATISTICS or is_below(name, "connector") and isinstance(model.connector, QFormerConfig)
    return "float32" if is_exact else dtype
