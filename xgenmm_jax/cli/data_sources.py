"""Sources as they are typed: KIND:PATTERN with the name of a reader, or a name in a Python file."""

from collections.abc import Mapping, Sequence
import dataclasses
from dataclasses import dataclass
import inspect
import os
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from xgenmm_jax.cli.errors import nearest
from xgenmm_jax.cli.options import parse, take_option
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.dialogues import Cauldron, VLGuard
from xgenmm_jax.data.readers.grounding import Grounding
from xgenmm_jax.data.readers.html import Html
from xgenmm_jax.data.readers.idl import Idl
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.readers.instructions import Instructions, TextTurns
from xgenmm_jax.data.readers.llava import Llava
from xgenmm_jax.data.readers.mint import MintArxiv, MintHtml, MintPdf
from xgenmm_jax.data.readers.mmc4 import Mmc4
from xgenmm_jax.data.readers.multi_image import Mantis, Mmdu
from xgenmm_jax.data.readers.multiple_choice import MultipleChoice, ProVision
from xgenmm_jax.data.readers.obelics import Obelics
from xgenmm_jax.data.readers.ocr import Ocr
from xgenmm_jax.data.readers.preferences import Preferences, VlFeedback
from xgenmm_jax.data.readers.questions import ImageQuestions, QuestionLists
from xgenmm_jax.data.readers.records import ProjectRecords
from xgenmm_jax.data.readers.text import PlainText
from xgenmm_jax.data.readers.tux_paint import Stamps
from xgenmm_jax.data.readers.visual_genome import VisualGenome
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.source_paths import at_home
from xgenmm_jax.data.storage.base import Storage
from xgenmm_jax.paths import local_path

if TYPE_CHECKING:
    from xgenmm_jax.training.config import TrainConfig

KINDS = ("tars", "parquet", "json", "folder", "records", "tfds")
_READERS = (
    ImageCaptions, Ocr, Grounding, Idl, VisualGenome, Obelics, MintHtml, MintPdf, MintArxiv, Mmc4, ImageQuestions,
    QuestionLists, MultipleChoice, ProVision, Cauldron, VLGuard, Llava, Mantis, Mmdu, Instructions, TextTurns,
    VlFeedback, Preferences, PlainText, Html, Stamps, ProjectRecords,
)  # fmt: skip
READERS: dict[str, type[Reader]] = {reader.label: reader for reader in _READERS}
"""Readers by their labels, with options that have defaults."""

Arguments = TypeVar("Arguments", bound="SourceOptions")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options of commands on sources."""

    reader: str | None = None
    """What makes records of what is stored, by its label; its options follow, as --reader.caption json."""
    images: str | None = None
    """json and parquet: the folder of images that records name."""
    beside: tuple[str, ...] = ()
    """folder: ends of the names of files that a record needs beside its own, as txt."""
    split: str = "train"
    """tfds: the split, also as FOLDER@SPLIT."""
    name: str = ""
    """What the source is called in its index and in metrics; by default the reader's label."""
    index: str | None = None
    """A folder for the index, where it cannot lie beside the data."""


def parse_with_reader(kind: type[Arguments], argv: Sequence[str], program: str) -> tuple[Arguments, Reader | None]:
    """The command's arguments, and the reader that they name with its options.

    Exits with code 2 as `parse`. Raises ValueError for a reader that there is not.
    """
    rest, label = take_option(list(argv), "--reader")
    if label is None:
        if strays := [word for word in rest if word.startswith("--reader.")]:
            raise ValueError(f"{strays[0].split('=')[0]}: of which reader? Give --reader NAME too: {_listed(READERS)}.")
        return parse(kind, rest, program), None
    if label not in READERS:
        raise ValueError(f"--reader: no reader '{label}'; {nearest(label, READERS)}.")
    # The same arguments, with the reader's own options in place of its name.
    reader = READERS[label]
    fields = [("reader", reader, dataclasses.field(default=reader()))]
    with_reader = dataclasses.make_dataclass(
        kind.__name__, fields, bases=(kind,), namespace={"__doc__": kind.__doc__}, frozen=True, kw_only=True
    )
    arguments = parse(with_reader, rest, program)
    return arguments, arguments.reader


def read_source(
    text: str, options: SourceOptions, reader: Reader | None, at: str | None = None
) -> "ShardedSource | TrainConfig":
    """The source that a text names, or the run of an experiment file.

    Raises ValueError where there is none, or where it is stored files and no reader is named.
    """
    if is_python(text):
        if reader is not None:
            raise ValueError(f"--reader: '{text}' says its own; leave --reader away.")
        return load_named(text, at)
    storage = read_storage(text, options)
    if reader is None:
        raise ValueError(f"data: '{text}' needs a reader; give --reader NAME, one of {_listed(READERS)}.")
    return ShardedSource(storage, reader, options.name, index=options.index)


def read_storage(text: str, options: SourceOptions) -> Storage:
    """The files that KIND:PATTERN names. Raises ValueError for another kind or an option that the kind has not."""
    kind, _, pattern = text.partition(":")
    if kind not in KINDS or not pattern:
        near = f"; {nearest(kind, KINDS)}" if ":" in text and pattern and not pattern.startswith("//") else ""
        raise ValueError(
            f"data: '{text}' is no source{near}; wanted KIND:PATTERN with KIND one of {', '.join(KINDS)}, or "
            "FILE.py:NAME."
        )
    if options.beside and kind != "folder":
        raise ValueError(f"--beside: files beside others are those of folder, not of {kind}; leave --beside away.")
    if options.images is not None and kind not in ("json", "parquet"):
        raise ValueError(f"--images: records of {kind} bring their images; leave --images away.")
    # Imported here: each brings a library of its own.
    if kind == "tars":
        from xgenmm_jax.data.storage.tars import Tars

        return Tars(pattern)
    if kind == "parquet":
        from xgenmm_jax.data.storage.parquet import Parquet

        return Parquet(pattern, options.images)
    if kind == "json":
        from xgenmm_jax.data.storage.json_files import JsonFiles

        return JsonFiles(pattern, options.images)
    if kind == "folder":
        from xgenmm_jax.data.storage.folder import Folder

        is_folder = os.path.isdir(at_home(pattern))
        return Folder(f"{pattern.rstrip('/')}/*" if is_folder else pattern, options.beside)
    if kind == "records":
        from xgenmm_jax.data.storage.record_shards import ArrayRecords

        return ArrayRecords(pattern)
    from xgenmm_jax.data.storage.tfds import Tfds

    folder, _, split = pattern.partition("@")
    return Tfds(folder, split or options.split)


def is_python(text: str) -> bool:
    """Whether a text names a Python file, or something in one."""
    return text.partition(":")[0] not in KINDS and re.search(r"\.py(:\w*)?$", text) is not None


def load_named(
    text: str, at: str | None = None, given: Mapping[str, str] = MappingProxyType({})
) -> "ShardedSource | TrainConfig":
    """What FILE.py:NAME is or, of a function, returns; FILE.py is FILE.py:config. given: of `take_arguments`.

    Raises ValueError where it is neither a source nor a run.
    """
    from xgenmm_jax.cli.experiment_files import import_experiment, load_experiment, naming_the_line
    from xgenmm_jax.training.config import TrainConfig

    path, file, name = local_path(text, "source"), local_path(text, "source"), "config"
    if not path.is_file() and ":" in path.name:
        base, _, name = path.name.rpartition(":")
        file = path.with_name(base)
    value: Any = getattr(import_experiment(file), name, None)
    if inspect.isfunction(value) and at is None and not given:
        with naming_the_line(file):
            value = value()
    if isinstance(value, ShardedSource | TrainConfig):
        return value
    if value is None or at is not None or given:
        return load_experiment(path, at, given)
    raise ValueError(
        f"data: '{name}' of '{file}' is a {type(value).__name__}; wanted a ShardedSource, or a function that gives one "
        "or a TrainConfig."
    )


def _listed(names: dict[str, Any]) -> str:
    return ", ".join(names)


