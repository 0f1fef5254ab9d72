"""Parameters at the start of a run: random, from another run, or from starting weights of single parts."""

from collections.abc import Callable
import functools
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
from jaxtyping import Array, Key
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from xgenmm_jax import files, hub
from xgenmm_jax.convert.tensor_files import refuse_pickles
from xgenmm_jax.models.lora import updates_of, without_updates
from xgenmm_jax.ops.partitioning import path_name, unboxed
from xgenmm_jax.paths import Path, user_path
from xgenmm_jax.seeds import random_key
from xgenmm_jax.training.config import Initialize
from xgenmm_jax.training.objectives.base import Params
from xgenmm_jax.training.runs import checkpoints
from xgenmm_jax.training.runs.checkpoints import FOLDER
from xgenmm_jax.training.step import shardings_of

PARTS = ("vision", "connector", "decoder", "pixels")
"""Fields of `Initialize` that name weights of one part."""
_BRINGS = {"pixels": ("target", "pixels"), "connector": ("connector", "text", "heads")}
"""The parts that such a field brings as far as the model has them: a pixel decoder the scale of the features that it
was trained on; a Q-Former, in a first stage, its text and heads."""


def initialize_params(
    config: Initialize, init: Callable[[Array], Params], seed: int, abstract: Params, model: Any = None
) -> Params:
    """Parameters on the devices, as `abstract` says. Random ones are the same on every mesh. Low-rank updates are new.

    init: of the objective, `setup.Program.init`. model: the VLMConfig, where there is a `connector_start`.

    Raises ValueError for files that are missing or of another size.
    """
    whole, abstract = abstract, without_updates(abstract)
    sources = {part: getattr(config, part) for part in PARTS if getattr(config, part) is not None}
    for part in sources:
        if part not in abstract:
            raise ValueError(f"initialize.{part}: the model has no such part, only {', '.join(sorted(abstract))}.")
    draw = functools.partial(random_params, init, seed)
    fresh = _fresh(config.fresh, abstract)
    loaded: Params = {}
    for field, source in sources.items():
        loaded |= _load_but(source, field, fresh, draw, _parts_of(field, abstract))
    others = {part: leaves for part, leaves in abstract.items() if part not in loaded}  # a run may lack what is loaded
    if config.run is None:
        params = draw(others)
    else:
        run = user_path(config.run, "initialize.run")
        files.check_bucket(run, "initialize.run")
        if not (run / FOLDER).is_dir():
            refuse_pickles(run)
        params = _restore_but(run, fresh, draw, others)
    params = {**params, **loaded}
    if config.connector_start is not None:
        start = functools.partial(config.connector_start, model=model, seed=seed)
        params = {**params, "connector": jax.jit(start, out_shardings=shardings_of(abstract["connector"]))(params)}
    updates = updates_of(whole)
    if not updates:
        return params
    drawn = draw(unflatten_dict(updates, sep="/"))
    return unflatten_dict(flatten_dict(params, sep="/") | flatten_dict(drawn, sep="/"), sep="/")


def _fresh(prefixes: tuple[str, ...], abstract: Params) -> frozenset[str]:
    """The parameters below these prefixes. Raises ValueError for one that names none."""
    flat = flatten_dict(abstract, sep="/")
    drawn = {name for name in flat for prefix in prefixes if f"{name}/".startswith(f"{prefix}/")}
    for prefix in prefixes:
        if not any(f"{name}/".startswith(f"{prefix}/") for name in drawn):
            raise ValueError(f"initialize.fresh: '{prefix}' names no parameter of the model; leave it away.")
    return frozenset(drawn)


def _restore_but(run: Path, fresh: frozenset[str], draw: Callable[[Params], Params], abstract: Params) -> Params:
    """The run's parameters; those of `fresh` as `draw` gives them."""
    return _but(functools.partial(_restore_run, run), fresh, draw, abstract)


def _parts_of(field: str, abstract: Params) -> Params:
    return {part: abstract[part] for part in _BRINGS.get(field, (field,)) if part in abstract}


def _load_but(
    source: str, field: str, fresh: frozenset[str], draw: Callable[[Params], Params], abstract: Params
) -> Params:
    """The parts that a field of `Initialize` brings; those of `fresh` as `draw` gives them."""
    return _but(functools.partial(_load_parts, source, field), fresh, draw, abstract)


def _but(
    load: Callable[[Params], Params], fresh: frozenset[str], draw: Callable[[Params], Params], abstract: Params
) -> Params:
    flat = flatten_dict(abstract, sep="/")
    drawn = {name: leaf for name, leaf in flat.items() if name in fresh}
    loaded = load(unflatten_dict({name: leaf for name, leaf in flat.items() if name not in drawn}, sep="/"))
    if not drawn:
        return loaded
    random = draw(unflatten_dict(drawn, sep="/"))
    return unflatten_dict(flatten_dict(loaded, sep="/") | flatten_dict(random, sep="/"), sep="/")


def random_params(init: Callable[[Array], Params], seed: int, abstract: Params) -> Params:
    """The parameters that `abstract` names, drawn from the seed and laid out over the devices as it says.

    Each is what it would be if all were drawn, but the compiler has nothing to do with the others: on a CPU it takes
    as long over a nano model's random numbers as over a training step.
    """
    names = flatten_dict(abstract, sep="/")

    def draw(key: Key[Array, ""]) -> dict[str, Array]:
        drawn = flatten_dict(unboxed(init(key)), sep="/")
        return {name: drawn[name] for name in names}

    shardings = {name: leaf.sharding for name, leaf in names.items()}
    return unflatten_dict(jax.jit(draw, out_shardings=shardings)(random_key(seed)), sep="/")


def _load_parts(source: str, field: str, abstract: Params) -> Params:
    path = find_weights(source, f"initialize.{field}")
    return _restore_run(path, abstract) if path.is_dir() else load_weights(path, field, abstract)


def _restore_run(run: Path, abstract: Params) -> Params:
    # Here, because a run of low-rank updates is read from what it began with, in turn by `initialize_params`.
    from xgenmm_jax.training.runs.reading import restore_run

    return restore_run(run, abstract)


def find_weights(source: str, name: str) -> Path:
    """The file or folder that `source` names; of a model of the hub its only file of weights, a part in our layout.

    Raises ValueError where it is not there.
    """
    path = hub.local_folder(source, name, is_kept=True)
    files.check_bucket(path, name)
    if not path.exists():
        raise ValueError(f"{name}: no file or folder '{source}'; check the path{hub.hint(source)}.")
    weights = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    # Not beside weights: other tools fetch what they need into the same snapshot of the hub.
    if not weights and not (path / FOLDER).is_dir():
        refuse_pickles(path)
    if not source.startswith(hub.SCHEME):
        return path
    if len(weights) > 1:
        raise ValueError(
            f"{name}: '{source}' has {len(weights)} files of weights, wanted one of a part alone; make a run folder of "
            f"it, xgenmm convert {source} FOLDER, and give that."
        )
    return weights[0]


def save_weights(path: Path, params: Params, metadata: dict[str, str]) -> None:
    """Writes parts, {"vision": ...}, as safetensors in their dtype, names as "vision/layers/norm1/scale"; atomically.

    metadata: strings kept in the file's head: command, seed, score.
    """
    tensors = {
        path_name(key): np.ascontiguousarray(leaf)
        for key, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(params))
    }
    files.make_folder(path.parent)
    files.write_whole(path, lambda beside: save_file(tensors, beside, metadata))


def load_weights(path: Path, field: str, abstract: Params) -> Params:
    """The parts of a safetensors file, each tensor placed as `abstract`, {"vision": ...}, says.

    field: of `Initialize`, for errors. Raises ValueError that names every missing, spare and misshapen tensor.
    """
    expected = {path_name(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    try:
        with files.on_disk(path) as local, safe_open(local, "numpy") as file:
            have = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            problems = checkpoints.differences(have, {name: leaf.shape for name, leaf in expected.items()})
            if problems:
                raise ValueError(
                    f"initialize.{field}: '{path}' does not fit the model: {', '.join(problems)}. "
                    "Choose the model that it was trained with, or other weights."
                )
            leaves = {
                name: jax.device_put(file.get_tensor(name).astype(leaf.dtype), leaf.sharding)
                for name, leaf in expected.items()
            }
    except SafetensorError as error:
        raise ValueError(f"initialize.{field}: '{path}' is no safetensors file ({error}); copy it again.") from error
    return jax.tree_util.tree_map_with_path(lambda key, _: leaves[path_name(key)], abstract)
