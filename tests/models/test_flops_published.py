"""The stages' FLOPs beside a count of its own, from the published widths alone: docs/reference/xgenmm.md#sizes."""

from typing import NamedTuple

import pytest

from experiments import sft_single, stage1
from xgenmm_jax.models.flops import Flops
from xgenmm_jax.planning import bounds


class Decoder(NamedTuple):
    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int


MINI = Decoder(3072, 8192, 32, 32, 32)
MEDIUM = Decoder(5120, 17920, 40, 40, 10)


def counted(decoder: Decoder, rows: int, length: int, crops: int) -> Flops:
    """Multiplications and additions of a step with a frozen tower, on full rows with a window of 2047 and itself."""
    side, head = 384 // 14, decoder.width // decoder.heads
    patches, texts = side * side, length - 128 * crops
    # SigLIP so400m, forward: patches of 14 x 14 x 3, then 27 layers of 1152 and 4304.
    tower = patches * 14 * 14 * 3 * 1152
    tower += 27 * (patches * (4 * 1152 * 1152 + 2 * 1152 * 4304) + 2 * patches * patches * 1152)
    # The resampler: 6 layers, 128 latents, 16 heads of 96, hidden 4608. What reads the tower's features has no third
    # pass.
    inner = 16 * 96
    of_features = 6 * patches * 1152 * 2 * inner
    latent = 6 * 128 * (1152 * inner + 1152 * 2 * inner + inner * 1152 + 2 * 1152 * 4608)
    seen = 6 * 2 * 128 * (patches + 128) * inner
    resampler = 3 * (latent + seen + 128 * 1152 * decoder.width) + 2 * of_features
    # Phi-3: queries, keys, values, output, gate, up, down; each position sees itself and at most 2047 before it.
    maps = decoder.width * head * (decoder.heads + 2 * decoder.kv_heads) + decoder.heads * head * decoder.width
    maps += 3 * decoder.width * decoder.hidden
    pairs = sum(min(position + 1, 2048) for position in range(length))
    return Flops(
        vision=2 * rows * crops * tower,
        connector=2 * rows * crops * resampler,
        decoder=2 * 3 * rows * length * decoder.layers * maps,
        attention=2 * 3 * rows * decoder.layers * 2 * pairs * decoder.heads * head,
        head=2 * 3 * rows * texts * decoder.width * (32012 + 3),
    )


@pytest.mark.parametrize(
    "config, decoder, crops",
    [
        (stage1.config(), MINI, 12),
        (stage1.config_14b(), MEDIUM, 12),
        (sft_single.config_14b(), MEDIUM, 40),
    ],
    ids=["4b stage1", "14b stage1", "14b sft_single"],
)
def test_every_part_agrees_to_a_thousandth(config, decoder, crops):
    expected = counted(decoder, config.data.batch_rows, config.data.row.length, crops)
    got = bounds.work(config).model
    assert config.data.row.crops == crops
    for part, mine, theirs in zip(Flops._fields, got, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3), part


def test_stage_1_costs_5_5e16_a_step():
    """With 16 crops a row, as it was compiled for pods, 5.677e16."""
    assert bounds.work(stage1.config()).model.total == pytest.approx(5.524e16, rel=1e-3)
    assert counted(MINI, 512, 4096, 16).total == pytest.approx(5.677e16, rel=1e-3)
