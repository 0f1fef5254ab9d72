"""Losses as plain functions of arrays: log-probabilities of packed rows, preference, contrast, captioning.

Every loss is given as a sum over what it averages, so that accumulation and devices cannot change the average.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

LogitsOf = Callable[[Float[Array, "B t D"]], Float[Array, "B t V"]]


def token_log_probs(
    logits_of: LogitsOf,
    hidden: Float[Array, "B T D"],
    token_ids: Int32[Array, "B T"],
    loss_mask: Bool[Array, "B T"],
    chunk: int,
) -> Float[Array, "B T"]:
    """Log-probability of each supervised token given what stands before it, float32; 0 elsewhere.

    The logits of a whole row are never in memory: supervised positions are moved to the front of their row, and `chunk`
    of them at a time go through the head, which the backward pass computes again. Chunks that no row fills are
    skipped, so the head costs what is supervised and no more; nothing is dropped.

    Example: loss_mask [0 0 1 1] reads the states at positions 1 and 2 and fills positions 2 and 3 of the result.
    """
    rows, length = token_ids.shape
    # Shifted: the state at t predicts the token at t + 1.
    is_supervised = jnp.pad(loss_mask[:, 1:], ((0, 0), (0, 1)))
    target_ids = jnp.pad(token_ids[:, 1:], ((0, 0), (0, 1)))
    order = jnp.argsort(~is_supervised, axis=1, stable=True).astype(jnp.int32)

    chunk = min(chunk, length)
    chunks = -(-length // chunk)

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, chunks * chunk - length)) + ((0, 0),) * (x.ndim - 2))
        return x.reshape(rows, chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    def of_chunk(states, ids, supervised):
        logits = logits_of(states).astype(jnp.float32)
        # A masked sum, not a gather: it stays local where the vocabulary is cut over devices.
        vocabulary = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2)
        chosen = jnp.sum(jnp.where(vocabulary == ids[..., None], logits, 0.0), axis=-1)
        return jnp.where(supervised, chosen - jax.nn.logsumexp(logits, axis=-1), 0.0)

    @jax.checkpoint
    def step(_, chunk_inputs):
        _, _, supervised = chunk_inputs
        log_probs = jax.lax.cond(
            jnp.any(supervised), of_chunk, lambda states, ids, mask: jnp.zeros(mask.shape, jnp.float32), *chunk_inputs
        )
        return None, log_probs

    sorted_states = jnp.take_along_axis(hidden, order[..., None], axis=1)
    inputs = (sorted_states, jnp.take_along_axis(target_ids, order, 1), jnp.take_along_axis(is_supervised, order, 1))
    _, log_probs = jax.lax.scan(step, None, jax.tree.map(cut, inputs))
    log_probs = log_probs.swapaxes(0, 1).reshape(rows, chunks * chunk)[:, :length]
    back = jnp.take_along_axis(log_probs, jnp.argsort(order, axis=1), axis=1)
    return jnp.pad(back[:, :-1], ((0, 0), (1, 0)))


def pair_sums(
    values: Float[Array, "B T"], segment_ids: Int32[Array, "B T"]
) -> tuple[Float[Array, "B pairs"], Float[Array, "B pairs"]]:
    """Sums over the segments of preference rows: (chosen, rejected), pair k being segments 2k + 1 and 2k + 2.

    There are T // 2 + 1 entries for pairs, more than any row can hold; those without a pair are 0.
    """
    rows, length = values.shape
    pairs = length // 2 + 1
    row = jnp.arange(rows, dtype=jnp.int32)[:, None]
    sums = jnp.zeros((rows, 2 * pairs + 1), values.dtype).at[row, segment_ids].add(values)
    return sums[:, 1::2], sums[:, 2::2]


def preference_loss(
    margin: Float[Array, "*n"], reference_margin: Float[Array, "*n"], beta: float
) -> Float[Array, "*n"]:
    """DPO's loss of each pair (arXiv 2305.18290, eq. 7); margins are log p(chosen) - log p(rejected)."""
    return -jax.nn.log_sigmoid(beta * (margin - reference_margin))


def sigmoid_contrast(
    image: Float[Array, "n E"],
    text: Float[Array, "n E"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    ignored: Bool[Array, "n n"],
) -> Float[Array, ""]:
    """SigLIP's loss (arXiv 2303.15343), summed over images: each pair is a yes-no question.

    ignored: pairs that are no question; on the diagonal only those of an entry without image and text.
    """
    count = image.shape[0]
    logits = scale * image @ text.T + bias
    sign = 2.0 * jnp.eye(count) - 1.0
    return -jnp.sum(jnp.where(ignored, 0.0, jax.nn.log_sigmoid(sign * logits)))


def softmax_contrast(
    image: Float[Array, "n E"],
    text: Float[Array, "n E"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    ignored: Bool[Array, "n n"],
) -> Float[Array, ""]:
    """CLIP's loss, summed over images: cross entropy over texts and over images, halved. The bias cancels out.

    ignored: as for `sigmoid_contrast`; an entry without image and text adds nothing.
    """
    logits = jnp.where(ignored, jnp.finfo(jnp.float32).min, scale * image @ text.T + bias)
    # Such an entry matches itself with certainty: the lowest number twice would be -inf, and its difference NaN.
    logits = jnp.where(ignored & jnp.eye(image.shape[0], dtype=bool), 0.0, logits)
    matching = jnp.diagonal(logits)
    return 0.5 * jnp.sum(jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0) - 2 * matching)


def same_captions(token_ids: Int32[Array, "n T"]) -> Bool[Array, "n n"]:
    """True where two different images have the same caption: a pair that is neither right nor wrong."""
    multipliers = jnp.arange(token_ids.shape[1], dtype=jnp.uint32)[None] * jnp.uint32(2654435761) + jnp.uint32(1)
    mixed = (token_ids.astype(jnp.uint32) + jnp.uint32(1)) * multipliers
    hashed = jnp.sum(mixed ^ (mixed >> 15), axis=1, dtype=jnp.uint32)
    return (hashed[:, None] == hashed[None, :]) & ~jnp.eye(token_ids.shape[0], dtype=bool)


def caption_log_probs(
    logits: Float[Array, "n T V"], token_ids: Int32[Array, "n T"], valid: Bool[Array, "n T"]
) -> Float[Array, "n T"]:
    """Log-probability of each token from the logits at its own position; 0 where not valid."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    chosen = jnp.take_along_axis(log_probs, token_ids[..., None], axis=-1)[..., 0]
    return jnp.where(valid, chosen, 0.0)
