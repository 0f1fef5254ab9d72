"""Where a benchmark's examples are read from below the user's folder, in the containers in which it is published."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
import functools
import hashlib
import io
import itertools
import pathlib
import re
from typing import Any, Protocol, runtime_checkable

import PIL.Image
import pyarrow.parquet as pq

from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation.profiles import PROFILES, VLMEVALKIT, Profile, Reading, Reencode
from xgenmm_jax.evaluation.published import copies, file_images
from xgenmm_jax.evaluation.published.file_images import FileImage, FileImages, ParquetCells
from xgenmm_jax.evaluation.published.tsv import Row, read_table
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.paths import Path, is_in_bucket

_SHARD = re.compile(r"-(?P<number>\d{3,})-of-(?P<of>\d{3,})\.parquet$")


@dataclass(frozen=True)
class Loaded:
    """A benchmark's examples as they were found.

    files: those that they were read from. left_out: rows of the files that are no examples, by reason. demonstrations:
    worked examples that may stand in front of one.
    """

    examples: tuple[Example, ...]
    files: tuple[Path, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    demonstrations: tuple[Example, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Equal for the same questions, options, answers and encoded pictures in the same order.

        Pictures that have files of their own are read for it, each once.
        """
        digest = hashlib.sha256()
        of_image: dict[int, str] = {}
        for one in (*self.examples, *self.demonstrations):
            for image in one.images:
                if id(image) not in of_image:
                    of_image[id(image)] = file_images.digest_of(image)
            seen = [of_image[id(image)] for image in one.images]
            parts = (one.id, one.question, one.answers, tuple(one.options.items()), tuple(one.fields.items()), seen)
            digest.update(repr(parts).encode())
        return digest.hexdigest()[:16]


@runtime_checkable
class Published(Protocol):
    """A container in which a benchmark is published."""

    profiles: tuple[Profile, ...]
    """Whose prompts and scores its columns suffice for."""

    @property
    def where(self) -> str:
        """What to put where, for the error of a folder that has none of them."""
        ...

    def find(self, folder: Path) -> tuple[Path, ...]:
        """Its files below the folder; none where one is missing."""
        ...

    def read(self, files: Sequence[Path], reading: Reading) -> Loaded:
        """Raises ValueError where a column is missing, with those found, or a file is damaged."""
        ...


@dataclass(frozen=True)
class Tsv:
    """VLMEvalKit's table, DIR/NAME.tsv.

    example: a row as an example; None leaves it out. columns: those that it cannot do without.
    """

    name: str
    example: Callable[[Row], Example | None]
    columns: tuple[str, ...] = ("question", "answer")
    profiles: tuple[Profile, ...] = (*VLMEVALKIT, "official")

    @property
    def where(self) -> str:
        return f"{self.name}.tsv (VLMEvalKit's table)"

    def find(self, folder: Path) -> tuple[Path, ...]:
        candidates = (folder / f"{self.name}.tsv", folder / self.name / f"{self.name}.tsv")
        return tuple(path for path in candidates if path.is_file())[:1]

    def read(self, files: Sequence[Path], reading: Reading) -> Loaded:
        table = read_table(copies.on_disk(files[0]), self.columns, reading)
        examples = [(row, self.example(row)) for row in table.rows]
        selected = tuple(
            replace(example, unreadable=row.unreadable) if row.unreadable else example
            for row, example in examples
            if example is not None
        )
        reasons = {"no picture": table.without_image, "not of this split": len(examples) - len(selected)}
        return Loaded(selected, tuple(files[:1]), {reason: count for reason, count in reasons.items() if count})


@dataclass(frozen=True)
class Doc:
    """A row of a set on the Hugging Face hub. index: its number among all. fields: its columns but the pictures.

    pictures: by column, each a tuple: of one picture, of a list of them, or empty where the cell is null.
    """

    index: str
    fields: Mapping[str, Any]
    images: Mapping[str, tuple[LazyImage, ...]]
    unreadable: str = ""


def check_shards(paths: Sequence[Path]) -> None:
    """Raises ValueError where a file says that it is one of so many ("test-00000-of-00002") and another is missing."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if match := _SHARD.search(str(path)):
            numbers.setdefault((str(path)[: match.start()], int(match["of"])), set()).add(int(match["number"]))
    for (stem, of), there in numbers.items():
        if missing := sorted(set(range(of)) - there):
            raise ValueError(f"benchmark: '{stem}' lacks {len(missing)} of {of} files (number {missing[0]}); copy all.")


@dataclass(frozen=True)
class Parquet:
    """A set of the hub as Parquet files, below DIR/REPOSITORY or DIR/OWNER/REPOSITORY.

    repository: "OWNER/REPOSITORY". pattern: its files below that, "data/test-*.parquet". image_columns: columns of
    pictures, as the hub writes them: a struct {bytes, path} or a list of them. columns: others that are needed.
    folders: over how many the set is spread; those that are not there are counted as left out.
    """

    repository: str
    pattern: str
    example: Callable[[Doc], Example | None]
    columns: tuple[str, ...] = ("question", "answer")
    image_columns: tuple[str, ...] = ("image",)
    profiles: tuple[Profile, ...] = ("lmms", "official")
    folders: int = 1

    @property
    def where(self) -> str:
        return f"{self.repository.split('/')[-1]}/{self.pattern} (of {self.repository} on the Hugging Face hub)"

    def find(self, folder: Path) -> tuple[Path, ...]:
        for root in (folder / self.repository, folder / self.repository.split("/")[-1]):
            matches = tuple(sorted(path for path in root.glob(self.pattern) if path.is_file()))
            if matches:
                check_shards(matches)
                return matches
        return ()

    def read(self, files: Sequence[Path], reading: Reading) -> Loaded:
        cells, known = ParquetCells(), FileImages()
        docs = (doc for path in map(copies.on_disk, files) for doc in self._docs(path, cells, known))
        examples, left_out = [], 0
        for number, doc in enumerate(docs):
            example = self.example(replace(doc, index=str(number)))
            if example is None:
                left_out += 1
                continue
            examples.append(replace(example, unreadable=doc.unreadable) if doc.unreadable else example)
        absent = self.folders - len({path.parent for path in files})
        reasons = {"not of this split": left_out, "folders of the set that are not there": max(absent, 0)}
        return Loaded(tuple(examples), tuple(files), {reason: count for reason, count in reasons.items() if count})

    def _docs(self, path: pathlib.Path, cells: ParquetCells, known: FileImages) -> Iterator[Doc]:
        try:
            file = pq.ParquetFile(path, buffer_size=file_images.BUFFER_BYTES)
        except (OSError, ValueError) as error:
            raise ValueError(f"benchmark: '{path}' is no whole Parquet file ({error}); copy it again.") from error
        with file:
            names = file.schema_arrow.names
            missing = [name for name in (*self.columns, *self.image_columns) if name not in names]
            if missing:
                raise ValueError(
                    f"benchmark: '{path}' has no column {', '.join(map(repr, missing))}; found: {', '.join(names)}."
                )
            for group in range(file.num_row_groups):
                batches = file.iter_batches(file_images.BATCH_ROWS, row_groups=[group], use_threads=False)
                rows = itertools.count()
                while (batch := _next_batch(batches, path)) is not None:
                    for row in batch.to_pylist():
                        cell = functools.partial(cells.cell, path, group, row=next(rows))
                        yield self._doc(row, path, cell, known)

    def _doc(self, row: dict[str, Any], path: pathlib.Path, cell: Callable[..., Any], known: FileImages) -> Doc:
        """cell: gives the row's value of a column again."""
        images: dict[str, tuple[LazyImage, ...]] = {}
        unreadable = ""
        for column in self.image_columns:
            name = f"in '{path}', {column}"
            try:
                images[column] = tuple(
                    known.image(data, functools.partial(_hub_bytes, cell, column, index, name), name)
                    for index, data in enumerate(_all_bytes(row.pop(column), name))
                )
            except ValueError as error:
                images[column], unreadable = (), str(error)
        return Doc("", row, images, unreadable)


@dataclass(frozen=True)
class Original:
    """The authors' own distribution, on a disk.

    needs: paths below the user's folder that must all be there. examples: reads them, given the folder; None for an
    entry that is left out.
    """

    needs: tuple[str, ...]
    examples: Callable[[pathlib.Path], Iterator[Example | None]]
    profiles: tuple[Profile, ...] = PROFILES

    @property
    def where(self) -> str:
        return f"{', '.join(self.needs)} (the authors' files)"

    def find(self, folder: Path) -> tuple[Path, ...]:
        if is_in_bucket(folder):  # thousands of pictures, a file each
            return ()
        paths = tuple(folder / name for name in self.needs)
        return paths if all(path.exists() for path in paths) else ()

    def read(self, files: Sequence[Path], reading: Reading) -> Loaded:
        folder = pathlib.Path(str(files[0])[: -len(self.needs[0])])
        entries = list(self.examples(folder))
        selected = tuple(entry for entry in entries if entry is not None)
        left_out = len(entries) - len(selected)
        return Loaded(selected, tuple(files), {"not of this split": left_out} if left_out else {})


def with_image_groups(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Examples whose field "image" is equal where they are about the same images, which answers in a file keep."""
    first: dict[tuple[int, ...], str] = {}

    def grouped(example: Example) -> Example:
        if "image" in example.fields or not example.images:
            return example
        group = first.setdefault(tuple(map(id, example.images)), example.id)
        return replace(example, fields={**example.fields, "image": group})

    return tuple(map(grouped, examples))


def reencoded(examples: Sequence[Example], reencode: Reencode) -> tuple[Example, ...]:
    """Examples of one picture with the picture as that toolkit hands it to the model; others as they are."""
    if reencode == "none":
        return tuple(examples)
    known: dict[int, LazyImage] = {}

    def again(example: Example) -> Example:
        if len(example.images) != 1:
            return example
        (image,) = example.images
        if id(image) not in known:
            digest = functools.partial(file_images.digest_of, image)
            known[id(image)] = FileImage(image.size_px, functools.partial(_as_jpeg, image), digest=digest)
        return replace(example, images=(known[id(image)],))

    return tuple(again(example) for example in examples)


def _as_jpeg(image: LazyImage) -> PIL.Image.Image:
    file = io.BytesIO()
    image.load().save(file, "JPEG")  # Pillow's defaults: quality 75, chroma at half resolution
    return image_from_bytes(file.getvalue(), "encoded again as JPEG", official=True).load()


def _next_batch(batches: Iterator[Any], path: Path) -> Any:
    """The next rows, None behind the last. Raises ValueError where a page of the file is damaged."""
    try:
        return next(batches, None)
    except (OSError, ValueError) as error:
        raise ValueError(f"benchmark: '{path}' is damaged ({error}); copy it again.") from error


def _all_bytes(value: Any, name: str) -> list[bytes]:
    """The encoded pictures in a cell: of a struct {bytes, path}, bytes alone or a list of these; none of a null."""
    cells = value if isinstance(value, list) else [] if value is None else [value]
    encoded = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
    if not all(isinstance(data, bytes) for data in encoded):
        raise ValueError(f"image: {name} holds no bytes of a picture; download the set with its pictures.")
    return encoded


def _hub_bytes(cell: Callable[..., Any], column: str, index: int, name: str) -> bytes:
    return _all_bytes(cell(column=column), name)[index]
