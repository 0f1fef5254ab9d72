"""Prompt rows to answer rows, on the device from the first token to the last."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray, PyTree
import numpy as np

from xgenmm_jax.batch import ArrayLike
from xgenmm_jax.generation import sampling
from xgenmm_jax.models import phi3


class PromptRows(NamedTuple):
    """Left-padded prompts of one bucket.

    Two prompts, `a <image> b` whose picture has Q = 2 vision tokens at 6 and 7 of the table, and `c`:

        token_ids    [ a  9  9  b | 0  0  0  c]     9 is `<image>`, repeated over its vision tokens
        vision_index [-1  6  7 -1 |-1 -1 -1 -1]
        segment_ids  [ 1  1  1  1 | 0  0  0  1]
        positions    [ 0  1  2  3 | 0  0  0  0]     behind a shared prefix of n tokens they begin at n
    """

    token_ids: Int32[ArrayLike, "B T"]
    vision_index: Int32[ArrayLike, "B T"]
    segment_ids: Int32[ArrayLike, "B T"]
    positions: Int32[ArrayLike, "B T"]
    wanted: Bool[ArrayLike, " B"]
    """False for rows that only fill the batch."""


class Settings(NamedTuple):
    """What is compiled into the loop."""

    stop_ids: tuple[int, ...]
    pad_id: int
    chooser: sampling.Chooser = sampling.greedy
    prefill_positions: int = 32768
    """Positions of prompts that are computed together: bounds activations; a processor's caches like far fewer."""


def left_pad(prompts: list[tuple[np.ndarray, np.ndarray]], rows: int, length: int, first_position: int) -> PromptRows:
    """Prompts, each (token ids, vision index) of equal length, as `rows` rows of `length`."""
    token_ids = np.zeros((rows, length), np.int32)
    vision_index = np.full((rows, length), -1, np.int32)
    segment_ids = np.zeros((rows, length), np.int32)
    positions = np.zeros((rows, length), np.int32)
    for row, (ids, vision) in enumerate(prompts):
        start = length - len(ids)
        token_ids[row, start:] = ids
        vision_index[row, start:] = vision
        segment_ids[row, start:] = 1
        positions[row, start:] = np.arange(first_position, first_position + len(ids))
    return PromptRows(token_ids, vision_index, segment_ids, positions, np.arange(rows) < len(prompts))


@functools.partial(jax.jit, static_argnames=("decoder",))
def prefix_cache(decoder: phi3.Phi3, params: PyTree, token_ids: Int32[Array, " P"]) -> phi3.Cache:
    """Keys and values of a text that many prompts begin with, one row."""
    length = token_ids.shape[0]
    cache = phi3.empty_cache(decoder.config, 1, length, decoder.dtype)
    positions = jnp.arange(length, dtype=jnp.int32)[None]
    variables = {"params": params}
    embeddings = decoder.apply(variables, token_ids[None], method="embed")
    _, cache = decoder.apply(variables, embeddings, jnp.ones_like(positions), positions, cache, 0, method="extend")
    return cache


@functools.partial(jax.jit, static_argnames=("decoder", "capacity", "settings"))
def generate_rows(
    decoder: phi3.Phi3,
    params: PyTree,
    rows: PromptRows,
    vision_table: Float[Array, "slots Q D"],
    prefix: phi3.Cache | None,
    limit: Int32[Array, ""],
    key: PRNGKeyArray,
    *,
    capacity: int,
    settings: Settings,
) -> Int32[Array, "B U"]:
    """Up to `limit` new tokens a row, U = capacity of them; what follows a row's stop id is pad.

    The loop ends when every wanted row has stopped; nothing is fetched before. The stop id itself is kept.

    params: the decoder's. prefix: of one row, seen by every row. limit: at most capacity; not compiled in.
    """
    variables = {"params": params}
    batch, length = rows.token_ids.shape
    place = _length(prefix)

    def prefill(rows: PromptRows) -> tuple[Float[Array, "b D"], phi3.Cache]:
        block = rows.token_ids.shape[0]
        cache = phi3.empty_cache(decoder.config, block, place + length + capacity, decoder.dtype)
        if prefix is not None:
            cache = jax.tree.map(_broadcast_into, cache, prefix)
        embeddings = decoder.apply(variables, rows.token_ids, method="embed")
        vision_tokens = vision_table.reshape(-1, vision_table.shape[-1])
        pictures = vision_tokens[jnp.maximum(rows.vision_index, 0)].astype(embeddings.dtype)
        embeddings = jnp.where((rows.vision_index >= 0)[..., None], pictures, embeddings)
        hidden, cache = decoder.apply(
            variables, embeddings, rows.segment_ids, rows.positions, cache, place, method="extend"
        )
        return hidden[:, -1], cache

    blocks = _blocks(batch, length, settings.prefill_positions)
    if blocks == 1:
        last, cache = prefill(rows)
    else:
        in_blocks = jax.tree.map(lambda leaf: leaf.reshape(blocks, -1, *leaf.shape[1:]), rows)
        last, cache = jax.lax.map(prefill, in_blocks)
        last = last.reshape(batch, -1)
        cache = jax.tree.map(_join_blocks, cache)

    def choose(last_hidden: Float[Array, "B D"], step: Int32[Array, ""]) -> Int32[Array, " B"]:
        logits = decoder.apply(variables, last_hidden, method="logits")
        return settings.chooser(logits, sampling.step_key(key, step))

    def is_stop(ids: Int32[Array, " B"]) -> Bool[Array, " B"]:
        return jnp.isin(ids, jnp.array(settings.stop_ids, jnp.int32))

    zero = jnp.zeros((), jnp.int32)
    first = choose(last, zero)
    answers = jnp.full((batch, capacity), settings.pad_id, jnp.int32).at[:, 0].set(first)
    next_position = rows.positions[:, -1] + 1
    state = (zero + 1, first, is_stop(first) | ~rows.wanted, answers, cache)

    def unfinished(state) -> Bool[Array, ""]:
        step, _, done, _, _ = state
        return (step < limit) & ~jnp.all(done)

    def advance(state):
        step, ids, done, answers, cache = state
        positions = (next_position + step - 1)[:, None]
        embeddings = decoder.apply(variables, ids[:, None], method="embed")
        segments, here = jnp.ones_like(positions), place + length + step - 1
        hidden, cache = decoder.apply(variables, embeddings, segments, positions, cache, here, method="extend")
        ids = jnp.where(done, settings.pad_id, choose(hidden[:, 0], step))
        answers = jax.lax.dynamic_update_slice(answers, ids[:, None], (zero, step))
        return step + 1, ids, done | is_stop(ids), answers, cache

    return jax.lax.while_loop(unfinished, advance, state)[3]


def _blocks(rows: int, length: int, positions: int) -> int:
    """Into how many equal blocks rows are cut, each of at most `positions` positions: 64 x 48, 1024 -> 4."""
    most = max(positions // length, 1)
    return next(blocks for blocks in range(1, rows + 1) if rows % blocks == 0 and rows // blocks <= most)


def _join_blocks(leaf: Array) -> Array:
    """[blocks L b ...] to [L B ...]."""
    return jnp.moveaxis(leaf, 0, 1).reshape(leaf.shape[1], leaf.shape[0] * leaf.shape[2], *leaf.shape[3:])


def _length(cache: phi3.Cache | None) -> int:
    return 0 if cache is None else cache.key.shape[2]


def _broadcast_into(cache: Array, prefix: Array) -> Array:
    """Every leaf is [L B S ...]: the prefix's one row, at the start of all rows."""
    shape = (prefix.shape[0], cache.shape[1], *prefix.shape[2:])
    return jax.lax.dynamic_update_slice(cache, jnp.broadcast_to(prefix, shape).astype(cache.dtype), (0,) * cache.ndim)
