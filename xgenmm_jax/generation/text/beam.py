"""Beam search, on the device from the first token to the last.

Source: transformers 4.41.1, `_beam_search` and `BeamSearchScorer` with `early_stopping=False`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PyTree

from xgenmm_jax.generation.text import decode
from xgenmm_jax.models import kv_cache, phi3

_NEVER = -1e9
"""Score of beams that are copies of the first, before the first token: no candidate of theirs is ever taken."""


class _State(NamedTuple):
    """W beams a row. A finished answer's score is its log-probability / length^penalty, its stop id counted."""

    step: Int32[Array, ""]
    done: Bool[Array, " B"]
    answers: Int32[Array, "B W U"]
    scores: Float[Array, "B W"]
    """Sums of log-probabilities."""
    finished: Int32[Array, "B W U"]
    """The best so far, pad behind their stop id."""
    finished_scores: Float[Array, "B W"]
    """-inf: none there yet."""
    cache: phi3.Cache


@functools.partial(jax.jit, static_argnames=("decoder", "capacity", "settings"))
def beam_rows(
    decoder: phi3.Phi3,
    params: PyTree,
    rows: decode.PromptRows,
    vision_table: Float[Array, "slots Q D"],
    prefix: phi3.Cache | None,
    limit: Int32[Array, ""],
    *,
    capacity: int,
    settings: decode.Settings,
) -> tuple[Int32[Array, "B U"], Float[Array, " B"]]:
    """The best answer of each row, as `decode.generate_rows` gives them, and its score; `settings.decoding` has W.

    A row is done when its W finished answers all have a higher score than its best candidate. At the limit, unfinished
    answers compete with the finished ones.
    """
    batch, length = rows.token_ids.shape
    number, penalty = settings.decoding.num_beams, settings.decoding.length_penalty
    # Prompts once, then a copy of keys and values for each beam.
    last, cache = decode.prefill(decoder, params, rows, vision_table, prefix, capacity, settings.prefill_positions)
    cache = kv_cache.sharded(jax.tree.map(lambda leaf: jnp.repeat(leaf, number, axis=1), cache))
    start = cache.key.shape[2] - capacity
    layers, cache = kv_cache.unstack_layers(params, cache)
    positions = jnp.repeat(rows.positions[:, -1] + 1, number)
    blank = jnp.full((batch, number, capacity), settings.pad_id, jnp.int32)
    # Only the first beam has a score at first: the others are copies of it.
    state = _State(
        step=jnp.zeros((), jnp.int32),
        done=~jnp.asarray(rows.exists),
        answers=blank,
        scores=jnp.full((batch, number), _NEVER).at[:, 0].set(0.0),
        finished=blank,
        finished_scores=jnp.full((batch, number), -jnp.inf),
        cache=cache,
    )

    def select(state: _State, hidden: Float[Array, "n D"]) -> _State:
        logits = decoder.apply({"params": params}, hidden, method="logits")
        log_probabilities = jax.nn.log_softmax(logits, axis=-1).reshape(batch, number, -1)
        log_probabilities = decode.held_open(log_probabilities, state.step, settings)
        return _select(state, log_probabilities, start, settings, penalty)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.step < limit) & ~jnp.all(state.done)

    def advance(state: _State) -> _State:
        before = state.step - 1
        ids = jax.lax.dynamic_index_in_dim(state.answers, before, axis=2, keepdims=False).reshape(-1)
        at = (positions + before, state.cache, start + before)
        hidden, cache = decode.extend_by_one(decoder, params, layers, ids, *at)
        return select(state._replace(cache=cache), hidden)

    state = jax.lax.while_loop(unfinished, advance, select(state, jnp.repeat(last, number, axis=0)))
    # Rows that the limit ended.
    cut = jnp.where(state.done[:, None], -jnp.inf, state.scores / state.step.astype(jnp.float32) ** penalty)
    finished, scores = _best(state, state.answers, cut)
    return finished[:, 0], scores[:, 0]


def _select(
    state: _State,
    log_probabilities: Float[Array, "B W V"],
    start: int,
    settings: decode.Settings,
    penalty: float,
) -> _State:
    """One more token: candidates that stop join the finished answers, the W best others continue."""
    batch, number, vocabulary = log_probabilities.shape
    totals = (state.scores[..., None] + log_probabilities).reshape(batch, -1)
    # At least W of so many do not stop. A stop id below rank W is dropped, as in the source.
    count = min(max(2, 1 + len(settings.stop_ids)) * number, totals.shape[1])
    candidates, index = jax.lax.top_k(totals, count)
    beam, ids = index // vocabulary, (index % vocabulary).astype(jnp.int32)
    stops = decode.is_stop(ids, settings)
    divisor = (state.step + 1).astype(jnp.float32) ** penalty

    # Candidates that stop compete with the answers that are finished already.
    ended = stops[:, :number] & ~state.done[:, None]
    ended_scores = jnp.where(ended, candidates[:, :number] / divisor, -jnp.inf)
    written = _write(state, beam[:, :number], ids[:, :number])
    finished, finished_scores = _best(state, written, ended_scores)

    # The W best of the others go on, each with its own beam's cache.
    going_on = jnp.argsort(stops, axis=-1, stable=True)[:, :number]
    beam, ids, scores = (jnp.take_along_axis(x, going_on, axis=1) for x in (beam, ids, candidates))
    # -inf among the finished ones: fewer than W are there.
    done = state.done | (jnp.min(finished_scores, axis=-1) >= candidates[:, 0] / divisor)
    return _State(
        step=state.step + 1,
        done=done,
        answers=_write(state, beam, ids),
        scores=scores,
        finished=finished,
        finished_scores=finished_scores,
        cache=_reordered(state.cache, beam, start),
    )


def _write(state: _State, beam: Int32[Array, "B W"], ids: Int32[Array, "B W"]) -> Int32[Array, "B W U"]:
    """The answers of these beams, each with one more id."""
    answers = jnp.take_along_axis(state.answers, beam[..., None], axis=1)
    zero = jnp.zeros((), jnp.int32)
    return jax.lax.dynamic_update_slice(answers, ids[..., None], (zero, zero, state.step))


def _best(
    state: _State, more: Int32[Array, "B W U"], scores: Float[Array, "B W"]
) -> tuple[Int32[Array, "B W U"], Float[Array, "B W"]]:
    """The W best of the finished answers and some more, best first; among equals the older ones."""
    scores, index = jax.lax.top_k(jnp.concatenate([state.finished_scores, scores], axis=1), scores.shape[1])
    answers = jnp.concatenate([state.finished, more], axis=1)
    return jnp.take_along_axis(answers, index[..., None], axis=1), scores


def _reordered(cache: phi3.Cache, beam: Int32[Array, "B W"], start: int) -> phi3.Cache:
    """Keys and values in the order of the beams that continue.

    Positions before `start` are those of the prompt, the same in all beams of a row.
    """
    rows = (jnp.arange(beam.shape[0])[:, None] * beam.shape[1] + beam).reshape(-1)

    def reorder(leaf: Array) -> Array:
        return leaf.at[:, :, start:].set(leaf[:, rows, start:])

    keys, values = jax.tree.map(reorder, (cache.key, cache.value))
    return cache._replace(key=keys, value=values)
