"""What the benchmark of packing measures: lengths, baselines, bounds, and that the packing holds them."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import packing, packing_lengths
from benchmarks.packing_baselines import best_fit, first_fit, padded
from benchmarks.packing_lengths import ANY_RESOLUTION, MIXTURES, Drawn, balance, draw, fitting, read
from benchmarks.rounds import Timed
from xgenmm_jax.data.rows.packing import Size


def test_best_fit_and_first_fit_fill_rows():
    sizes = [Size(n, 1, 1, 1) for n in (20, 60, 50, 50, 40, 30, 30, 20)]
    room = Size(100, 9, 9, 9)
    assert best_fit(sizes, room) == [[1, 4], [2, 3], [5, 6, 0, 7]]
    assert first_fit(sizes, room) == [[0, 1, 7], [2, 3], [4, 5, 6]]


def test_padding_is_to_the_longest_of_a_batch():
    assert padded([Size(n, 1, 1, 1) for n in (3, 9, 4, 2, 1)], 2).tolist() == [9, 9, 4, 4, 1]
    assert padded([], 2).tolist() == []


def test_samples_are_cut_behind_an_image_that_fits():
    """256 positions an image: a second one exceeds 3 crops, a third 700 positions."""
    drawn = [Drawn(90, (2, 2, 2)), Drawn(300, (1, 1)), Drawn(700, (1,)), Drawn(40, ()), Drawn(800, ())]
    assert fitting(drawn, 700, 3).tolist() == [[30 + 256, 2, 1, 1], [300 + 256, 2, 2, 1], [40, 0, 0, 1]]


def test_at_the_balance_point_positions_and_crops_need_as_many_rows():
    for mixture in MIXTURES:
        drawn = draw(mixture, 300, 1)
        at = balance(drawn, mixture.length)
        sizes = fitting(drawn, mixture.length, max(round(at), max(max(one.crops) for one in drawn)))
        assert sizes[:, 0].sum() / mixture.length == pytest.approx(sizes[:, 1].sum() / at, rel=0.02)


def test_drawn_lengths_are_those_of_the_seed():
    assert draw(MIXTURES[-1], 50, 3) == draw(MIXTURES[-1], 50, 3) != draw(MIXTURES[-1], 50, 4)


def write(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_lengths_are_read_from_both_kinds_of_tables(tmp_path):
    """Only as many rows as a window holds; an image of 1280 x 960 pixels is a grid of 12 and a view."""
    path = write(tmp_path / "a.parquet", positions=[140, 9, 300], crops=[1, 0, 2], other=["a", "b", "c"])
    assert read(path, ANY_RESOLUTION, 2) == [Drawn(12, (1,)), Drawn(9, ())]
    path = write(tmp_path / "b.parquet", tokens=[7, 8], width=[[1280, 384], []], height=[[960, 384], []])
    (grid, small), nothing = (one.crops for one in read(path, ANY_RESOLUTION, 9))
    assert grid == 13 and small in (3, 5) and nothing == ()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"length": [1]}, "has the columns .'length'.; wanted positions and crops, or tokens, width and height"),
        ({"positions": [200, 100], "crops": [1, 1]}, "row 1 of .* is .100, 1.; .* must be counts of 0 or more"),
        ({"positions": [200, None], "crops": [1, 1]}, "row 1 of"),
        ({"tokens": [1], "width": [[5]], "height": [[]]}, "a count and two lists of pixels, equally long"),
        ({"tokens": [1], "width": [[0]], "height": [[5]]}, "a count and two lists of pixels, equally long"),
        ({"positions": pa.array([], "int64"), "crops": pa.array([], "int64")}, "has no rows"),
    ],
)
def test_other_tables_are_refused_with_a_sentence(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "a.parquet", **columns), ANY_RESOLUTION, 9)


def test_a_file_that_is_no_table_is_refused_with_a_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        read(path, ANY_RESOLUTION, 9)
    path.write_text("positions,crops\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        read(path, ANY_RESOLUTION, 9)


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: mixture.name)
def test_rows_of_a_runs_window_are_never_more_than_best_fits(mixture):
    """By a row, at windows of 2,048, 128 and 8."""
    drawn = draw(mixture, 2048, 5)
    for sizes, room in packing.windows_of(drawn, mixture.length).values():
        for window in (2048, 128, 8):
            part = [Size(*size) for size in sizes[:window].tolist()]
            assert len(packing.ours(part, room)) <= len(best_fit(part, room)) + 1


def test_a_bound_that_is_missed_is_named():
    fills = [
        packing.Fill("ours", "balance", 24, 9, 1.07, 0.9, 0.9),
        packing.Fill("ours", "6 % above", 26, 9, 1.05, 1, 1),
    ]
    timed = {"ours": Timed((1.0,), {}), "best fit": Timed((3.9,), {})}
    assert packing.misses("mix", fills, timed) == [
        "packing: mix: 1.070 times the bound in rows with 24 crops; wanted 1.06 at most.",
        "packing: mix: 3.9 times as fast as best fit; wanted 4.0 at least.",
    ]


@pytest.mark.slow
def test_the_command_prints_a_table_of_a_file(tmp_path):
    rng = np.random.default_rng(0)
    crops = rng.integers(1, 4, 600)
    path = write(tmp_path / "a.parquet", positions=crops * 128 + rng.integers(1, 300, 600), crops=crops)
    command = [sys.executable, "-m", "benchmarks.packing", "--lengths", str(path), "--rounds", "1", "--window", "500"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["a.parquet", "a.parquet"]
    assert done.returncode in (0, 1) and all("wanted" in line for line in done.stderr.splitlines())


def test_crops_are_found_without_pixels():
    assert packing_lengths.crops_of([(1280, 960), (1280, 960)], ANY_RESOLUTION) == (13, 13)
