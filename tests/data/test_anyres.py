"""Any resolution against the official processing."""

import hashlib
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data import anyres, pictures

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens/images/images.json").read_text())
GRIDS = {name: tuple(map(tuple, grids)) for name, grids in GOLDENS["grids_units_wh"].items()}


def formula_image(width: int, height: int) -> PIL.Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    r, g, b = (7 * x + 3 * y) % 256, ((x * x) // 16 + 5 * y) % 256, (((x ^ y) * 5) + (x // 32) * 40) % 256
    return PIL.Image.fromarray(np.stack([r, g, b], -1).astype(np.uint8))


def sha1_normalised(view: np.ndarray) -> str:
    """sha1 of the view as the official tensor: channels first, (x / 255 - 0.5) / 0.5 in float32."""
    floats = view.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    floats = (floats - np.float32(0.5)) / np.float32(0.5)
    return hashlib.sha1(np.ascontiguousarray(floats, "<f4").tobytes()).hexdigest()


def test_grid_lists_are_the_goldens():
    assert GRIDS["g4"] == anyres.GRIDS_RELEASED
    assert GRIDS["g12"] == anyres.GRIDS_12
    assert (anyres.AnyRes().max_crops, anyres.AnyRes(anyres.GRIDS_12).max_crops) == (5, 13)


@pytest.mark.parametrize("name", GOLDENS["images"])
def test_views_equal_the_official_ones_to_the_bit(name):
    """A rounding or paste offset that differs by one pixel."""
    golden = GOLDENS["images"][name]
    image = formula_image(*golden["size_wh"])
    for mode in ("squash", "pad"):
        views = anyres.crops(image, anyres.AnyRes(grids=(), global_view=mode))
        assert [sha1_normalised(view) for view in views] == [golden[mode]["sha1_f32le"]]
    for grids in GRIDS:
        if grids not in golden:
            continue
        config, want = anyres.AnyRes(GRIDS[grids]), golden[grids]
        layout = anyres.layout(image.size, config)
        assert (layout.grid, layout.crops) == (tuple(want["grid_wh"]), want["num_crops"])
        top, bottom, left, right = layout.valid
        assert [bottom - top, right - left] == want["mask_rows_cols"]
        assert (bottom - top) * (right - left) == want["mask_valid"]
        assert [sha1_normalised(view) for view in anyres.crops(image, config)] == want["crop_sha1_f32le"]


@pytest.mark.parametrize("name", GRIDS)
def test_best_resolution_equals_the_official_choice(name):
    for width, height, best_width, best_height in GOLDENS["select_best_resolution"][name]:
        columns, rows = anyres.best_grid((width, height), GRIDS[name], 384)
        assert (columns * 384, rows * 384) == (best_width, best_height), (width, height)


def test_small_pictures_keep_one_view_where_the_config_says_so():
    config = anyres.AnyRes(grids=((2, 2),), view_px=64, view_cells=8, single_view_up_to_px=64)
    assert anyres.layout((64, 64), config) == ((0, 0), 1, (0, 8, 0, 8))
    assert anyres.layout((65, 64), config).crops == 5
    image = formula_image(64, 64)
    np.testing.assert_array_equal(anyres.crops(image, config)[0], np.asarray(image))
    page = formula_image(128, 128)
    tiles = anyres.crops(page, config)[1:]
    np.testing.assert_array_equal(np.block([[[tiles[0]], [tiles[1]]], [[tiles[2]], [tiles[3]]]]), np.asarray(page))


def test_a_layout_counts_the_crops_that_are_cut():
    rng = np.random.default_rng(0)
    config = anyres.AnyRes(anyres.GRIDS_12, view_px=16, view_cells=2)
    for _ in range(50):
        size = tuple(int(n) for n in rng.integers(1, 90, 2))
        assert len(anyres.crops(formula_image(*size), config)) == anyres.layout(size, config).crops


def test_bad_picture_files_say_what_is_wrong(tmp_path):
    good = tmp_path / "good.png"
    formula_image(40, 30).save(good)
    picture = pictures.open_picture(good)
    assert picture.size_px == (40, 30) == picture.load().size
    with pytest.raises(ValueError, match="no file .*missing.png"):
        pictures.open_picture(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="is a folder"):
        pictures.open_picture(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match="is not a picture"):
        pictures.open_picture(tmp_path / "text.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-200])
    with pytest.raises(ValueError, match="truncated or damaged"):
        pictures.open_picture(tmp_path / "cut.png").load()
    with pytest.raises(ValueError, match="40 x 30 pixels, more than 1,000"):
        pictures.open_picture(good, max_pixels=1000)
