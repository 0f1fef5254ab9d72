"""Images that went away behind the index of an earlier run: no run goes on without any, however short it is."""

import contextlib
import dataclasses
import json
import re

import numpy as np
import PIL.Image
import pytest
import sharded_data

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.readers.llava import Llava
from xgenmm_jax.data.rows.held_out import HeldOutRows
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.json_files import JsonFiles

RECORDS = 20
"""Fewer than a window has samples."""


@pytest.fixture
def config(tmp_path):
    """An indexed source, its images in `pictures`."""
    (tmp_path / "pictures").mkdir()
    rows = []
    for number in range(RECORDS):
        name = f"{number}.png"
        PIL.Image.fromarray(np.full((40, 48, 3), number, np.uint8)).save(tmp_path / "pictures" / name)
        turns = [{"from": "human", "value": "<image>\nred?"}, {"from": "gpt", "value": f"the circle {number}"}]
        rows.append({"id": str(number), "image": name, "conversations": turns})
    (tmp_path / "my.json").write_text(json.dumps(rows))
    storage = JsonFiles(str(tmp_path / "my.json"), str(tmp_path / "pictures"))
    config = sharded_data.data(
        sharded_data.small_tokenizer(tmp_path), ShardedSource(storage, Llava()), window=32, held_out_one_in=5
    )
    sharded_data.take(config, 1)
    return config


def test_a_folder_that_is_not_there_is_refused_at_opening(config, tmp_path):
    """A mistyped --data.images gave a run without a token, a loss of 0 and an exit code of 0."""
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="no folder '.*pictures', which was to hold the images"):
        sharded_data.take(config, 1)


def test_training_on_nothing_ends_when_each_record_was_tried(config, tmp_path):
    for file in (tmp_path / "pictures").iterdir():
        file.unlink()
    with pytest.raises(SourceError, match="not one of 16 samples can be used: 16 unreadable .*png.; check the path"):
        sharded_data.take(config, 6)


def test_training_goes_on_where_one_record_of_few_can_be_read(config, tmp_path):
    """Tries were counted: of two records one of which is bad, the bad one twice in a row ended the run."""
    for file in (tmp_path / "pictures").iterdir():
        if file.name != "8.png":
            file.unlink()
    row = dataclasses.replace(config.row, segments=1)
    config = dataclasses.replace(config, batch_rows=1, max_bad_rate=1.0, row=row)
    ids = [row for one in sharded_data.take(config, 120) for row in one.sample_ids]
    assert set(ids) == {"my.json[8]", ""} and ids.count("my.json[8]") > 3


def test_held_out_rows_of_nothing_are_padding_on_every_host_and_say_why(config, tmp_path):
    """A host none of whose samples could be read ended alone, and the others waited for it."""
    for number in (4, 9, 14, 19):
        (tmp_path / "pictures" / f"{number}.png").unlink()
    with contextlib.closing(HeldOutRows(config, (), 4, 2)) as rows:
        for host in range(2):
            batches = list(rows.batches(host, 2))
            assert len(batches) == len(rows) and not any(one.batch.segment_ids.any() for one in batches)
        said = "none of 4 held-out samples .*no file .*set other records aside .*or give --held-out.every-steps 0"
        assert re.search(said, rows.nothing())
