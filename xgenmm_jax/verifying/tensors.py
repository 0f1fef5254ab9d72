"""Figures of every tensor, read slice by slice, and what in them is none of a trained model's."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
import math
import re

import ml_dtypes
import numpy as np

from xgenmm_jax.convert.parameter_store import ParameterReader
from xgenmm_jax.convert.tensor_files import DTYPES, open_tensors
from xgenmm_jax.paths import Path
from xgenmm_jax.verifying.section import Section, some

SLICE_BYTES = 16 << 20
"""Of a file that are read at once; beside a slice stand its float32 and its float64 values."""
NEAR = 1 / 8
"""Of a slice's root mean square: of normal numbers 10 % lie nearer to zero, of uniform ones 7 %."""
PLAUSIBLE = (0.02, 0.6)
"""Share of numbers near zero in a matrix of weights. Of bfloat16 read as float16 it is 0: exponents lose three bits and
all numbers have 0.25 to 2; of float16 read as bfloat16 most are, since exponents are eight times as far apart."""
HOLES = 0.05
"""Share of exact zeros in a matrix that training does not leave."""
FAR, OUT = 4.0, 32.0
"""Times its neighbours' standard deviation: worth a look; and off. First and last layers of good models reach 4."""
HEAD = 4
"""First numbers of a tensor that a reference keeps: layers that were swapped have those of each other."""
OTHER_READING = {
    np.dtype(np.float16): np.dtype(ml_dtypes.bfloat16),
    np.dtype(ml_dtypes.bfloat16): np.dtype(np.float16),
}


@dataclass(frozen=True)
class Stats:
    """Of the finite numbers of a tensor, or of a layer of a stacked leaf ("decoder/layers/norm1/scale[3]").

    near: share within NEAR of zero; near_otherwise: the same with the bits read as the other 16-bit dtype. zeros:
    share. bad: how many are NaN or infinite. first: the first HEAD numbers, fewer of a smaller tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    bad: int
    near: float
    near_otherwise: float | None
    first: tuple[float, ...]

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) > 1 and math.prod(self.shape) >= 64

    @property
    def is_constant(self) -> bool:
        return math.prod(self.shape) > 1 and self.low == self.high


def measure(path: Path) -> Iterator[Stats]:
    """Of every tensor of a released file or folder, or of a checkpoint's `params` folder, in the files' order.

    Raises ValueError where the files are none, cut short, or hold a dtype that nothing here reads.
    """
    if (path / "_METADATA").is_file():
        reader = ParameterReader(path)
        for name, shape in reader.shapes.items():
            layers = range(shape[0]) if "layers" in name.split("/") else (None,)
            for layer in layers:
                array = reader.read(name, layer)
                yield stats(name if layer is None else f"{name}[{layer}]", [array])
        return
    tensors = open_tensors(path)
    try:
        for name, info in tensors.infos.items():
            if info.dtype not in DTYPES and not re.fullmatch(r"b?float\d+|u?int\d+|bool", info.dtype):
                raise ValueError(f"checkpoint: {name} has dtype {info.dtype}; give F32, BF16 or F16.")
            parts = pieces(info.shape, 4 if info.dtype not in DTYPES else DTYPES[info.dtype].itemsize)
            yield stats(name, (tensors.read(name, None, part, parts) for part in range(parts)), info.shape)
    finally:
        tensors.close()


def pieces(shape: tuple[int, ...], itemsize: int) -> int:
    """Into how many equal runs of rows a tensor is cut, so that each has SLICE_BYTES at most or is one row."""
    rows = shape[0] if shape else 1
    least = math.ceil(math.prod(shape) * itemsize / SLICE_BYTES)
    return next((count for count in range(max(least, 1), rows + 1) if rows % count == 0), max(rows, 1))


def stats(name: str, slices: Iterable[np.ndarray], shape: tuple[int, ...] | None = None) -> Stats:
    """Of slices, of which one is in memory at a time. shape: theirs together."""
    count = bad = zeros = near = near_otherwise = 0
    mean = squares = 0.0
    low, high, total = math.inf, -math.inf, 0
    first: tuple[float, ...] = ()
    dtype: np.dtype | None = None
    for piece in slices:
        shape = piece.shape if shape is None else shape
        dtype, total = piece.dtype, total + piece.size
        values = piece.reshape(-1).astype(np.float32)
        first = first or tuple(map(float, values[:HEAD]))
        is_finite = np.isfinite(values)
        if not is_finite.all():
            values = values[is_finite]
        bad += piece.size - values.size
        if not values.size:
            continue
        # Mean and squared distances of two sets become those of both: no second pass over the file.
        part_mean = float(values.mean(dtype=np.float64))
        part_squares = float(np.square(values - part_mean, dtype=np.float64).sum())
        distance, both = part_mean - mean, count + values.size
        squares += part_squares + distance**2 * count * values.size / both
        mean, count = mean + distance * values.size / both, both
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        zeros += int(np.sum(values == 0))
        near += _near(values)
        if dtype in OTHER_READING:
            near_otherwise += _near(piece.reshape(-1).view(OTHER_READING[dtype]).astype(np.float32))
        del values
    assert dtype is not None and shape is not None
    return Stats(
        name, tuple(shape), dtype.name, mean if count else math.nan, math.sqrt(squares / count) if count else math.nan,
        low if count else math.nan, high if count else math.nan, zeros / max(count, 1), bad, near / max(count, 1),
        near_otherwise / max(total, 1) if dtype in OTHER_READING else None, first,
    )  # fmt: skip


def _near(values: np.ndarray) -> int:
    """How many are nearer to zero than NEAR of their root mean square; zeros, which every dtype reads alike, are not
    counted."""
    values = np.abs(values[np.isfinite(values) & (values != 0)])
    if not values.size:
        return 0
    root = math.sqrt(float(np.square(values, dtype=np.float64).mean()))
    return int(np.sum(values < NEAR * root))


def layers_of(measured: Sequence[Stats]) -> list[list[Stats]]:
    """Those of layer after layer of one kind together, in the order of their numbers."""
    groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, Stats]]] = {}
    for one in measured:
        number = re.search(r"(?<=\.)\d+(?=\.)|(?<=\[)\d+(?=\]$)", one.name)
        if number is not None:
            kind = f"{one.name[: number.start()]}#{one.name[number.end() :]}"
            groups.setdefault((kind, one.shape), []).append((int(number.group()), one))
    return [[one for _, one in sorted(group, key=lambda pair: pair[0])] for group in groups.values()]


def check(measured: Sequence[Stats]) -> Section:
    """What in the figures is off, and the table of all."""
    faults, notes = [], []
    again = "copy its file again, or convert it again"
    for one in measured:
        if one.bad:
            faults.append(f"{one.name}: {one.bad:,} numbers are NaN or infinite; {again}.")
        if one.is_constant and _must_vary(one):
            faults.append(f"{one.name}: every number is {one.low:g}, wanted trained weights; {again}.")
        elif one.is_matrix and one.zeros > HOLES and not one.is_constant:
            faults.append(f"{one.name}: {one.zeros:.0%} are zeros, as in a file with a hole; {again}.")
    faults += _misread(measured)
    groups = layers_of(measured)
    notes += _constant_biases(measured, {one.name for group in groups for one in group})
    for group in groups:
        more_faults, more_notes = _among_layers(group, again)
        faults, notes = faults + more_faults, notes + more_notes
    head = ("tensor", "shape", "dtype", "mean", "std", "min", "max", "zeros", "NaN")
    rows = tuple(
        (
            one.name, " x ".join(map(str, one.shape)) or "()", one.dtype, f"{one.mean:.3g}", f"{one.std:.3g}",
            f"{one.low:.3g}", f"{one.high:.3g}", f"{one.zeros:.1%}" if one.zeros else "",
            f"{one.bad:,}" if one.bad else "",
        )
        for one in measured
    )  # fmt: skip
    return Section("Tensors", head, rows, tuple(faults), tuple(notes))


def _must_vary(one: Stats) -> bool:
    """Of matrices all do; scales of norms may be all one, as they began, and biases all zero."""
    is_scale = one.name.partition("[")[0].endswith(("weight", "scale"))
    return one.is_matrix or is_scale and one.low == 0


def _constant_biases(measured: Sequence[Stats], of_layers: Collection[str]) -> list[str]:
    """Notes of biases of one value outside of the layers, where at least half of all vary; nothing else tells more."""
    biases = [one for one in measured if len(one.shape) == 1 and one.name.endswith("bias")]
    constant = [one for one in biases if one.is_constant]
    if len(constant) * 2 > len(biases):
        return []
    return [
        f"{one.name}: every number is {one.low:g}, and at least half of all biases vary: untrained, or lost in a copy; "
        "a reference alone tells."
        for one in constant
        if one.name not in of_layers
    ]


def _misread(measured: Sequence[Stats]) -> list[str]:
    matrices = [one for one in measured if one.is_matrix and one.near_otherwise is not None and not one.is_constant]
    least, most = PLAUSIBLE
    wrong = [
        one for one in matrices if not least < one.near < most and least < (one.near_otherwise or 0.0) < most
    ]
    if len(wrong) * 2 <= len(matrices) or not wrong:
        return []
    dtype = wrong[0].dtype
    other = OTHER_READING[np.dtype(getattr(ml_dtypes, dtype, dtype))].name
    return [
        f"{len(wrong)} of {len(matrices)} matrices are no weights as {dtype} and are as {other} ({wrong[0].name}: "
        f"{wrong[0].near:.1%} of its numbers lie near zero, {wrong[0].near_otherwise:.1%} read so): the files name "
        f"the wrong dtype; write them again as {other}."
    ]


def _among_layers(group: list[Stats], again: str) -> tuple[list[str], list[str]]:
    """Faults and notes of the same tensor in layer after layer."""
    faults, notes = [], []
    constant = [one for one in group if one.is_constant and not _must_vary(one)]
    if constant and len(constant) * 2 <= len(group):
        names = some([one.name for one in constant])
        faults.append(f"{names}: every number is {constant[0].low:g}, and other layers' vary; {again}.")
    for number, one in enumerate(group):
        # Of the four nearest the median, so that one of them that stands out itself is passed over.
        order = sorted(range(len(group)), key=lambda other: abs(other - number))
        beside = [group[other].std for other in order[1:5]]
        if len(beside) < 3 or one.is_constant or not one.std > 0 or not min(beside) > 0:
            continue
        times = one.std / float(np.median(beside))
        if max(times, 1 / times) > OUT and one.is_matrix:
            faults.append(f"{one.name}: its std is {times:.3g} times its neighbours'; {again}.")
        elif max(times, 1 / times) > FAR:
            notes.append(f"{one.name}: its std is {times:.3g} times its neighbours'.")
    return faults, notes
