"""A small tokenizer for tests of rows."""

import pytest

from xgenmm_jax.data.text.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    train_tokenizer(["a red circle and the blue square in the center"] * 9, path, pieces=400)
    return str(path)
