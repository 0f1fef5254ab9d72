"""Which prompts are answered together."""

from types import SimpleNamespace

import numpy as np
import tiny28

from xgenmm_jax.generation.text.schedule import ExpandedPrompt, Limits, PromptBatch, Scheduler, common_prefix, waves


def prompts(*lengths: int) -> list[ExpandedPrompt]:
    return [ExpandedPrompt(number, np.ones(length, np.int32), ()) for number, length in enumerate(lengths)]


def shapes(batches: list[PromptBatch]) -> list[tuple[list[int], int, int]]:
    return [([prompt.number for prompt in batch.prompts], batch.rows, batch.length) for batch in batches]


def test_batches_are_of_like_lengths_and_full_where_there_are_several():
    scheduler = Scheduler(tiny28.CONFIG, Limits(rows=4), shared=0, capacity=16, num_beams=1)
    assert shapes(scheduler.batches(prompts(5, 60, 7, 40, 9, 33))) == [([4, 5, 3, 1], 4, 64), ([0, 2], 4, 16)]
    assert shapes(scheduler.batches(prompts(5, 7, 17))) == [([0, 1, 2], 4, 32)]
    assert shapes(scheduler.batches(prompts(5))) == [([0], 1, 16)] and scheduler.batches([]) == []


def test_rows_are_halved_until_their_cache_fits():
    decoder = tiny28.CONFIG.decoder
    row_bytes = 2 * decoder.layers * (64 + 16) * decoder.kv_heads * decoder.head_width * 4
    rows = (1 << 20) // row_bytes
    for beams in (1, 2):
        scheduler = Scheduler(tiny28.CONFIG, Limits(rows=1 << 20, cache_mib=1), shared=0, capacity=16, num_beams=beams)
        fitting = scheduler.rows_that_fit(60)
        assert fitting <= rows / beams < 2 * fitting
    assert Scheduler(tiny28.CONFIG, Limits(cache_mib=0), 0, 16, 1).rows_that_fit(60) == 1


def test_waves_hold_as_many_images_as_the_table(unchecked_signatures):
    """A view of two batches is counted once; a batch that is too large by itself is a wave."""

    def batch(*views: str) -> PromptBatch:
        return PromptBatch([ExpandedPrompt(0, np.ones(1, np.int32), views)], 1, 16)

    table = SimpleNamespace(groups=len, slots=4)
    batches = [batch("aa"), batch("aa", "bb"), batch("c"), batch("dddddd")]
    assert list(waves(batches, table)) == [batches[:2], batches[2:3], batches[3:]]


def test_a_prefix_ends_before_an_image_and_before_every_prompts_end():
    start = list(range(1, 31))
    assert common_prefix([[*start, 40], [*start, 41]], stop_ids=(99,)) == 24
    assert common_prefix([start[:20], start], stop_ids=(99,)) == 16
    assert common_prefix([start[:16], start], stop_ids=(99,)) == 0
    assert common_prefix([[*start[:17], 99, 5] * 2, [*start[:17], 99, 6] * 2], stop_ids=(99,)) == 16
    assert common_prefix([start], stop_ids=()) == 0
