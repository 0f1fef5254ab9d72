"""The tables of pods: what was compiled, how fast it can be, and docs/pods.md, all of the same cells."""

from dataclasses import replace

import pytest

from tools import plan_table, pod_speeds
from xgenmm_jax import files
from xgenmm_jax.planning.compiled_cells import compiled_cells

GIB = 2**30
PLAN = {
    "rows": 512, "rows_per_chip": 0.5, "remat": "minimal", "accumulation": 2, "fits": True, "length": 4096, "crops": 12,
    "mesh": {"replica": 2, "fsdp": 128, "tensor": 1},
    "memory": {"parameters": GIB, "optimizer": GIB, "reference": 0, "temporaries": 3 * GIB, "peak": 5 * GIB,
               "available": 16 * GIB},
    "collectives": {"all-gather": {"link_bytes": 5e9, "exposed_bytes": 0.0},
                    "all-reduce": {"link_bytes": 2e9, "exposed_bytes": 2e9}},
}  # fmt: skip


def test_a_plan_is_a_cell():
    cell = plan_table.cell_of(("4b", "stage1", "v5e:16x16", 2), PLAN)
    assert plan_table.key_of(cell) == ("4b", "stage1", "v5e:16x16", 2)
    assert (cell.replica, cell.fsdp, cell.tensor, cell.accumulation) == (2, 128, 1, 2)
    assert (cell.state_gib, cell.temporaries_gib, cell.peak_gib, cell.hbm_gib) == (2, 3, 5, 16)
    assert (cell.links_gb, cell.exposed_gb) == (7, 2)


def test_the_written_speeds_and_the_table_are_what_is_computed():
    """Hours of the README came from rows that the experiments no longer had."""
    rows = pod_speeds.speeds()
    assert files.read_text(pod_speeds.FILE) == pod_speeds.text_of(rows), "run python -m tools.plan_table --render"
    text = files.read_text(plan_table.DOCUMENT)
    written = text.split(plan_table.BEGIN)[1].split(plan_table.END)[0]
    assert written == plan_table.tables(compiled_cells(), rows), "run python -m tools.plan_table --render"


def test_every_cell_is_compiled_and_has_its_own_bound():
    rows = pod_speeds.speeds()
    assert [plan_table.key_of(row) for row in rows] == plan_table.CELLS
    for row in rows:
        expected, most = (0.4, 0.9) if row.topology.startswith("v6e") else (0.5, 0.97)
        assert row.expected_mfu == pytest.approx(expected) and expected < row.bound_mfu < most
        assert row.chip_hours == pytest.approx(row.hours * row.chips)
        assert row.expected_tokens * row.chips * row.hours * 3600 == pytest.approx(row.steps * row.rows * row.length)


def test_traffic_that_was_kept_slows_the_cell_and_its_stage():
    cell = compiled_cells()[0]
    hidden, as_compiled = (pod_speeds.speed(c) for c in (replace(cell, links_gb=None, exposed_gb=None), cell))
    assert hidden.exposed_mfu is None and as_compiled.exposed_mfu < hidden.bound_mfu == as_compiled.bound_mfu
    slow = pod_speeds.speed(replace(cell, links_gb=900.0, exposed_gb=800.0))
    assert slow.expected_mfu == slow.exposed_mfu < 0.5 and slow.hours > 2 * hidden.hours


@pytest.mark.parametrize(
    "hours, words", [(285.4, "285"), (10.7, "11"), (3.38, "3.4"), (0.349, "0.35"), (0.0196, "0.02")]
)
def test_hours_in_words(hours, words):
    assert plan_table.hours_of(hours) == words
