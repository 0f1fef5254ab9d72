"""Where a run's figures go: JSON lines, TensorBoard, and the progress bar."""

import json
from pathlib import Path
import struct
import time
from types import TracebackType

import jax
import rich.console
import rich.progress

METRICS_FILE = "metrics.jsonl"

Row = dict[str, int | float]
"""One step's figures; "step" says which."""


class MetricsLog:
    """Appends rows to metrics.jsonl and to TensorBoard's event file in the run folder.

    start_step: rows of later steps are dropped first: a killed run wrote them, and the resumed one writes them again.
    """

    def __init__(self, run: Path, start_step: int):
        self._path = run / METRICS_FILE
        self._file = self._events = None
        if jax.process_index() > 0:
            return  # the first host writes for all
        kept = [row for row in read_metrics(run) if row["step"] <= start_step]
        unfinished = self._path.with_suffix(".partial")
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in kept))
        unfinished.replace(self._path)
        self._file = self._path.open("a")
        # Written anew from the rows that stay, so TensorBoard shows one line and no doubles.
        self._events = EventWriter(run / "tensorboard")
        for row in kept:
            self._events.write(row)

    def write(self, row: Row) -> None:
        """One step's figures; row["step"] says which."""
        if self._file:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            self._events.write(row)

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._events.close()


def read_metrics(run: Path) -> list[Row]:
    """The rows of a run folder, oldest first; a last line that a kill cut short is left out."""
    path = run / METRICS_FILE
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


class EventWriter:
    """TensorBoard's event file, scalars only: the 40 lines below instead of a dependency on protobuf.

    Source: tensorflow/core/util/event.proto and summary.proto (field numbers), lib/io/record_writer.h (framing).
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._file = (folder / f"events.out.tfevents.{int(time.time())}.xgenmm").open("wb")
        self._record(_double(1, time.time()) + _bytes(3, b"brain.Event:2"))

    def write(self, row: Row) -> None:
        values = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _float(2, float(value)))
            for name, value in row.items()
            if name != "step"
        )
        self._record(_double(1, time.time()) + b"\x10" + _varint(int(row["step"])) + _bytes(5, values))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _record(self, data: bytes) -> None:
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked_crc(length) + data + _masked_crc(data))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli). crc32c(b"123456789") == 0xE3069283."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class ProgressBar:
    """Loss, tokens per second, fill and time left: a bar on a terminal, else a line every half minute."""

    LINE_EVERY_S = 30.0

    def __init__(self, name: str, start_step: int, steps: int):
        self._name, self._start, self._steps = name, start_step, steps
        self._text = "compiling"
        self._began = self._last_line = time.monotonic()
        console = rich.console.Console(stderr=True)
        self._console = console
        self._bar = None
        if console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("[bold]{task.description}"),
                rich.progress.BarColumn(bar_width=None),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[text]}"),
                rich.progress.TimeRemainingColumn(),
                console=console,
                refresh_per_second=2,
            )
            self._task = self._bar.add_task(name, total=steps, completed=start_step, text=self._text)

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self._bar:
            self._bar.update(self._task, completed=step, text=self._text)

    def show(self, row: Row) -> None:
        """The figures of a row of metrics."""
        self._text = f"loss {row['loss']:.3f}  {row['tokens_per_second']:,.0f} tokens/s  fill {row['fill']:.0%}"
        now, step = time.monotonic(), int(row["step"])
        if self._bar:
            self.advance(step)
        elif now - self._last_line >= self.LINE_EVERY_S or step == self._steps:
            self._last_line = now
            left_s = (now - self._began) / max(step - self._start, 1) * (self._steps - step)
            line = f"{self._name} {step}/{self._steps}  {self._text}  left {left_s:,.0f} s"
            self._console.print(line, highlight=False)
