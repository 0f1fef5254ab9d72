"""Next tokens after images in words: the objective that teaches a language model to look into images."""

from dataclasses import dataclass
import math

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int32
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.blip3 import VLM, VLMConfig
from xgenmm_jax.models.phi3 import Phi3
from xgenmm_jax.nano.world import symbolic_images
from xgenmm_jax.training.objectives.base import Params, Sum
from xgenmm_jax.training.objectives.next_token import cross_entropy
from xgenmm_jax.training.objectives.packed_rows import (
    PackedRows,
    check_chunk,
    log_probs_with_images,
    trains_vision,
)


@dataclass(frozen=True)
class SymbolicImages(PackedRows):
    """Cross entropy as in `NextToken`; the vision token of a cell is the sum of the embeddings of its words.

    Tower and connector exist and are unused: freeze them. The data are records of
    `Mapped(source, nano.sources.Symbolic())`.

    tokenizer: path of the data's SentencePiece model, whose pieces the words of a cell are. chunk: as `NextToken`'s.
    noise: standard deviation of what is added to each cell, as a share of an embedding's size: the tokens of a
    connector are never as clean.
    """

    tokenizer: str
    chunk: int = 64
    noise: float = 0.2

    def __post_init__(self):
        check_chunk(self.chunk)
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"objective.noise: got {self.noise}, wanted a finite number, 0 or more.")

    def check(self, model: VLMConfig, data: DataConfig) -> None:
        """Raises ValueError for a model of another number of vision tokens, or of images of another size."""
        cells = symbolic_images.CELLS**2
        if model.tokens_per_group % cells or model.vision.image_size_px != symbolic_images.BASE_PX:
            raise ValueError(
                f"symbolic images: got {model.tokens_per_group} vision tokens and {model.vision.image_size_px} px; "
                f"wanted a multiple of {cells} tokens (one or more a cell) and {symbolic_images.BASE_PX} px."
            )
        super().check(model, data)

    def loss(
        self,
        model: VLMConfig,
        params: Params,
        reference: Params | None,
        rows: Batch,
        key: Array,
        freeze: tuple[str, ...],
    ) -> tuple[Sum, dict[str, Sum]]:
        pieces = pieces_of_words(Tokenizer.load(self.tokenizer))

        def images(vlm: VLM) -> Float[Array, "B M D"]:
            cells = embed_words(vlm.decoder, pieces, rows)
            size = jax.lax.stop_gradient(jnp.std(vlm.decoder.embed(rows.token_ids)))
            cells += self.noise * size * jax.random.normal(key, cells.shape, cells.dtype)
            # A model of more tokens than cells sees each cell several times.
            cells = jnp.repeat(cells, model.tokens_per_group // symbolic_images.CELLS**2, axis=2)
            return cells.reshape(cells.shape[0], -1, cells.shape[-1])

        vlm = VLM(model, trains_vision(freeze))
        return cross_entropy(log_probs_with_images(vlm, params, rows, self.chunk, images), rows), {}


def pieces_of_words(tokenizer: Tokenizer) -> Int32[np.ndarray, "words pieces"]:
    """Ids of the pieces of every word as it stands inside a sentence, -1 where there are no more.

    A single character stands inside a string, without a space before it.
    """
    ids = [tokenizer.encode(word)[-1:] if len(word) == 1 else tokenizer.encode(word) for word in symbolic_images.WORDS]
    table = np.full((len(ids), max(map(len, ids))), -1, np.int32)
    for row, word_ids in zip(table, ids, strict=True):
        row[: len(word_ids)] = word_ids
    return table


def embed_words(decoder: Phi3, pieces: Int32[np.ndarray, "words pieces"], batch: Batch) -> Float[Array, "B C cells D"]:
    """The sum of the embeddings of the words of each cell."""
    piece_ids = jnp.asarray(pieces)[symbolic_images.word_numbers(batch.pixels)]
    embedded = decoder.embed(jnp.maximum(piece_ids, 0))
    return jnp.sum(jnp.where((piece_ids >= 0)[..., None], embedded, 0), axis=(-3, -2))
