"""The cells that were compiled, as the package ships them."""

import dataclasses

import pytest

from xgenmm_jax.planning import compiled_cells
from xgenmm_jax.planning.compiled_cells import FILE, read_cells, write_cells
from xgenmm_jax.planning.topology import SHAPES


def test_the_package_ships_every_stage_of_both_sizes_on_five_pods():
    cells = compiled_cells.compiled_cells()
    keys = {(cell.size, cell.stage, cell.topology, cell.slices) for cell in cells}
    assert len(keys) == len(cells) == 50
    for cell in cells:
        chip, _, shape = cell.topology.partition(":")
        sides = [int(side) for side in shape.split("x")]
        assert len(sides) == SHAPES[chip]
        chips = cell.slices
        for side in sides:
            chips *= side
        # The mesh is of these chips, the rows divide over it, and it is as much as the column says.
        assert cell.replica * cell.fsdp * cell.tensor == chips and cell.replica % cell.slices == 0
        assert cell.rows % (cell.replica * cell.fsdp * cell.accumulation) == 0
        assert cell.rows_at_a_time == cell.rows / cell.accumulation / chips
        assert cell.state_gib + cell.temporaries_gib == pytest.approx(cell.peak_gib, abs=0.4)
        assert cell.peak_gib < cell.hbm_gib
        assert (cell.links_gb is None) == (cell.exposed_gb is None)
        assert cell.links_gb is None or 0 < cell.exposed_gb < cell.links_gb


def test_what_is_written_is_read_again(tmp_path):
    cells = [dataclasses.replace(cell, state_gib=1 / 3) for cell in read_cells(FILE)[:3]]
    write_cells(tmp_path / "cells.csv", cells)
    assert [dataclasses.replace(cell, state_gib=1 / 3) for cell in read_cells(tmp_path / "cells.csv")] == cells
    write_cells(tmp_path / "cells.csv", read_cells(FILE))
    assert (tmp_path / "cells.csv").read_bytes() == FILE.read_bytes()


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (("rows_at_a_time", "rows_a_chip"), "got the columns .*'rows_a_chip'.*, wanted size,stage"),
        (("4b,stage1,v5e:16x16,1,512", "4b,stage1,v5e:16x16,1,many"), "line 2: .*'many'"),
        (("4b,stage2,v5e:16x16,1,", "4b,stage2,v5e:16x16,"), "line 3: .* wanted 19"),
    ],
)
def test_a_file_with_other_columns_or_values_is_refused(tmp_path, changed, sentence):
    (tmp_path / "cells.csv").write_text(FILE.read_text().replace(*changed, 1))
    with pytest.raises(ValueError, match=sentence):
        read_cells(tmp_path / "cells.csv")
