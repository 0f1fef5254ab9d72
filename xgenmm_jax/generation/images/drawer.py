"""From captions to images: the decoder's states at the queries, features by Euler's method, pixels."""

from collections.abc import Iterator, Sequence
import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Key, UInt8
import numpy as np

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.data.rows import build
from xgenmm_jax.data.text.chat import ChatStyle, drawing_ids
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.data.to_draw import DrawingPrompt
from xgenmm_jax.generation.buckets import PROMPT_BUCKETS, bucket, row_bucket
from xgenmm_jax.generation.images.sampling import Sampling, euler
from xgenmm_jax.models import blip3o, drawing_features
from xgenmm_jax.models.autoencoder import Autoencoder
from xgenmm_jax.models.blip3 import VLM
from xgenmm_jax.models.blip3o import Blip3oConfig, DrawingHead, FlowPixels, LatentTarget, LinearHead
from xgenmm_jax.models.dit import DiT
from xgenmm_jax.ops.partitioning import ShardingContext, on_host
from xgenmm_jax.seeds import random_key

Params = Any
LARGEST_BATCH = 32
"""Images that are sampled at once."""


class Drawing(NamedTuple):
    """The images of one prompt."""

    prompt: str
    images: UInt8[np.ndarray, "n h w 3"] | None
    """None where the model draws features alone."""
    features: Float32[np.ndarray, "n g g C"]
    """What they were made of, in the units of the tower or the latents."""


class Drawer:
    """Draws with a model. One compiled program a shape: of prompts, of images, by `Sampling`."""

    def __init__(
        self,
        config: Blip3oConfig,
        params: Params,
        tokenizer: Tokenizer,
        prompt: DrawingPrompt,
        chat: ChatStyle,
        longest: int,
        sharding: ShardingContext | None = None,
    ):
        """longest: positions of a prompt with its queries, as rows of training have.

        Raises ValueError where the features' statistics are not known: nothing was trained to draw.
        """
        if not drawing_features.has_statistics(config, params):
            raise ValueError("draw: the model's features have no statistics yet; train its drawing part first.")
        self._config, self._params, self._tokenizer = config, params, tokenizer
        self._prompt, self._chat, self._longest = prompt, chat, longest
        self._placed = sharding or contextlib.nullcontext
        self._states = jax.jit(functools.partial(_states, config))
        self._sample = jax.jit(functools.partial(_sample, config), static_argnames="sampling")
        self._pixels = jax.jit(functools.partial(_pixels, config), static_argnames="sampling")

    def draw(
        self, prompts: Sequence[str], count: int, seed: int, sampling: Sampling, first_number: int = 0
    ) -> Iterator[Drawing]:
        """`count` images of each prompt, prompt by prompt.

        The noise of an image follows from seed, the prompt's number (from `first_number` on) and the image's, and not
        from what is drawn beside it.

        Raises ValueError for an empty prompt or one that exceeds the context, before anything is drawn.
        """
        rows = [self._ids(prompt) for prompt in prompts]
        per_call = max(1, LARGEST_BATCH // count)
        for start in range(0, len(prompts), per_call):
            chunk = list(prompts[start : start + per_call])
            with self._placed():
                states = self._states(self._params, self._rows(rows[start : start + per_call], per_call))
                drawn = self._of_chunk(chunk, states, count, seed, sampling, first_number + start)
            yield from drawn

    def _of_chunk(
        self, prompts: list[str], states: Float[Array, "p R D"], count: int, seed: int, sampling: Sampling, number: int
    ) -> list[Drawing]:
        """Of prompts and the states of as many or more, which fill the batch. number: of the first prompt."""
        together = min(count, LARGEST_BATCH)
        each = jnp.repeat(states, together, axis=0)
        # Of more images than a batch there is one prompt, in several batches of one shape; the last may make too many.
        batches = [
            self._of_batch(each, _keys(seed, number, len(states), first, together), sampling)
            for first in range(0, count, together)
        ]

        def of_prompts(arrays: list[np.ndarray]) -> np.ndarray:
            parts = [one.reshape(len(states), together, *one.shape[1:]) for one in arrays]
            return np.concatenate(parts, axis=1)[:, :count]

        features = of_prompts([features for features, _ in batches])
        pixels = [images for _, images in batches if images is not None]
        images = of_prompts(pixels) if pixels else [None] * len(prompts)
        return [Drawing(*one) for one in zip(prompts, images, features, strict=False)]

    def _of_batch(
        self, states: Float[Array, "n R D"], keys: Key[Array, " n"], sampling: Sampling
    ) -> tuple[Float32[np.ndarray, "n g g C"], UInt8[np.ndarray, "n h w 3"] | None]:
        """Features as they come from tower or autoencoder, and images where the model makes some."""
        features = self._sample(self._params, states, keys, sampling=sampling)
        raw = on_host(drawing_features.denormalised(self._config, self._params, features))
        drawing = self._config.drawing
        if drawing.pixels is None and not isinstance(drawing.target, LatentTarget):
            return raw, None
        return raw, on_host(self._pixels(self._params, features, keys, sampling=sampling))

    def _ids(self, prompt: str) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"draw: got the prompt {prompt!r}; say what to draw.")
        ids, query = drawing_ids(self._prompt.text(prompt), self._prompt.queries, self._tokenizer, self._chat)
        if len(ids) > self._longest:
            raise ValueError(
                f"draw: the prompt takes {len(ids)} positions with its {self._prompt.queries} queries, the model was "
                f"trained on {self._longest} at most; shorten it by {len(ids) - self._longest} tokens."
            )
        return ids, query

    def _rows(self, rows: Sequence[tuple[np.ndarray, np.ndarray]], most: int) -> DrawingBatch:
        """One prompt a row, padded behind: what stands there is after the queries and changes nothing."""
        length = bucket(max(len(ids) for ids, _ in rows), PROMPT_BUCKETS, "positions of a prompt")
        count = row_bucket(len(rows), most)
        batch = Batch.empty(count, length, 1, 1, 1, self._tokenizer.pad_id)
        out = DrawingBatch.around(batch, 1, 1)
        for number in range(count):
            ids, query = rows[min(number, len(rows) - 1)]
            build.add_text(build.row_of(batch, number), 0, ids, -1, False, 1)
            out.query[number, : len(ids)] = query
            out.target_segment[number] = 1
        return out


def _keys(seed: int, first: int, prompts: int, first_image: int, count: int) -> Key[Array, " n"]:
    """Of so many prompts from one on, and of so many images of each from one on; prompt by prompt."""
    key = random_key(seed)

    def of_prompt(number: Array) -> Array:
        of_it = jax.random.fold_in(key, number)
        return jax.vmap(lambda index: jax.random.fold_in(of_it, index))(first_image + jnp.arange(count))

    return jax.vmap(of_prompt)(first + jnp.arange(prompts)).reshape(-1)


def _states(config: Blip3oConfig, params: Params, rows: DrawingBatch) -> Float[Array, "p R D"]:
    hidden = blip3o.states(VLM(config), params, rows, has_images=False)
    return blip3o.at_queries(hidden, rows, config.drawing.queries)[:, 0]


def _noise(keys: Key[Array, " n"], shape: tuple[int, ...]) -> Float32[Array, "n h w C"]:
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _sample(
    config: Blip3oConfig, params: Params, states: Float[Array, "n R D"], keys: Key[Array, " n"], sampling: Sampling
) -> Float32[Array, "n g g C"]:
    """Normalised features."""
    head, variables = DrawingHead(config), {"params": params["drawing"]}
    if isinstance(config.drawing.head, LinearHead):
        return head.apply(variables, states, method="features")
    start = _noise(keys, (config.target_side, config.target_side, config.target_channels))
    return euler(lambda *args: head.apply(variables, *args, method="velocity"), start, states, sampling)


def _pixels(
    config: Blip3oConfig,
    params: Params,
    features: Float32[Array, "n g g C"],
    keys: Key[Array, " n"],
    sampling: Sampling,
) -> UInt8[Array, "n h w 3"]:
    pixels = config.drawing.pixels
    if not isinstance(pixels, FlowPixels):
        return drawing_features.to_pixels(config, params, features)
    coder, part = pixels.autoencoder, params["pixels"]
    # Other noise than the features were drawn from.
    start = _noise(jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys), (coder.side, coder.side, coder.channels))
    dit = DiT(pixels.dit, config.dtype)
    context = features.reshape(len(features), -1, features.shape[-1])
    latents = euler(lambda *args: dit.apply({"params": part["dit"]}, *args), start, context, sampling)
    latents = drawing_features.unscaled(part, latents)
    images = Autoencoder(coder, config.dtype).apply({"params": part["autoencoder"]}, latents, method="decode")
    return drawing_features.as_bytes(images)
