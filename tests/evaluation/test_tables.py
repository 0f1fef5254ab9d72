"""Tables of figures."""

import io

import rich.console

from xgenmm_jax.evaluation.tables import figure, metrics_table


def test_fractions_are_percent_and_cider_is_not():
    assert figure("questions/mean", 0.8333) == "83.3 %"
    assert figure("caption/cider", 1.25) == "1.25"


def test_groups_are_apart_and_names_are_as_they_are():
    out = io.StringIO()
    table = metrics_table({"a/x": 0.5, "a/y": 1.0, "[red]b": 0.25}, "3 answers")
    rich.console.Console(file=out, width=60).print(table)
    lines = out.getvalue().splitlines()
    assert [line for line in lines if "%" in line][2].split() == ["│", "[red]b", "│", "25.0", "%", "│"]
    assert sum(line.startswith("├") for line in lines) == 1 and lines[-1].strip() == "3 answers"
