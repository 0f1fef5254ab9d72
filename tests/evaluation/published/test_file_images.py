"""Pictures stay in their files: memory does not grow with them, and answers about others are not mixed."""

import base64
import gc
import io
import tracemalloc

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xgenmm_jax.evaluation.published.file_images import BATCH_ROWS, ParquetCells
from xgenmm_jax.evaluation.published.files import Original, Parquet, Tsv, reencoded
from xgenmm_jax.evaluation.published.originals import image_below
from xgenmm_jax.evaluation.tasks import multiple_choice
from xgenmm_jax.evaluation.tasks.example import Example

COUNT, SIDE_PX = 60, 128
PICTURE_BYTES = SIDE_PX * SIDE_PX * 3
"""Of a PNG of noise, which cannot be made smaller."""


def noise(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shown(image) -> bytes:
    return image.load().tobytes()


def pixels(data: bytes) -> bytes:
    return PIL.Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def write_tsv(folder, encoded, cell):
    lines = ["index\tquestion\tanswer\timage"]
    lines += [f"{number}\tWhat?\tA\t{cell(base64.b64encode(data).decode())}" for number, data in enumerate(encoded)]
    (folder / "T.tsv").write_text("\n".join(lines) + "\n")
    return Tsv("T", multiple_choice.example_of_row)


def write_parquet(folder, encoded, column=lambda data: {"bytes": data, "path": None}, rows=20):
    cells = [{"question": "What?", "answer": "A", "image": column(data)} for data in encoded]
    (folder / "S/data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(cells), folder / "S/data/test-0.parquet", row_group_size=rows)
    of_doc = lambda doc: Example(doc.index, doc.images["image"], doc.fields["question"], (doc.fields["answer"],))  # noqa: E731
    return Parquet("O/S", "data/test-*.parquet", of_doc)


def write_files(folder, encoded):
    for number, data in enumerate(encoded):
        (folder / f"{number}.png").write_bytes(data)

    def examples(below):
        for number in range(len(encoded)):
            yield Example(str(number), image_below(below, f"{number}.png")[0], "What?", ("A",))

    return Original(("0.png",), examples)


CELLS = {
    "a cell": lambda text: text,
    "in quotes": lambda text: f'"{text}"',
    "a list": lambda text: f"['{text}']",
    "a list in quotes": lambda text: f'"[""{text}""]"',
    "escaped": lambda text: f"['{text[:76]}\\n{text[76:]}']",
}


def read(published, folder):
    return published.read(published.find(folder), "careful")


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_table_keeps_no_picture_in_memory(tmp_path, cell):
    encoded = [noise(seed) for seed in range(COUNT)]
    published = write_tsv(tmp_path, encoded, cell)
    read(published, tmp_path)  # what is imported and kept once
    tracemalloc.start()
    examples = read(published, tmp_path).examples
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4 * PICTURE_BYTES and most < 24 * PICTURE_BYTES < COUNT * PICTURE_BYTES / 2
    for one, data in zip(examples, encoded, strict=True):
        assert shown(one.images[0]) == pixels(data)


@pytest.mark.parametrize("rows", [10, COUNT])
@pytest.mark.parametrize("column", [lambda data: {"bytes": data, "path": None}, lambda data: [{"bytes": data}]])
def test_a_parquet_file_keeps_no_picture_in_memory(tmp_path, column, rows):
    encoded = [noise(seed) for seed in range(COUNT)]
    published = write_parquet(tmp_path, encoded, column, rows)
    read(published, tmp_path)
    gc.collect()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    examples = read(published, tmp_path).examples
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4 * PICTURE_BYTES and pa.total_allocated_bytes() - before < PICTURE_BYTES
    for one, data in zip(examples, encoded, strict=True):
        assert shown(one.images[0]) == pixels(data)


def test_of_row_groups_as_many_stay_in_memory_as_may(tmp_path):
    """Of one that is larger, a batch of rows at a time."""
    encoded = [noise(seed) for seed in range(3 * BATCH_ROWS)]
    write_parquet(tmp_path, encoded, rows=4)
    path = tmp_path / "S/data/test-0.parquet"
    before = pa.total_allocated_bytes()
    cells = ParquetCells(most_bytes=10 * PICTURE_BYTES)
    assert [cells.cell(path, row // 4, "image", row % 4)["bytes"] for row in range(len(encoded))] == encoded
    # Arrow gives back what it read a moment later.
    assert pa.total_allocated_bytes() - before <= 20 * PICTURE_BYTES < len(encoded) * PICTURE_BYTES / 2
    write_parquet(tmp_path, encoded, rows=len(encoded))
    cells = ParquetCells(most_bytes=10 * PICTURE_BYTES)
    for row in (0, 100, 191, 64):
        assert cells.cell(path, 0, "image", row)["bytes"] == encoded[row]
    gc.collect()
    assert pa.total_allocated_bytes() - before < 2 * BATCH_ROWS * PICTURE_BYTES


def test_pictures_that_changed_since_they_were_listed_are_refused(tmp_path):
    for write in (write_tsv, write_parquet):
        more = (CELLS["a cell"],) if write is write_tsv else ()
        examples = read(write(tmp_path, [noise(0), noise(1)], *more), tmp_path).examples
        write(tmp_path, [noise(0), noise(2)], *more)
        assert shown(examples[0].images[0]) == pixels(noise(0))
        with pytest.raises(ValueError, match="is not what it was; leave its file alone while it is used"):
            examples[1].images[0].load()


@pytest.mark.parametrize("write", [write_parquet, write_files, lambda *a: write_tsv(*a, CELLS["a cell"])])
def test_a_fingerprint_knows_what_is_in_a_picture(tmp_path, write):
    """Answers about another picture of the same size were taken for answers about this one."""
    fingerprints = []
    for seeds in ((0, 1), (0, 2), (0, 1)):
        folder = tmp_path / str(len(fingerprints))
        folder.mkdir()
        loaded = read(write(folder, [noise(seed) for seed in seeds]), folder)
        fingerprints.append(loaded.fingerprint)
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]


def test_a_fingerprint_reads_each_picture_once(tmp_path, monkeypatch):
    """Also of one that is encoded again: POPE asks 18 questions about a picture."""
    write_files(tmp_path, [noise(0)])
    images, _ = image_below(tmp_path, "0.png")
    many = Original(("0.png",), lambda folder: iter([Example(str(n), images, "What?", ("A",)) for n in range(18)]))
    loaded = read(many, tmp_path)
    reads = []
    encoded = "xgenmm_jax.data.images.encoded"
    monkeypatch.setattr(encoded, lambda image: reads.append(image) or b"x")
    assert loaded.fingerprint == loaded.fingerprint
    assert reads == [images[0]]
    again = reencoded(loaded.examples, "jpeg75")
    assert type(loaded)(again, loaded.files).fingerprint == loaded.fingerprint
