"""JSON lines, and TensorBoard's file read by its own rules."""

import struct

from xgenmm_jax.training.metrics import MetricsLog, crc32c, read_metrics


def test_crc_of_the_standard_check_string():
    assert crc32c(b"123456789") == 0xE3069283


def records(data: bytes) -> list[bytes]:
    """TFRecord frames, both checksums verified."""

    def masked(block: bytes) -> int:
        crc = crc32c(block)
        return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF

    found = []
    while data:
        (length,), (head,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        body, (tail,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert masked(data[:8]) == head and masked(body) == tail
        found.append(body)
        data = data[16 + length :]
    return found


def fields(message: bytes) -> dict[int, list]:
    """A protobuf message by field number."""
    out: dict[int, list] = {}

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            shift += 7
            at += 1
            if message[at - 1] < 128:
                return value, at

    at = 0
    while at < len(message):
        key, at = varint(at)
        if key & 7 == 0:
            value, at = varint(at)
        elif key & 7 == 2:
            length, at = varint(at)
            value, at = message[at : at + length], at + length
        else:
            size, form = (8, "<d") if key & 7 == 1 else (4, "<f")
            value, at = struct.unpack(form, message[at : at + size])[0], at + size
        out.setdefault(key >> 3, []).append(value)
    return out


def test_tensorboard_holds_the_rows(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (10, 300):
        log.write({"step": step, "loss": 2.5, "tokens": step * 1000})
    log.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = [fields(record) for record in records(file.read_bytes())]
    assert events[0][3] == [b"brain.Event:2"]
    for event, step in zip(events[1:], (10, 300), strict=True):
        assert event[2] == [step]
        values = [fields(value) for value in fields(event[5][0])[1]]
        assert {value[1][0]: value[2][0] for value in values} == {b"loss": 2.5, b"tokens": step * 1000}


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
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert len(records(file.read_bytes())) == 3
