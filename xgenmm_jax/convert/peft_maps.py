"""Which modules of another layout a kernel with an update is, and how their inputs and outputs are numbered.

A conversion rule says how a whole kernel becomes their weights. It permutes inputs and outputs each for themselves, so
that A [inputs, rank] is theirs with its inputs permuted, and B [rank, outputs] with its outputs, of a kernel that is
several of their weights (q, k and v of SigLIP) cut into theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math

import numpy as np

from xgenmm_jax.convert import trees
from xgenmm_jax.convert.formats import phi3_hf, siglip_hf, xgenmm
from xgenmm_jax.convert.rules import Rule
from xgenmm_jax.convert.trees import Config
from xgenmm_jax.models import lora
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig

WEIGHT = ".weight"


@dataclass(frozen=True)
class LinearMap:
    """A kernel. inputs: their input to our flat one. outputs: of each of their modules its output to our flat one.

    kernel_inputs, kernel_outputs: shapes of one layer's kernel.
    """

    rule: Rule
    inputs: np.ndarray
    outputs: tuple[np.ndarray, ...]
    kernel_inputs: tuple[int, ...]
    kernel_outputs: tuple[int, ...]

    def modules(self, layer: int | None) -> tuple[str, ...]:
        """Names of their modules."""
        return tuple(piece.name.removesuffix(WEIGHT) for piece in self.rule.pieces(layer))


def layouts(config: Config) -> dict[str, tuple[Rule, ...]]:
    """Rules by name: of the whole model as released and as trained by the official code, and of its parts alone."""
    result: dict[str, tuple[Rule, ...]] = {}
    if isinstance(config, VLMConfig):
        if isinstance(config.connector, ResamplerConfig) and not config.connector.instruction_tokens:
            result |= {"xgenmm": xgenmm.rules(config), "xgenmm, training": xgenmm.rules(config, "")}
        result |= layouts(config.decoder) | layouts(config.vision)
    elif isinstance(config, Phi3Config):
        result["phi3"] = phi3_hf.decoder_rules(config, "")
    else:
        result["siglip"] = siglip_hf.vision_rules(config, "vision_model.")
    return result


def linear_maps(config: Config, rules: Sequence[Rule], kernels: Sequence[str]) -> dict[str, LinearMap]:
    """The maps of these kernels, by our path.

    Raises ValueError for one that is in the layout no torch.nn.Linear of its own.
    """
    boxed = _names(config)
    maps: dict[str, LinearMap] = {}
    for rule in rules:
        if rule.ours in kernels:
            names, shape = boxed[rule.ours]
            maps[rule.ours] = _linear_map(rule, names[bool(rule.layers) :], shape[bool(rule.layers) :])
    return maps


def _names(config: Config) -> Mapping[str, tuple[tuple[str | None, ...], tuple[int, ...]]]:
    """Logical axis names and shapes by path."""
    flat: dict[str, tuple[tuple[str | None, ...], tuple[int, ...]]] = {}

    def walk(node: object, path: str) -> None:
        if isinstance(node, Mapping):
            for name, below in node.items():
                walk(below, f"{path}/{name}" if path else name)
        elif hasattr(node, "names"):
            flat[path] = (tuple(node.names), tuple(node.value.shape))

    walk(trees.abstract(config), "")
    return flat


def _linear_map(rule: Rule, names: tuple[str | None, ...], shape: tuple[int, ...]) -> LinearMap:
    count = lora.input_axes(names)
    sizes = math.prod(shape[:count]), math.prod(shape[count:])
    # Kernels whose numbers are those of their inputs, or outputs, taken apart as weights are.
    numbers = np.arange(sizes[0], dtype=np.int32)[:, None], np.arange(sizes[1], dtype=np.int32)[None]
    by_input, by_output = (
        rule.transform.back(np.broadcast_to(one, sizes).reshape(shape), len(rule.theirs)) for one in numbers
    )
    is_linear = all(part.ndim == 2 for part in by_input) and all(
        piece.of == 1 and piece.name.endswith(WEIGHT) for piece in rule.theirs
    )
    if not is_linear:
        raise ValueError(
            f"adapter: '{rule.ours}' is no linear map of its own in this layout ({rule.theirs[0].name}); leave it out "
            "of lora.targets."
        )
    inputs = by_input[0][0]
    assert all(np.array_equal(row, inputs) for part in by_input for row in (part[0], part[-1])), rule.ours
    outputs = tuple(np.ascontiguousarray(part[:, 0]) for part in by_output)
    return LinearMap(rule, np.ascontiguousarray(inputs), outputs, shape[:count], shape[count:])
