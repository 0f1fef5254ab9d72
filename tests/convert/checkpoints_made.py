"""Checkpoints of other layouts at small random sizes, for tests."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from xgenmm_jax.convert import trees
from xgenmm_jax.convert.rules import their_shapes

GOLDENS = Path(__file__).parents[1] / "goldens"
TINY28 = GOLDENS / "xgenmm_tiny28"


def random_tensors(rules, config, seed: int = 0, dtype=np.float32) -> dict[str, np.ndarray]:
    """Every tensor of a family at the size of a config."""
    random = np.random.default_rng(seed)
    shapes = their_shapes(rules, trees.shapes(config))
    return {name: random.standard_normal(shape, np.float32).astype(dtype) for name, shape in shapes.items()}


def tiny28() -> dict[str, np.ndarray]:
    """The golden's tensors, in its names."""
    return load_file(TINY28 / "model.safetensors")


def write(folder: Path, tensors: dict[str, np.ndarray], settings: str | None = None) -> Path:
    """A folder of one file, and its config.json."""
    folder.mkdir(parents=True)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")
    if settings is not None:
        (folder / "config.json").write_text(settings)
    return folder


def tiny28_settings() -> str:
    return (TINY28 / "config.json").read_text()


def same_bytes(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Same names, shapes, dtypes and bytes."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.shape == other[name].shape and tensor.dtype == other[name].dtype, name
        assert tensor.tobytes() == other[name].tobytes(), name
