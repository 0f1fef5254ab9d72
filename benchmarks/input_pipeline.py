"""Images from JPEG files into rows, beside Pillow's calls of the released code: images a second and core.

    python -m benchmarks.input_pipeline

Photographs of 1280 x 960 pixels (quality 88). Ours decodes, cuts and packs the images of samples into rows, bytes in
memory; "from files" reads and tokenizes their records too, as a run does. Pillow's gives crops alone; "floats" also
normalizes them, on the host as the released code does. One core. Exits with 1 where a bound is missed.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from dataclasses import dataclass
import functools
import io
import itertools
import math
import os
from pathlib import Path
import sys
import tempfile
import time

import numpy as np
import PIL.Image

from benchmarks import rounds
from experiments import recipes
from experiments.nano.recipes import TOKENIZER
from tools import pod_speeds, step_sizes
from xgenmm_jax.batch import Batch
from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.records import ProjectRecords, write_records
from xgenmm_jax.data.records import Caption
from xgenmm_jax.data.rows.build import build_rows
from xgenmm_jax.data.rows.config import DataConfig, LoaderConfig
from xgenmm_jax.data.rows.loading import RowBuilder, fitted_sample
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.rows.window import measurer_of, open_sources, plan_window
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.record_shards import ArrayRecords
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.nano.report.photographs import photographs
from xgenmm_jax.reporting.machine import describe_machine, machine_sentence

SIZE_PX, QUALITY, IMAGES = (1280, 960), 88, 16
ROUNDS, STEPS = 15, 1
LEAST_BESIDE_PILLOW, LEAST_SCALED = 1.0, 1.6
VIEWS = {"stage1": recipes.BASE_RESOLUTION, "stage2": recipes.HIGH_RESOLUTION}
CROPS = {"stage1": 16, "stage2": 26}
"""Of a row, which the images fill: 16 of 1 crop, 2 of 13."""
PODS = {"v5e:16x16": 256, "v5p:4x4x8": 128}
"""Chips, of cells in docs/pods.csv."""


def photos() -> list[bytes]:
    """JPEGs of photographs as they are in their wheels, mirrored at their edges to fill the size; never enlarged."""
    originals = [np.asarray(one.image.load()) for one in photographs() if one.name not in ("page", "text")]
    width, height = SIZE_PX
    blobs = []
    for number in range(IMAGES):
        pixels = originals[number % len(originals)]
        shift = 97 * (number // len(originals))  # another part each time
        whole = np.pad(pixels, ((0, height + shift), (0, width + shift), (0, 0)), mode="symmetric")
        file = io.BytesIO()
        image = PIL.Image.fromarray(np.ascontiguousarray(whole[shift : shift + height, shift : shift + width]))
        image.save(file, "JPEG", quality=QUALITY)
        blobs.append(file.getvalue())
    return blobs


def write(folder: Path, blobs: Sequence[bytes]) -> None:
    records = []
    for number, blob in enumerate(blobs):
        image = image_from_bytes(blob, str(number), official=True)
        records.append((Caption(str(number), image, "a photograph of a house, a flower, a cat or a cup"), [blob]))
    write_records(folder / "photos.array_record", records)


class Rows:
    """A side: rows as training has them."""

    def __init__(self, folder: Path, stage: str, from_files: bool = False, is_scaled: bool = False):
        self._config = DataConfig(
            mixture=((ShardedSource(ArrayRecords(f"{folder}/*.array_record"), ProjectRecords()), 1.0),),
            tokenizer=TOKENIZER,
            row=RowConfig(recipes.ROW_LENGTH, crops=CROPS[stage], images=16, vision_tokens=128),
            anyres=dataclasses.replace(VIEWS[stage], scaled_decoding=is_scaled),
            batch_rows=1,
            window=IMAGES,
            chat=ChatStyle(system=None),
            loader=LoaderConfig(threads=1),
        )
        self._tokenizer, sources = Tokenizer.load(TOKENIZER), open_sources(self._config)
        self._builder = RowBuilder(self._config, 0, sources) if from_files else None
        # A window is an epoch: every image once.
        self._planned = plan_window(self._config, sources, measurer_of(self._config), 0, 0).rows
        self._samples = [
            [
                fitted_sample(sources[0].record(one.draw.record, one.draw.rng(0)), self._config, self._tokenizer)
                for one in row
            ]
            for row in self._planned
        ]

    def build(self) -> Iterator[Batch]:
        """Rows, one after the other."""
        for planned, samples in zip(self._planned, self._samples, strict=True):
            if self._builder is not None:
                built = self._builder.build([planned])
                assert not built.skipped
                yield built.batch
            else:
                yield build_rows([samples], self._config.row, self._config.anyres, self._tokenizer)

    def run(self, steps: int) -> float:
        """Processor seconds an image, all threads together."""
        begin = time.process_time()
        for _ in range(steps):
            for _ in self.build():
                pass
        return (time.process_time() - begin) / (steps * IMAGES)

    def info(self) -> Mapping[str, float]:
        return {}

    def views(self) -> dict[str, np.ndarray]:
        """The crops of each image by its record's id."""
        views = {}
        for batch, samples in zip(self.build(), self._samples, strict=True):
            for image, sample in enumerate(samples):
                views[sample.id] = batch.pixels[0, batch.crop_image[0] == image]
        return views


class Pillow:
    """A side: Pillow's calls of the released code (docs/reference/images.md#any-resolution), which give PIL images."""

    def __init__(self, blobs: Sequence[bytes], stage: str, is_normalized: bool = False):
        self._blobs, self._view, self._is_normalized = blobs, VIEWS[stage], is_normalized

    def run(self, steps: int) -> float:
        begin = time.process_time()
        for blob in itertools.chain.from_iterable(itertools.repeat(self._blobs, steps)):
            crops = official_crops(blob, self._view)
            if self._is_normalized:
                anyres.normalized(np.stack(crops))
        return (time.process_time() - begin) / (steps * len(self._blobs))

    def info(self) -> Mapping[str, float]:
        return {}


def official_crops(blob: bytes, view: AnyRes) -> list[PIL.Image.Image]:
    image = PIL.Image.open(io.BytesIO(blob)).convert("RGB")
    size = view.view_px
    crops = [image.resize((size, size), PIL.Image.Resampling.BICUBIC)]
    if not view.grids:
        return crops
    columns, rows = anyres.best_grid(image.size, view.grids, size)
    width, height = columns * size, rows * size
    scale_width, scale_height = width / image.width, height / image.height
    if scale_width < scale_height:
        new_px = (width, min(math.ceil(image.height * scale_width), height))
    else:
        new_px = (min(math.ceil(image.width * scale_height), width), height)
    padded = PIL.Image.new("RGB", (width, height), (0, 0, 0))
    resized = image.resize(new_px, PIL.Image.Resampling.BICUBIC)
    padded.paste(resized, ((width - new_px[0]) // 2, (height - new_px[1]) // 2))
    for top, left in itertools.product(range(0, height, size), range(0, width, size)):
        crops.append(padded.crop((left, top, left + size, top + size)))
    return crops


def check_pixels(folder: Path, blobs: Sequence[bytes]) -> tuple[float, int]:
    """Mean and largest difference of pixels of scaled decoding. SystemExit where ours are not Pillow's to the bit."""
    for stage, from_files in itertools.product(VIEWS, (False, True)):
        views = Rows(folder, stage, from_files).views()
        for number, blob in enumerate(blobs):
            if not np.array_equal(views[str(number)], np.stack(official_crops(blob, VIEWS[stage]))):
                raise SystemExit(f"{stage}: the crops of image {number} are not Pillow's")
    full = Rows(folder, "stage1").views()
    scaled = Rows(folder, "stage1", is_scaled=True).views()
    differences = [np.abs(scaled[name].astype(np.int32) - full[name]) for name in full]
    return float(np.mean(differences)), int(np.max(differences))


@dataclass(frozen=True)
class Bound:
    name: str
    got: rounds.Ratio
    least: float

    @property
    def is_kept(self) -> bool:
        return self.got.median >= self.least


def bounds(timed: Mapping[str, rounds.Timed]) -> list[Bound]:
    return [
        *(
            Bound(f"{stage}: ours to Pillow", rounds.ratio(timed[f"{stage} Pillow"], timed[stage]), LEAST_BESIDE_PILLOW)
            for stage in VIEWS
        ),
        Bound("stage1: scaled to full", rounds.ratio(timed["stage1"], timed["stage1 scaled"]), LEAST_SCALED),
    ]


def table(timed: Mapping[str, rounds.Timed], checked: Sequence[Bound], difference: tuple[float, int]) -> str:
    lines = ["| side | images a second and core | ms an image, median [least, most] |", "|---|---|---|"]
    for name, side in timed.items():
        low, middle, high = (1e3 * value for value in (min(side.seconds), side.median, max(side.seconds)))
        lines.append(f"| {name} | {1e3 / middle:.1f} | {middle:.2f} [{low:.2f}, {high:.2f}] |")
    lines += ["", "| times as fast | median [least, most] of rounds | wanted | |", "|---|---|---|---|"]
    for bound in checked:
        got, kept = bound.got, "kept" if bound.is_kept else "MISSED"
        lines.append(f"| {bound.name} | {_in_words(got)} | {bound.least:g} | {kept} |")
    for stage in VIEWS:
        floats, from_files = timed[f"{stage} floats"], timed[f"{stage} from files"]
        lines.append(f"| {stage}: ours to Pillow with floats | {_in_words(rounds.ratio(floats, timed[stage]))} | | |")
        lines.append(
            f"| {stage}: from files to Pillow with floats | {_in_words(rounds.ratio(floats, from_files))} | | |"
        )
    mean, most = difference
    lines += ["", "Ours are Pillow's pixels to the bit; of scaled decoding they differ by "
              f"{mean:.2f} in the mean, {most} at most, of 255."]  # fmt: skip
    return "\n".join(lines)


def _in_words(ratio: rounds.Ratio) -> str:
    return f"{ratio.median:.3f} [{ratio.least:.3f}, {ratio.most:.3f}]"


def pod_table(timed: Mapping[str, rounds.Timed]) -> str:
    """Cores that feed a pod. Step times: docs/pods.csv, expected and bound. Images a step: tools/step_sizes.py."""
    lines = [
        "| pod, stage | images a step | step, s: expected, bound | images/s | cores | cores, scaled |",
        "|---|---|---|---|---|---|",
    ]
    for (pod, chips), stage in itertools.product(PODS.items(), VIEWS):
        data = recipes.pretraining((), VIEWS[stage], {"stage1": 16, "stage2": 24}[stage])
        images = images_of_a_step(stage, data)
        bound_s, tokens_a_chip = planned(stage, pod)
        step_s = recipes.ROWS * recipes.ROW_LENGTH / (tokens_a_chip * chips)
        rates = [images / seconds for seconds in (step_s, bound_s)]
        sides = [timed.get(f"{stage}{scaled} from files") for scaled in ("", " scaled")]
        cores = ["" if side is None else ", ".join(f"{rate * side.median:.0f}" for rate in rates) for side in sides]
        lines.append(
            f"| {pod}, {stage} | {images:,.0f} | {step_s:.2f}, {bound_s:.2f} | {rates[0]:,.0f}, {rates[1]:,.0f} | "
            f"{cores[0]} | {cores[1]} |"
        )
    return "\n".join(lines)


@functools.cache
def images_of_a_step(stage: str, data: DataConfig) -> float:
    windows = step_sizes.assumed_windows(stage, data)
    images = sum(size.images for sizes, _ in windows for size in sizes)
    return images * data.batch_rows / sum(rows for _, rows in windows)


def planned(stage: str, pod: str) -> tuple[float, float]:
    """(seconds of a step at the bound, tokens a second and chip as expected) of a 4B cell."""
    cell = pod_speeds.read()["4b", stage, pod, 1]
    return float(cell["bound_s"]), float(cell["expected_tokens"])


def main() -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # sides inherit it
    blobs = photos()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, blobs)
        difference = check_pixels(folder, blobs)
        makes: dict[str, rounds.Make] = {
            "stage1 scaled": functools.partial(Rows, folder, "stage1", False, True),
            "stage1 scaled from files": functools.partial(Rows, folder, "stage1", True, True),
        }
        for stage in VIEWS:
            makes |= {
                f"{stage} from files": functools.partial(Rows, folder, stage, True),
                stage: functools.partial(Rows, folder, stage),
                f"{stage} Pillow": functools.partial(Pillow, blobs, stage),
                f"{stage} floats": functools.partial(Pillow, blobs, stage, True),
            }
        tell = functools.partial(print, file=sys.stderr)
        timed, failed = rounds.alternate(makes, ROUNDS, STEPS, STEPS, apart=False, tell=tell)
    if failed:
        raise SystemExit("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    checked = bounds(timed)
    kilobytes = sum(map(len, blobs)) / len(blobs) / 1e3
    print(f"{machine_sentence(describe_machine())}. One core; {IMAGES} JPEGs of {kilobytes:.0f} kB in the mean.\n")
    print(f"{table(timed, checked, difference)}\n\n{pod_table(timed)}")
    return 0 if all(bound.is_kept for bound in checked) else 1


if __name__ == "__main__":
    sys.exit(main())
