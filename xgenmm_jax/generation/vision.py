"""Vision tokens of pictures, encoded in dense chunks and kept on the device while prompts need them."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, PyTree
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Picture
from xgenmm_jax.generation import cache
from xgenmm_jax.models.grouping import Sampling
from xgenmm_jax.models.projector import MLPConfig
from xgenmm_jax.models.vlm import VLM, VLMConfig

CHUNK_CROPS = 64
"""Crops encoded at once: enough to fill a device, few enough to fit beside the weights of 4B."""


class View(NamedTuple):
    """A picture as one prompt sees it: the same picture in other crops, or to other instructions, is another view."""

    picture: Picture
    anyres: AnyRes
    instruction: tuple[int, ...]
    """The prompt's first text ids where the resampler reads them, else empty, so that prompts share views."""


class VisionTable:
    """A table of `slots` groups of Q vision tokens, the least recently used replaced first."""

    def __init__(self, config: VLMConfig, params: PyTree, slots: int):
        self.config = config
        self._params = {name: params[name] for name in ("vision", "connector", "decoder")}
        self._slots_of: OrderedDict[View, np.ndarray] = OrderedDict()
        self._resize(slots)

    def groups(self, view: View) -> int:
        """Slots that a view takes: one a crop or strip, one in all with fixed sampling."""
        if self.config.sampling is Sampling.FIXED_SAMPLING:
            return 1
        return anyres.layout(view.picture.size_px, view.anyres).crops

    def tokens(self, view: View) -> int:
        return self.groups(view) * self.config.tokens_per_group

    @property
    def slots(self) -> int:
        return self._table.shape[0]

    @property
    def table(self) -> Float[Array, "slots Q D"]:
        return self._table

    def index(self, view: View) -> Int32[np.ndarray, " m"]:
        """Where a loaded view's tokens stand in `table`: slot * Q + q."""
        tokens = self.config.tokens_per_group
        return (self._slots_of[view][:, None] * tokens + np.arange(tokens, dtype=np.int32)).reshape(-1)

    def load(self, views: Iterable[View]) -> None:
        """Encodes what is not there yet. Afterwards all these views, and as many others as fit, are in the table."""
        wanted = dict.fromkeys(views)
        need = sum(map(self.groups, wanted))
        if need > self.slots:
            self._resize(1 << (need - 1).bit_length())
        missing: dict[int, list[View]] = {}
        for view in wanted:
            if view in self._slots_of:
                self._slots_of.move_to_end(view)
        for view in wanted:
            if view not in self._slots_of:
                self._slots_of[view] = self._take(self.groups(view))
                missing.setdefault(anyres.layout(view.picture.size_px, view.anyres).crops, []).append(view)
        for crops, alike in missing.items():
            most = max(1, CHUNK_CROPS // crops)
            for start in range(0, len(alike), most):
                self._encode(alike[start : start + most], crops, cache.row_bucket(len(alike), most))

    def _take(self, count: int) -> np.ndarray:
        while len(self._free) < count:
            _, freed = self._slots_of.popitem(last=False)
            self._free.extend(freed.tolist())
        return np.array([self._free.pop() for _ in range(count)], np.int32)

    def _resize(self, slots: int) -> None:
        self._slots_of.clear()
        self._free = list(range(slots))
        width = self.config.decoder.width
        self._table = jnp.zeros((slots, self.config.tokens_per_group, width), self.config.dtype)

    def _encode(self, views: Sequence[View], crops: int, rows: int) -> None:
        slots = np.full((rows, len(self._slots_of[views[0]])), self.slots, np.int32)
        for row, view in enumerate(views):
            slots[row] = self._slots_of[view]
        batch = picture_batch(views, crops, rows, self._instruction_tokens, self.config.vision.image_size_px)
        self._table = _encode_into(self.config, self._params, batch, self._table, slots.reshape(-1))

    @property
    def _instruction_tokens(self) -> int:
        return instruction_tokens(self.config)


def instruction_tokens(config: VLMConfig) -> int:
    """How many of a prompt's text tokens the connector reads."""
    return 0 if isinstance(config.connector, MLPConfig) else config.connector.instruction_tokens


def picture_batch(views: Sequence[View], crops: int, rows: int, text: int, view_px: int) -> Batch:
    """One view a row, all of `crops` crops, with room for the `text` first tokens of its prompt; filled with zeros."""
    length = max(text, 1)
    token_ids, segment_ids = np.zeros((2, rows, length), np.int32)
    pixels = np.zeros((rows, crops, view_px, view_px, 3), np.uint8)
    grid, size, valid = (np.zeros((rows, 1, n), np.int32) for n in (2, 2, 4))
    for row, view in enumerate(views):
        token_ids[row, : len(view.instruction)] = view.instruction
        segment_ids[row, : len(view.instruction)] = 1
        pixels[row] = anyres.crops(view.picture.load(), view.anyres)
        layout = anyres.layout(view.picture.size_px, view.anyres)
        grid[row], size[row], valid[row] = layout.grid, view.picture.size_px, layout.valid
    return Batch(
        token_ids=token_ids,
        segment_ids=segment_ids,
        positions=np.zeros_like(token_ids),
        loss_mask=np.zeros(token_ids.shape, bool),
        slot=np.full_like(token_ids, -1),
        pixels=pixels,
        crop_image=np.zeros((rows, crops), np.int32),
        crop_segment=np.ones((rows, crops), np.int32),
        image_grid=grid,
        image_size_px=size,
        image_valid=valid,
    )


@functools.partial(jax.jit, static_argnames=("config",), donate_argnames=("table",))
def _encode_into(
    config: VLMConfig,
    params: PyTree,
    batch: Batch,
    table: Float[Array, "slots Q D"],
    slots: Int32[Array, " n"],
) -> Float[Array, "slots Q D"]:
    """The table with the batch's groups at `slots`; a slot behind the end is not written."""
    tokens = VLM(config).apply({"params": params}, batch, method="encode_images")
    return table.at[slots].set(tokens.reshape(-1, *table.shape[1:]).astype(table.dtype), mode="drop")
