"""The crops that a model gets, and where the queries of its resampler attend."""

import math
from typing import NamedTuple

from jaxtyping import Float
import numpy as np
import PIL.Image

from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.processor import Image
from xgenmm_jax.data import anyres
from xgenmm_jax.data.records import Crops, LazyImage
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.probing.answer_attention import has_spatial_queries
from xgenmm_jax.probing.figures import figure, show_image, to_image
from xgenmm_jax.reporting.maps import canvas_to_image, enlarged, on_canvas, spotlight

QUERY_PX = 96
WHOLE_PX = 256


class Heat(NamedTuple):
    """Where each query looks. Weights over cells of the image; a row that sums to less than 1 looks at other queries.

    squashed: the cells cover the whole image; else the image lies centered on the canvas of crops.
    """

    queries: Float[np.ndarray, "n h w"]
    squashed: bool


def crops_shown(lmm: LMM, image: Image) -> PIL.Image.Image:
    """The image and the crops of it that the model got, the global view first."""
    opened = decoded(lmm, image)
    views = anyres.crops(opened.load(), lmm.processor.anyres)
    columns, rows = anyres.layout(opened.size_px, lmm.processor.anyres).grid
    grid_columns, grid_rows = max(columns, 1), max(rows, 1)
    drawn, axes = figure(1.5 * (grid_columns + 3), max(1.5 * grid_rows, 1.9) + 0.3, grid_rows, grid_columns + 2)
    for axis in axes.flat:
        axis.axis("off")
    width, height = opened.size_px
    show_image(axes[0, 0], opened.load(), f"image, {width} x {height} px")
    show_image(axes[0, 1], views[0], f"global view, {len(views[0])} px")
    for number, view in enumerate(views[1:]):
        row, column = divmod(number, columns)
        show_image(axes[row, column + 2], view, f"crop {number + 1}")
    return to_image(drawn)


def query_heat(lmm: LMM, image: Image, layer: int | None = None, crops: bool = False) -> Heat:
    """Attention of every query to the image, mean over heads; of one layer of the resampler, or of their mean.

    crops: of the crops' queries over the canvas of the grid, instead of the global view's over the whole image.

    Raises ValueError where the connector is no resampler of crops or strips, or there are no crops.
    """
    if not has_spatial_queries(lmm.config):
        raise ValueError("query_heat: the model has no resampler of crops or strips; load one that has.")
    opened = lmm.processor.image(image)
    layout = anyres.layout(opened.size_px, lmm.processor.anyres)
    if crops and layout.crops == 1:
        raise ValueError(f"query_heat: an image of {opened.size_px} px has no crops here; give a larger one.")
    out = lmm.forward([[lmm.tokenizer.image_id]], [[opened]], probe=("resampler/attention",))
    patches, side = lmm.config.vision.patches, lmm.config.vision.grid
    weights = out.probed["resampler/attention"].astype(np.float32)[..., :patches].mean(2)
    weights_CQP = weights.mean(0) if layer is None else weights[layer]
    if not crops:
        return Heat(weights_CQP[0].reshape(-1, side, side), True)
    strips = lmm.config.token_sampling is TokenSampling.STRIPS
    return Heat(on_canvas(weights_CQP[1:], layout.grid, side, strips), False)


def queries_shown(
    lmm: LMM, image: Image, layer: int | None = None, crops: bool = False, most: int = 32
) -> PIL.Image.Image:
    """The image once for each of the first `most` queries, lit where that query looks."""
    heat = query_heat(lmm, image, layer, crops)
    opened = decoded(lmm, image)
    shown = min(most, len(heat.queries))
    columns = min(8, math.ceil(math.sqrt(shown)))
    rows = math.ceil(shown / columns)
    drawn, axes = figure(1.15 * columns, 1.3 * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    target = enlarged(opened.size_px, QUERY_PX)
    for query, axis in zip(range(shown), axes.flat, strict=False):
        lit = canvas_to_image(heat.queries[query], opened.size_px, target, heat.squashed)
        seen = 100 * heat.queries[query].sum()
        show_image(axis, spotlight(opened.load(), lit), f"{query}: {seen:.0f} %")
    return to_image(drawn)


def has_crops(lmm: LMM, image: Image) -> bool:
    """Whether the model sees crops of the image beside its global view."""
    return anyres.layout(lmm.processor.image(image).size_px, lmm.processor.anyres).crops > 1


def whole_shown(lmm: LMM, image: Image, layer: int | None = None) -> PIL.Image.Image:
    """The image lit by the attention of all queries of the global view together."""
    heat = query_heat(lmm, image, layer)
    opened = decoded(lmm, image)
    target = enlarged(opened.size_px, WHOLE_PX)
    return spotlight(opened.load(), canvas_to_image(heat.queries.sum(0), opened.size_px, target, True))


def decoded(lmm: LMM, image: Image) -> LazyImage:
    """The image with its pixels. Raises ValueError for `Crops`, which are cut already."""
    opened = lmm.processor.image(image)
    if isinstance(opened, Crops):
        raise ValueError("probing: got Crops, which cannot be drawn; give the image itself.")
    return opened
