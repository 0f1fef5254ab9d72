"""What vision tokens and states mean in words: nearest embeddings, and the head read at every layer."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
import numpy as np
import PIL.Image

from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.processor import Image
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import SPACE
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3
from xgenmm_jax.probing.figures import INK, QUIET, figure, to_image


class Near(NamedTuple):
    """The words whose embeddings point most like a vision token's, nearest first."""

    words: list[str]
    cosines: list[float]


def nearest_words(lmm: LMM, image: Image, count: int = 4) -> list[Near]:
    """For each vision token of an image, global view first, the words with the nearest embeddings by cosine.

    Words are pieces that begin one, of two letters or more: bytes and endings that were hardly ever trained point
    anywhere. The mean of the rows, and of the image's vision tokens, is taken off first: it is near to everything.
    """
    tokens = lmm.forward([[lmm.tokenizer.image_id]], [[image]]).vision_tokens
    tokens = tokens.reshape(-1, tokens.shape[-1]).astype(np.float32)
    # Special strings do not begin with a space.
    pieces = [lmm.tokenizer.piece(id_) for id_ in range(lmm.tokenizer.num_text_tokens)]
    ids = np.flatnonzero([piece.startswith(SPACE) and piece[1:].isalpha() and len(piece) > 2 for piece in pieces])
    table = np.asarray(lmm.params["decoder"]["embedding"], np.float32)[ids]
    cosines = _directions(tokens) @ _directions(table).T
    best = np.argsort(-cosines, axis=1)[:, :count]
    return [
        Near([pieces[id_].removeprefix(SPACE) for id_ in ids[nearest]], [float(cosine) for cosine in row[nearest]])
        for nearest, row in zip(best, cosines, strict=True)
    ]


def _directions(vectors: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    centered = vectors - vectors.mean(0)
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-6)


def words_shown(lmm: LMM, image: Image, count: int = 3) -> PIL.Image.Image:
    """The vision tokens of the global view, in the order of the queries, each with its nearest words."""
    near = nearest_words(lmm, image, count)[: lmm.config.tokens_per_group]
    columns = min(8, math.ceil(math.sqrt(len(near))))
    rows = math.ceil(len(near) / columns)
    drawn, axes = figure(1.25 * columns, 0.19 * (count + 1.6) * rows)
    axis = axes[0, 0]
    axis.axis("off")
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    for number, one in enumerate(near):
        row, column = divmod(number, columns)
        lines = "\n".join(f"{name}  {cosine:.2f}" for name, cosine in zip(one.words, one.cosines, strict=True))
        axis.text(column + 0.04, row + 0.08, f"{number}", fontsize=7, color=QUIET, va="top")
        axis.text(column + 0.24, row + 0.08, _drawable(lines), fontsize=8, color=INK, va="top")
    return to_image(drawn)


class Lens(NamedTuple):
    """What the head predicts after each layer, at each token of an answer; the last row is the model's prediction."""

    layers: list[str]
    answer: list[str]
    """The token that is to come."""
    likeliest: list[list[str]]
    """[layer][position]."""
    probability: Float[np.ndarray, "layers positions"]
    """Of the token that is to come."""


def logit_lens(lmm: LMM, prompt: Prompt, answer: str | None = None, most: int = 12) -> Lens:
    """The answer forming layer by layer: each layer's state through the last norm and the head.

    answer: what is read; by default what the model answers greedily. most: tokens of it that are looked at.
    """
    if answer is None:
        answer_ids = lmm.generate_ids([prompt], max_new_tokens=most)[0]
    else:
        answer_ids = lmm.tokenizer.encode_parts((answer,))
    answer_ids = [*answer_ids, lmm.tokenizer.end_id][:most]
    row = [*prompt.token_ids, *answer_ids]
    out = lmm.forward([row], [list(prompt.images)], probe=("embeddings", "decoder/layers"))
    # The state before a token predicts it.
    positions = np.arange(-len(answer_ids) - 1, -1)
    states = np.concatenate([out.probed["embeddings"][None], out.probed["decoder/layers"]])[:, 0, positions]
    logits = np.asarray(_read_out(lmm.config, lmm.params["decoder"], jnp.asarray(states)), np.float32)
    probabilities = np.asarray(jax.nn.softmax(logits, axis=-1))
    chosen = probabilities[:, np.arange(len(answer_ids)), answer_ids]
    best = logits.argmax(-1)
    return Lens(
        layers=["input", *(f"layer {number}" for number in range(1, len(states)))],
        answer=[word(lmm, id_) for id_ in answer_ids],
        likeliest=[[word(lmm, int(id_)) for id_ in ids] for ids in best],
        probability=chosen,
    )


@functools.partial(jax.jit, static_argnames=("config",))
def _read_out(config: VLMConfig, params: PyTree, states: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
    def read(decoder: Phi3) -> Array:
        return decoder.logits(decoder.norm(states.astype(config.dtype)))

    return Phi3(config.decoder, config.dtype).apply({"params": params}, method=read)


def lens_shown(lens: Lens) -> PIL.Image.Image:
    """A cell for each layer and token: the likeliest word there, and how sure the layer is of the right one."""
    layers, positions = lens.probability.shape
    drawn, axes = figure(1.3 + 0.72 * positions, 0.75 + 0.3 * layers)
    axis = axes[0, 0]
    axis.imshow(lens.probability, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    for layer in range(layers):
        for position in range(positions):
            color = "white" if lens.probability[layer, position] > 0.55 else INK
            text = _drawable(lens.likeliest[layer][position])
            axis.text(position, layer, text, ha="center", va="center", fontsize=8, color=color)
    axis.set_yticks(range(layers), lens.layers, fontsize=8)
    axis.set_xticks(range(positions), [_drawable(name) for name in lens.answer], fontsize=8)
    axis.set_xlabel("token of the answer; shade: probability that the layer gives it", fontsize=8)
    axis.tick_params(length=0)
    return to_image(drawn)


def word(lmm: LMM, id_: int) -> str:
    """An id as people read it: a space in front is written as a middle dot."""
    return lmm.tokenizer.piece(id_).replace(SPACE, "·")


def _drawable(text: str) -> str:
    """Dollar signs would begin a formula."""
    return text.replace("$", r"\$")
