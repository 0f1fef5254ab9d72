"""Low-rank updates of linear maps (LoRA, arXiv 2106.09685): y = x W + scale (x A) B; A and B train, W does not.

The updates of a kernel stand beside it in the parameter tree: `lora_a` [inputs, rank], `lora_b` [rank, outputs],
`lora_scale` and, with dropout, `lora_dropout`, which do not train. `Linear` computes with them wherever they are there,
so one tree says what a model computes: with its updates, without them (`without_updates`), or merged (`merged`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import difflib
import math
from typing import Any
import zlib

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
from jaxtyping import Array

from xgenmm_jax.batch import ArrayLike
from xgenmm_jax.models import dropout

KERNEL = "kernel"
DOWN, UP, SCALE, DROPOUT = "lora_a", "lora_b", "lora_scale", "lora_dropout"
UPDATES = (DOWN, UP)
"""Names of the leaves that train."""
NAMES = (*UPDATES, SCALE, DROPOUT)

STREAM = "dropout"
"""Of random numbers, for updates that drop in training."""

STREAMS = ("embed", "vision_embed")
"""Logical names of the widths of residual streams, which stand alone on their side of a linear map."""

Params = Any
"""Nested dicts of arrays."""


@dataclass(frozen=True)
class LoRA:
    """Which linear maps get updates, and of what rank. Defaults are PEFT's but for the targets.

    rank: of every update. alpha: an update counts alpha / rank times. dropout: share of an update's inputs that
    training sets to 0. targets: kernels by path or by a prefix of it, "decoder/layers" or
    "decoder/layers/qkv_proj"; those of all layers are targeted together. whole: path prefixes that train whole beside
    the updates, "connector" (PEFT's modules_to_save).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("decoder/layers",)
    whole: tuple[str, ...] = ()

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"lora.rank: got {self.rank}, wanted 1 or more.")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha: got {self.alpha}, wanted a finite number above 0.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout: got {self.dropout}, wanted a share from 0 to below 1.")
        if not self.targets:
            raise ValueError("lora.targets: got none; name kernels, as 'decoder/layers', or leave lora away.")


def is_below(name: str, prefix: str) -> bool:
    """Whether a path is a prefix, or lies below it: "decoder/layers/norm/scale" below "decoder/layers"."""
    return name == prefix or name.startswith(prefix.rstrip("/") + "/")


def input_axes(names: tuple[str | None, ...]) -> int:
    """How many axes of one layer's kernel are inputs. names: its logical names without "layers", inputs first.

    A stream's width stands alone on its side: ("embed" | "heads", "kv"), ("heads", "kv" | "embed").
    """
    return 1 if names[0] in STREAMS else len(names) - 1


def targeted(names: Iterable[str], targets: tuple[str, ...]) -> list[str]:
    """Paths of the kernels that targets name.

    Raises ValueError for a target that names none, with the nearest that do.
    """
    kernels = [name for name in names if name.endswith(f"/{KERNEL}")]
    for target in targets:
        if not any(is_below(name, target) for name in kernels):
            maps = sorted({name.removesuffix(f"/{KERNEL}") for name in kernels})
            near = difflib.get_close_matches(target, maps, 3, 0.3) or maps[:3]
            raise ValueError(f"lora.targets: '{target}' names no linear map; the nearest are {', '.join(near)}.")
    return [name for name in kernels if any(is_below(name, target) for target in targets)]


def with_updates(boxed: Params, config: LoRA, key: Array) -> Params:
    """A tree of parameters with updates beside the targeted kernels: A as torch's Linear begins, B zero, as in PEFT.

    boxed: all parameters with their logical axis names. Each A is drawn from the key and its own path, so other
    targets change none.

    Raises ValueError for a target that names nothing, and a rank above one of the widths that it stands between.
    """
    flat = flatten_dict(boxed, sep="/")
    for name in targeted(flat, config.targets):
        kernel = flat[name]
        stacked = int(kernel.names[0] == "layers")
        layers, names = kernel.names[:stacked], kernel.names[stacked:]
        shape = kernel.value.shape
        count, shape = input_axes(names), shape[stacked:]
        inputs, outputs = shape[:count], shape[count:]
        width = min(math.prod(inputs), math.prod(outputs))
        if config.rank > width:
            raise ValueError(
                f"lora.rank: got {config.rank}, and '{name}' has {math.prod(inputs)} inputs and {math.prod(outputs)} "
                f"outputs; wanted at most {width}."
            )
        lead = kernel.value.shape[:stacked]
        bound = math.prod(inputs) ** -0.5
        own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        down = jax.random.uniform(own_key, (*lead, *inputs, config.rank), jnp.float32, -bound, bound)
        beside = name.removesuffix(KERNEL)
        flat[beside + DOWN] = nn.LogicallyPartitioned(down, (*layers, *names[:count], None))
        up = jnp.zeros((*lead, config.rank, *outputs), jnp.float32)
        flat[beside + UP] = nn.LogicallyPartitioned(up, (*layers, None, *names[count:]))
        scale = jnp.full(lead, config.alpha / config.rank, jnp.float32)
        flat[beside + SCALE] = nn.LogicallyPartitioned(scale, layers)
        if config.dropout:
            flat[beside + DROPOUT] = nn.LogicallyPartitioned(jnp.full(lead, config.dropout, jnp.float32), layers)
    return unflatten_dict(flat, sep="/")


def is_update(name: str) -> bool:
    """Whether a path is a leaf that `with_updates` added."""
    return name.rsplit("/", 1)[-1] in NAMES


def updates_of(params: Params) -> dict[str, Any]:
    """The leaves of the updates, by path; {} where a tree has none."""
    return {name: leaf for name, leaf in flatten_dict(params, sep="/").items() if is_update(name)}


def without_updates(params: Params) -> Params:
    """The tree that `with_updates` began from."""
    flat = flatten_dict(params, sep="/")
    return unflatten_dict({name: leaf for name, leaf in flat.items() if not is_update(name)}, sep="/")


def stored(params: Params, config: LoRA | None) -> Params:
    """What a checkpoint holds of a tree: all; with updates these alone, and what trains whole beside them."""
    if config is None:
        return params
    flat = flatten_dict(params, sep="/")
    leaves = {
        name: leaf
        for name, leaf in flat.items()
        if is_update(name) or any(is_below(name, prefix) for prefix in config.whole)
    }
    return unflatten_dict(leaves, sep="/")


def completed(base: Params, part: Params) -> Params:
    """`base` with the leaves of `part`, as `stored` gave them, in their places."""
    return unflatten_dict(flatten_dict(base, sep="/") | flatten_dict(part, sep="/"), sep="/")


def merged_kernel(kernel: ArrayLike, updates: Mapping[str, ArrayLike], stacked: bool) -> ArrayLike:
    """W + scale A B, in float32, in the kernel's dtype. updates: by the names of `NAMES`. stacked: by layer."""
    down, up, scale = updates[DOWN], updates[UP], updates[SCALE]
    lead = down.shape[:1] if stacked else ()
    flat_down, flat_up = down.reshape(*lead, -1, down.shape[-1]), up.reshape(*lead, down.shape[-1], -1)
    update = flat_down @ flat_up * scale.reshape(*lead, 1, 1)
    return (kernel.astype("float32") + update.reshape(kernel.shape)).astype(kernel.dtype)


def merged(params: Params) -> Params:
    """The tree without updates that computes the same: each kernel with its own added. jax or numpy arrays."""
    flat = flatten_dict(params, sep="/")
    whole = {name: leaf for name, leaf in flat.items() if not is_update(name)}
    for name in [name for name in flat if name.endswith(f"/{DOWN}")]:
        beside = name.removesuffix(DOWN)
        updates = {kind: flat[beside + kind] for kind in (DOWN, UP, SCALE)}
        whole[beside + KERNEL] = merged_kernel(whole[beside + KERNEL], updates, updates[SCALE].ndim == 1)
    return unflatten_dict(whole, sep="/")


def dropout_streams(params: Params, key: Array, row_key: Array | None = None) -> dict[str, Array]:
    """The random streams that a training step gives the model: none where neither an update nor the connector drops.

    key: of the micro-batch: updates drop by place. row_key: for a connector that drops by rows; None: it does not.
    """
    has_dropout = any(name.endswith(f"/{DROPOUT}") for name in flatten_dict(params, sep="/"))
    of_updates = {STREAM: key} if has_dropout else {}
    return of_updates if row_key is None else of_updates | {dropout.STREAM: row_key}
