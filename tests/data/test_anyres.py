"""Any resolution against the official processing."""

import hashlib
import json
from pathlib import Path
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.batch import Batch
from xgenmm_jax.data import anyres, images
from xgenmm_jax.models.layers import normalize_pixels
from xgenmm_jax.models.token_sampling import group_strips

FOLDER = Path(__file__).parents[1] / "goldens/images"
GOLDENS = json.loads((FOLDER / "images.json").read_text())
SUBSAMPLED = np.load(FOLDER / "images_sub16.npz")
GRIDS = {name: tuple(map(tuple, grids)) for name, grids in GOLDENS["grids_units_wh"].items()}


def formula_image(width: int, height: int) -> PIL.Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    r, g, b = (7 * x + 3 * y) % 256, ((x * x) // 16 + 5 * y) % 256, (((x ^ y) * 5) + (x // 32) * 40) % 256
    return PIL.Image.fromarray(np.stack([r, g, b], -1).astype(np.uint8))


def sha1_normalized(view: np.ndarray) -> str:
    """sha1 of the view as the official tensor, channels first."""
    floats = anyres.normalized(view[None])[0].transpose(2, 0, 1)
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
        assert [sha1_normalized(view) for view in views] == [golden[mode]["sha1_f32le"]]
    for grids in GRIDS:
        config, want = anyres.AnyRes(GRIDS[grids]), golden[grids]
        layout = anyres.layout(image.size, config)
        assert (layout.grid, layout.crops) == (tuple(want["grid_wh"]), want["num_crops"])
        top, bottom, left, right = layout.valid
        assert [bottom - top, right - left] == want["mask_rows_cols"]
        assert (bottom - top) * (right - left) == want["mask_valid"]
        assert [sha1_normalized(view) for view in anyres.crops(image, config)] == want["crop_sha1_f32le"]


@pytest.mark.parametrize("name", GOLDENS["images"])
def test_every_sixteenth_pixel_is_the_official_one(name):
    """Says where a view differs, which a hash cannot; and how much of each strip is image, on the device."""
    image = formula_image(*GOLDENS["images"][name]["size_wh"])
    for mode in ("squash", "pad"):
        view = anyres.normalized(anyres.crops(image, anyres.AnyRes(grids=(), global_view=mode)))[0]
        np.testing.assert_array_equal(view[::16, ::16].transpose(2, 0, 1), SUBSAMPLED[f"{name}/{mode}"])
    for grids in GRIDS:
        config = anyres.AnyRes(GRIDS[grids])
        views = anyres.crops(image, config)
        floats = anyres.normalized(views)
        expected = SUBSAMPLED[f"{name}/{grids}"]
        np.testing.assert_array_equal(floats[:, ::16, ::16].transpose(0, 3, 1, 2), expected)
        layout = anyres.layout(image.size, config)
        strips = valid_of_strips(layout)
        assert strips[0].all()
        np.testing.assert_array_equal(np.packbits(strips[1:], axis=1), SUBSAMPLED[f"{name}/{grids}/mask_strips"])


def valid_of_strips(layout: anyres.Layout) -> np.ndarray:
    """Which of the 729 cells of the global view and of each strip are image, as the model takes them."""
    row = np.zeros((1, 1), np.int32)
    crops = np.zeros((1, layout.crops), np.int32)
    batch = Batch(
        token_ids=row,
        segment_ids=row,
        positions=row,
        loss_mask=row > 0,
        slot=row,
        pixels=np.zeros((1, layout.crops, 1, 1, 3), np.uint8),
        crop_image=crops,
        crop_segment=crops + 1,
        image_grid=np.array([[layout.grid]], np.int32),
        image_size_px=np.zeros((1, 1, 2), np.int32),
        image_valid=np.array([[layout.valid]], np.int32),
    )
    features = np.zeros((1, layout.crops, 27 * 27, 1), np.float32)
    return np.asarray(jax.jit(group_strips, static_argnums=2)(features, batch, 27)[1])[0]


def test_bytes_normalized_on_the_device_are_the_hosts_floats():
    """All 256 values, compiled: multiplying by a rounded 1 / 255 would still pass, a bfloat16 step would not."""
    values = np.arange(256 * 3, dtype=np.int64).astype(np.uint8).reshape(1, 16, 16, 3)
    on_device = jax.jit(normalize_pixels)(values)
    np.testing.assert_allclose(on_device, anyres.normalized(values), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GRIDS)
def test_best_resolution_equals_the_official_choice(name):
    for width, height, best_width, best_height in GOLDENS["select_best_resolution"][name]:
        columns, rows = anyres.best_grid((width, height), GRIDS[name], 384)
        assert (columns * 384, rows * 384) == (best_width, best_height), (width, height)


def test_small_images_keep_one_view_where_the_config_says_so():
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


def test_bad_image_files_say_what_is_wrong(tmp_path):
    good = tmp_path / "good.png"
    formula_image(40, 30).save(good)
    image = images.open_image(good)
    assert image.size_px == (40, 30) == image.load().size
    with pytest.raises(ValueError, match="no file .*missing.png"):
        images.open_image(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="is a folder"):
        images.open_image(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ValueError, match="is not an image"):
        images.open_image(tmp_path / "text.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-200])
    with pytest.raises(ValueError, match="truncated or damaged"):
        images.open_image(tmp_path / "cut.png").load()
    with pytest.raises(ValueError, match="40 x 30 pixels, more than 1,000"):
        images.open_image(good, max_pixels=1000)


def test_a_large_image_is_refused_without_pillows_warning(tmp_path):
    """In a process of its own: pytest makes the two lines that Pillow printed before the refusal an error."""
    large = tmp_path / "large.png"
    PIL.Image.new("1", (9460, 9460)).save(large)
    code = (
        "import sys; from xgenmm_jax.data.images import open_image\n"
        "try: open_image(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(large)], capture_output=True, text=True)
    assert done.stdout == f"image: '{large}' has 9460 x 9460 pixels, more than 89,000,000; scale it down.\n"
    assert not done.stderr
