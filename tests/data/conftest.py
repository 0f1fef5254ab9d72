"""A small tokenizer for tests of sources."""

import pytest


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    # Not above: image_files.py has Pillow's warnings ignored, which pytest forgets where it is imported before a test.
    from sharded_data import small_tokenizer

    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))
