"""The rows of a page are those that a run trains on, and its figures those of the window."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest

from experiments.nano import dpo, stage2
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.reporting.window_rows import RowSample, WindowRows, _pieces, window_rows


@pytest.fixture(params=["photographs", "stage2", "dpo"])
def config(request) -> DataConfig:
    if request.param == "photographs":
        return request.getfixturevalue("photographs")
    data = {"stage2": stage2, "dpo": dpo}[request.param].config().data
    return dataclasses.replace(data, window=40, batch_rows=2)


def samples_of(rows: WindowRows) -> list[RowSample]:
    return [sample for row in rows.shown for sample in row.samples]


def test_the_rows_are_those_of_training(config):
    """Positions, targets, images of vision tokens and pixels, against the batches of a run from window 1 on."""
    shown = window_rows(config, seed=3, number=1, most_rows=4)
    with contextlib.closing(loader.batches(config, 3, (1, 0))) as iterator:
        first, second = itertools.islice(iterator, 2)
    assert len(shown.shown) > 2, "rows of both batches"
    places = itertools.islice(itertools.product((first.batch, second.batch), range(2)), len(shown.shown))
    for row, (batch, at) in zip(shown.shown, places, strict=True):
        segments, targets = np.zeros(config.row.length, int), np.zeros(config.row.length, bool)
        of_image = np.full(config.row.length, -1)
        for sample in row.samples:
            position = sample.start
            for text in sample.texts:
                for piece in text.pieces:
                    span = slice(position, position + piece.positions)
                    segments[span], targets[span], of_image[span] = text.segment, piece.is_target, piece.image - 1
                    position = span.stop
            for image in sample.images:
                is_its = batch.crop_image[at] == image.number - 1
                np.testing.assert_array_equal(image.crops, batch.pixels[at][is_its])
                assert image.size_px == tuple(batch.image_size_px[at, image.number - 1])
                assert len(image.crops) == 1 + image.grid[0] * image.grid[1]
        np.testing.assert_array_equal(segments, batch.segment_ids[at])
        np.testing.assert_array_equal(targets, batch.loss_mask[at])
        crops = batch.slot[at] // config.row.vision_tokens
        np.testing.assert_array_equal(of_image, np.where(crops < 0, -1, batch.crop_image[at][crops]))


def test_vision_tokens_of_images_that_have_one_budget_name_their_image(photographs):
    row = dataclasses.replace(photographs.row, vision_tokens_per="image")
    for sample in samples_of(window_rows(dataclasses.replace(photographs, row=row), 0, 0, 3)):
        shown = [piece for text in sample.texts for piece in text.pieces if piece.kind == "image"]
        assert [(piece.image, piece.positions) for piece in shown] == [(image.number, 8) for image in sample.images]


def test_a_text_is_that_of_its_record_piece_by_piece(photographs):
    """Special strings in data are text, not special tokens; bytes of one character are one piece."""
    rows = window_rows(photographs, 0, 0, 9)
    (hidden,) = (sample for sample in samples_of(rows) if sample.id.endswith("/hidden"))
    (text,) = hidden.texts
    joined = "".join(piece.text for piece in text.pieces if piece.kind == "text")
    assert joined == " \na\u202eb\x07c\u2028d 🙂\tend <|end|> <image placeholder>it is hidden"
    assert "".join(piece.text for piece in text.pieces if piece.is_target) == "it is hidden<|end|>"
    assert [piece.text for piece in text.pieces if piece.kind != "text"] == [
        "<|user|>", "<image>", "<|end|>", "<|assistant|>", "<|end|>",
    ]  # fmt: skip
    assert next(piece for piece in text.pieces if piece.text == "🙂").positions == 4


def test_a_character_that_is_cut_apart_is_told_and_costs_no_other(photographs):
    """Of a long text in bytes, as one in Chinese is, a row may end within a character."""
    tokenizer = Tokenizer.load(photographs.tokenizer)
    ids = tokenizer.encode("x图像🙂")[:-1]
    pieces = list(_pieces(ids, [0] * len(ids), [True] * len(ids), tokenizer))
    assert [(piece.text, piece.positions) for piece in pieces[-5:]] == [("图", 3), ("像", 3), *[("\ufffd", 1)] * 3]
    assert sum(piece.positions for piece in pieces) == len(ids)


def test_what_is_left_out_stands_in_its_place_or_among_the_dropped(photographs):
    rows = window_rows(photographs, 0, 0, 9)
    (broken,) = (sample for sample in samples_of(rows) if sample.damage)
    assert broken.id.endswith("/broken") and not broken.texts and broken.size.crops == 4
    assert [(skip.record.split("/")[-1], skip.reason) for skip in rows.skipped] == [
        ("gone", "unreadable record"),
        ("broken", "unreadable image"),
    ]
    (source,) = rows.sources
    assert (source.drawn, source.samples, source.dropped, source.cut) == (13, 12, 1, 0)


def test_shares_of_sources_are_those_of_the_window():
    config = dataclasses.replace(stage2.config().data, window=200)
    rows = window_rows(config, 0, 2, 0)
    everything = window_rows(config, 0, 2, rows.rows)
    assert not rows.shown and rows.sources == everything.sources and rows.used == everything.used
    for share in rows.sources:
        lengths = sorted(s.size.positions for s in samples_of(everything) if s.source == share.name)
        assert (share.samples, share.longest) == (len(lengths), lengths[-1])
        assert share.median == lengths[(len(lengths) - 1) // 2]
        assert share.p95 == lengths[-(-95 * len(lengths) // 100) - 1]
        assert share.sample_share == len(lengths) / sum(one.samples for one in rows.sources)
        assert share.position_share == sum(lengths) / rows.used.positions
    assert sum(share.weight for share in rows.sources) == pytest.approx(1)
    assert sum(share.drawn for share in rows.sources) == rows.drawn == 200


def test_cuts_are_counted_and_weights_are_those_of_the_phase(photographs):
    data = stage2.config().data
    (text, _), *_ = [one for one in data.mixture if getattr(one[0], "family", "") == "interleaved"]
    short = dataclasses.replace(data.row, length=200)
    data = dataclasses.replace(data, mixture=((text, 1.0), (data.mixture[0][0], 3.0)), row=short, window=60)
    data = dataclasses.replace(data, phases=((0, (1.0,)), (2, (1.0, 3.0))))
    before, after = (window_rows(data, 0, number, 0).sources for number in (1, 2))
    assert [(one.weight, one.drawn) for one in before] == [(1.0, 60), (0.0, 0)]
    assert [(one.weight, one.drawn) for one in after] == [(0.25, 15), (0.75, 45)]
    assert before[0].cut > 0 and (before[1].cut, before[1].median) == (0, 0)
