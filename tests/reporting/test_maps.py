"""Attention laid over an image."""

import numpy as np

from xgenmm_jax.reporting import maps


def test_a_lit_cell_of_the_view_lies_where_the_squashed_image_has_it():
    """A 4 x 2 view of a wide image: cell (0, 3) is its top right eighth."""
    heat = np.zeros((2, 4), np.float32)
    heat[0, 3] = 1
    lit = maps.canvas_to_image(heat, (100, 20), (80, 16), squashed=True)
    assert lit.shape == (16, 80)
    assert lit[3, 75] > 0.9 and lit[12, 10] < 0.01


def test_a_lit_cell_of_the_canvas_lies_where_the_centered_image_has_it():
    """A 64 x 32 image on a 16 x 16 canvas covers rows 4 to 12: canvas row 4 is its top row, row 0 is padding."""
    heat = np.zeros((16, 16), np.float32)
    heat[4, 0] = 1
    lit = maps.canvas_to_image(heat, (64, 32), (64, 32), squashed=False)
    assert lit.shape == (32, 64)
    assert np.unravel_index(lit.argmax(), lit.shape)[0] < 4 and np.unravel_index(lit.argmax(), lit.shape)[1] < 4
    padding = np.zeros((16, 16), np.float32)
    padding[0] = 1
    assert maps.canvas_to_image(padding, (64, 32), (64, 32), squashed=False).max() < 0.01


def test_crops_and_strips_stand_at_their_cells():
    """Two columns of 2 x 2 patches: crop 1 is the right half, strip 1 the lower row."""
    weights = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    crops = maps.on_canvas(weights, (2, 1), 2, strips=False)
    assert crops.sum(0).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    strips = maps.on_canvas(weights, (2, 1), 2, strips=True)
    assert strips.sum(0).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
