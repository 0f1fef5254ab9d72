"""What is timed: a model's size, a stage, and packed batches of it.

nano, micro and mid read the embedded synthetic data through the data pipeline. 4b has no data on disk, so its samples
are drawn with the statistics of a stage and packed by the same code.
"""

from collections.abc import Sequence
import contextlib
from dataclasses import dataclass, replace
import functools
import itertools

import numpy as np
import PIL.Image

from experiments import micro, sft_single, stage1, stage2
from experiments.nano import recipes as nano_recipes
from experiments.nano import sft_single as nano_sft_single
from experiments.nano import stage1 as nano_stage1
from experiments.nano import stage2 as nano_stage2
from xgenmm_jax.batch import Batch
from xgenmm_jax.data.records import LazyImage, Sample
from xgenmm_jax.data.rows import build, filling, loader, packing
from xgenmm_jax.data.rows.config import DataConfig, LoaderConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.layers import Dtype
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.optimizer import OptimizerConfig

MID = VLMConfig(
    vision=ViTConfig(image_size_px=96, patch_px=8, width=512, hidden=2048, layers=6, heads=8),
    connector=ResamplerConfig(width=512, layers=4, heads=8, head_width=64, hidden=2048, queries=32, out_width=512),
    decoder=Phi3Config(
        vocab_size=8192,
        num_text_tokens=8189,
        width=512,
        hidden=1408,
        layers=8,
        heads=8,
        kv_heads=8,
        # The fastest for nano on two cores, models/sizes.py.
        remat="minimal_with_context",
    ),
)
"""69 million parameters: the largest that two processor cores step in seconds."""

STAGES = {
    "nano": {"stage1": nano_stage1.config, "stage2": nano_stage2.config, "sft_single": nano_sft_single.config},
    "micro": {"stage1": micro.stage1, "stage2": micro.stage2, "sft_single": micro.sft_single},
    # Mid reads micro's rows, at 96 px.
    "mid": {"stage1": micro.stage1, "stage2": micro.stage2, "sft_single": micro.sft_single},
    "4b": {"stage1": stage1.config, "stage2": stage2.config, "sft_single": sft_single.config},
}
SIZES = tuple(STAGES)
STAGE_NAMES = ("stage1", "stage2", "sft_single", "uniform")
"""uniform: stage 1's rows, each one sample that fills it, so that neither side has any padding."""
ROWS = {"nano": 6, "micro": 6, "mid": 2, "4b": 4}
"""Rows of a batch by default: what one device holds, or what takes seconds on two cores."""

OPTIMIZER = OptimizerConfig(peak_lr=1e-4, schedule="constant", warmup_steps=0, weight_decay=0.01, clip_norm=1.0)
"""AdamW with the released script's moments; a constant rate, so that both sides can be compared step by step."""


@dataclass(frozen=True)
class Statistics:
    """Of one kind of sample. Numbers of text tokens and images are drawn around their means.

    share: of the samples. text: tokens besides the images'. images: mean number, at least 1. supervised: part of
    the text that is a target.
    """

    share: float
    text: int
    images: float
    supervised: float


PRETRAINING = (Statistics(0.5, 60, 1.0, 1.0), Statistics(0.5, 830, 2.5, 1.0))
"""A caption and a document: together 3.5 images and 1340 positions, as experiments/stage1.py counts on."""
STATISTICS = {
    "stage1": PRETRAINING,
    "stage2": PRETRAINING,
    # One image of about seven crops, 1200 positions (experiments/recipes.py), half of the text answers.
    "sft_single": (Statistics(1.0, 290, 1.0, 0.5),),
}
IMAGE_SIZES_PX = {
    "stage1": (((500, 375), 1.0),),
    # 3, 5 and 7 crops: about 5 an image.
    "stage2": (((500, 375), 0.4), ((640, 480), 0.4), ((1024, 768), 0.2)),
    # 5, 7 and 13 crops: about 7.
    "sft_single": (((640, 480), 0.4), ((1024, 768), 0.4), ((1280, 960), 0.2)),
}


@dataclass(frozen=True)
class Workload:
    """A training step's config, its objective's data replaced by `batches` (numpy, packed)."""

    config: TrainConfig
    batches: tuple[Batch, ...]


def model(size: str) -> VLMConfig:
    """The model of a size."""
    return MID if size == "mid" else STAGES[size]["stage1"]().model


def workload(size: str, stage: str, rows: int, batches: int, dtype: Dtype) -> Workload:
    """The stage's own experiment at a size, random weights, AdamW. dtype: of computation; parameters are float32."""
    config = STAGES[size]["stage1" if stage == "uniform" else stage]()
    model, data = config.model, replace(config.data, batch_rows=rows, loader=LoaderConfig())
    if size == "mid":
        model = MID
        # Micro's rows are twice nano's, which its crops fill to seven tenths.
        row = replace(data.row, length=512)
        data = replace(data, anyres=replace(data.anyres, view_px=96, view_cells=12), row=row)
    if size == "4b" and stage == "uniform":
        # Half of the positions: stage 1's rows hold fewer crops, since its samples are text for the larger part.
        data = replace(data, row=replace(data.row, crops=data.row.images))
    config = replace(
        config,
        name=f"{size}/{stage}",
        model=replace(model, dtype=dtype),
        data=data,
        optimizer=OPTIMIZER,
        initialize=Initialize(),
    )
    if stage == "uniform":
        batches_of_stage = uniform(config, batches)
    else:
        batches_of_stage = generated(config, stage, batches) if size == "4b" else synthetic(data, batches)
    return Workload(config, tuple(batches_of_stage))


def synthetic(data: DataConfig, count: int) -> list[Batch]:
    """The first batches of the run."""
    with contextlib.closing(loader.batches(data, seed=0)) as batches:
        return [packed.batch for packed in itertools.islice(batches, count)]


def generated(config: TrainConfig, stage: str, count: int) -> list[Batch]:
    """Random samples with the stage's statistics, packed as in training; full rows are taken first."""
    data, rng = config.data, np.random.default_rng(0)
    tokenizer = Tokenizer.load(nano_recipes.TOKENIZER)
    rows = count * data.batch_rows
    samples: list[Sample] = []
    positions = 0
    # Packing leaves some rows half empty; a third more than is needed fills the rows that are asked for.
    while positions < rows * data.row.length * 4 / 3:
        sample = random_sample(rng, stage, config.model.decoder.num_text_tokens, tokenizer, str(len(samples)))
        size = packing.measure(sample, packing.layouts_of(sample.images, data.anyres), data.row)
        if all(need <= have for need, have in zip(size, packing.budget(data.row), strict=True)):
            samples.append(sample)
            positions += size.positions
    return pack(samples, data, tokenizer, rows, data.batch_rows)


def uniform(config: TrainConfig, count: int) -> list[Batch]:
    """Rows of one sample each: as many single views as take half of the positions, then text, half of it supervised."""
    data, rng = config.data, np.random.default_rng(0)
    tokenizer = Tokenizer.load(nano_recipes.TOKENIZER)
    row = data.row
    images = max(1, min(row.crops, row.images, row.length // 2 // row.vision_tokens))
    text = row.length - images * row.vision_tokens

    def sample(number: int) -> Sample:
        ids = text_ids(rng, text, config.model.decoder.num_text_tokens, tokenizer)
        shown = tuple(random_image((data.anyres.view_px,) * 2, number * images + k) for k in range(images))
        ids = np.concatenate([np.full(images, tokenizer.image_id, np.int32), ids])
        return Sample(str(number), ids, np.arange(len(ids)) >= images + text // 2, shown)

    anyres = replace(data.anyres, grids=())
    rows = [[sample(number)] for number in range(count * data.batch_rows)]
    return [
        build.build_rows(rows[start : start + data.batch_rows], row, anyres, tokenizer)
        for start in range(0, len(rows), data.batch_rows)
    ]


def pack(samples: Sequence[Sample], data: DataConfig, tokenizer: Tokenizer, rows: int, batch_rows: int) -> list[Batch]:
    """The fullest `rows` rows, in batches."""
    measured = [packing.measure(one, packing.layouts_of(one.images, data.anyres), data.row) for one in samples]
    sizes = packing.array_of(measured)
    packed = filling.pack(sizes, packing.budget(data.row))
    packed.sort(key=lambda row: -sizes[row, 0].sum())
    chosen = [[samples[number] for number in row] for row in packed[:rows]]
    return [
        build.build_rows(chosen[start : start + batch_rows], data.row, data.anyres, tokenizer)
        for start in range(0, rows, batch_rows)
    ]


def random_sample(rng: np.random.Generator, stage: str, vocabulary: int, tokenizer: Tokenizer, name: str) -> Sample:
    """Images first or between the text, then what is supervised."""
    kinds = STATISTICS[stage]
    kind = kinds[rng.choice(len(kinds), p=[kind.share for kind in kinds])]
    text = max(8, int(rng.gamma(4.0, kind.text / 4.0)))
    count = 1 + rng.poisson(kind.images - 1.0)
    sizes, weights = zip(*IMAGE_SIZES_PX[stage], strict=True)
    drawn = [sizes[number] for number in rng.choice(len(sizes), count, p=weights)]
    ids = text_ids(rng, text, vocabulary, tokenizer)
    image_positions = np.sort(rng.integers(0, max(1, int(text * (1 - kind.supervised)) or text), count))
    image_positions[0] = 0
    loss_mask = np.arange(text) >= text * (1 - kind.supervised)
    ids = np.insert(ids, image_positions, tokenizer.image_id)
    loss_mask = np.insert(loss_mask, image_positions, False)
    loss_mask[0] = False
    return Sample(name, ids, loss_mask, tuple(random_image(size, int(rng.integers(2**31))) for size in drawn))


def text_ids(rng: np.random.Generator, count: int, vocabulary: int, tokenizer: Tokenizer) -> np.ndarray:
    """Ids below `vocabulary`, none of them `<image>`."""
    ids = rng.integers(3, vocabulary, count, dtype=np.int32)
    return np.where(ids == tokenizer.image_id, ids - 1, ids)


def random_image(size_px: tuple[int, int], seed: int) -> LazyImage:
    """Noise, drawn when it is read."""
    return LazyImage(size_px, functools.partial(_noise, size_px, seed))


def _noise(size_px: tuple[int, int], seed: int) -> PIL.Image.Image:
    # Blocks of 16 px: enough to be no constant, cheap to draw.
    shape = (size_px[1] // 16 + 1, size_px[0] // 16 + 1, 3)
    small = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return PIL.Image.fromarray(small).resize(size_px)
