"""A reader's own faults: a bad record each, the first of a kind with its traceback; always, they end the run."""

from dataclasses import dataclass
import json
import logging

import numpy as np
import pytest
from sharded_data import data, small_tokenizer, take
from tar_files import jpeg, write_tar

from xgenmm_jax.data.errors import UNREADABLE, RecordError, SourceError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.index.checking import check
from xgenmm_jax.data.pack import pack_source
from xgenmm_jax.data.readers import base
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.records import Caption
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.tars import Tars

RECORDS = 24


@dataclass(frozen=True)
class Careless(OneChoice):
    """A reader as one writes it for oneself: what it wants of a record it takes for granted."""

    label = "careless"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("json", "jpg")

    def read(self, raw, choice: int) -> Caption:
        return Caption(raw.key, image_from_bytes(raw.fields["jpg"], raw.key), raw.json("json")["caption"])


@pytest.fixture(autouse=True)
def _nothing_was_raised_before(monkeypatch):
    monkeypatch.setattr(base, "_raised", set())


def source_of(path, *lacking: int) -> ShardedSource:
    """A tar of captions; the records of these numbers have none."""
    samples = []
    for number in range(RECORDS):
        row = {"text": "red"} if number in lacking else {"caption": f"a red circle {number}"}
        samples.append((f"{number:03}", {"jpg": jpeg(seed=number), "json": json.dumps(row).encode()}))
    return ShardedSource(Tars(str(write_tar(path, samples))), Careless())


def test_a_record_at_which_a_reader_raises_is_left_out_with_the_error(tmp_path, caplog):
    words, source = small_tokenizer(tmp_path), source_of(tmp_path / "0.tar", 3, 8)
    with caplog.at_level(logging.WARNING):
        batches = take(data(words, source, max_bad_rate=1.0), 4)
    skipped = {(skip.record, skip.reason, skip.detail) for one in batches for skip in one.skipped}
    assert {(record, reason) for record, reason, _ in skipped} == {("0.tar[3]", UNREADABLE), ("0.tar[8]", UNREADABLE)}
    assert all("reader: KeyError: 'caption'" in detail for _, _, detail in skipped)
    # The traceback names the reader's line, once.
    traces = [record for record in caplog.records if record.exc_info]
    assert len(traces) == 1 and "Careless raised this at 0.tar/00" in traces[0].getMessage()
    assert 'raw.json("json")["caption"]' in caplog.text
    with pytest.raises(RecordError, match="0.tar/003: reader: KeyError: 'caption'"):
        source.open().record(3, np.random.default_rng(0))


def test_a_run_whose_reader_always_raises_ends(tmp_path):
    words, source = small_tokenizer(tmp_path), source_of(tmp_path / "0.tar", *range(RECORDS))
    with pytest.raises(SourceError, match="KeyError: 'caption'"):
        take(data(words, source, max_bad_rate=0.001), 50)


def test_such_records_are_counted_by_check_and_pack(tmp_path):
    source = source_of(tmp_path / "0.tar", 3, 8)
    assert check(source.storage, 100, source.reader).bad == {(UNREADABLE, "reader: KeyError: 'caption'"): 2}
    packed = pack_source(source, tmp_path / "packed")
    assert packed.bad[UNREADABLE][0] == 2 and packed.records == RECORDS - 2
    assert "reader: KeyError: 'caption'" in packed.bad[UNREADABLE][1]


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), MemoryError(), ValueError("as before")])
def test_errors_of_records_and_of_the_machine_pass_as_they_are(error):
    with pytest.raises(type(error)) as raised, base.reading(Careless(), base.Raw("a", {})):
        raise error
    assert raised.value is error
