"""JSON lines and TensorBoard's events hold the same rows."""

from pathlib import Path
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from xgenmm_jax.training.metrics import MetricsLog, ProgressBar, read_metrics


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) of the only event file in a folder, in order."""
    (file,) = folder.iterdir()
    data = file.read_bytes()  # frames of length, checksum, event, checksum
    values = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        values += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return values


def test_tensorboard_holds_the_rows(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (10, 300):
        log.write({"step": step, "loss": 2.5, "tokens": step * 1000})
    log.close()
    assert scalars(tmp_path / "tensorboard") == [
        (10, "loss", 2.5), (10, "tokens", 10_000.0), (300, "loss", 2.5), (300, "tokens", 300_000.0)
    ]  # fmt: skip


def test_rows_behind_the_start_are_dropped_from_both(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": float(step)})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    MetricsLog(tmp_path, 2).close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    assert [step for step, _, _ in scalars(tmp_path / "tensorboard")] == [1, 2]


@pytest.mark.parametrize("name", ["lr[1e-3]", "a[/b]", "[red]stop", "{braces} [link=x]"])
@pytest.mark.parametrize("terminal", ["xterm", "dumb", None])
def test_a_name_is_shown_as_it_is_on_any_terminal(monkeypatch, capsys, name, terminal):
    """Brackets were rich's markup: lost, or an error that ended the run. A dumb terminal showed nothing at all."""
    monkeypatch.setenv("COLUMNS", "200")
    if terminal is not None:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("TERM", terminal)
    with ProgressBar(name, 0, 2) as bar:
        bar.show({"step": 2, "loss": 1.0, "tokens_per_second": 3.0, "fill": 0.5})
    shown = capsys.readouterr().err
    assert name in shown and "loss 1.000" in shown
    assert ("\x1b" in shown) == (terminal == "xterm")
