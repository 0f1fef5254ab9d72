"""The official model at a tiny random size: its tensors as our parameters, its inputs as our batches.

Goldens: `tests/goldens/xgenmm_tiny28`, made by the official PyTorch code (torch 2.13, transformers 4.41.1, float32).
"""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.convert.importing import open_source, read_tree
from xgenmm_jax.models.grouping import Sampling
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.models.vlm import VLMConfig

FOLDER = Path(__file__).parents[1] / "goldens" / "xgenmm_tiny28"
IMAGE_ID = 300
GRID = 2
"""Patches along a side of a crop."""
CONFIG = VLMConfig(
    vision=ViTConfig(image_size_px=28, patch_px=14, width=32, hidden=64, layers=2, heads=2),
    connector=ResamplerConfig(width=32, layers=6, heads=16, head_width=96, hidden=128, queries=8, out_width=64),
    decoder=Phi3Config(vocab_rows=320, initial_len=300, width=64, hidden=128, layers=2, heads=4, kv_heads=4),
    sampling=Sampling.STRIPS,
)


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


@cache
def parameters() -> dict:
    with open_source(FOLDER) as source:
        return jax.tree.map(jnp.asarray, read_tree(source))


def best_grid(size_wh, grids=((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)), unit=28) -> tuple[int, int]:
    """Columns and rows that the official code chooses (docs/reference/images.md#best-resolution)."""
    width, height = (int(x) for x in size_wh)
    best, best_fit, best_waste = grids[0], 0, float("inf")
    for columns, rows in grids:
        canvas_width, canvas_height = columns * unit, rows * unit
        scale = min(canvas_width / width, canvas_height / height)
        fit = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas_width * canvas_height - fit
        if fit > best_fit or (fit == best_fit and waste < best_waste):
            best, best_fit, best_waste = (columns, rows), fit, waste
    return best


def valid_cells(size_wh, columns: int, rows: int) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) as in docs/reference/xgenmm.md#valid-cells."""
    width, height = (int(x) for x in size_wh)
    canvas_width, canvas_height = GRID * columns, GRID * rows
    if width / height > canvas_width / canvas_height:
        kept = int(height * (canvas_width / width))
        pad = (canvas_height - kept) // 2
        return pad, canvas_height - pad, 0, canvas_width
    kept = int(width * (canvas_height / height))
    pad = (canvas_width - kept) // 2
    return 0, canvas_height, pad, canvas_width - pad


def make_batch(token_rows, image_rows, length: int, queries: int = 8, per_image: bool = False, left: bool = False):
    """A Batch of one sample a row.

    token_rows: ids with one `<image>` each. image_rows: per row, images as (pixels [n 3 S S] normalised, size, columns,
    rows). per_image: one group of vision tokens an image and not a crop.
    """
    rows = len(token_rows)
    crops = max(1, max(sum(len(image[0]) for image in images) for images in image_rows))
    images_max = max(1, max(len(images) for images in image_rows))
    batch = Batch(
        token_ids=np.zeros((rows, length), np.int32),
        segment_ids=np.zeros((rows, length), np.int32),
        positions=np.zeros((rows, length), np.int32),
        loss_mask=np.zeros((rows, length), bool),
        slot=np.full((rows, length), -1, np.int32),
        pixels=np.zeros((rows, crops, 28, 28, 3), np.uint8),
        crop_image=np.full((rows, crops), -1, np.int32),
        crop_segment=np.zeros((rows, crops), np.int32),
        image_grid=np.zeros((rows, images_max, 2), np.int32),
        image_size_px=np.zeros((rows, images_max, 2), np.int32),
        image_valid=np.zeros((rows, images_max, 4), np.int32),
    )
    pixels = np.zeros((rows, crops, 28, 28, 3), np.float32)
    for row, (ids, images) in enumerate(zip(token_rows, image_rows, strict=True)):
        first, crop, expanded, slots = [], 0, [], []
        for number, (image_pixels, size, columns, lines) in enumerate(images):
            first.append(crop)
            pixels[row, crop : crop + len(image_pixels)] = image_pixels.transpose(0, 2, 3, 1)
            batch.crop_image[row, crop : crop + len(image_pixels)] = number
            batch.crop_segment[row, crop : crop + len(image_pixels)] = 1
            batch.image_size_px[row, number] = size
            if len(image_pixels) > 1:
                batch.image_grid[row, number] = columns, lines
                batch.image_valid[row, number] = valid_cells(size, columns, lines)
            crop += len(image_pixels)
        number = 0
        for token in ids:
            if token != IMAGE_ID:
                expanded.append(token)
                slots.append(-1)
                continue
            groups = 1 if per_image else len(images[number][0])
            start = (number if per_image else first[number]) * queries
            expanded += [token] * (groups * queries)
            slots += range(start, start + groups * queries)
            number += 1
        where = slice(length - len(expanded), length) if left else slice(0, len(expanded))
        batch.token_ids[row, where] = expanded
        batch.slot[row, where] = slots
        batch.segment_ids[row, where] = 1
        batch.positions[row, where] = np.arange(len(expanded))
    # The goldens' pixels are floats that are no bytes: tests hand them to the tower past the normalisation.
    return batch, pixels
