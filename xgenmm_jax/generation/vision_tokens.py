"""Vision tokens of images, encoded in dense chunks and kept on the device while prompts need them."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
import functools
import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Float32, Int32, PyTree, UInt8
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Crops, LazyImage
from xgenmm_jax.data.rows import build
from xgenmm_jax.generation import buckets
from xgenmm_jax.models.blip3 import VLM, VLMConfig
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.ops.partitioning import constrain

CHUNK_CROPS = 64
"""Crops encoded at once: enough to fill a device, few enough to fit beside the weights of 4B."""


class View(NamedTuple):
    """An image as one prompt sees it: the same image in other crops, or to other instructions, is another view."""

    image: LazyImage | Crops
    anyres: AnyRes
    instruction: tuple[int, ...]
    """The prompt's first text ids where the resampler reads them, else empty, so that prompts share views."""

    @property
    def layout(self) -> anyres.Layout:
        size_px = self.image.size_px
        layout = anyres.layout(size_px, self.anyres)
        if not isinstance(self.image, Crops) or len(self.image.pixels) == layout.crops:
            return layout
        if len(self.image.pixels) == 1:
            return anyres.layout(size_px, replace(self.anyres, grids=()))
        raise ValueError(
            f"generation: {len(self.image.pixels)} crops of an image of {size_px[0]} x {size_px[1]} px, which is "
            f"cut into {layout.crops}; give so many, or its global view alone, or other grids"
        )

    def pixels(self) -> UInt8[np.ndarray, "n S S 3"] | Float32[np.ndarray, "n S S 3"]:
        """Crops as the model takes them: bytes, or floats that are normalised already."""
        if isinstance(self.image, Crops):
            return self.image.pixels
        return anyres.crops(self.image.load(), self.anyres)


class UnreadableImage(ValueError):
    """An image whose pixels cannot be read. image: which; the message says why."""

    def __init__(self, image: LazyImage | Crops, reason: str):
        super().__init__(reason)
        self.image = image


def check_view(config: VLMConfig, view: View) -> None:
    """Raises ValueError where fixed sampling would not read all crops of an image."""
    width, height = view.image.size_px
    config.check_crops(view.layout.crops, f"an image of {width} x {height} px takes")


_Digest = tuple[bytes, tuple[int, int], AnyRes, tuple[int, ...]]
"""Equal for views that give a model the same input: hash of the crops, size before cutting, anyres, instruction."""


class VisionTable:
    """A table of `slots` groups of Q vision tokens, the least recently used replaced first.

    Images of equal crops share their tokens, wherever they were read from.

    full_chunks: few images are encoded in a chunk as large as many are, for one compilation fewer.
    images, crops: how many were encoded so far, without those that only fill a chunk.
    """

    def __init__(self, config: VLMConfig, params: PyTree, slots: int, full_chunks: bool = False):
        self.config = config
        self._full_chunks = full_chunks
        self.images = self.crops = 0
        self._params = {name: params[name] for name in ("vision", "connector", "decoder")}
        self._slots_of: OrderedDict[_Digest, np.ndarray] = OrderedDict()
        self._digest_of: OrderedDict[View, _Digest] = OrderedDict()
        self._resize(slots)

    def groups(self, view: View) -> int:
        """Slots that a view takes: one a crop or strip, one in all with fixed sampling.

        Raises ValueError where fixed sampling would not read all of its crops.
        """
        check_view(self.config, view)
        return 1 if self.config.token_sampling is TokenSampling.FIXED_SAMPLING else view.layout.crops

    def tokens(self, view: View) -> int:
        return self.groups(view) * self.config.tokens_per_group

    @property
    def slots(self) -> int:
        return self._table.shape[0]

    @property
    def table(self) -> Float[Array, "slots Q D"]:
        return self._table

    def index(self, view: View) -> Int32[np.ndarray, " m"]:
        """Indices of a loaded view's tokens in `table`, flattened to [slots * Q, D]: slot * Q + q."""
        tokens = self.config.tokens_per_group
        slots = self._slots_of[self._digest_of[view]]
        return (slots[:, None] * tokens + np.arange(tokens, dtype=np.int32)).reshape(-1)

    def clear(self) -> None:
        """Forgets all images, so that what is encoded next does not depend on what came before."""
        self._slots_of.clear()
        self._digest_of.clear()
        self._free = list(range(self.slots))

    def load(self, views: Iterable[View]) -> None:
        """Encodes the views that are not in the table yet; as many earlier ones as fit stay in it.

        Raises UnreadableImage where one cannot be read; the table then lacks it, and may lack others.
        """
        unique = dict.fromkeys(views)
        needed = sum(map(self.groups, unique))
        if needed > self.slots:
            self._resize(1 << (needed - 1).bit_length())
        missing: dict[tuple[int, bool], list[View]] = {}
        for view in unique:
            if self._digest_of.get(view) in self._slots_of:
                self._touch(view, self._digest_of[view])
            else:
                kind = view.layout.crops, isinstance(view.image, Crops)
                missing.setdefault(kind, []).append(view)
        for (crops, _), alike in missing.items():
            self._load_alike(alike, crops)
        # Every view takes a slot or more: those of this call stay.
        while len(self._digest_of) > self.slots:
            self._digest_of.popitem(last=False)

    def _load_alike(self, views: list[View], crops: int) -> None:
        """Views of as many crops each: those whose pixels are new are encoded in full chunks."""
        most = max(1, CHUNK_CROPS // crops)
        chunk: list[tuple[View, np.ndarray, np.ndarray]] = []
        full = self._full_chunks
        for view in views:
            try:
                pixels = view.pixels()
            except (ValueError, OSError) as error:
                if chunk:  # their slots are taken already
                    self._encode(chunk, most if full else buckets.row_bucket(len(chunk), most))
                raise UnreadableImage(view.image, str(error)) from error
            digest = _digest(view, pixels)
            if digest not in self._slots_of:
                self._slots_of[digest] = self._take(self.groups(view))
                chunk.append((view, pixels, self._slots_of[digest]))
            self._touch(view, digest)
            if len(chunk) == most:
                self._encode(chunk, most)
                chunk, full = [], True
        if chunk:
            self._encode(chunk, most if full else buckets.row_bucket(len(chunk), most))

    def _touch(self, view: View, digest: _Digest) -> None:
        self._slots_of.move_to_end(digest)
        self._digest_of[view] = digest
        self._digest_of.move_to_end(view)

    def _take(self, count: int) -> np.ndarray:
        while len(self._free) < count:
            _, freed = self._slots_of.popitem(last=False)
            self._free.extend(freed.tolist())
        return np.array([self._free.pop() for _ in range(count)], np.int32)

    def _resize(self, slots: int) -> None:
        self._slots_of.clear()
        self._digest_of.clear()
        self._free = list(range(slots))
        width = self.config.decoder.width
        table = jnp.zeros((slots, self.config.tokens_per_group, width), self.config.dtype)
        # The sharding of the encoder's output, or the second chunk would be compiled anew.
        placed = jax.tree.leaves(self._params)[0].sharding
        whole = NamedSharding(placed.mesh, jax.P()) if isinstance(placed, NamedSharding) else placed
        self._table = jax.device_put(table, whole)

    def _encode(self, chunk: Sequence[tuple[View, np.ndarray, np.ndarray]], rows: int) -> None:
        views, pixels, taken = zip(*chunk, strict=True)
        slots = np.full((rows, len(taken[0])), self.slots, np.int32)
        slots[: len(taken)] = taken
        batch = image_batch(views, pixels, rows, instruction_tokens(self.config))
        self.images += len(chunk)
        self.crops += sum(map(len, pixels))
        self._table = _encode_into(self.config, self._params, batch, self._table, slots.reshape(-1))


def _digest(view: View, pixels: np.ndarray) -> _Digest:
    data = hashlib.sha1(np.ascontiguousarray(pixels), usedforsecurity=False).digest()
    return data, view.image.size_px, view.anyres, view.instruction


def instruction_tokens(config: VLMConfig) -> int:
    """How many of a prompt's text tokens the connector reads."""
    return config.connector.instruction_tokens if isinstance(config.connector, ResamplerConfig) else 0


def image_batch(views: Sequence[View], pixels: Sequence[np.ndarray], rows: int, text: int) -> Batch:
    """One view a row, with room for the `text` first tokens of its prompt; further rows are padding.

    pixels: of each view, all of one shape and dtype.
    """
    crops, size_px = pixels[0].shape[:2]
    batch = Batch.empty(rows, max(text, 1), crops, 1, size_px, pixel_dtype=pixels[0].dtype)
    for number, (view, view_pixels) in enumerate(zip(views, pixels, strict=True)):
        out = build.row_of(batch, number)
        build.add_text(out, 0, np.array(view.instruction, np.int32), slot=-1, is_target=False, segment=1)
        build.add_image(out, 0, 0, view_pixels, view.layout, view.image.size_px, segment=1)
    return batch


@functools.partial(jax.jit, static_argnames=("config",), donate_argnames=("table",))
def _encode_into(
    config: VLMConfig,
    params: PyTree,
    batch: Batch,
    table: Float[Array, "slots Q D"],
    slots: Int32[Array, " n"],
) -> Float[Array, "slots Q D"]:
    """The table with the batch's groups at `slots`; a slot past its end is not written."""
    tokens = VLM(config).apply({"params": params}, batch, method="encode_images")
    table = table.at[slots].set(tokens.reshape(-1, *table.shape[1:]).astype(table.dtype), mode="drop")
    return constrain(table, (None, None, None))  # replicated: any row may read any slot
