"""What `xgenmm train FILE --help` prints: the options that are used most, in the order of use, with their values.

`--help-all` is tyro's own list of every option.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import os
from pathlib import Path
import shutil
import textwrap
from typing import Any

from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.training.config import TrainConfig

COLUMNS = 100
"""The widest line."""
OPTION_COLUMNS = 30
LEAST_TEXT_COLUMNS = 30
"""In narrower terminals the text stands below its option."""

UPDATES = "Low-rank updates"
"""Title of the options of a run that has them."""

SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Run",
        (
            ("workdir", "Run folder, runs/NAME by default. One that holds checkpoints is continued."),
            ("at", "nano or micro: an ablation's arm on the stages of that size instead of the paper's."),
            ("name", "Name of the run."),
            ("steps", "Optimizer steps of the whole run."),
            ("seed", "Of random starting weights and of the order of the data."),
            ("log_every", "Steps between lines of metrics."),
            ("held_out.every_steps", "Steps between held-out losses, of what is set aside; 0: none."),
            ("data.held_out_one_in", "Of each source, one record in so many is set aside; 0: none."),
            ("evaluate_every", "Steps between evaluations, where the experiment names some; 0: none."),
        ),
    ),
    (
        "Learning rate",
        (
            ("optimizer.peak_lr", "Learning rate after the warmup."),
            ("optimizer.warmup_steps", "Steps over which it rises from 0."),
            ("optimizer.schedule", "How it falls: cosine, linear, or constant."),
            ("optimizer.weight_decay", "Decoupled weight decay."),
            ("optimizer.clip_norm", "Largest global norm of the gradient; 0: no clipping."),
            ("optimizer.algorithm", "adamw or muon."),
        ),
    ),
    (
        "Batch",
        (
            ("data.batch_rows", "Rows of the global batch."),
            ("data.row.length", "Positions of a row, vision tokens included."),
            ("data.row.crops", "Crops of a row."),
            ("accumulation", "Micro-batches of a batch, one after the other: less memory, the same result."),
        ),
    ),
    (
        "Devices",
        (
            ("for", "v5e:16x16, 2xv5e:16x16, h200, h100:8: sets what fits these chips, as compiled or estimated."),
            ("ignore_estimate", "Tries a run that cannot fit by the estimate of its memory."),
            ("mesh.replica", "Copies of the parameters; the number of slices on several TPU slices."),
            ("mesh.fsdp", "Devices that share parameters and rows; -1: all that remain."),
            ("mesh.tensor", "Devices that share heads, feed-forward and vocabulary."),
            ("model.decoder.remat", "Activations that the decoder recomputes: full takes the least memory."),
            ("distributed.coordinator", "HOST:PORT of process 0, where hosts do not find each other."),
            ("distributed.processes", "How many processes; 1: this one alone."),
            ("distributed.process", "The number of this one, from 0."),
        ),
    ),
    (
        "Starting weights",
        (
            ("initialize.run", "Run folder or checkpoint, for every parameter."),
            ("initialize.vision", "Safetensors file or run folder for the vision tower."),
            ("initialize.connector", "The same for the connector."),
            ("initialize.decoder", "The same for the language model."),
            ("freeze", "Parts, or path prefixes, that do not train."),
            ("optimizer.parts.connector.peak_lr", "The connector's own rate; vision, decoder likewise."),
        ),
    ),
    (
        UPDATES,
        (
            ("lora.rank", "Of every update."),
            ("lora.alpha", "An update counts alpha / rank times."),
            ("lora.dropout", "Share of an update's inputs that training sets to 0."),
            ("lora.targets", "Linear maps by a prefix of their path; decoder/layers connector vision/layers are all."),
            ("lora.whole", "Path prefixes that train whole beside the updates."),
            ("initialize.adapter", "Folder in PEFT's layout, with whose updates they begin."),
        ),
    ),
    (
        "Checkpoints",
        (
            ("checkpoint.every_steps", "Steps between checkpoints; 0: by time alone."),
            ("checkpoint.every_seconds", "Seconds between checkpoints; 0: by steps alone."),
            ("watchdog_seconds", "Ends a run in which nothing moves for so long; 0: never."),
        ),
    ),
    (
        "Data",
        (
            ("data.tokenizer", "SentencePiece model, or tokenizer.json."),
            ("data.loader.workers", "Processes that load batches; 0: threads alone."),
        ),
    ),
)
"""(title, (field of TrainConfig, text)); fields that a config does not have are left out."""

BESIDE_CONFIG = (
    "workdir", "at", "for", "ignore_estimate", "distributed.coordinator", "distributed.processes",
    "distributed.process",
)  # fmt: skip
"""Options that are no fields of the config."""


def text(config: TrainConfig, file: str) -> str:
    """The page for a config, at most `COLUMNS` wide, or as wide as the terminal where that is less."""
    columns = min(COLUMNS, shutil.get_terminal_size((COLUMNS, 24)).columns)
    lines = textwrap.wrap(f"usage: xgenmm train {file} [options]", columns, break_on_hyphens=False)
    lines += textwrap.wrap("Values in brackets are this experiment's. --help-all lists every option.", columns)
    for title, options in SECTIONS:
        body = [line for field, words in options for line in _option(config, field, words, columns)]
        if title == "Data" and isinstance(getattr(config.data, "mixture", None), tuple):
            body += _wrapped("--data.mixture.N.1 WEIGHT", f"Weight of source N: {mixture(config)}", columns)
        if body and (title != UPDATES or getattr(config, "lora", None) is not None):
            lines += ["", f"{title}:", *body]
    return "\n".join(lines)


def mixture(config: TrainConfig) -> str:
    """The sources of a config, by number and name, with their relative weights: "0 caption 0.22, 1 dense 0.2"."""
    return ", ".join(f"{i} {source_name(source)} {weight:g}" for i, (source, weight) in enumerate(config.data.mixture))


def source_name(source: Any) -> str:
    """A source by its name, or by what its first field names, a path by its folder or file: "obelics", "pages/64px"."""
    if isinstance(source, Mapped):
        return f"{source_name(source.source)}/{getattr(source.change, 'label', type(source.change).__name__.lower())}"
    fields = dataclasses.fields(source)
    if isinstance(source, ShardedSource):
        return source.label
    if not fields or not isinstance(getattr(source, fields[0].name), str):
        return type(source).__name__
    path = Path(getattr(source, fields[0].name))
    return path.parent.name if "*" in path.name else path.stem


def _option(config: TrainConfig, field: str, words: str, columns: int) -> Iterator[str]:
    name = f"--{field.replace('_', '-')}"
    if field in BESIDE_CONFIG:
        yield from _wrapped(name, words, columns)
        return
    value: Any = config
    for part in field.split("."):
        if not hasattr(value, part):
            return
        value = getattr(value, part)
    yield from _wrapped(name, words if value is None else f"{words} [{_shown(value)}]", columns)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, str) and os.path.isabs(value):
        return os.path.relpath(value) if Path(value).is_relative_to(Path.cwd()) else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(option: str, words: str, columns: int) -> Sequence[str]:
    """An option and its text, beside each other where there is room."""
    if columns - OPTION_COLUMNS < LEAST_TEXT_COLUMNS:
        return [f"  {option}", *(f"    {line}" for line in textwrap.wrap(words, columns - 4))]
    indent = " " * OPTION_COLUMNS
    first = f"  {option}".ljust(OPTION_COLUMNS - 1) + " "
    return textwrap.wrap(words, columns, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
