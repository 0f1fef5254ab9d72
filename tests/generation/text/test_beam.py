"""Beam search on the device against transformers' bookkeeping, written out over a decoder without cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import random_parameters

from xgenmm_jax.generation.text import beam, decode
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.models.phi3 import Phi3, Phi3Config

CONFIG = Phi3Config(vocab_size=16, num_text_tokens=11, width=16, hidden=32, layers=2, heads=2, kv_heads=1)
DECODER = Phi3(CONFIG)
PAD = 10
LENGTH = 24
ROWS = 8


@functools.cache
def parameters() -> dict:
    blank = jnp.zeros((1, 2), jnp.int32)
    params = random_parameters(DECODER.init, blank, blank, blank)["params"]
    # Sharper than the random head, so that answers differ in probability; ids 3 and 4 stop often.
    scaled = {name: params[name] * 1.5 for name in ("head_kernel", "additional_head_kernel")}
    return params | scaled | {"head_bias": params["head_bias"].at[3:5].add(2.0)}


@jax.jit
def log_probabilities(token_ids, length):
    positions = jnp.broadcast_to(jnp.arange(LENGTH, dtype=jnp.int32), token_ids.shape)
    logits = DECODER.apply({"params": parameters()}, token_ids, (positions < length).astype(jnp.int32), positions)
    return jax.nn.log_softmax(logits[:, length - 1], axis=-1)


def next_scores(rows: list[list[int]]) -> np.ndarray:
    padded = np.zeros((len(rows), LENGTH), np.int32)
    padded[:, : len(rows[0])] = rows
    return np.asarray(log_probabilities(padded, len(rows[0])), np.float64)


class Hypotheses:
    """`BeamHypotheses` of transformers 4.41.1 with early_stopping=False."""

    def __init__(self, number: int, penalty: float):
        self.number, self.penalty, self.beams, self.worst = number, penalty, [], 1e9

    def add(self, ids: list[int], total: float, length: int) -> None:
        score = total / length**self.penalty
        if len(self.beams) < self.number or score > self.worst:
            self.beams.append((score, ids))
            if len(self.beams) > self.number:
                ordered = sorted((score, index) for index, (score, _) in enumerate(self.beams))
                del self.beams[ordered[0][1]]
                self.worst = ordered[1][0]
            else:
                self.worst = min(score, self.worst)

    def done(self, best: float, length: int) -> bool:
        return len(self.beams) >= self.number and self.worst >= best / length**self.penalty


def by_the_book(prompt: list[int], number: int, penalty: float, stops: tuple[int, ...], limit: int, least: int = 0):
    """One prompt's best answer, its stop id with it, and its score before. least: tokens before which none stops."""
    hypotheses = Hypotheses(number, penalty)
    beams = [(0.0 if index == 0 else -1e9, []) for index in range(number)]
    for step in range(1, limit + 1):
        scores = next_scores([prompt + ids for _, ids in beams])
        if step <= least:
            scores[:, list(stops)] = -np.inf
        totals = (np.array([total for total, _ in beams])[:, None] + scores).reshape(-1)
        order = np.argsort(-totals, kind="stable")[: max(2, 1 + len(stops)) * number]
        going_on = []
        for rank, index in enumerate(order):
            ids = [*beams[index // scores.shape[1]][1], int(index % scores.shape[1])]
            if ids[-1] in stops:
                if rank < number:
                    hypotheses.add(ids, totals[index], step)
            else:
                going_on.append((totals[index], ids))
            if len(going_on) == number:
                break
        beams = going_on
        if hypotheses.done(totals[order[0]], step):
            break
    else:
        for total, ids in beams:
            hypotheses.add(ids, total, limit)
    return max(hypotheses.beams, key=lambda pair: pair[0])


@pytest.mark.parametrize(
    "number, penalty, stops, least",
    [(1, 1.0, (3,), 0), (2, 0.0, (3,), 0), (4, 1.0, (3,), 0), (3, 2.0, (3, 4), 0), (3, -1.0, (3, 4), 0),
     (3, -1.0, (3, 4), 5)],
)  # fmt: skip
def test_answers_and_scores_are_those_of_transformers(number, penalty, stops, least):
    """Rows that end early and at the limit; several stop ids; penalties for and against length; a least length."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(5, 10, rng.integers(1, 8)).astype(np.int32) for _ in range(ROWS)]
    nothing = [(ids, np.full(len(ids), -1, np.int32)) for ids in prompts]
    rows = decode.left_pad(nothing, ROWS + 1, 8, [0] * ROWS, PAD, list(range(ROWS)))
    limit, stopped = 10, 0
    answers, scores = beam.beam_rows(
        DECODER,
        parameters(),
        rows,
        jnp.zeros((1, 1, 16)),
        None,
        jnp.int32(limit),
        capacity=16,
        settings=decode.Settings(
            stops, PAD, Decoding(num_beams=number, length_penalty=penalty, min_new_tokens=least).static()
        ),
    )
    assert answers.shape == (ROWS + 1, 16)
    for prompt, answer, score in zip(prompts, np.asarray(answers), np.asarray(scores), strict=False):
        expected_score, expected = by_the_book(prompt.tolist(), number, penalty, stops, limit, least)
        assert answer.tolist() == expected + [PAD] * (16 - len(expected))
        np.testing.assert_allclose(score, expected_score, rtol=0, atol=1e-4)
        stopped += expected[-1] in stops
        assert len(expected) > least
    assert stopped


def test_a_greedy_answer_goes_on_to_its_least_length():
    prompt, stops = np.array([6, 8, 5], np.int32), (3, 4)
    rows = decode.left_pad([(prompt, np.full(3, -1, np.int32))], 1, 8, [0], PAD, [0])
    settings = decode.Settings(stops, PAD, Decoding(min_new_tokens=4).static())
    inputs = (DECODER, parameters(), rows, jnp.zeros((1, 1, 16)), None, jnp.int32(10), jax.random.key(0))
    (answer,) = np.asarray(decode.generate_rows(*inputs, capacity=16, settings=settings))
    expected: list[int] = []
    while len(expected) < 10 and not (expected and expected[-1] in stops):
        (scores,) = next_scores([[*prompt.tolist(), *expected]])
        if len(expected) < 4:
            scores[list(stops)] = -np.inf
        expected.append(int(scores.argmax()))
    assert answer.tolist() == expected + [PAD] * (16 - len(expected)) and len(expected) > 4
