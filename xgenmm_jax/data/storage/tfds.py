"""Folders that tensorflow-datasets prepared, read without TensorFlow: dataset_info.json, features.json, array_record.

Which files a split has, how many records each, and how a record is laid out is tensorflow-datasets' to say; records
are read by number with `array_record.BlobReader`. Behavior of the library: docs/reference/libraries.md#tfds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import functools
import os
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf.message import DecodeError
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils.version import list_all_versions

from xgenmm_jax.data import source_paths
from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.storage import files
from xgenmm_jax.data.storage.array_record import BlobReader
from xgenmm_jax.data.storage.base import Located, Raw
from xgenmm_jax.files import parse_json, read_json

INFO_FILE, FEATURES_FILE = "dataset_info.json", "features.json"
FORMAT = "array_record"

_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_OWN_CLASSES = "tensorflow_datasets.core.features."


@dataclass(frozen=True)
class Tfds:
    """One split of a folder that tensorflow-datasets prepared: its own builders' or any other's, as big_vision's.

    folder: on a disk; holds dataset_info.json, or versions of which the newest is taken; or a name, "coco_captions" or
        "coco_captions/2014", below $TFDS_DATA_DIR, else below ~/tensorflow_datasets. Nothing is downloaded or prepared.
    split: a whole one, "train"; "train[:10%]" and "train+val" are refused.

    A record's fields are named as tensorflow-datasets stores them, with "/" between the levels: "image/filename",
    "captions/text". Images are their encoded bytes; text is str, and stays bytes where it is no UTF-8; numbers are
    Python's; a sequence is a list, and a sequence of dicts one list for each of their fields. Arrays stay numpy's.
    """

    folder: str
    split: str = "train"

    PATH_FIELDS: ClassVar[tuple[str, ...]] = ("folder",)

    def shards(self) -> tuple[str, ...]:
        """Raises SourceError where the folder is none that was prepared, the split is not in it, or a file is gone."""
        paths = tuple(self._lengths())
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise SourceError(
                f"data: '{missing[0]}'{more} of the {len(paths)} files of '{self.split}' is not there; copy it, or "
                "prepare the folder again."
            )
        return paths

    def size(self, shard: str) -> int:
        return files.size(shard)

    def locate(self, shard: str) -> Located:
        """Raises SourceError where the file is no whole array_record file, or has another number of records."""
        noted = self._lengths().get(shard)
        if noted is None:
            raise SourceError(f"data: '{shard}' is no file of '{self.split}' in '{self.folder}'; index it again.")
        records = len(BlobReader(shard))
        if records != noted:
            raise SourceError(
                f"data: '{shard}' holds {records} records and {INFO_FILE} beside it says {noted}; copy it again."
            )
        return Located(records, {})

    def open(
        self, shard: str, located: Located, fields: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> "TfdsShard":
        all_features = _prepared(*_stamped(self.folder)).info.features
        there = dict(_leaves(all_features))
        missing = [name for name in fields if name not in there]
        if missing:
            raise SourceError(
                f"data: no field '{missing[0]}' in '{self.folder}'; it has {', '.join(map(repr, there))}."
            )
        names = tuple(name for name in dict.fromkeys((*fields, *optional) or there) if name in there)
        # What is not read is not decoded: a record is not lost for the sake of a field that nobody wants.
        tops = [top for top in all_features if any(f"{name}/".startswith(f"{top}/") for name in names)]
        features = tfds.features.FeaturesDict({top: all_features[top] for top in tops})
        return TfdsShard(shard, located.records, features, names)

    def _lengths(self) -> Mapping[str, int]:
        """Records of each file of the split, in the order of the files."""
        return _lengths(*_stamped(self.folder), self.split)


class TfdsShard:
    """Records of one file by number."""

    def __init__(self, path: str, records: int, features: tfds.features.FeaturesDict, fields: tuple[str, ...]):
        self._blobs = BlobReader(path, records, INFO_FILE)
        self._name, self._features, self._fields = files.base_name(path), features, fields
        self._decoders = {name: decoders for name in features if (decoders := _undecoded(features[name])) is not None}

    def __len__(self) -> int:
        return len(self._blobs)

    def read(self, index: int) -> Raw:
        """Raises RecordError where the record is damaged, or is not of the form that features.json says."""
        key = f"{self._name}__{index}"  # as `tfds_id` of tensorflow-datasets
        try:
            data = self._blobs[index]
        except SourceError:
            raise
        except ValueError as error:
            raise RecordError(key, error) from error
        try:
            example = self._features.deserialize_example_np(data, decoders=self._decoders)
            values = dict(_values(example, self._features))
        except (
            DecodeError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RuntimeError,
        ) as error:
            cause = (str(error).splitlines() or [""])[0][:300]
            raise RecordError(key, f"it is not as {FEATURES_FILE} says ({type(error).__name__}: {cause})") from error
        return Raw(key, {name: values[name] for name in self._fields})

    def close(self) -> None:
        self._blobs.close()


class _AsStored(tfds.decode.SkipDecoding):
    """Leaves an encoded image as it is, in a sequence too, for which tensorflow-datasets' own has no method."""

    def decode_batch_example_np(self, serialized_example: Any) -> Any:
        return serialized_example

    def decode_ragged_example_np(self, serialized_example: Any) -> Any:
        return serialized_example


def _undecoded(feature: tfds.features.FeatureConnector) -> Any:
    """Decoders that leave a feature's images encoded; None where it has none."""
    inner = _inner(feature)
    if isinstance(inner, tfds.features.FeaturesDict):
        return {name: decoders for name in inner if (decoders := _undecoded(inner[name])) is not None} or None
    return _AsStored() if isinstance(inner, tfds.features.Image) else None


def _inner(feature: tfds.features.FeatureConnector) -> tfds.features.FeatureConnector:
    """What a sequence is of; any other feature as it is."""
    while isinstance(feature, tfds.features.Sequence) and not isinstance(feature, tfds.features.Dataset):
        feature = feature.feature
    return feature


def _leaves(features: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a record and their features, by name."""
    for name in sorted(features):  # they come out of a map in any order
        inner = _inner(features[name])
        if isinstance(inner, tfds.features.FeaturesDict):
            yield from _leaves(inner, f"{prefix}{name}/")
        else:
            yield prefix + name, features[name]


def _values(example: Mapping[str, Any], features: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a record and their values."""
    for name, value in example.items():
        inner = _inner(features[name])
        if isinstance(inner, tfds.features.FeaturesDict):
            yield from _values(value, inner, f"{prefix}{name}/")
        else:
            yield prefix + name, _plain(value, isinstance(inner, tfds.features.Image))


def _plain(value: Any, is_image: bool) -> Any:
    """A value of tensorflow-datasets in Python's types."""
    if isinstance(value, np.ndarray) and value.dtype != np.object_:
        return value
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(one, is_image) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes) and not is_image:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    return value


def _folder(name: str) -> Path:
    """The folder with dataset_info.json that a folder or name stands for. Raises SourceError where there is none."""
    path = source_paths.at_home(name)
    home = source_paths.at_home(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    folders = [path] if path.is_absolute() else [path, home / path]
    for folder in folders:
        versions = [folder / str(version) for version in list_all_versions(folder)]
        for one in (folder, *reversed(versions)):
            if (one / INFO_FILE).is_file():
                return one
    below = sorted({str(info.parent) for folder in folders for info in folder.glob(f"*/*/{INFO_FILE}")})
    there = f"; there is {', '.join(below[:3])}" if below else ""
    raise SourceError(
        f"data: no {INFO_FILE} of tensorflow-datasets in '{name}'{there}; give a folder that it prepared, or a name "
        f"below '{home}' ($TFDS_DATA_DIR). Nothing is downloaded here."
    )


def _stamped(name: str) -> tuple[Path, tuple[int, ...]]:
    """The folder, and the times of its files, so that what was prepared anew is read anew."""
    folder = _folder(name)
    paths = (folder / INFO_FILE, folder / FEATURES_FILE)
    return folder, tuple(path.stat().st_mtime_ns for path in paths if path.exists())


@functools.lru_cache(maxsize=256)
def _lengths(folder: Path, stamps: tuple[int, ...], split_name: str) -> Mapping[str, int]:
    """Records of each file of a split. Raises SourceError where there is no such split, or its files lie elsewhere."""
    info = _prepared(folder, stamps).info
    if split_name not in info.splits:
        names = ", ".join(map(repr, info.splits)) or "none"
        raise SourceError(f"data: no split '{split_name}' in '{folder}'; it has {names}, which are read whole.")
    split = info.splits[split_name]
    template = split.filename_template.replace(filetype_suffix=FORMAT)
    paths = [os.fspath(path) for path in template.sharded_filepaths(split.num_shards)]
    try:
        for path in paths:
            source_paths.inside(folder, os.path.relpath(path, folder))
    except ValueError as error:
        raise SourceError(f"data: '{folder / INFO_FILE}' names files elsewhere: {error}") from error
    return dict(zip(paths, split.shard_lengths, strict=True))


@functools.lru_cache(maxsize=256)
def _prepared(folder: Path, stamps: tuple[int, ...]) -> tfds.core.DatasetBuilder:
    """The opened folder. Raises SourceError where it cannot be read, or not without TensorFlow."""
    path = folder / FEATURES_FILE
    if not path.is_file():
        raise SourceError(f"data: no {FEATURES_FILE} in '{folder}'; copy it there, or prepare the folder again.")
    try:
        foreign = next((one for one in _classes(read_json(path)) if not one.startswith(_OWN_CLASSES)), None)
        if foreign is not None:
            # tensorflow-datasets would import the module.
            raise SourceError(f"data: '{path}' names the class '{foreign[:200]}'; wanted features of {_OWN_CLASSES}*.")
        builder = tfds.builder_from_directory(folder)
        formats = [one.value for one in (builder.info.file_format, *builder.info.alternative_file_formats)]
    except SourceError:
        raise
    except Exception as error:  # its parsers raise anything: ParseError, AssertionError, KeyError, ...
        cause = (str(error).splitlines() or [""])[0][:300]
        raise SourceError(
            f"data: '{folder}' is not as tensorflow-datasets prepares it ({type(error).__name__}: {cause}); copy its "
            "JSON files again, or prepare it again."
        ) from error
    if FORMAT not in formats:
        raise SourceError(
            f"data: '{folder}' holds {formats[0]} files, which need TensorFlow to be read; wanted {FORMAT}. Where "
            f"TensorFlow and Apache Beam are, `tfds convert_format --dataset_version_dir='{folder}' "
            f"--out_file_format={FORMAT}` adds such files; `tfds build --file_format={FORMAT}` prepares them."
        )
    return builder


def _classes(value: Any) -> Iterator[str]:
    """The names of classes anywhere in features.json, as it is written today and by older versions."""
    if isinstance(value, list):
        for one in value:
            yield from _classes(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key in _CLASS_KEYS and isinstance(one, str) and "." in one:
                yield one
            elif key in ("json", "content") and isinstance(one, str) and one:  # JSON in JSON
                yield from _classes(parse_json(one))
            else:
                yield from _classes(one)
