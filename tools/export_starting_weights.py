"""Puts a part of a finished run among the package's starting weights, with what made it and its checksum.

    python tools/export_starting_weights.py runs/weights/vision_tower vision
    python tools/export_starting_weights.py runs/weights/language_model_naming decoder
    python tools/export_starting_weights.py runs/weights/pixels pixels

Writes xgenmm_jax/nano/weights/nano_<vision|language|pixels>.safetensors and its line in weights.json, with the options
in which the run differs from its experiment. The parameters are those of the last step, also where a run keeps their
moving average, which `xgenmm_jax.load` and `xgenmm convert` take.
"""

import argparse
import functools
import hashlib
import json
from pathlib import Path
import shlex
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import numpy as np
from numpy.typing import DTypeLike

from xgenmm_jax import files
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.nano.starting_weights import WEIGHTS
from xgenmm_jax.training.config import load_config
from xgenmm_jax.training.config_json import to_json
from xgenmm_jax.training.runs import checkpoints
from xgenmm_jax.training.runs.initialize import save_weights
from xgenmm_jax.training.runs.reading import restore_run
from xgenmm_jax.training.runs.run_folder import COMMIT_FILE
from xgenmm_jax.training.sharding import make_mesh, param_shardings

NANO = Path(__file__).resolve().parents[1] / "experiments" / "nano"


class Part(NamedTuple):
    """What a field of `Initialize` takes. experiment: in NANO. dtypes: of the parts of the parameters it brings."""

    file: str
    experiment: str
    dtypes: dict[str, DTypeLike]


PARTS = {
    "vision": Part("nano_vision.safetensors", "starting_weights/vision_tower_small_text.py", {"vision": np.float32}),
    "decoder": Part("nano_language.safetensors", "starting_weights/language_model_naming.py", {"decoder": np.float32}),
    "pixels": Part("nano_pixels.safetensors", "draw.py:pixels", {"target": np.float32, "pixels": np.float16}),
}


def options_of(run: Any, experiment: Any, name: str = "") -> list[str]:
    """In what the JSON of a run's config differs from its experiment's, as options of `xgenmm train`.

    Files of one name are the same: those of the package lie elsewhere in another checkout.

    Raises ValueError where no option says it.
    """
    if run == experiment or _is_same_file(run, experiment):
        return []
    if isinstance(run, dict) and isinstance(experiment, dict) and run.get("class") == experiment.get("class"):
        if "enum" in run:
            run = run["name"]
        else:
            parts = ((f"{name}.{key}" if name else key, key) for key in run)
            return [word for path, key in parts for word in options_of(run[key], experiment.get(key), path)]
    where, _, field = name.replace("_", "-").rpartition(".")
    within = f"--{where}." if where else "--"
    values = run if isinstance(run, list) else [run]
    if any(isinstance(value, list | dict) for value in values):
        raise ValueError(
            f"export: {name} of the run is not its experiment's, and no option says so; write an experiment's function "
            "that has it, train by that, and name it in PARTS."
        )
    if isinstance(run, bool):
        return [f"{within}{'' if run else 'no-'}{field}"]
    return [f"{within}{field}", *map(str, values)]


def _is_same_file(run: Any, experiment: Any) -> bool:
    paths = [Path(one) for one in (run, experiment) if isinstance(one, str) and Path(one).is_absolute()]
    return len(paths) == 2 and paths[0].name == paths[1].name


def export(run: Path, name: str) -> dict[str, str | int]:
    """Writes a part of a run's newest checkpoint; gives its line of weights.json."""
    part = PARTS[name]
    config = load_config(run)
    boxed = jax.eval_shape(functools.partial(config.objective.init, config.model), jax.random.key(0))
    shardings = param_shardings(make_mesh(config.mesh), boxed)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        shardings,
    )
    params = restore_run(run, {one: abstract[one] for one in part.dtypes})
    tensors = {
        one: jax.tree.map(lambda leaf, dtype=dtype: np.asarray(leaf, dtype), params[one])
        for one, dtype in part.dtypes.items()
    }
    options = options_of(to_json(config), to_json(load_experiment(NANO / part.experiment)))
    metadata = {
        "command": shlex.join(["xgenmm", "train", f"experiments/nano/{part.experiment}", *options]),
        "seed": str(config.seed),
        "steps": str(int(checkpoints.newest(run).name)),
        "parameters": "of the last step",
        "commit": files.read_text(run / COMMIT_FILE).strip(),
    }
    path = WEIGHTS / part.file
    save_weights(path, tensors, metadata)
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size, **metadata}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("part", choices=PARTS)
    arguments = parser.parse_args()
    line = export(arguments.run, arguments.part)
    index = WEIGHTS / "weights.json"
    lines = files.read_json(index) if index.is_file() else {}
    files.write_whole(index, json.dumps(lines | {PARTS[arguments.part].file: line}, indent=1) + "\n")
    print(json.dumps(line, indent=1))
