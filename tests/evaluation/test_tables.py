"""Tables of figures."""

from dataclasses import replace
import io
import math

import rich.console

from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.tables import figure, metrics_table, results_table
from xgenmm_jax.evaluation.tasks.benchmark import Choice


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


def shown(table):
    out = io.StringIO()
    rich.console.Console(file=out, width=90).print(table)
    return " ".join(out.getvalue().split())


def test_a_score_that_is_none_has_its_reason_below_and_each_judge_its_name():
    none = Result("mmvet", "MM-Vet", Choice(), "Overall", math.nan, {"Overall": Estimate(math.nan, 3, note="no judge")})
    two = Result("pope", "POPE", Choice(), "Overall", 50.0, {"Overall": Estimate(50.0, 4, 1)})
    text = shown(results_table([none, two], "run"))
    assert "run: profile paper, careful, judge none" in text and "MM-Vet: no judge" in text and "POPE:" not in text
    judged = [replace(two, title=title, judge=f"[red], prompt {title}") for title in ("a", "b")]
    text = shown(results_table(judged, "run"))
    assert "careful ┏" in text and "a: judge [red], prompt a b: judge [red], prompt b" in text
    text = shown(results_table(judged[:1], "run"))
    assert "careful, judge [red], prompt a ┏" in text and "a: judge" not in text
