"""Retrieval by BLIP-2: all similarities, and the best candidates ranked again by the matching head.

Source: docs/reference/blip2.md#recipe
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32, Integer, UInt8
import numpy as np

from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.text.caption_tokens import CaptionTokens
from xgenmm_jax.evaluation.scorers import retrieval
from xgenmm_jax.evaluation.scorers.retrieval import CANDIDATES, Recalls
from xgenmm_jax.models import blip2
from xgenmm_jax.models.blip2 import Blip2, Blip2Config

TEXT_TOKENS = 32
"""Of a caption: BLIP-2's limit."""
BATCH = 64
"""Images, texts or pairs that run through the model together."""


class Texts(NamedTuple):
    """Captions as the Q-Former reads them."""

    token_ids: Int32[np.ndarray, "m T"]
    valid: Bool[np.ndarray, "m T"]
    cut: int
    """How many were longer."""

    @classmethod
    def of(cls, captions: Sequence[str], words: CaptionTokens, length: int = TEXT_TOKENS) -> "Texts":
        """In a run's own tokens."""
        token_ids = np.full((len(captions), length), words.pad, np.int32)
        valid, cut = np.zeros((len(captions), length), bool), 0
        for row, caption in enumerate(captions):
            ids, is_cut = words.row(caption, length)
            token_ids[row, : len(ids)], valid[row, : len(ids)] = ids, True
            cut += is_cut
        return cls(token_ids, valid, cut)


class Result(NamedTuple):
    """contrast: by similarity alone. matched: with the candidates ranked again."""

    contrast: Recalls
    matched: Recalls


@dataclass(frozen=True)
class Retriever:
    """A model of the first stage. Several calls share its programs."""

    config: Blip2Config
    params: Any
    batch: int = BATCH

    def see(
        self, pixels: Iterator[UInt8[np.ndarray, "_ h w 3"] | Float[np.ndarray, "_ h w 3"]]
    ) -> tuple[Float[np.ndarray, "n S E"], Float[np.ndarray, "n Q F"]]:
        """Normalized features and the queries' vectors of images, which come `batch` at a time; the last may be fewer.

        They lie in the host's memory: 1.4 MB an image of EVA-CLIP-g.
        """
        seen = [self._padded(_see, images) for images in pixels]
        features, vectors = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        return features, vectors

    def texts(self, texts: Texts) -> Float[np.ndarray, "m F"]:
        """Vectors of texts."""
        return np.concatenate(
            [
                self._padded(_text_vectors, texts.token_ids[rows], texts.valid[rows])
                for rows in _slices(len(texts.valid), self.batch)
            ]
        )

    def matches(
        self, features: Float[np.ndarray, "_ S E"], token_ids: Int32[np.ndarray, "_ T"], valid: Bool[np.ndarray, "_ T"]
    ) -> Float[np.ndarray, " k"]:
        """The matching head's logit of a pair, of features and texts that are given pair by pair."""
        parts = [
            self._padded(_match, features[rows], token_ids[rows], valid[rows])
            for rows in _slices(len(valid), self.batch)
        ]
        return np.concatenate(parts)

    def _padded(self, program: Callable[..., Any], *arrays: np.ndarray) -> Any:
        """What a program gives for some rows, run at `batch` rows."""
        count = len(arrays[0])
        padded = (np.pad(x, [(0, self.batch - count)] + [(0, 0)] * (x.ndim - 1), mode="edge") for x in arrays)
        result = program(self.config, self.params, *map(jnp.asarray, padded))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], result)


@functools.partial(jax.jit, static_argnums=0)
def _see(config: Blip2Config, params: Any, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    def run(module: Blip2) -> tuple[jax.Array, jax.Array]:
        seen = module.see(module.encode(pixels))
        return seen.features, seen.vectors

    return Blip2(config).apply(blip2.variables(params), method=run)


@functools.partial(jax.jit, static_argnums=0)
def _text_vectors(config: Blip2Config, params: Any, token_ids: jax.Array, valid: jax.Array) -> jax.Array:
    return Blip2(config).apply(blip2.variables(params), token_ids, valid, method="text_vectors")


@functools.partial(jax.jit, static_argnums=0)
def _match(config: Blip2Config, params: Any, features: jax.Array, token_ids: jax.Array, valid: jax.Array) -> jax.Array:
    return Blip2(config).apply(blip2.variables(params), features, token_ids, valid, method="match")[:, 1]


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def similarities(
    images: Float[np.ndarray, "n Q F"], texts: Float[np.ndarray, "m F"], rows: int = BATCH
) -> Float[np.ndarray, "n m"]:
    """Cosine of the nearest query, some images at a time."""
    parts = [
        np.einsum("nQF,mF->nmQ", images[some], texts, optimize=True).max(-1) for some in _slices(len(images), rows)
    ]
    return np.concatenate(parts)


def views(images: Sequence[LazyImage], size_px: int, batch: int = BATCH) -> Iterator[UInt8[np.ndarray, "_ h w 3"]]:
    """Images squashed to the tower's size, as the official code does."""
    view = AnyRes(grids=(), view_px=size_px, view_cells=1)
    for some in _slices(len(images), batch):
        yield np.stack([anyres.crops(image.load(), view)[0] for image in images[some]])


def retrieve(
    retriever: Retriever,
    pixels: Iterator[UInt8[np.ndarray, "_ h w 3"] | Float[np.ndarray, "_ h w 3"]],
    texts: Texts,
    image_of_text: Integer[np.ndarray, " m"],
    candidates: int = CANDIDATES,
) -> Result:
    """Recall of both rankings. candidates: of each image and each text that the matching head sees."""
    features, vectors = retriever.see(pixels)
    scores = similarities(vectors, retriever.texts(texts))
    contrast = retrieval.recalls(scores, scores.T, image_of_text)

    def of_image(image: int, best: Integer[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        same = np.broadcast_to(features[image], (len(best), *features.shape[1:]))
        return retriever.matches(same, texts.token_ids[best], texts.valid[best])

    def of_text(text: int, best: Integer[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        ids, valid = (np.broadcast_to(x[text], (len(best), x.shape[1])) for x in (texts.token_ids, texts.valid))
        return retriever.matches(features[best], ids, valid)

    to_text = retrieval.reranked(scores, of_image, candidates)
    to_image = retrieval.reranked(np.ascontiguousarray(scores.T), of_text, candidates)
    return Result(contrast, retrieval.recalls(to_text, to_image, image_of_text))
