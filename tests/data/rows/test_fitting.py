"""Sizes and cuts known from shapes are those of the tokenized samples."""

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.index import shapes
from xgenmm_jax.data.records import Caption, Conversation, Document, LazyImage, Preference, Record, Sample, Turn
from xgenmm_jax.data.rows import fitting, packing
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer

ANYRES = AnyRes(grids=((1, 2), (2, 1), (2, 2)), view_px=8, view_cells=2, single_view_up_to_px=8)
WORDS = "a red circle in the center and two blue squares".split()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return train_tokenizer([" ".join(WORDS)] * 9, tmp_path_factory.mktemp("tokenizer") / "small.model", pieces=400)


def image(rng: np.random.Generator) -> LazyImage:
    size = tuple(int(side) for side in rng.choice([6, 8, 12, 16, 40], 2))
    return LazyImage(size, lambda: PIL.Image.new("RGB", size))


def words(rng: np.random.Generator, most: int = 25) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, most)))


def record(rng: np.random.Generator) -> Record:
    kind = rng.integers(5)
    if kind == 0:
        return Caption("c", image(rng), words(rng))
    if kind == 1:
        return Document("t", (words(rng, 90),))
    if kind == 2:
        parts = [image(rng) if rng.random() < 0.4 else words(rng, 40) for _ in range(rng.integers(1, 9))]
        return Document("d", tuple(parts))
    images = tuple(image(rng) for _ in range(rng.integers(0, 3)))
    first = "<image>\n" * len(images) + words(rng)
    if kind == 3:
        turns = [Turn("user", first), Turn("assistant", words(rng))]
        for _ in range(rng.integers(0, 4)):
            turns += [Turn("user", words(rng)), Turn("assistant", words(rng))]
        return Conversation("q", images, tuple(turns))
    return Preference("p", images, (Turn("user", first),), words(rng), words(rng))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("per", ["crop", "image"])
def test_sizes_and_cuts_are_those_of_the_tokens(tokenizer, seed, per):
    rng = np.random.default_rng(seed)
    row = RowConfig(int(rng.integers(30, 90)), int(rng.integers(5, 9)), int(rng.integers(1, 5)), 2, per, 2, "drop")
    samples = [chat.sample(record(rng), tokenizer) for _ in range(100)]
    fitted = fitting.fit_shapes(shapes.shapes_of(samples, tokenizer), ANYRES, row)
    for number, sample in enumerate(samples):
        expected = packing.fit(sample, ANYRES, row, tokenizer)
        assert fitted.used[number] == (expected is not None)
        assert fitted.images[number] == len(sample.images)
        rejected = 0 if sample.rejected_ids is None else len(sample.rejected_ids)
        assert fitted.tokens[number] == len(sample.token_ids) + rejected
        if expected is not None:
            size = packing.measure(expected, packing.layouts_of(expected.images, ANYRES), row)
            assert tuple(fitted.sizes[number]) == size
            assert fitted.kept_tokens[number] == len(expected.token_ids) + rejected
    assert not fitted.used.all() and fitted.used.any()


@pytest.mark.parametrize("per", ["crop", "image"])
def test_an_image_of_a_long_document_is_in_a_row_whole_or_not_at_all(tokenizer, per):
    """At every length of a row: a cut in an image's vision tokens leaves the next text without what it tells of."""
    rng = np.random.default_rng(5)
    parts = [part for _ in range(12) for part in (image(rng), words(rng, 12))]
    sample = chat.sample(Document("d", ("a red circle", *parts)), tokenizer)
    of_sample = shapes.shapes_of([sample], tokenizer)
    seen = set()
    for length in range(12, 280):
        row = RowConfig(length, 200, 200, 3, per, 2, "drop")
        cut, fitted = packing.fit(sample, ANYRES, row, tokenizer), fitting.fit_shapes(of_sample, ANYRES, row)
        vision = sum(row.tokens_of(layout) for layout in packing.layouts_of(cut.images, ANYRES))
        markers = int((cut.token_ids == tokenizer.image_id).sum())
        assert markers == len(cut.images) == fitted.sizes[0][2]
        assert len(cut.token_ids) - markers + vision == fitted.sizes[0][0] <= length
        np.testing.assert_array_equal(cut.token_ids, sample.token_ids[: len(cut.token_ids)])
        seen.add(markers)
    assert len(seen) > 5


def test_shapes_are_taken_and_joined_by_number(tokenizer):
    rng = np.random.default_rng(3)
    samples = [chat.sample(record(rng), tokenizer) if rng.random() < 0.9 else None for _ in range(60)]
    whole = shapes.shapes_of(samples, tokenizer)
    numbers = rng.permutation(60)[:25].astype(np.int64)
    expected = shapes.shapes_of([samples[number] for number in numbers], tokenizer)
    np.testing.assert_equal(whole.take(numbers)._asdict(), expected._asdict())
    joined = shapes.join([shapes.shapes_of(samples[:20], tokenizer), shapes.shapes_of(samples[20:], tokenizer)])
    np.testing.assert_equal(joined._asdict(), whole._asdict())
    assert shapes.join([]).count == 0


def test_a_caption_takes_six_bytes(tokenizer):
    sample = chat.sample(Caption("c", LazyImage((640, 480), lambda: None), "a red circle"), tokenizer)
    one = shapes.shapes_of([sample], tokenizer)
    assert one.pieces.nbytes + one.image_px.nbytes == 6
    assert one.pieces.tolist() == [shapes.IMAGE | shapes.CUT | (len(sample.token_ids) - 1)]
    assert one.image_px.tolist() == [[640, 480]]


@pytest.mark.parametrize("length", [shapes.TOKENS - 1, shapes.TOKENS, shapes.TOKENS + 1, 3 * shapes.TOKENS])
def test_long_texts_are_pieces_of_several_numbers(tokenizer, length):
    text = np.full(length - 2, 300)
    ids = np.array([tokenizer.image_id, *text, tokenizer.end_of_chunk_id, tokenizer.eos_id], np.int32)
    sample = Sample("d", ids, ids != tokenizer.image_id, (image(np.random.default_rng(0)),))
    document = shapes.shapes_of([sample], tokenizer)
    assert shapes.tokens_of(document).tolist() == [length + 1]
    assert len(document.pieces) == -(-length // shapes.TOKENS)
    row = RowConfig(length=1000, crops=9, images=4, vision_tokens=2)
    assert fitting.fit_shapes(document, ANYRES, row).sizes[0][0] == 1000


def test_a_side_that_no_size_can_tell_is_refused(tokenizer):
    sample = chat.sample(Caption("c", LazyImage((70_000, 8), lambda: None), "a red circle"), tokenizer)
    with pytest.raises(ValueError, match="70000 x 8 pixels, a side above 65,535"):
        shapes.check_sides(sample)
