"""How one leaf of our tree is made of tensors in another layout, and taken apart into them again.

A family of checkpoints is a tuple of rules; import and export read the same one. Rules of stacked leaves work on one
layer at a time, so that no whole leaf is ever needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import einops
import jax
import numpy as np

Shape = tuple[int, ...]


@runtime_checkable
class Transform(Protocol):
    """A rearrangement of numbers and its inverse; numpy in, numpy out, and traceable by JAX for shapes."""

    def into(self, parts: Sequence[Any]) -> Any:
        """One layer of our leaf from their tensors."""
        ...

    def back(self, array: Any, count: int) -> list[Any]:
        """Their `count` tensors from one layer of our leaf."""
        ...


@dataclass(frozen=True)
class Rearrange:
    """An einops pattern from theirs to ours, read backwards on export.

    Several tensors are stacked on a new first axis: q, k and v with "three (n h) e -> e three n h".
    """

    pattern: str
    sizes: Mapping[str, int] = field(default_factory=dict)

    def into(self, parts: Sequence[Any]) -> Any:
        return einops.rearrange(parts[0] if len(parts) == 1 else list(parts), self.pattern, **self.sizes)

    def back(self, array: Any, count: int) -> list[Any]:
        theirs, ours = self.pattern.split("->")
        result = einops.rearrange(array, f"{ours} -> {theirs}", **self.sizes)
        return [result] if count == 1 else [result[number] for number in range(count)]


@dataclass(frozen=True)
class Piece:
    """A tensor of theirs, or rows `part / of` of it: the keys are the second third of a fused projection."""

    name: str
    part: int = 0
    of: int = 1


@dataclass(frozen=True)
class Rule:
    """One leaf.

    ours: its path, "vision/layers/attention/qkv/kernel". theirs: the tensors that it is made of, their names with "{i}"
    for the layer. layers: length of our leaf's leading axis, 0 where it is not stacked. Names without "{i}" of a
    stacked leaf are tensors that are stacked as well. first, every: the stack holds their layers first, first + every,
    first + 2 * every, ...
    """

    ours: str
    theirs: tuple[Piece, ...]
    transform: Transform
    layers: int = 0
    first: int = 0
    every: int = 1

    @property
    def scanned(self) -> bool:
        """Whether their tensors are stacked too."""
        return self.layers > 0 and "{i}" not in self.theirs[0].name

    def pieces(self, layer: int | None) -> tuple[Piece, ...]:
        """Theirs for one layer, or for None those of a leaf that is not stacked."""
        number = "" if layer is None else str(self.first + self.every * layer)
        return tuple(replace(piece, name=piece.name.replace("{i}", number)) for piece in self.theirs)

    def slices(self) -> Sequence[int | None]:
        """The layers, or None once."""
        return range(self.layers) if self.layers else (None,)


def rule(
    ours: str, *theirs: str | Piece, pattern: str = "", layers: int = 0, sizes: Mapping[str, int] | None = None
) -> Rule:
    """A rule with an einops pattern; without one, the numbers stay as they are."""
    pieces = tuple(Piece(one) if isinstance(one, str) else one for one in theirs)
    return Rule(ours, pieces, Rearrange(pattern or "... -> ...", sizes or {}), layers)


def norm_rules(ours: str, theirs: str, layers: int = 0) -> tuple[Rule, Rule]:
    """Scale and bias of a layer norm in torch's names."""
    return (
        rule(f"{ours}/scale", f"{theirs}.weight", layers=layers),
        rule(f"{ours}/bias", f"{theirs}.bias", layers=layers),
    )


def linear_rules(ours: str, theirs: str, layers: int = 0) -> tuple[Rule, Rule]:
    """Kernel and bias of a plain linear map in torch's names."""
    return (
        rule(f"{ours}/kernel", f"{theirs}.weight", pattern="o i -> i o", layers=layers),
        rule(f"{ours}/bias", f"{theirs}.bias", layers=layers),
    )


def their_shapes(rules: Sequence[Rule], ours: Mapping[str, Shape]) -> dict[str, Shape]:
    """Names and shapes of all tensors that a tree of these shapes is in the other layout, layer by layer."""
    shapes: dict[str, Shape] = {}
    for group in grouped(rules):
        parts = {one.ours: _part_shapes(one, ours[one.ours]) for one in group}
        for layer in group[0].slices() if not group[0].scanned else (None,):
            for one in group:
                for piece, shape in zip(one.pieces(layer), parts[one.ours], strict=True):
                    shapes[piece.name] = shape
    return shapes


def grouped(rules: Sequence[Rule]) -> list[list[Rule]]:
    """Neighbours that run through the same layers, so that a layer's tensors can stand together in a file."""
    groups: list[list[Rule]] = []
    for one in rules:
        last = groups[-1][-1] if groups else None
        if last and last.layers == one.layers > 0 and _stack(last) == _stack(one):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _stack(one: Rule) -> str:
    """The stack that a rule of layers belongs to: "vision/layers"."""
    return one.ours.partition("layers/")[0]


def _part_shapes(one: Rule, shape: Shape) -> list[Shape]:
    layer = shape[1:] if one.layers else shape
    parts = jax.eval_shape(
        lambda array: one.transform.back(array, len(one.theirs)), jax.ShapeDtypeStruct(layer, np.float32)
    )
    leading = (one.layers,) if one.scanned else ()
    shapes = []
    for piece, part in zip(one.theirs, parts, strict=True):
        whole = part.shape if piece.of == 1 else (piece.of * part.shape[0], *part.shape[1:])
        shapes.append((*leading, *whole))
    return shapes
