"""The mixtures of pre-training are the paper's, number by number."""

import pytest

from experiments import mixtures, sft_single, stage1, stage2
from experiments.mixtures import Mixture

STAGE2 = {
    "obelics": 17.5, "mint1t_html": 17.5, "mint1t_pdf": 12.5, "mint1t_arxiv": 2.5, "blip3_kale": 10.0,
    "datacomp_1b": 2.5, "blip3_grounding_50m": 2.5, "cc12m": 1.25, "cc3m": 1.25, "sbu": 1.25, "visual_genome": 1.25,
    "blip3_ocr_hd_30m": 10.0, "idl": 10.0,
}  # fmt: skip
"""Section 5.1 as it is printed (docs/reference/training.md#stage-2-mixture), which sums to 90."""


def weights(mixture: Mixture) -> dict[str, float]:
    """By the name of the source."""
    return {source.label: weight for source, weight in mixture}


def percents(mixture: Mixture) -> dict[str, float]:
    total = sum(weight for _, weight in mixture)
    return {name: 100 * weight / total for name, weight in weights(mixture).items()}


def test_stage1_mixture_is_that_of_figure_3():
    mixture = weights(stage1.config().data.mixture)
    assert sum(mixture.values()) == 100
    assert mixture["obelics"] == 17.5
    mint = [mixture[f"mint1t_{part}"] for part in ("html", "pdf", "arxiv")]
    assert sum(mint) == 32.5 and [weight / mint[2] for weight in mint] == [7, 5, 1]
    assert mixture["blip3_kale"] == 25 and mixture["datacomp_1b"] == 10
    assert mixture["blip3_ocr_200m"] == mixture["blip3_grounding_50m"] == 5
    assert all(mixture[name] == 1.25 for name in ("cc12m", "cc3m", "sbu", "visual_genome"))


def test_stage2_holds_the_90_percent_that_are_printed():
    assert sum(STAGE2.values()) == 90
    assert weights(stage2.config().data.mixture) == STAGE2 == weights(mixtures.stage2_normalized())


def test_stage2_normalized_grows_every_source_by_100_of_90():
    assert {name: round(percent, 2) for name, percent in percents(mixtures.stage2_normalized()).items()} == {
        "obelics": 19.44, "mint1t_html": 19.44, "mint1t_pdf": 13.89, "mint1t_arxiv": 2.78, "blip3_kale": 11.11,
        "datacomp_1b": 2.78, "blip3_grounding_50m": 2.78, "cc12m": 1.39, "cc3m": 1.39, "sbu": 1.39,
        "visual_genome": 1.39, "blip3_ocr_hd_30m": 11.11, "idl": 11.11,
    }  # fmt: skip


def test_stage2_with_the_new_sources_at_10_percent_grows_the_others_by_80_of_70():
    mixture = stage2.new_at_10().data.mixture
    assert mixture == mixtures.stage2_new_at_10() and sum(weights(mixture).values()) == pytest.approx(100)
    assert {name: round(percent, 2) for name, percent in percents(mixture).items()} == {
        "obelics": 20.0, "mint1t_html": 20.0, "mint1t_pdf": 14.29, "mint1t_arxiv": 2.86, "blip3_kale": 11.43,
        "datacomp_1b": 2.86, "blip3_grounding_50m": 2.86, "cc12m": 1.43, "cc3m": 1.43, "sbu": 1.43,
        "visual_genome": 1.43, "blip3_ocr_hd_30m": 10.0, "idl": 10.0,
    }  # fmt: skip


def test_fine_tuning_sees_each_set_once_and_no_more_than_cambrians_cap_of_one():
    mixture = weights(sft_single.config().data.mixture)
    assert mixture.keys() == mixtures.SINGLE_IMAGE.keys()
    for name, count in mixtures.SINGLE_IMAGE.items():
        assert mixture[name] == min(count, 350_000), name
    assert sft_single.config().steps == sum(mixture.values()) // 64


def test_the_released_example_is_816_639_samples():
    config = sft_single.example()
    assert [source.samples for source, _ in config.data.mixture] == list(mixtures.EXAMPLE.values())
    assert sum(mixtures.EXAMPLE.values()) == 816_639 and config.steps == 816_639 // 64
