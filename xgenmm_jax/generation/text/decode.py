"""Prompt rows to answer rows, on the device from the first token to the last."""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, PRNGKeyArray, PyTree
import numpy as np

from xgenmm_jax.batch import ArrayLike
from xgenmm_jax.generation.text import sampling
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.models import kv_cache, phi3
from xgenmm_jax.models.blip3 import splice


class PromptRows(NamedTuple):
    """Left-padded prompts of one bucket.

    Two prompts, `a <image> b` whose image has Q = 2 vision tokens at 6 and 7 of the table, and `c`:

        token_ids    [ a  9  9  b | 0  0  0  c]     9 is `<image>`, repeated over its vision tokens
        vision_index [-1  6  7 -1 |-1 -1 -1 -1]
        segment_ids  [ 1  1  1  1 | 0  0  0  1]
        positions    [ 0  1  2  3 | 0  0  0  0]     behind a shared prefix of n tokens they begin at n

    Pad ids inside a prompt are in segment 0 and are not counted, as under the official code's attention mask.
    """

    token_ids: Int32[ArrayLike, "B T"]
    vision_index: Int32[ArrayLike, "B T"]
    segment_ids: Int32[ArrayLike, "B T"]
    positions: Int32[ArrayLike, "B T"]
    exists: Bool[ArrayLike, " B"]
    """False for rows that only fill the batch."""
    numbers: Int32[ArrayLike, " B"]
    """Which prompt of its call a row answers: its random numbers depend on this and not on the rows beside it."""
    prefix_row: Int32[ArrayLike, " B"]
    """Which row of the prefix a row goes on from; of a prefix of one row all do."""


class Settings(NamedTuple):
    """What is compiled into the loop."""

    stop_ids: tuple[int, ...]
    pad_id: int
    decoding: Decoding = Decoding()
    """`Decoding.static()`, so that limits and seeds share a program."""
    prefill_positions: int = 32768
    """Positions of prompts that are computed together: bounds activations; a processor's caches like far fewer."""


def left_pad(
    prompts: list[tuple[np.ndarray, np.ndarray]],
    rows: int,
    length: int,
    first_positions: Sequence[int],
    pad_id: int,
    numbers: Sequence[int],
    prefix_rows: Sequence[int] = (),
) -> PromptRows:
    """Prompts, each (token ids, vision index) of equal length, as `rows` rows of `length`.

    first_positions: of each prompt's first token, behind its prefix. prefix_rows: by default 0.
    """
    token_ids = np.zeros((rows, length), np.int32)
    vision_index = np.full((rows, length), -1, np.int32)
    segment_ids = np.zeros((rows, length), np.int32)
    positions = np.zeros((rows, length), np.int32)
    for row, ((ids, vision), first_position) in enumerate(zip(prompts, first_positions, strict=True)):
        start = length - len(ids)
        token_ids[row, start:] = ids
        vision_index[row, start:] = vision
        segment_ids[row, start:] = ids != pad_id
        positions[row, start:] = np.maximum(first_position + np.cumsum(ids != pad_id) - 1, 0)
    number, prefix_row = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    number[: len(numbers)] = numbers
    prefix_row[: len(prefix_rows)] = prefix_rows
    exists = np.arange(rows) < len(prompts)
    return PromptRows(token_ids, vision_index, segment_ids, positions, exists, number, prefix_row)


@functools.partial(jax.jit, static_argnames=("decoder",))
def prefix_cache(decoder: phi3.Phi3, params: PyTree, token_ids: Int32[Array, " P"]) -> phi3.Cache:
    """Keys and values of a text that many prompts begin with, one row."""
    length = token_ids.shape[0]
    cache = kv_cache.empty_cache(decoder.config, 1, length, decoder.dtype)
    positions = jnp.arange(length, dtype=jnp.int32)[None]
    variables = {"params": params}
    embeddings = decoder.apply(variables, token_ids[None], method="embed")
    _, cache = decoder.apply(variables, embeddings, jnp.ones_like(positions), positions, cache, 0, method="extend")
    return cache


@functools.partial(jax.jit, static_argnames=("decoder", "positions_together"))
def prefix_caches(
    decoder: phi3.Phi3,
    params: PyTree,
    rows: PromptRows,
    vision_table: Float[Array, "slots Q D"],
    prefix: phi3.Cache | None,
    *,
    positions_together: int,
) -> phi3.Cache:
    """Keys and values of beginnings with images, a row each, behind a prefix of one row that all share."""
    return prefill(decoder, params, rows, vision_table, prefix, 0, positions_together)[1]


def prefill(
    decoder: phi3.Phi3,
    params: PyTree,
    rows: PromptRows,
    vision_table: Float[Array, "slots Q D"],
    prefix: phi3.Cache | None,
    capacity: int,
    positions_together: int,
) -> tuple[Float[Array, "B D"], phi3.Cache]:
    """The state after each prompt's last token, and a cache with room for `capacity` tokens behind.

    Several blocks of rows one after the other where rows are many. For use under jit.
    """
    variables = {"params": params}
    batch, length = rows.token_ids.shape
    start = 0 if prefix is None else prefix.key.shape[2]
    vision_tokens = vision_table.reshape(1, -1, vision_table.shape[-1]).astype(decoder.dtype)

    def block_of(rows: PromptRows) -> tuple[Float[Array, "b D"], phi3.Cache]:
        block = rows.token_ids.shape[0]
        cache = kv_cache.sharded(kv_cache.empty_cache(decoder.config, block, start + length + capacity, decoder.dtype))
        if prefix is not None:
            cache = jax.tree.map(functools.partial(_write_prefix, prefix_row=rows.prefix_row), cache, prefix)
        embeddings = decoder.apply(variables, rows.token_ids, method="embed")
        embeddings = splice(embeddings, vision_tokens, rows.vision_index)
        hidden, cache = decoder.apply(
            variables, embeddings, rows.segment_ids, rows.positions, cache, start, method="extend"
        )
        return hidden[:, -1], cache

    # One block, or several one after the other.
    blocks = _blocks(batch, length, positions_together)
    if blocks == 1:
        return block_of(rows)
    in_blocks = jax.tree.map(lambda leaf: leaf.reshape(blocks, -1, *leaf.shape[1:]), rows)
    last, cache = jax.lax.map(block_of, in_blocks)
    return last.reshape(batch, -1), kv_cache.sharded(jax.tree.map(_join_blocks, cache))


def extend_by_one(
    decoder: phi3.Phi3,
    params: PyTree,
    layers: tuple[PyTree, ...],
    ids: Int32[Array, " B"],
    positions: Int32[Array, " B"],
    cache: phi3.Cache,
    offset: Int32[Array, ""],
) -> tuple[Float[Array, "B D"], phi3.Cache]:
    """States after one more token a row, and the cache with it at `offset`. layers, cache: of `unstack_layers`."""
    variables = {"params": params}
    embeddings = decoder.apply(variables, ids[:, None], method="embed")
    positions = positions[:, None]
    hidden, cache = decoder.apply(
        variables, embeddings, jnp.ones_like(positions), positions, cache, offset, layers, method="extend"
    )
    return hidden[:, 0], kv_cache.sharded(cache)


def is_stop(ids: Int32[Array, "*n"], settings: Settings) -> Bool[Array, "*n"]:
    return jnp.isin(ids, jnp.array(settings.stop_ids, jnp.int32))


def held_open(scores: Float[Array, "*n V"], step: Int32[Array, ""], settings: Settings) -> Float[Array, "*n V"]:
    """Scores of the next token, -inf for stop ids where the answer has fewer than `min_new_tokens` tokens yet."""
    if not settings.decoding.min_new_tokens:
        return scores
    stops = is_stop(jnp.arange(scores.shape[-1]), settings)
    return jnp.where(stops & (step < settings.decoding.min_new_tokens), -jnp.inf, scores)


class State(NamedTuple):
    """Answers that are being written."""

    step: Int32[Array, ""]
    """Tokens that each answer has."""
    done: Bool[Array, " B"]
    answers: Int32[Array, "B U"]
    """Pad behind a stop id and where nothing is written yet."""
    positions: Int32[Array, " B"]
    """Of the first token of each answer."""
    keys: Key[Array, " B"]
    cache: phi3.Cache
    """Of `kv_cache.unstack_layers`."""


def _begin(
    decoder: phi3.Phi3,
    params: PyTree,
    rows: PromptRows,
    vision_table: Float[Array, "slots Q D"],
    prefix: phi3.Cache | None,
    key: PRNGKeyArray,
    capacity: int,
    settings: Settings,
) -> tuple[tuple[PyTree, ...], State]:
    """Each layer's parameters by themselves, and answers of one token each."""
    last, cache = prefill(decoder, params, rows, vision_table, prefix, capacity, settings.prefill_positions)
    keys = sampling.row_keys(key, rows.numbers)
    zero = jnp.zeros((), jnp.int32)
    logits = decoder.apply({"params": params}, last, method="logits")
    first = sampling.choose(held_open(logits, zero, settings), sampling.step_keys(keys, zero), settings.decoding)
    answers = jnp.full((len(first), capacity), settings.pad_id, jnp.int32).at[:, 0].set(first)
    done = is_stop(first, settings) | ~rows.exists
    layers, cache = kv_cache.unstack_layers(params, cache)
    return layers, State(zero + 1, done, answers, rows.positions[:, -1] + 1, keys, cache)


def _advance(
    decoder: phi3.Phi3,
    params: PyTree,
    layers: tuple[PyTree, ...],
    state: State,
    until: Int32[Array, ""],
    settings: Settings,
) -> State:
    start = state.cache.segment_ids.shape[2] - state.answers.shape[1]
    zero = jnp.zeros((), jnp.int32)

    def unfinished(state: State) -> Bool[Array, ""]:
        return (state.step < until) & ~jnp.all(state.done)

    def step(state: State) -> State:
        before = state.step - 1
        ids = jax.lax.dynamic_index_in_dim(state.answers, before, axis=1, keepdims=False)
        positions = state.positions + before
        hidden, cache = extend_by_one(decoder, params, layers, ids, positions, state.cache, start + before)
        logits = decoder.apply({"params": params}, hidden, method="logits")
        logits = held_open(logits, state.step, settings)
        chosen = sampling.choose(logits, sampling.step_keys(state.keys, state.step), settings.decoding)
        ids = jnp.where(state.done, settings.pad_id, chosen)
        answers = jax.lax.dynamic_update_slice(state.answers, ids[:, None], (zero, state.step))
        done = state.done | is_stop(ids, settings)
        return State(state.step + 1, done, answers, state.positions, state.keys, cache)

    return jax.lax.while_loop(unfinished, step, state)


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

    The loop ends when every prompt's row has stopped; nothing is fetched before. The stop id itself is kept.

    params: the decoder's. prefix: of one row, seen by every row. limit: at most capacity; not compiled in.
    """
    layers, state = _begin(decoder, params, rows, vision_table, prefix, key, capacity, settings)
    return _advance(decoder, params, layers, state, limit, settings).answers


@functools.partial(jax.jit, static_argnames=("decoder", "capacity", "settings"))
def begin_rows(
    decoder: phi3.Phi3,
    params: PyTree,
    rows: PromptRows,
    vision_table: Float[Array, "slots Q D"],
    key: PRNGKeyArray,
    *,
    capacity: int,
    settings: Settings,
) -> tuple[tuple[PyTree, ...], State]:
    """Layers, and answers of one token each, for `continue_rows`: the two together are `generate_rows`, in pieces.

    The layers are a copy of the decoder's; drop them when the answers are whole.
    """
    return _begin(decoder, params, rows, vision_table, None, key, capacity, settings)


@functools.partial(jax.jit, static_argnames=("decoder", "settings"), donate_argnames=("state",))
def continue_rows(
    decoder: phi3.Phi3,
    params: PyTree,
    layers: tuple[PyTree, ...],
    state: State,
    until: Int32[Array, ""],
    *,
    settings: Settings,
) -> State:
    """Answers grown to `until` tokens, at most their room, or until all have stopped. `state` is used up."""
    return _advance(decoder, params, layers, state, until, settings)


def _blocks(rows: int, length: int, positions: int) -> int:
    """Into how many equal blocks rows are cut, each of at most `positions` positions: 64 x 48, 1024 -> 4."""
    most = max(positions // length, 1)
    return next(blocks for blocks in range(1, rows + 1) if rows % blocks == 0 and rows // blocks <= most)


def _join_blocks(leaf: Array) -> Array:
    """[blocks L b ...] to [L B ...]."""
    return jnp.moveaxis(leaf, 0, 1).reshape(leaf.shape[1], leaf.shape[0] * leaf.shape[2], *leaf.shape[3:])


def _write_prefix(cache: Array, prefix: Array, prefix_row: Int32[Array, " B"]) -> Array:
    """Every leaf is [L B S ...]: the prefix's one row, or each row's own of several, at the start of all rows."""
    if prefix.shape[1] == 1:
        rows = jnp.broadcast_to(prefix, (prefix.shape[0], cache.shape[1], *prefix.shape[2:]))
    else:
        rows = jnp.take(prefix, prefix_row, axis=1)
    return jax.lax.dynamic_update_slice(cache, rows.astype(cache.dtype), (0,) * cache.ndim)
