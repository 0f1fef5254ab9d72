"""Curves as SVG."""

import math

import pytest

from xgenmm_jax.reporting import curves


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0.0, 700.0, [0, 200, 400, 600]),
        (1.0, 2.5, [1.0, 1.5, 2.0, 2.5]),
        (0.0, 0.7, [0.0, 0.2, 0.4, 0.6]),
        (3.0, 3.0, [3]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert curves.ticks(low, high, 4) == expected


def test_curves_survive_few_equal_and_broken_losses():
    for losses in ([], [2.0], [2.0, 2.0], [math.nan, 1.0], [0.0, 0.0]):
        assert "nan" not in curves.curve(list(enumerate(losses, start=1)), 5, "x").lower()


def test_words_on_a_curve_cannot_write_markup():
    svg = curves.curve([(1, 2.0)], 2, "<script>", x_title="<b>", y_title='"><i>')
    assert not any(tag in svg for tag in ("<script>", "<b>", "<i>"))
