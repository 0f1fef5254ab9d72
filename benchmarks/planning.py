"""How fast a host plans rows from an index of sizes, at the shapes of stage 1: rows a second of processor time.

    python -m benchmarks.planning

Records of assumed lengths (tools/step_sizes.py), a source for each of stage 1's; they are measured once, into an index
in a temporary folder, and planned from there as a run does it, sizes read anew in each round. Every host plans all
rows, so this bounds what a pod can train. Exits with 1 where the bound is missed.
"""

from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
import os
import statistics
import sys
import tempfile
import time
from typing import ClassVar

import numpy as np

from benchmarks.packing_lengths import image_px
from experiments import mixtures, recipes, stage1
from experiments.nano.recipes import TOKENIZER
from tools import step_sizes
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.window import measurer_of, open_sources, plan_window
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.base import Located, Raw
from xgenmm_jax.reporting.machine import describe_machine, machine_sentence

SHARDS, SHARD_RECORDS = 64, 60
ROUNDS, WINDOWS = 5, 3
LEAST_ROWS = 2000.0
"""Rows a second of one core: 4B's stage 1 takes 1,060 on v6e-256 at half of the peak (docs/pods.md)."""


@dataclass(frozen=True)
class Assumed:
    """A storage without files: each record's number of tokens and the sizes of its images, by formula."""

    seed: int

    PATH_FIELDS: ClassVar[tuple[str, ...]] = ()

    def shards(self) -> tuple[str, ...]:
        return tuple(f"/assumed/{self.seed}/{number:04}" for number in range(SHARDS))

    def size(self, shard: str) -> int:
        return SHARD_RECORDS

    def locate(self, shard: str) -> Located:
        return Located(SHARD_RECORDS, {})

    def open(self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()) -> "_Shard":
        return _Shard(shard, self.seed)


class _Shard:
    def __init__(self, path: str, seed: int):
        self._path, self._key = path, (seed, int(path.rpartition("/")[2]))

    def __len__(self) -> int:
        return SHARD_RECORDS

    def read(self, index: int) -> Raw:
        rng = np.random.default_rng((*self._key, index))
        drawn = step_sizes.LENGTHS["stage1"](rng)
        sizes = [image_px(rng) for _ in range(drawn.images)]
        return Raw(f"{self._path}/{index}", {"tokens": drawn.text_tokens, "sizes": sizes})

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True)
class AssumedDocuments(OneChoice):
    """Images between texts of as many words as there are tokens."""

    label: ClassVar[str] = "assumed"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("tokens", "sizes")

    def read(self, raw: Raw, choice: int) -> Document:
        sizes = raw.fields["sizes"]
        words = max(1, raw.fields["tokens"] // (len(sizes) + 1))
        parts: list[str | LazyImage] = ["red " * words]
        for size in sizes:
            parts += [LazyImage(size, _no_pixels), "blue " * words]
        return Document(raw.key, tuple(parts))


def _no_pixels():
    raise AssertionError("planning decodes nothing")


def config_of(folder: str) -> DataConfig:
    """Stage 1's rows and weights."""
    sources = [
        ShardedSource(Assumed(number), AssumedDocuments(), name=name, index=os.path.join(folder, name))
        for number, name in enumerate(mixtures.STAGE1)
    ]
    mixture = tuple(zip(sources, map(float, mixtures.STAGE1.values()), strict=True))
    return dataclasses.replace(stage1.config().data, mixture=mixture, tokenizer=TOKENIZER)


def measured(config: DataConfig) -> list[tuple[float, int]]:
    """Of each round, processor seconds of all threads and the rows that were planned."""
    measurer = measurer_of(config)

    def planned() -> int:
        sources = open_sources(config)
        return sum(len(plan_window(config, sources, measurer, 0, window).rows) for window in range(WINDOWS))

    planned()  # measures what the windows reach
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        rows = planned()
        rounds.append((time.process_time() - begin, rows))
    return rounds


def table(rounds: list[tuple[float, int]], rate: float, samples: int) -> str:
    seconds = [one for one, _ in rounds]
    figures: Mapping[str, str] = {
        "rows planned": f"{rounds[0][1]:,} of {samples:,} samples",
        "s of processor time, median [least, most]": (
            f"{statistics.median(seconds):.3f} [{min(seconds):.3f}, {max(seconds):.3f}]"
        ),
        "rows a second of processor time": f"{rate:,.0f}",
        "wanted": f"{LEAST_ROWS:,.0f}, {'kept' if rate >= LEAST_ROWS else 'MISSED'}",
    }
    return "\n".join(["| figure | |", "|---|---|", *(f"| {name} | {value} |" for name, value in figures.items())])


def main() -> int:
    """Prints the figures; gives the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(folder)
        rounds = measured(config)
    rate = statistics.median(rows / seconds for seconds, rows in rounds)
    print(f"{machine_sentence(describe_machine())}. Rows of {recipes.ROW_LENGTH} positions.\n")
    print(table(rounds, rate, WINDOWS * config.window))
    return 0 if rate >= LEAST_ROWS else 1


if __name__ == "__main__":
    sys.exit(main())
