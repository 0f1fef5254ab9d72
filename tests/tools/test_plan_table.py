"""The table of docs/pods.md keeps its columns."""

from pathlib import Path

from tools import plan_table

GIB = 2**30
PLAN = {
    "rows": 512, "rows_per_chip": 0.5, "remat": "minimal", "accumulation": 2, "fits": True,
    "mesh": {"replica": 2, "fsdp": 128, "tensor": 1},
    "memory": {"parameters": GIB, "optimizer": GIB, "reference": 0, "temporaries": 3 * GIB, "peak": 5 * GIB,
               "available": 16 * GIB},
    "seconds": {"arithmetic": 1.0, "links": 2.0, "network": 0.0, "bound": 2.0},
    "bound": {"tokens_per_second_per_chip": 7116.2},
    "expected": {"tokens_per_second_per_chip": 3638.4, "days": 1.314, "chip_hours": 8036.0},
}  # fmt: skip


def test_a_plan_is_a_line_of_all_columns():
    line = plan_table.row(("4b", "stage1", "v5e:16x16", 2), PLAN)
    assert line == (
        "| 4b stage1 | 2 x v5e:16x16 | 512 | 0.5 | minimal | 2 x 128 x 1 | 2 | 2.00 | 3.00 | 5.00 | 16.00 | links "
        "| 2.00 | 7,116 | 3,638 | 1.31 | 8,036 |\n"
    )
    refused = plan_table.row(("4b", "stage1", "v5e:16x16", 1), {**PLAN, "fits": False, "advice": "raise fsdp"})
    assert refused.count("|") == line.count("|") and "raise fsdp" in refused


def test_the_table_has_a_line_for_each_cell_and_all_columns_in_each():
    """Three figures stood in one cell, so no column could be read down."""
    text = Path(plan_table.DOCUMENT).read_text(encoding="utf-8")
    lines = plan_table.lines_of(text)
    assert {plan_table.head_of(cell) for cell in plan_table.CELLS} <= set(lines)
    assert {line.count("|") for line in lines.values()} == {len(plan_table.COLUMNS) + 1}
