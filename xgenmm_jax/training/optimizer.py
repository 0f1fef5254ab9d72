"""AdamW or Muon with clipping; the rate by step; parts that are frozen have no state at all.

The optimizer works at rate 1 and the step multiplies by the rate that it is given, so one compiled step serves every
rate, schedule and length of run, the same update to the last bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
import functools
import math
from typing import Any, Literal

import jax
from jaxtyping import Float32
import numpy as np
import optax
import optax.contrib

from xgenmm_jax.models.blip3o import STATISTICS
from xgenmm_jax.models.lora import UPDATES, LoRA, input_axes, is_below, is_update
from xgenmm_jax.ops.partitioning import path_name, unboxed
from xgenmm_jax.training.part_rates import PartRates, by_part

DECAYED = ("kernel", "embedding", "temperature")
"""In the names of leaves that decay where vectors do not."""

Params = Any
"""A tree of arrays; where a subtree is cut out its leaves are None."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Defaults are the released fine-tuning script's but for the rate.

    Source: docs/reference/training.md#fine-tuning-settings.
    """

    algorithm: Literal["adamw", "muon"] = "adamw"
    """muon: optax's, for the kernels of linear maps, scaled to AdamW's usual step so that rates mean the same; AdamW
    for all else. The paper's is adamw. At nano muon and a pooling start have after 100 steps the loss that adamw and a
    random one have after 300 (docs/log/connector_and_optimizer.md#pooling-start-and-muon)."""
    peak_lr: float = 1e-3
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls from its peak to `peak_lr * final_fraction` at the last step."""
    warmup_steps: int = 100
    """Steps over which the rate rises linearly from 0."""
    warmup_from_zero: bool = False
    """The first step's rate is 0, as in the official code; False: peak_lr / warmup_steps, no step is wasted."""
    final_fraction: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decay_vectors: bool = True
    """Decay biases and norms too, as the official code does; False: only leaves named kernel or embedding, and BLIP-2's
    temperature (docs/reference/blip2.md#losses); with muon only its kernels."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 switches clipping off."""
    parts: PartRates = PartRates()
    """Other rates and decays of parts: --optimizer.parts.connector.peak-lr 1e-4."""

    def __post_init__(self):
        for name in ("peak_lr", "warmup_steps", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:  # False for nan too
                raise ValueError(f"optimizer.{name}: got {getattr(self, name)}, wanted a finite number, 0 or more.")
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(f"optimizer.final_fraction: got {self.final_fraction}, wanted a share from 0 to 1.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas: got {self.betas}, wanted both from 0 to below 1, (0.9, 0.999).")
        if self.peak_lr == 0 and any(rate.peak_lr for _, rate in self.parts.prefixes):
            raise ValueError("optimizer.peak_lr: got 0, by which the rates of optimizer.parts are scaled; give one.")
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"optimizer.epsilon: got {self.epsilon}, wanted a finite number above 0.")


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Rate by step (0 is the first). Raises ValueError where the warmup is no shorter than the run."""
    if config.warmup_steps >= steps > 0:
        raise ValueError(
            f"optimizer.warmup_steps: got {config.warmup_steps} for a run of {steps} steps, wanted fewer than the "
            "run's; lower it (--optimizer.warmup-steps) or make the run longer (--steps)."
        )
    decay_steps = max(steps - config.warmup_steps, 1)
    final = config.peak_lr * config.final_fraction
    if config.schedule == "cosine":
        decay = optax.cosine_decay_schedule(config.peak_lr, decay_steps, config.final_fraction)
    elif config.schedule == "linear":
        decay = optax.linear_schedule(config.peak_lr, final, decay_steps)
    else:
        decay = optax.constant_schedule(config.peak_lr)
    if config.warmup_from_zero:
        warmup = optax.linear_schedule(0.0, config.peak_lr, max(config.warmup_steps, 1))
    else:
        first = config.peak_lr / max(config.warmup_steps, 1)
        warmup = optax.linear_schedule(first, config.peak_lr, max(config.warmup_steps - 1, 1))
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


def learning_rates(config: OptimizerConfig, steps: int) -> Float32[np.ndarray, " steps"]:
    """`learning_rate` of every step of a run, on the host."""
    return np.asarray(jax.jit(jax.vmap(learning_rate(config, steps)))(np.arange(steps)), np.float32)


def make_optimizer(config: OptimizerConfig, boxed: Params) -> optax.GradientTransformation:
    """Clip, Adam or Muon, decoupled decay, for a rate of 1. Give it the trainable parameters alone (`split`).

    States are float32. boxed: all parameters with their logical axis names, values or shapes.
    """
    config.parts.check([path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(unboxed(boxed))])
    has_parts = bool(config.parts.prefixes)
    decay = 0.0 if has_parts else config.weight_decay
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    behind = [by_part(config.parts, config.peak_lr, config.weight_decay, _decayed(config, boxed))] if has_parts else []
    if config.algorithm == "muon":
        muon = optax.contrib.muon(
            1.0,
            eps=config.epsilon,
            weight_decay=decay,
            adam_b1=config.betas[0],
            adam_b2=config.betas[1],
            adam_weight_decay=decay if config.decay_vectors else 0.0,
            muon_weight_dimension_numbers=functools.partial(_linear_maps, boxed),
            consistent_rms=0.2,
        )
        return optax.chain(*parts, muon, *behind)
    mask = None if config.decay_vectors else _is_matrix
    adamw = optax.adamw(1.0, *config.betas, eps=config.epsilon, weight_decay=decay, mask=mask)
    return optax.chain(*parts, adamw, *behind)


def _decayed(config: OptimizerConfig, boxed: Params) -> Callable[[Params], Any]:
    """Parameters -> True where decay applies: as the optimizers themselves have it where no part has its own."""

    def everywhere(params: Params) -> Any:
        return jax.tree.map(lambda _: True, params)

    def linear_maps(params: Params) -> Any:
        # None at a frozen parameter, which is no leaf here: `params` gives the tree.
        return jax.tree.map(lambda _, dimensions: dimensions is not None, params, _linear_maps(boxed, params))

    if config.decay_vectors:
        return everywhere
    return linear_maps if config.algorithm == "muon" else _is_matrix


def _linear_maps(boxed: Params, params: Params) -> Any:
    """For each kernel which axes are inputs and which outputs, None for other leaves; layers are separate maps.

    A kernel's axes are its inputs and then its outputs, and a stream's width ("embed", "vision_embed") stands alone
    on its side: (layers, embed | heads, kv), (layers, heads, kv | embed), (vision_embed | embed).
    """
    axes = {
        path_name(path): leaf.names
        for path, leaf in jax.tree_util.tree_leaves_with_path(boxed, is_leaf=lambda leaf: hasattr(leaf, "names"))
        if hasattr(leaf, "names")
    }

    def dimensions(path: tuple, leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        name = path_name(path)
        if not name.endswith("/kernel"):
            return None
        first = int(axes[name][0] == "layers")
        split_at = first + input_axes(axes[name][first:])
        if not first < split_at < leaf.ndim:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(first, split_at)), tuple(range(split_at, leaf.ndim)))

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _is_matrix(params: Params) -> Any:
    # By name and not by rank: layers are stacked, so a bias of a block has two axes.
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(word in path_name(path).rsplit("/", 1)[-1] for word in DECAYED), params
    )


def trainable_mask(params: Params, freeze: tuple[str, ...], lora: LoRA | None = None) -> Any:
    """True at every leaf that trains. freeze: part names or path prefixes, "vision" or "decoder/layers".
    Statistics of what is drawn never train.

    lora: of parameters with low-rank updates: only these train, and what it names to train whole.

    Raises ValueError for a prefix that names nothing: a typing error would train what should be frozen; for a frozen
    one that has updates; and for one of `lora.whole` of which nothing trains, or that has updates of its own.
    """
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for option, prefixes in (("freeze", freeze), ("lora.whole", () if lora is None else lora.whole)):
        for prefix in prefixes:
            if not any(is_below(name, prefix) for name in names):
                parts = sorted({name.split("/")[0] for name in names})
                raise ValueError(f"{option}: '{prefix}' names no parameter; the parts are {', '.join(parts)}.")

    def trains(name: str) -> bool:
        if name in STATISTICS or any(is_below(name, prefix) for prefix in freeze):
            return False
        if is_update(name):
            return name.rsplit("/", 1)[-1] in UPDATES
        return lora is None or any(is_below(name, prefix) for prefix in lora.whole)

    updates = [name for name in names if name.rsplit("/", 1)[-1] in UPDATES]
    for name in updates:
        if not trains(name):
            raise ValueError(f"freeze: '{name}' is an update of lora.targets and frozen; leave it out of one of them.")
    for prefix in () if lora is None else lora.whole:
        # An adapter's modules_to_save are other modules than its updates'.
        both = next((name for name in updates if is_below(name, prefix)), None)
        if both is not None:
            raise ValueError(
                f"lora.whole: '{prefix}' holds '{both.rpartition('/')[0]}', which lora.targets updates; name maps in "
                "one of them alone."
            )
        if not any(trains(name) for name in names if is_below(name, prefix)):
            raise ValueError(
                f"freeze: {', '.join(freeze)} freezes all of '{prefix}', which lora.whole is to train; leave it out of "
                "one of them."
            )
    mask = jax.tree_util.tree_map_with_path(lambda path, _: trains(path_name(path)), params)
    if not any(jax.tree.leaves(mask)):
        raise ValueError(f"freeze: {', '.join(freeze)} leaves nothing to train; freeze less.")
    return mask


def split(params: Params, trainable: Any) -> tuple[Params, Params]:
    """(trained, frozen): trees of the same form with None at the other's leaves, which JAX sees as empty."""
    trained = jax.tree.map(lambda keep, leaf: leaf if keep else None, trainable, params)
    frozen = jax.tree.map(lambda keep, leaf: None if keep else leaf, trainable, params)
    return trained, frozen


def reference_of(params: Params, trainable: Any) -> Params:
    """What a reference holds: the trained parameters but low-rank updates, without which the base is itself."""
    mask = jax.tree_util.tree_map_with_path(lambda path, trains: trains and not is_update(path_name(path)), trainable)
    return split(params, mask)[0]


def merge(trained: Params, frozen: Params) -> Params:
    """The whole tree again."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda leaf: leaf is None
    )
