"""The table of docs/data.md: what a user copies of it is a storage and a reader of this package."""

import importlib
from pathlib import Path
import pkgutil
import re

import pytest

from xgenmm_jax.data import readers, storage
from xgenmm_jax.data.readers import vqa_sets
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.storage.base import Storage

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
ROWS = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]


def names() -> dict:
    """What rows may name: the modules of readers, and the classes of storages and named readers."""
    found = dict(vars(vqa_sets))
    for package in (storage, readers):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            found |= vars(module) if package is storage else {info.name.rpartition(".")[2]: module}
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_what_a_row_says_is_a_storage_and_a_reader(row):
    _, storages, readings = row
    for text, kind in ((storages, Storage), (readings, Reader)):
        codes = re.findall(r"`([^`]+)`", text)
        assert codes and all(isinstance(eval(code, names()), kind) for code in codes)


def test_rows_are_in_alphabetical_order():
    keys = [re.sub(r"[^a-z0-9]", "", row[0].casefold()) for row in ROWS]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
