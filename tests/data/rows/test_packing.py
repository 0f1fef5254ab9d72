"""Packed rows: budgets hold, samples come back out whole, cuts fall where they may."""

import dataclasses

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import LazyImage, Sample
from xgenmm_jax.data.rows import build, filling, packing
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer

ANYRES = AnyRes(grids=((1, 2), (2, 1), (2, 2)), view_px=8, view_cells=2, single_view_up_to_px=8)
ROW = RowConfig(length=40, crops=9, images=4, vision_tokens=2, segments=6)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return train_tokenizer(["a red circle"] * 9, tmp_path_factory.mktemp("tokenizer") / "small.model", pieces=400)


def lazy_image(width: int, height: int, shade: int = 0) -> LazyImage:
    return LazyImage((width, height), lambda: PIL.Image.new("RGB", (width, height), (shade, width, height)))


def random_sample(rng: np.random.Generator, tokenizer: Tokenizer, name: str, pair: bool = False) -> Sample:
    sizes = [tuple(int(side) for side in rng.choice([6, 8, 12, 16], 2)) for _ in range(rng.integers(0, 3))]
    images = tuple(lazy_image(*size, shade=int(rng.integers(1, 255))) for size in sizes)

    def ids() -> np.ndarray:
        text = rng.integers(300, 320, rng.integers(2, 7))
        return np.concatenate([np.full(len(images), tokenizer.image_id), text]).astype(np.int32)

    def mask(token_ids: np.ndarray) -> np.ndarray:
        return rng.random(len(token_ids)) < 0.5

    token_ids, rejected = ids(), ids()
    sample = Sample(name, token_ids, mask(token_ids), images)
    return dataclasses.replace(sample, rejected_ids=rejected, rejected_mask=mask(rejected)) if pair else sample


def sizes_of(samples: list[Sample], row: RowConfig) -> np.ndarray:
    return packing.array_of(
        [packing.measure(sample, packing.layouts_of(sample.images, ANYRES), row) for sample in samples]
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("per", ["crop", "image"])
def test_rows_hold_their_samples_whole(tokenizer, seed, per):
    """Every segment's text, vision tokens, targets, crops and grids are those of its sample alone."""
    rng = np.random.default_rng(seed)
    row = dataclasses.replace(ROW, length=60, crops=10, vision_tokens_per=per)
    samples = [random_sample(rng, tokenizer, str(i), pair=seed % 2 == 1) for i in range(12)]
    sizes = sizes_of(samples, row)
    rows = [[samples[i] for i in one] for one in filling.pack(sizes, packing.budget(row))]
    batch = build.build_rows(rows, row, ANYRES, tokenizer)
    assert batch.pixels.dtype == np.uint8 and batch.token_ids.dtype == np.int32
    for b, members in enumerate(rows):
        segment = crop = image = 0
        for sample in members:
            layouts = packing.layouts_of(sample.images, ANYRES)
            crops = sum(layout.crops for layout in layouts)
            first, count = (crop, crops) if per == "crop" else (image, len(layouts))
            pairs = [(sample.token_ids, sample.loss_mask)]
            if sample.rejected_ids is not None:
                pairs.append((sample.rejected_ids, sample.rejected_mask))
            assert set(batch.crop_segment[b, crop : crop + crops]) <= {segment + 1}
            for token_ids, loss_mask in pairs:
                segment += 1
                here = batch.segment_ids[b] == segment
                is_text = here & (batch.slot[b] < 0)
                assert batch.token_ids[b][is_text].tolist() == token_ids[token_ids != tokenizer.image_id].tolist()
                slots = batch.slot[b][here & (batch.slot[b] >= 0)]
                assert slots.tolist() == list(range(first * 2, (first + count) * 2))
                assert set(batch.token_ids[b][here & (batch.slot[b] >= 0)]) <= {tokenizer.image_id}
                assert batch.positions[b][here].tolist() == list(range(here.sum()))
                targets = loss_mask & (token_ids != tokenizer.image_id)
                targets[0] = False
                assert batch.token_ids[b][batch.loss_mask[b] & here].tolist() == token_ids[targets].tolist()
            for one, layout in zip(sample.images, layouts, strict=True):
                views = anyres.crops(one.load(), ANYRES)
                np.testing.assert_array_equal(batch.pixels[b, crop : crop + layout.crops], views)
                assert set(batch.crop_image[b, crop : crop + layout.crops]) == {image}
                assert tuple(batch.image_grid[b, image]) == layout.grid
                assert tuple(batch.image_size_px[b, image]) == one.size_px
                assert tuple(batch.image_valid[b, image]) == layout.valid
                crop, image = crop + layout.crops, image + 1
        assert (batch.crop_image[b, crop:] == -1).all() and not batch.pixels[b, crop:].any()
        assert not batch.image_size_px[b, image:].any()
        padding = batch.segment_ids[b] == 0
        assert not batch.loss_mask[b][padding].any() and (batch.slot[b][padding] == -1).all()


def test_the_example_of_the_batch(tokenizer):
    """batch.py's own worked example."""
    row = RowConfig(length=8, crops=4, images=2, vision_tokens=2)
    one, image = AnyRes(grids=(), view_px=8, view_cells=2), tokenizer.image_id
    a = Sample("1", np.array([image, 300, 301], np.int32), np.array([False, True, True]), (lazy_image(8, 8),))
    c = Sample("2", np.array([302, image], np.int32), np.array([True, False]), (lazy_image(8, 8),))
    batch = build.build_rows([[a, c]], row, one, tokenizer)
    assert batch.token_ids[0].tolist() == [image, image, 300, 301, 302, image, image, tokenizer.pad_id]
    assert batch.segment_ids[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 0]
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0]
    assert batch.slot[0].tolist() == [0, 1, -1, -1, -1, 2, 3, -1]
    assert batch.loss_mask[0].astype(int).tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert batch.crop_image[0].tolist() == [0, 1, -1, -1]


def cut(tokenizer: Tokenizer, token_ids: list[int], supervised: int, length: int, shown: int = 0, **row):
    """`fit` of ids whose first `supervised` are not targets."""
    ids = np.array(token_ids, np.int32)
    sample = Sample("s9", ids, (np.arange(len(ids)) >= supervised), (lazy_image(8, 8),) * shown)
    fitted = packing.fit(sample, ANYRES, dataclasses.replace(ROW, length=length, **row), tokenizer)
    return None if fitted is None else (fitted.token_ids.tolist(), len(fitted.images))


def test_what_is_too_long_is_cut_at_an_end(tokenizer):
    t = tokenizer
    user, end, chunk, image = t.user_id, t.end_id, t.end_of_chunk_id, t.image_id
    chat = [user, 300, 301, end, 302, 303, end, 304]
    assert cut(t, chat, 1, 30) == (chat, 0)
    assert cut(t, chat, 1, 7) == (chat[:7], 0)
    assert cut(t, chat, 1, 6) == (chat[:4], 0)
    document = [image, 300, chunk, image, 301, 302, chunk, t.eos_id]
    assert cut(t, document, 1, 10, shown=2) == (document, 2)
    assert cut(t, document, 1, 9, shown=2) == (document[:7], 2)
    assert cut(t, document, 1, 8, shown=2) == (document[:3], 1)
    assert cut(t, document, 1, 30, shown=2, images=1) == (document[:3], 1)
    assert cut(t, document, 1, 30, shown=2, crops=1) == (document[:3], 1)
    assert cut(t, [300, 301, 302, 303, t.eos_id], 0, 3) == ([300, 301, 302], 0)
    assert cut(t, [300, 301, image, 302, chunk], 0, 3, shown=1) == ([300, 301], 0)


def test_what_cannot_be_cut_is_an_error_or_dropped(tokenizer):
    chat = [tokenizer.user_id, tokenizer.image_id, *[300] * 20, tokenizer.end_id]
    message = "sample s9 does not fit: 24 positions exceed the row's 10.*Raise row.length,"
    with pytest.raises(ValueError, match=message):
        cut(tokenizer, chat, 5, 10, shown=1)
    assert cut(tokenizer, chat, 5, 10, shown=1, too_long="drop") is None
    with pytest.raises(ValueError, match="row: crops is 0; wanted 1 or more"):
        cut(tokenizer, chat, 5, 30, shown=1, crops=0)
    with pytest.raises(ValueError, match="2 images exceed the row's 1"):
        cut(tokenizer, [tokenizer.image_id, *chat], 5, 60, shown=2, images=1)
