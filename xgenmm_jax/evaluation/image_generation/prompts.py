"""Prompts of the published benchmarks of image generation, from their own files below a folder
(docs/reference/blip3o.md#prompt-files)."""

from collections.abc import Callable, Mapping
import csv
from dataclasses import dataclass, field
import io
import json
import re
from typing import Any, Literal, get_args

from xgenmm_jax import files
from xgenmm_jax.evaluation.image_generation import dpg
from xgenmm_jax.paths import Path

Benchmark = Literal["geneval", "dpg", "wise_2025", "wise_verified", "mjhq"]
BENCHMARKS: tuple[Benchmark, ...] = get_args(Benchmark)
IMAGES_PER_PROMPT: dict[Benchmark, int] = {"geneval": 4, "dpg": 4, "wise_2025": 1, "wise_verified": 1, "mjhq": 1}
"""Of each prompt, as published."""
_SAFE = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class BenchmarkPrompt:
    """A prompt to draw.

    id: the name of its pictures, without folder or ending. folder: that they lie in, below the benchmark's, or "".
    metadata: what the benchmark's scorer reads beside the pictures.
    """

    id: str
    text: str
    folder: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        """Raises ValueError for names that are no plain file names."""
        for name in filter(None, (self.id, self.folder)):
            if not _SAFE.fullmatch(name):
                raise ValueError(f"prompts: got the name '{name}', wanted letters, digits, '_', '-' and '.' alone.")


def prompts(benchmark: Benchmark, folder: Path) -> list[BenchmarkPrompt]:
    """All prompts of a benchmark, in the published order; its files lie in `folder` or in one below of its name.

    geneval: evaluation_metadata.jsonl. dpg: dpg_bench.csv. wise_2025, wise_verified: three files of JSON, in `data` or
    `data_verified` or without it. mjhq: meta_data.json.

    Raises:
        ValueError: a file is missing, with the places that were looked at, or is not as published.
    """
    names, read = _FORMATS[benchmark]
    result: list[BenchmarkPrompt] = []
    for name in names:
        path = published_file(folder, benchmark, name)
        try:
            result += read(path.read_bytes().decode("utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"'{path}': not the file of {benchmark} that is published ({error!r}).") from error
    if not result:
        raise ValueError(f"{benchmark}: got no prompts in '{folder}'; give its files as they are published.")
    locations = [(prompt.folder, prompt.id) for prompt in result]
    if len(set(locations)) < len(locations):
        twice = next(location[1] for location in locations if locations.count(location) > 1)
        raise ValueError(
            f"{benchmark}: two prompts have the name '{twice}'; pictures of one would replace the other's."
        )
    return result


def published_file(folder: Path, benchmark: str, name: str) -> Path:
    """Where a benchmark's file lies below a folder. Raises ValueError with the places that were looked at."""
    short = name.rpartition("/")[2]
    locations = list(dict.fromkeys((name, short, f"{benchmark}/{name}", f"{benchmark}/{short}")))
    for location in locations:
        if (folder / location).is_file():
            return folder / location
    raise ValueError(f"{benchmark}: no file {' or '.join(locations)} in '{folder}'; put the published one there.")


def _geneval(text: str) -> list[BenchmarkPrompt]:
    rows = [files.parse_json(line) for line in text.split("\n") if line.strip()]
    return [BenchmarkPrompt(f"{number:05d}", row["prompt"], metadata=row) for number, row in enumerate(rows)]


def _dpg(text: str) -> list[BenchmarkPrompt]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if missing := {"item_id", "text"} - set(rows.fieldnames or ()):
        raise KeyError(min(missing))
    return [BenchmarkPrompt(name, item.prompt) for name, item in dpg.read_items(text).items()]


def _wise(text: str) -> list[BenchmarkPrompt]:
    rows = sorted(files.parse_json(text), key=lambda row: row["prompt_id"])
    return [BenchmarkPrompt(str(int(row["prompt_id"])), row["Prompt"], metadata=row) for row in rows]


def _mjhq(text: str) -> list[BenchmarkPrompt]:
    return [BenchmarkPrompt(name, row["prompt"], row["category"]) for name, row in files.parse_json(text).items()]


_WISE_FILES = ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
_FORMATS: dict[str, tuple[tuple[str, ...], Callable[[str], list[BenchmarkPrompt]]]] = {
    "geneval": (("evaluation_metadata.jsonl",), _geneval),
    "dpg": (("dpg_bench.csv",), _dpg),
    "wise_2025": (tuple(f"data/{name}.json" for name in _WISE_FILES), _wise),
    "wise_verified": (tuple(f"data_verified/{name}_verified.json" for name in _WISE_FILES), _wise),
    "mjhq": (("meta_data.json",), _mjhq),
}
