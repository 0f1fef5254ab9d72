"""What a step of each stage holds: samples, positions, crops, and how much of its rows they fill.

    python tools/step_sizes.py              # the paper's stages and nano's, a few minutes
    python tools/step_sizes.py sft_single   # one of them

Nano's stages are packed from their own data. The paper's data are not here, so their samples' lengths are assumed, by
LENGTHS below and `image_px` of benchmarks/packing_lengths.py; the packing is the run's own. What a run really sees
stands in its metrics.jsonl, `samples` and `fill`.
"""

import argparse
from collections.abc import Callable
import importlib
from typing import NamedTuple

import numpy as np

from benchmarks.packing_lengths import image_px
from xgenmm_jax.data import anyres
from xgenmm_jax.data.rows import filling, packing
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import Size
from xgenmm_jax.data.rows.window import measurer_of, open_sources, plan_window

WINDOWS = 10
STAGES = ("stage1", "stage2", "sft_single", "sft_multi", "dpo")
SYSTEM_TOKENS = 50
"""Of a conversation's template and system prompt."""


class Drawn(NamedTuple):
    """A sample without its images' sizes. text_tokens: of a pair, its prompt and chosen answer."""

    text_tokens: int
    images: int = 1
    rejected_tokens: int = 0


def _tokens(rng: np.random.Generator, median: float, width: float, most: int = 4000) -> int:
    return int(min(max(rng.lognormal(np.log(median), width), 1), most))


def _pretraining(rng: np.random.Generator) -> Drawn:
    """Half documents of some 650 tokens and three images, half captions of four lengths."""
    if rng.random() < 0.5:
        return Drawn(_tokens(rng, 650, 0.8), int(min(rng.geometric(0.33), 8)))
    return Drawn(_tokens(rng, rng.choice([90, 14, 160, 60], p=[0.5, 0.25, 0.15, 0.1]), 0.5))


def _one_image(rng: np.random.Generator) -> Drawn:
    return Drawn(SYSTEM_TOKENS + _tokens(rng, 300, 0.8, 2048))


def _several_images(rng: np.random.Generator) -> Drawn:
    """Half of the conversations have two to four images."""
    return _one_image(rng)._replace(images=1 if rng.random() < 0.5 else int(rng.integers(2, 5)))


def _pair(rng: np.random.Generator) -> Drawn:
    prompt = SYSTEM_TOKENS + _tokens(rng, 40, 0.5)
    return Drawn(prompt + _tokens(rng, 200, 0.6), 1, prompt + _tokens(rng, 200, 0.6))


LENGTHS: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "stage1": _pretraining, "stage2": _pretraining, "sft_single": _one_image, "sft_multi": _several_images,
    "dpo": _pair,
}  # fmt: skip


def _size(drawn: Drawn, crops: list[int], vision_tokens: int) -> Size:
    vision = sum(crops) * vision_tokens
    rejected = drawn.rejected_tokens + vision if drawn.rejected_tokens else 0
    return Size(drawn.text_tokens + vision + rejected, sum(crops), len(crops), 2 if rejected else 1)


def _fits(size: Size, room: Size) -> bool:
    return all(need <= have for need, have in zip(size, room, strict=True))


def assumed_windows(stage: str, data: DataConfig) -> list[tuple[list[Size], int]]:
    """Sizes of the samples of each window, and how many rows they make."""
    rng = np.random.default_rng(0)
    room = packing.budget(data.row)
    windows = []
    for _ in range(WINDOWS):
        sizes = []
        for _ in range(data.window):
            drawn = LENGTHS[stage](rng)
            crops = [anyres.layout(image_px(rng), data.anyres).crops for _ in range(drawn.images)]
            while crops and not _fits(size := _size(drawn, crops, data.row.vision_tokens), room):
                # A document is cut behind an image, roughly as `packing.fit` does it; a pair is given up.
                kept = 0 if drawn.rejected_tokens else len(crops) - 1
                drawn = drawn._replace(text_tokens=drawn.text_tokens * kept // len(crops))
                crops = crops[:kept]
            if crops:
                sizes.append(size)
        windows.append((sizes, len(filling.pack(packing.array_of(sizes), room))))
    return windows


def own_windows(data: DataConfig) -> list[tuple[list[Size], int]]:
    """As `assumed_windows`, of the stage's own data."""
    sources, measurer = open_sources(data), measurer_of(data)
    windows = []
    for window in range(WINDOWS):
        rows = plan_window(data, sources, measurer, 0, window).rows
        windows.append(([planned.size for row in rows for planned in row], len(rows)))
    return windows


def line(name: str, data: DataConfig, windows: list[tuple[list[Size], int]]) -> str:
    """One stage's figures."""
    sizes = np.concatenate([np.array(sizes) for sizes, _ in windows])
    rows = sum(count for _, count in windows)
    positions, crops, _, segments = sizes.sum(axis=0)
    a_step = data.batch_rows / rows
    unit = "pairs" if segments == 2 * len(sizes) else "samples"
    return (
        f"{name:15} {len(sizes) * a_step:7.1f} {unit} and {positions * a_step:9,.0f} positions a step of "
        f"{data.batch_rows} rows; each {positions / len(sizes):5.0f} positions and {crops / len(sizes):4.1f} crops; "
        f"full: {positions / rows / data.row.length:.2f} of positions, {crops / rows / data.row.crops:.2f} of crops"
    )


def main() -> None:
    """Prints a line a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*STAGES, *(f"nano/{stage}" for stage in STAGES)]
    parser.add_argument("stage", nargs="?", choices=names)
    wanted = parser.parse_args().stage
    for name in [wanted] if wanted else names:
        data = importlib.import_module(f"experiments.{name.replace('/', '.')}").config().data
        windows = own_windows(data) if "/" in name else assumed_windows(name, data)
        print(line(name, data, windows), flush=True)


if __name__ == "__main__":
    main()
