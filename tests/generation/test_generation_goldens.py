"""Greedy and beam sequences of the official model, from prompts and crops to ids."""

import functools

import jax
import numpy as np
import pytest
import tiny28

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Crops
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.text import decode
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.text.schedule import Limits, PromptBatch, prompt_length
from xgenmm_jax.models.kv_cache import unstack_layers
from xgenmm_jax.models.phi3 import Phi3

GRIDS = AnyRes(view_px=28, view_cells=2)


class Ids(Tokenizer):
    """The goldens' special ids: they were made from random ids, without any text."""

    def __init__(self):
        self.pad_id, self.image_id, self.end_of_chunk_id, self.eos_id = 299, 300, 302, 290


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny28.CONFIG, tiny28.parameters(), Ids(), GRIDS, stop_ids=(290,))


def prompts() -> list[Prompt]:
    """A wide and a tall image, and a square one; the second row ends in pads, as the collator leaves them."""
    golden = tiny28.golden("anyres")
    pixels = np.split(golden["pixel_values"].transpose(0, 2, 3, 1), np.cumsum(golden["patch_counts"])[:-1])
    sizes = (tuple(map(int, size)) for size in golden["image_sizes_wh"])
    images = [Crops(np.ascontiguousarray(p), size) for p, size in zip(pixels, sizes, strict=True)]
    rows = zip(golden["input_ids"].tolist(), (images[:2], images[2:]), strict=True)
    return [Prompt(tuple(ids), tuple(images)) for ids, images in rows]


def test_greedy_sequences_are_the_official_ones(generator):
    golden = tiny28.golden("anyres_generate")["sequences"]
    assert generator.generate_ids(prompts(), Decoding(max_new_tokens=12)) == golden.tolist()


def test_greedy_scores_are_the_official_ones(generator):
    """The logits behind every token of the golden's sequences, from our cache."""
    golden = tiny28.golden("anyres_generate")
    expanded = [generator._expand(number, prompt, 0, GRIDS) for number, prompt in enumerate(prompts())]
    longest = max(len(prompt.token_ids) for prompt in expanded)
    batch = PromptBatch(expanded, 2, prompt_length(longest, Limits()))
    generator._vision.load(batch.views)
    rows = generator._rows(batch)
    decoder, params = Phi3(tiny28.CONFIG.decoder), tiny28.parameters()["decoder"]
    logits = jax.jit(functools.partial(decoder.apply, {"params": params}, method="logits"))
    prefill = jax.jit(lambda rows, table: decode.prefill(decoder, params, rows, table, None, 12, 1024))
    hidden, cache = prefill(rows, generator._vision.table)
    layers, cache = unstack_layers(params, cache)
    extend = jax.jit(functools.partial(decode.extend_by_one, decoder, params, layers))
    length = rows.token_ids.shape[1]
    for step, ids in enumerate(golden["sequences"].T.astype(np.int32)):
        np.testing.assert_allclose(logits(hidden), golden["scores"][:, step], rtol=0, atol=2e-5)
        hidden, cache = extend(ids, rows.positions[:, -1] + 1 + np.int32(step), cache, np.int32(length + step))


def test_beam_sequences_are_the_official_ones(generator):
    golden = tiny28.golden("anyres_generate")["beam3"]
    assert generator.generate_ids(prompts(), Decoding(max_new_tokens=8, num_beams=3)) == golden.tolist()
