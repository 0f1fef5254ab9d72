"""A user's labeled images: a folder of folders, or a table of paths and labels; split into train and test images."""

from collections import Counter
from collections.abc import Iterable, Iterator
import csv
import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import PIL.Image

from xgenmm_jax import files
from xgenmm_jax.data import source_paths
from xgenmm_jax.data.image_files import FORMATS, WANTED
from xgenmm_jax.paths import local_path

PATH_COLUMNS = ("path", "file_name")
"""The second is what Hugging Face's image folders call it."""
LABEL_COLUMN = "label"
JSON_LINES = (".jsonl", ".ndjson")
_REMEDY = f"give FOLDER/LABEL/IMAGE, or a CSV or JSON lines with columns {PATH_COLUMNS[0]} and {LABEL_COLUMN}"


class LabeledImages(NamedTuple):
    """images: files. labels: one for each. names: what splitting goes by, paths below the folder or the table."""

    images: list[Path]
    labels: list[str]
    names: list[str]


def read_labeled(path: str | Path) -> LabeledImages:
    """The images of a folder or a table, in order of their names or of its lines.

    A folder holds one folder for each label, images in it at any depth: FOLDER/cat/1.jpg, FOLDER/cat/more/2.png. Hidden
    files and those that are not named as images are passed over. A table is CSV with a line of column names, or JSON
    lines: {"path": "1.jpg", "label": "cat"}; its paths start at the table's folder. Where images come split already,
    read each part by itself: `read_labeled("birds/train")`, `read_labeled("birds/test")`.

    Raises ValueError where files are missing, a label has no images, or a line has no path, no label, or a path that
    an earlier line has.
    """
    path = local_path(path, "labeled images")
    if path.is_dir():
        rows = list(_folder_rows(path))
    elif path.is_file():
        rows = list(_table_rows(path))
    else:
        raise ValueError(f"labeled images: no folder or file '{path}'; {_REMEDY}.")
    if not rows:
        raise ValueError(f"labeled images: got none in '{path}'; {_REMEDY}.")
    return LabeledImages(*map(list, zip(*rows, strict=True)))


def split(labeled: LabeledImages, test_part: float = 0.25, seed: int = 0) -> tuple[LabeledImages, LabeledImages]:
    """Train and test images, the same part of every label, one at least in both.

    Which image goes where depends on the seed, the image's name and the names with its label, and not on their order.

    Raises ValueError where there are fewer than two labels, or a label has fewer than two images.
    """
    if not 0 < test_part < 1:
        raise ValueError(f"split: got a test part of {test_part}; wanted one between 0 and 1.")
    counts = Counter(labeled.labels)
    single = sorted(label for label, count in counts.items() if count < 2)
    if single:
        raise ValueError(f"split: got one image alone of {_listed(single)}; give two or more of each label.")
    if len(counts) < 2:
        raise ValueError(f"split: got one label alone, {_listed(counts)}; give images of two or more.")

    # Names in an order of their hashes: the same on every machine, and another for every seed.
    in_test = set()
    for label, count in counts.items():
        names = [name for name, other in zip(labeled.names, labeled.labels, strict=True) if other == label]
        names.sort(key=lambda name: hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest())
        in_test |= set(names[: min(max(round(test_part * count), 1), count - 1)])
    rows = list(zip(*labeled, strict=True))
    parts = [[row for row in rows if (row[2] in in_test) == is_test] for is_test in (False, True)]
    train, test = (LabeledImages(*map(list, zip(*part, strict=True))) for part in parts)
    return train, test


def _folder_rows(folder: Path) -> Iterator[tuple[Path, str, str]]:
    suffixes = {suffix for suffix, kind in PIL.Image.registered_extensions().items() if kind in FORMATS}
    for label_folder in sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."):
        images = [
            file
            for file in sorted(label_folder.rglob("*"))
            if file.suffix.lower() in suffixes and file.name[0] != "." and file.is_file()
        ]
        if not images:
            raise ValueError(f"labeled images: label '{label_folder.name}' in '{folder}' has no images; {WANTED}.")
        for image in images:
            yield image, label_folder.name, image.relative_to(folder).as_posix()


def _table_rows(table: Path) -> Iterator[tuple[Path, str, str]]:
    seen: set[str] = set()
    for number, row in _json_rows(table) if table.suffix.lower() in JSON_LINES else _csv_rows(table):
        where = f"labeled images: '{table}' line {number}"
        name = next((row[column] for column in PATH_COLUMNS if row.get(column)), None)
        label = row.get(LABEL_COLUMN)
        if not isinstance(name, str):
            raise ValueError(f"{where} has no {' or '.join(PATH_COLUMNS)}; {_REMEDY}.")
        if not isinstance(label, str | int) or label == "":
            raise ValueError(f"{where} has no {LABEL_COLUMN}, as text or a whole number; {_REMEDY}.")
        if name in seen:
            raise ValueError(f"{where} names '{name}' again; leave one line of them, or train and test share an image.")
        image = table.parent / source_paths.at_home(name)
        if not image.is_file():
            raise ValueError(f"{where}: no file '{image}'; paths start at the folder of the table.")
        seen.add(name)
        yield image, str(label), name


def _json_rows(table: Path) -> Iterator[tuple[int, dict]]:
    for number, row in files.json_lines(table):
        if not isinstance(row, dict):
            raise ValueError(f"labeled images: '{table}' line {number} is no object; {_REMEDY}.")
        yield number, row


def _csv_rows(table: Path) -> Iterator[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(files.read_text(table).removeprefix("\ufeff"), newline=""))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"labeled images: '{table}' line {reader.line_num} is no CSV ({error}); {_REMEDY}.") from error


def _listed(labels: Iterable[str], most: int = 5) -> str:
    names = [f"'{label}'" for label in labels]
    return ", ".join(names[:most]) + (f" and {len(names) - most} others" if len(names) > most else "")
