"""How full packed rows are and how fast they are planned, beside best fit, first fit and the released code's padding.

    python -m benchmarks.packing                                # five mixtures of drawn lengths, windows of 8,192
    python -m benchmarks.packing --lengths FILE.parquet --length 4096

Ends with 1 where rows exceed 1.06 times the bound at the balance point of crops, 1.05 times 6 % above it, or planning
is less than 4 times as fast as best fit. The bound: all positions over a row's, or all crops over a row's. Columns of a
file: positions and crops, or tokens, width and height (lists of the images' pixels).
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
import functools
import json
import math
from pathlib import Path
import time
from typing import Any

from jaxtyping import Int64
import numpy as np

from benchmarks.packing_baselines import best_fit, first_fit, padded
from benchmarks.packing_lengths import ANY_RESOLUTION, BASE_RESOLUTION, MIXTURES, Drawn, balance, draw, fitting, read
from benchmarks.rounds import Timed, alternate, ratio
from xgenmm_jax import files
from xgenmm_jax.data.rows.filling import pack
from xgenmm_jax.data.rows.packing import Size, array_of

IMAGES, SEGMENTS = 16, 64
PADDED_BATCH = 64
"""Samples that the released code pads together: a step's."""
MOST_ROWS = {"balance": 1.06, "6 % above": 1.05}
LEAST_SPEED = 4.0
Sizes = Int64[np.ndarray, "n 4"]


@dataclass(frozen=True)
class Fill:
    """Rows of a packer at one number of crops. positions, crops: parts of the rows that are real."""

    packer: str
    point: str
    row_crops: int
    rows: int
    to_bound: float
    positions: float
    crops: float


def ours(sizes: list[Size], room: Size) -> list[list[int]]:
    return pack(array_of(sizes), room)


def padding(sizes: list[Size], room: Size) -> Sizes:
    return padded(sizes, PADDED_BATCH)


PACKERS: dict[str, Callable[[list[Size], Size], Any]] = {
    "ours": ours, "best fit": best_fit, "first fit": first_fit, "padding": padding
}  # fmt: skip


class Planning:
    """A packer and the windows that it packs; a step is all of them."""

    def __init__(self, packer: str, windows: Sequence[tuple[list[Size], Size]]):
        self._pack, self._windows = PACKERS[packer], windows

    def run(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            for sizes, room in self._windows:
                self._pack(sizes, room)
        return (time.perf_counter() - start) / steps

    def info(self) -> dict[str, Any]:
        return {"samples": sum(len(sizes) for sizes, _ in self._windows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=Path, help="a parquet file instead of the five mixtures")
    parser.add_argument("--length", type=int, default=4096, help="positions of a row, with --lengths")
    parser.add_argument("--base-resolution", action="store_true", help="one view an image, with --lengths")
    parser.add_argument("--window", type=int, default=8192, help="samples that are packed together")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn lengths")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    if min(arguments.window, arguments.length, arguments.rounds) < 1:
        parser.error("--window, --length and --rounds must be 1 or more")
    if arguments.lengths:
        anyres = BASE_RESOLUTION if arguments.base_resolution else ANY_RESOLUTION
        try:
            drawn = read(arguments.lengths, anyres, arguments.window)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        mixtures = [(arguments.lengths.name, arguments.length, drawn)]
    else:
        mixtures = [(one.name, one.length, draw(one, arguments.window, arguments.seed)) for one in MIXTURES]
    print(HEAD, flush=True)
    missed, figures = [], []
    for name, length, drawn in mixtures:
        windows = windows_of(drawn, length)
        fills = [fill for point, (sizes, room) in windows.items() for fill in filled(point, sizes, room)]
        timed = speeds(list(windows.values()), arguments.rounds)
        at = balance(drawn, length)
        print("\n".join(lines(name, length, at, fills, timed)), flush=True)
        left_out = len(drawn) - min(len(sizes) for sizes, _ in windows.values())
        if left_out:
            print(f"  {left_out} of {len(drawn):,} samples left out: their first image and its text exceed a row")
        missed += misses(name, fills, timed)
        seconds = {packer: one.seconds for packer, one in timed.items()}
        figures.append({"mixture": name, "balance": at, "fills": [asdict(fill) for fill in fills], "seconds": seconds})
    if arguments.json:
        files.write_whole(arguments.json, json.dumps(figures, indent=2) + "\n")
    if missed:
        raise SystemExit("\n".join(missed))


def windows_of(drawn: Sequence[Drawn], length: int) -> dict[str, tuple[Sizes, Size]]:
    """The samples and a row's room at the balance point of crops, and 6 % above it."""
    at = balance(drawn, length)
    rooms = {"balance": round(at), "6 % above": math.ceil(1.06 * at)}
    largest = max((max(one.crops, default=1) for one in drawn), default=1)
    return {
        point: (fitting(drawn, length, max(crops, largest)), Size(length, max(crops, largest), IMAGES, SEGMENTS))
        for point, crops in rooms.items()
    }


def filled(point: str, sizes: Sizes, room: Size) -> list[Fill]:
    """How full the rows of each packer are."""
    positions, crops = sizes[:, :2].sum(axis=0).tolist()
    bound = max(positions / room.positions, crops / room.crops)
    listed = [Size(*size) for size in sizes.tolist()]
    fills = []
    for packer in ("ours", "best fit", "first fit"):
        rows = len(PACKERS[packer](listed, room))
        real = positions / rows / room.positions, crops / rows / room.crops
        fills.append(Fill(packer, point, room.crops, rows, rows / bound, *real))
    padded_positions = int(padded(listed, PADDED_BATCH).sum())
    share = positions / padded_positions
    fills.append(Fill("padding", point, room.crops, len(sizes), len(sizes) / bound, share, 1.0))
    return fills


def speeds(windows: Sequence[tuple[Sizes, Size]], rounds: int) -> dict[str, Timed]:
    """The packers in turns."""
    listed = [([Size(*size) for size in sizes.tolist()], room) for sizes, room in windows]
    makes = {packer: functools.partial(Planning, packer, listed) for packer in PACKERS}
    timed, failed = alternate(makes, rounds, steps=1, warmup=1, apart=False, tell=lambda line: None)
    if failed:
        raise SystemExit("\n".join(f"packing: {name} failed: {reason}" for name, reason in failed.items()))
    return timed


HEAD = (
    f"{'':18} {'':>5} {'':>4}  rows to bound                real, of ours    real, padded  samples/s, thousands\n"
    f"{'mixture':18} {'T':>5} {'C':>4}  ours  best fit first fit  positions crops  positions     "
    "ours  best fit first fit  padding  ours to best fit"
)


def lines(name: str, length: int, at: float, fills: Sequence[Fill], timed: dict[str, Timed]) -> list[str]:
    """A mixture's two rows of the table; speeds are of both windows together and stand in the first."""
    table = []
    for point in MOST_ROWS:
        ours, best, first, pads = (fill for fill in fills if fill.point == point)
        line = (
            f"{name:18} {length:5} {ours.row_crops:4}  {ours.to_bound:.3f} {best.to_bound:8.3f} {first.to_bound:9.3f}"
        )
        line += f"  {ours.positions:9.3f} {ours.crops:5.3f}  {pads.positions:9.3f}"
        if not table:
            thousands = {packer: one.info["samples"] / one.median / 1e3 for packer, one in timed.items()}
            line += "  {ours:7.1f} {best fit:9.1f} {first fit:9.1f} {padding:8.0f}".format(**thousands)
            compared = ratio(timed["best fit"], timed["ours"])
            line += f"  {compared.median:.1f} ({compared.least:.1f} to {compared.most:.1f}); balance at C = {at:.2f}"
        table.append(line)
    return table


def misses(name: str, fills: Sequence[Fill], timed: dict[str, Timed]) -> list[str]:
    """A sentence for each bound that ours exceeds."""
    missed = [
        f"packing: {name}: {fill.to_bound:.3f} times the bound in rows with {fill.row_crops} crops; "
        f"wanted {MOST_ROWS[fill.point]} at most."
        for fill in fills
        if fill.packer == "ours" and fill.to_bound > MOST_ROWS[fill.point]
    ]
    speed = ratio(timed["best fit"], timed["ours"]).median
    if speed < LEAST_SPEED:
        missed.append(f"packing: {name}: {speed:.1f} times as fast as best fit; wanted {LEAST_SPEED} at least.")
    return missed


if __name__ == "__main__":
    main()
