"""The shipped starting weights, and the tokenizer whose ids they know, are the files that weights.json names."""

import hashlib
import json

import pytest
from safetensors import safe_open

from xgenmm_jax.nano.starting_weights import WEIGHTS

INDEX = json.loads((WEIGHTS / "weights.json").read_text())


@pytest.mark.parametrize("name", INDEX)
def test_checksum_and_origin_are_those_of_the_index(name):
    path, line = WEIGHTS / name, INDEX[name]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == line["sha256"]
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            assert file.metadata() == {key: line[key] for key in ("command", "seed", "steps", "commit")}


def test_all_files_are_listed_and_small():
    files = sorted(path.name for pattern in ("*.safetensors", "*.model") for path in WEIGHTS.glob(pattern))
    assert files == sorted(INDEX)
    assert sum(line["bytes"] for line in INDEX.values()) <= 10_000_000
