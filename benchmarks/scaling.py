"""Step time against crops an image, images a row and row length, with straight lines through the measurements.

    python -m benchmarks.scaling                          # a small model, real numbers of tokens, on a processor
    python -m benchmarks.scaling --size 4b --rounds 2     # on an H100 or H200
    python -m benchmarks.scaling --plot docs/pictures/scaling.png --json scaling.json

The training step of `train`, whole and on one device. Three sweeps, every number of tokens the paper's: 729 patches and
128 vision tokens a crop.

- crops: one image of 1 to 13 crops and 256 tokens of text; the row is as long as that.
- images: rows of 4096 positions with 1 to 16 single-view images, samples of one image each, the rest text.
- length: rows of 2048 to 16384 positions, full of samples of one single-view image and 384 tokens of text.

Points of a sweep are timed in turns and the median of the rounds counts. Where the device's memory does not hold them
all (4b), each is started anew for its turn. Printed beside the line's slope and intercept: R^2, the largest deviation
from the line, and the exponent of time between the last two points: at most 1 is linear, 2 quadratic.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
import functools
import json
from pathlib import Path
import statistics
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks import workloads
from benchmarks.machine import find_device
from benchmarks.our_training import OurTraining
from benchmarks.report import print_table, show
from benchmarks.rounds import Make, Side, SideError, short_of_memory
from benchmarks.train_step import not_together, state_bytes
from experiments.nano import recipes as nano_recipes
from experiments.nano import stage1 as nano_stage1
from xgenmm_jax import files
from xgenmm_jax.batch import Batch
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Sample
from xgenmm_jax.data.rows import build
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.training.config import Initialize, TrainConfig

SMALL = VLMConfig(
    # 27 x 27 patches, of 2 px instead of 14.
    vision=ViTConfig(image_size_px=54, patch_px=2, width=64, hidden=240, layers=4, heads=4),
    connector=ResamplerConfig(width=64, layers=2, heads=4, head_width=16, hidden=256, queries=128, out_width=128),
    decoder=Phi3Config(
        vocab_size=1024, num_text_tokens=1012, width=128, hidden=352, layers=4, heads=2, kv_heads=2, remat="minimal"
    ),
)
MODELS = {"small": SMALL, "4b": sizes.B4}

Sweep = Literal["crops", "images", "length"]
POINTS: dict[Sweep, tuple[int, ...]] = {
    "crops": (1, 3, 5, 7, 9, 11, 13),
    "images": (1, 4, 8, 12, 16),
    "length": (2048, 4096, 8192, 16384),
}
AXES: dict[Sweep, str] = {"crops": "crops an image", "images": "images a row", "length": "positions a row"}
TEXT_OF_CROPS, ROW_OF_IMAGES, SAMPLE_OF_LENGTH = 256, 4096, 512


class Line(NamedTuple):
    """A straight line through points. deviation: the largest distance of a point from it, as part of the point."""

    slope: float
    intercept: float
    r_squared: float
    deviation: float


@dataclass(frozen=True)
class Point:
    """One measurement. tokens: real positions of a step."""

    value: int
    step_s: float
    step_s_of_rounds: tuple[float, ...]
    tokens: int
    crops: int


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    device = find_device()
    model = replace(MODELS[arguments.size], dtype=device.dtype)
    measured: dict[Sweep, list[Point]] = {}
    for sweep in arguments.sweeps:
        points = [value for value in POINTS[sweep] if value <= arguments.most.get(sweep, value)]
        apart = not_together("scaling", arguments.size, state_bytes(model), device, len(points))
        measured[sweep] = measure(model, sweep, points, arguments.rounds, apart)
    lines = {sweep: fit([p.value for p in points], [p.step_s for p in points]) for sweep, points in measured.items()}
    result = {
        "benchmark": "scaling",
        "size": arguments.size,
        "dtype": model.dtype,
        "device": asdict(device),
        "sweeps": {
            sweep: {
                "points": [asdict(point) for point in points],
                "line": lines[sweep]._asdict(),
                "exponent": exponent(points),
            }
            for sweep, points in measured.items()
        },
    }
    print_lines(result)
    if arguments.plot:
        draw(measured, lines, f"{device.kind}, {model.dtype}", arguments.plot)
    if arguments.json:
        files.write_whole(arguments.json, json.dumps(result, indent=2) + "\n")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=MODELS, default="small")
    parser.add_argument("--sweeps", choices=POINTS, nargs="+", default=list(POINTS))
    parser.add_argument("--most-crops", type=int, help="leave out points above")
    parser.add_argument("--most-images", type=int)
    parser.add_argument("--most-length", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="where the plot goes, a PNG")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args(argv)
    most = {sweep: getattr(arguments, f"most_{sweep}") for sweep in POINTS}
    arguments.most = {sweep: value for sweep, value in most.items() if value}
    for sweep in arguments.sweeps:
        if sum(value <= arguments.most.get(sweep, value) for value in POINTS[sweep]) < 2:
            parser.error(f"--most-{sweep}: got {arguments.most[sweep]}, a line needs {POINTS[sweep][1]} or more.")
    return arguments


def fit(values: Sequence[float], seconds: Sequence[float]) -> Line:
    """Least squares. Values 1, 2, 3 and seconds 3, 5, 7 give slope 2, intercept 1, R^2 1, deviation 0."""
    x, y = np.asarray(values, float), np.asarray(seconds, float)
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - (slope * x + intercept)
    spread = float(np.sum((y - y.mean()) ** 2))
    r_squared = 1.0 - float(np.sum(rest**2)) / spread if spread else 1.0
    return Line(float(slope), float(intercept), r_squared, float(np.max(np.abs(rest) / y)))


def exponent(points: Sequence[Point]) -> float:
    """Of time over the sweep's value, between the last two points: the slope on logarithmic axes."""
    before, last = points[-2:]
    return float(np.log(last.step_s / before.step_s) / np.log(last.value / before.value))


def measure(model: VLMConfig, sweep: Sweep, values: Sequence[int], rounds: int, apart: bool) -> list[Point]:
    """Each value a process of its own, warmed up; they take turns. apart: only one is in memory at a time."""
    batches = [batch_of(model, sweep, value) for value in values]
    configs = [config_of(model, sweep, value) for value in values]
    makes = {
        value: functools.partial(OurTraining, config, (batch,))
        for value, config, batch in zip(values, configs, batches, strict=True)
    }
    seconds = timed(makes, sweep, rounds, apart)
    return [
        Point(
            value,
            statistics.median(times),
            tuple(times),
            tokens=int((batch.segment_ids > 0).sum()),
            crops=int((batch.crop_image >= 0).sum()),
        )
        for value, times, batch in zip(values, seconds, batches, strict=True)
    ]


def timed(makes: Mapping[int, Make], sweep: Sweep, rounds: int, apart: bool) -> list[list[float]]:
    """Seconds a step of each value's rounds. Exits at the first value that fails: a line needs them all."""
    seconds: dict[int, list[float]] = {value: [] for value in makes}
    sides: dict[int, Side] = {}
    try:
        for value in () if apart else makes:
            sides[value] = Side(makes[value])
        for value in sides:
            sides[value].call("run", 2)
        for number in range(rounds):
            for value, make in makes.items():
                if apart:
                    sides[value] = Side(make)
                    sides[value].call("run", 2)
                seconds[value].append(sides[value].call("run", 1))
                if apart:
                    show(f"{value} {AXES[sweep]}: {seconds[value][-1]:.4g} s")
                    sides.pop(value).close()
            show(f"{sweep}: round {number + 1} of {rounds}")
    except SideError as error:
        short = short_of_memory(str(error))
        remedy = f"Memory is short: lower --most-{sweep}." if short else "The message is the side's own."
        raise SystemExit(f"scaling: {value} {AXES[sweep]} failed: {error}. {remedy}") from None
    finally:
        for side in sides.values():
            side.close()
    return list(seconds.values())


def row_of(model: VLMConfig, sweep: Sweep, value: int) -> RowConfig:
    queries = model.tokens_per_group
    if sweep == "crops":
        return RowConfig(TEXT_OF_CROPS + value * queries, value, 1, queries)
    if sweep == "images":
        return RowConfig(ROW_OF_IMAGES, value, value, queries)
    count = value // SAMPLE_OF_LENGTH
    return RowConfig(value, count, count, queries)


def anyres_of(model: VLMConfig, sweep: Sweep, value: int) -> AnyRes:
    """crops: images are a line of value - 1 crops and the global view."""
    grids = ((value - 1, 1),) if sweep == "crops" and value > 1 else ()
    return AnyRes(grids, model.vision.image_size_px, model.vision.grid)


def config_of(model: VLMConfig, sweep: Sweep, value: int) -> TrainConfig:
    """AdamW on one row."""
    config = nano_stage1.config()
    row, anyres = row_of(model, sweep, value), anyres_of(model, sweep, value)
    data = replace(config.data, row=row, anyres=anyres, batch_rows=1)
    return replace(config, model=model, data=data, optimizer=workloads.OPTIMIZER, initialize=Initialize())


def batch_of(model: VLMConfig, sweep: Sweep, value: int) -> Batch:
    """A row that is full: images first in each sample, then text, half of it supervised."""
    row, anyres = row_of(model, sweep, value), anyres_of(model, sweep, value)
    tokenizer, rng = Tokenizer.load(nano_recipes.TOKENIZER), np.random.default_rng(0)
    size_px = (max(value - 1, 1) * anyres.view_px, anyres.view_px) if sweep == "crops" else (anyres.view_px,) * 2
    positions = row.length // row.images
    text = positions - row.vision_tokens * (row.crops // row.images)
    samples = []
    for number in range(row.images):
        ids = workloads.text_ids(rng, text, model.decoder.num_text_tokens, tokenizer)
        ids = np.concatenate([[np.int32(tokenizer.image_id)], ids])
        image = workloads.random_image(size_px, number)
        samples.append(Sample(str(number), ids, np.arange(len(ids)) > text // 2, (image,)))
    return build.build_rows([samples], row, anyres, tokenizer)


def print_lines(result: dict[str, Any]) -> None:
    rows = []
    for sweep, measured in result["sweeps"].items():
        first, last, line = measured["points"][0], measured["points"][-1], measured["line"]
        rows.append(
            (
                AXES[sweep],
                f"{first['value']:,} to {last['value']:,}",
                f"{first['step_s']:.4g} to {last['step_s']:.4g}",
                f"{line['slope']:.3g}",
                f"{line['intercept']:.3g}",
                f"{line['r_squared']:.4f}",
                f"{line['deviation']:.1%}",
                f"{measured['exponent']:.2f}",
            )
        )
    head = ("against", "values", "s a step", "slope", "intercept", "R^2", "deviation", "exponent")
    print_table(f"Step time, {result['size']} on {result['device']['kind']}", head, rows)


def draw(measured: dict[Sweep, list[Point]], lines: dict[Sweep, Line], machine: str, path: Path) -> None:
    """A panel a sweep: medians, the rounds' range, the line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(measured), figsize=(4 * len(measured), 3.4), squeeze=False)
    for panel, (sweep, points) in zip(panels[0], measured.items(), strict=True):
        line = lines[sweep]
        x = np.array([point.value for point in points])
        panel.plot(x, line.slope * x + line.intercept, color="0.6", label=f"line, R² {line.r_squared:.4f}")
        y = [point.step_s for point in points]
        low = [point.step_s - min(point.step_s_of_rounds) for point in points]
        high = [max(point.step_s_of_rounds) - point.step_s for point in points]
        panel.errorbar(x, y, (low, high), fmt="o", color="#b5452c", markersize=5, label="median and range")
        panel.set_xlabel(AXES[sweep])
        panel.set_xticks(x, [f"{value // 1024}k" if value >= 1024 else str(value) for value in x])
        panel.set_ylim(bottom=0)
        panel.legend(frameon=False, fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("seconds a step")
    figure.suptitle(machine, fontsize=9, color="0.4")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
