"""Damaged records of every published form: each is read, or is an error of its record with a reason; nothing else.

Seeded; another seed: MUTATION_SEED=5 pytest -m slow -s tests/data/test_mutations.py
"""

from collections import Counter
from collections.abc import Iterator
import dataclasses
import importlib
import inspect
import json
import os
import pkgutil
import random
import time
from typing import Any

from mutations import DEEP, KINDS, deepened, mutated
import pytest
from reader_registry import PUBLISHED, Published
from reader_rows import raw

from xgenmm_jax.cli.data_sources import READERS
from xgenmm_jax.data import readers
from xgenmm_jax.data.errors import is_of_a_record
from xgenmm_jax.data.readers.base import OneChoice, Reader
from xgenmm_jax.data.records import images_of
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer
from xgenmm_jax.files import parse_json

RECORDS = 10_000
SLOWEST_S = 30.0
LARGEST_PX = 1 << 20
"""Larger images are not decoded here: what a header promises is refused elsewhere, by the size of a file."""
MOST_CHOICES = 8


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    texts = ["A red bus in London, photographed for <image>.", "How many are 48 and 24? 72"] * 9
    return train_tokenizer(texts, tmp_path_factory.mktemp("small") / "small.model", pieces=400)


def classes() -> set[type]:
    """Every reader of the package."""
    found = set()
    for module in pkgutil.iter_modules(readers.__path__, f"{readers.__name__}."):
        for _, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            is_reader = dataclasses.is_dataclass(one) and hasattr(one, "label") and hasattr(one, "read")
            if is_reader and one is not Reader and one.__module__ == module.name:
                found.add(one)
    return found


def test_every_reader_has_records_that_are_mutated():
    entered = {type(published.reader) for published in PUBLISHED.values()}
    assert classes() <= entered, f"enter in reader_registry.py: {[one.__name__ for one in classes() - entered]}"
    assert OneChoice not in classes()


def test_every_reader_is_known_by_its_name_on_the_command_line():
    assert classes() == set(READERS.values())


def used(row: dict[str, Any], published: Published, tokenizer: Tokenizer) -> None:
    """All that training does with a record."""
    one = raw(row, published.files)
    count = published.reader.choices(one)
    for choice in {*range(min(count, MOST_CHOICES)), count - 1}:
        record = published.reader.read(one, choice)
        sample = chat.sample(record, tokenizer)
        assert len(sample.token_ids) == len(sample.loss_mask) > 0
        for image in images_of(record):
            if image.size_px[0] * image.size_px[1] <= LARGEST_PX:
                assert image.load().size == image.size_px


def as_stored(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The record behind JSON, where it can be written so. Raises ValueError where it nests too deeply for the parser.

    What nests a little less is read, and may be too deep for what is done with it next: where that is depends on the
    stack, so half of the records have a value that surely is.
    """
    if rng.random() < 0.5:
        return _with_deep_values(row)
    try:
        text = json.dumps(row)
    except (TypeError, ValueError):
        return _with_deep_values(row)
    return parse_json(deepened(text, rng))


def _with_deep_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_deep_values(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_deep_values(one) for one in value]
    if not isinstance(value, str) or value != DEEP:
        return value
    for number in range(20_000):
        value = [value] if number % 2 else {"a": value}
    return value


def cases(seed: int) -> Iterator[tuple[str, Any, random.Random]]:
    names = list(PUBLISHED)
    for number in range(RECORDS):
        rng = random.Random(f"{seed}/{number}")
        name = names[number % len(names)]
        row = rng.choice(PUBLISHED[name].rows)
        yield name, mutated(row, rng), rng


@pytest.mark.slow
def test_mutated_records_are_read_or_counted(tokenizer, unchecked_signatures):
    seed = int(os.environ.get("MUTATION_SEED", "0"))
    counts: dict[str, Counter] = {name: Counter() for name in PUBLISHED}
    slowest: Counter = Counter()
    kinds: Counter = Counter()
    problems: list[str] = []
    for name, case, rng in cases(seed):
        published, count = PUBLISHED[name], counts[name]
        is_needed = case.field in published.needed
        start, outcome, said, is_stored = time.perf_counter(), "read", "", False
        try:
            row = as_stored(case.row, rng)
            is_stored = True
            used(row, published, tokenizer)
        except ValueError as error:
            outcome, said = "counted", str(error)
            if not said.strip() or not is_of_a_record(error):
                problems.append(f"{name}: {case.kind} of '{case.field}': no reason of its record: {error!r:.300}")
        except Exception as error:  # anything else is the failure that is looked for
            outcome = "crashed"
            problems.append(f"{name}: {case.kind} of '{case.field}': {type(error).__name__}: {str(error)[:300]}")
        seconds = time.perf_counter() - start
        slowest[name] = max(slowest[name], seconds)
        if seconds > SLOWEST_S:
            problems.append(f"{name}: {case.kind} of '{case.field}': {seconds:.0f} s")
        if case.is_dropped and is_needed and outcome == "read":
            problems.append(f"{name}: read without '{case.field}'")
        kinds[case.kind, outcome] += 1
        count[outcome] += 1
        is_other = is_stored and not is_needed
        count["others"] += is_other
        count["others read"] += is_other and outcome == "read"
    report(counts, slowest, kinds)
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:40])
    for name, count in counts.items():
        assert count["others read"] >= 0.95 * count["others"], f"{name}: refused for fields that it does not need"


def report(counts: dict[str, Counter], slowest: Counter, kinds: Counter) -> None:
    print(f"\n{'records':22} {'all':>5} {'read':>5} {'counted':>7} {'others':>6} {'read':>5} {'slowest s':>9}")
    for name, count in counts.items():
        every = count["read"] + count["counted"] + count["crashed"]
        numbers = f"{every:5} {count['read']:5} {count['counted']:7} {count['others']:6} {count['others read']:5}"
        print(f"{name:22} {numbers} {slowest[name]:9.3f}")
    for kind in KINDS:
        print(f"{kind:22} {kinds[kind, 'read']:11} {kinds[kind, 'counted']:7}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_records_as_they_are_published_are_read(name, tokenizer):
    published = PUBLISHED[name]
    assert isinstance(published.reader, Reader)
    for row in published.rows:
        used(row, published, tokenizer)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_record_without_a_field_that_is_needed_is_counted(name, tokenizer):
    published = PUBLISHED[name]
    for row in published.rows:
        for field in published.needed & set(row):
            with pytest.raises(ValueError) as error:
                used({key: value for key, value in row.items() if key != field}, published, tokenizer)
            assert is_of_a_record(error.value) and str(error.value).strip()
