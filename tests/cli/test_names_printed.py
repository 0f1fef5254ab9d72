"""What users named is printed as they named it."""

import contextlib
import io

import pytest
import rich.console

from xgenmm_jax.cli.convert import bar
from xgenmm_jax.cli.evaluate import print_table

NAMES = ("runs/lr[1e-3]", "runs/a[/b]", "[red]runs[/red]", "[link=x]a", "[[]", "runs/имя [b] x", "a\\[b]")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", ["20", "80", None])
def test_the_table_of_metrics_is_of_the_run_that_was_named(monkeypatch, name, columns):
    """`runs/a[b]` was told as `runs/a`; `runs/a[/b]` ended in an error when all was computed."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_table(name, {f"{name}/x": 0.5, "caption/cider": 1.25}, 3, 2.0)
    assert out.getvalue().splitlines()[0] == name
    assert "50.0 %" in out.getvalue()
    if columns == "80":
        assert f"{name}/x" in out.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_progress_bar_takes_a_title_as_it_is(monkeypatch, name):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    err = io.StringIO()
    with contextlib.redirect_stderr(err), bar(name, 3) as progress:
        progress(2)
    assert name in rich.console.Console().render_str(err.getvalue(), markup=False).plain
