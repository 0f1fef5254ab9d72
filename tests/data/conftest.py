"""A small tokenizer for tests of sources."""

import pytest
from sharded_data import small_tokenizer


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))
