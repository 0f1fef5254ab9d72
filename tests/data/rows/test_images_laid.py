"""An image that cannot be decoded, or has another size than before, leaves nothing of its sample in a row."""

import functools

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.errors import BAD_IMAGE, Skip
from xgenmm_jax.data.records import LazyImage, Sample
from xgenmm_jax.data.rows import build
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer

ANYRES = AnyRes(grids=((2, 2),), view_px=32, view_cells=4, single_view_up_to_px=32)


def noise(width: int, height: int, fault: Exception | None = None) -> LazyImage:
    def load() -> PIL.Image.Image:
        if fault is not None:
            raise fault
        return PIL.Image.effect_noise((width, height), 50).convert("RGB")

    return LazyImage((width, height), load)


def sample(words: str, name: str, images: tuple[LazyImage, ...], is_pair: bool = False) -> Sample:
    image = Tokenizer.load(words).image_id
    ids = np.array([*[image] * len(images), 300, 301, 302], np.int32)
    mask = np.arange(len(ids)) > len(images)
    pair = {"rejected_ids": ids[:-1], "rejected_mask": mask[:-1]} if is_pair else {}
    return Sample(name, ids, mask, images, source="s", **pair)


BAD = ValueError("image: x is damaged")


@pytest.mark.parametrize("per", ["crop", "image"])
@pytest.mark.parametrize("is_pair", [False, True])
@pytest.mark.parametrize("bad", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_nothing_of_a_sample_is_laid_when_one_of_its_images_fails(words, per, is_pair, bad):
    """Both segments of a pair stay empty, and the images of it that could be decoded too."""
    row = RowConfig(length=120, crops=30, images=9, vision_tokens=2, vision_tokens_per=per)
    sizes = [((48, 40), (20, 20)), (), ((64, 20), (30, 8), (33, 33))]

    def row_of(faults: tuple[int, ...]) -> list[Sample]:
        entries = []
        for n, sides in enumerate(sizes):
            sides = sides if n != 1 else ((16, 16),)
            fault = BAD if n in faults else None
            images = tuple(noise(*size, fault=fault if k == len(sides) - 1 else None) for k, size in enumerate(sides))
            entries.append(sample(words, f"s{n}", images, is_pair))
        return entries

    batch_of = functools.partial(build.build_rows, row=row, config=ANYRES, tokenizer=Tokenizer.load(words))
    with pytest.raises(ValueError, match="x is damaged") as error:
        batch_of([row_of(bad)])
    assert error.value.__notes__[-1].endswith(f"of the record s{bad[0]}.")
    skipped: list[Skip] = []
    got, whole = batch_of([row_of(bad)], skipped=skipped), batch_of([row_of(())])
    assert [skip[:3] for skip in skipped] == [("s", f"s{n}", BAD_IMAGE) for n in bad]
    segments = {(2 if is_pair else 1) * n + 1 + k for n in bad for k in range(2 if is_pair else 1)}
    is_gone, crops_gone = np.isin(whole.segment_ids, list(segments)), np.isin(whole.crop_segment, list(segments))
    assert set(np.unique(got.segment_ids)) == {0, *set(np.unique(whole.segment_ids))} - segments
    np.testing.assert_array_equal(got.positions[~is_gone], whole.positions[~is_gone])
    np.testing.assert_array_equal(got.slot, np.where(is_gone, -1, whole.slot))
    np.testing.assert_array_equal(got.crop_image, np.where(crops_gone, -1, whole.crop_image))
    assert not got.pixels[crops_gone].any() and not got.loss_mask[is_gone].any()
    assert (got.token_ids[is_gone] == Tokenizer.load(words).pad_id).all()


def test_an_image_of_another_size_than_before_is_not_laid(words):
    """The file was replaced while the run went on: its crops belong into no place that was measured."""
    image = LazyImage((48, 40), lambda: PIL.Image.new("RGB", (20, 20)))
    skipped: list[Skip] = []
    row = RowConfig(length=60, crops=10, images=2, vision_tokens=2)
    batch = build.build_rows([[sample(words, "s", (image,))]], row, ANYRES, Tokenizer.load(words), skipped)
    assert "has (20, 20) px and had (48, 40) before" in skipped[0].detail and not batch.segment_ids.any()
