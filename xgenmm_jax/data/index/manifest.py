"""A source's manifest: its shards, how many records and bytes each has, and what the sizes beside it were measured by.

It lies in the source's index folder, with the sizes (and for tars and JSON the offsets) of every shard that was
reached. A manifest that does not fit the files or the config is never trained on.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from dataclasses import dataclass
import hashlib
import json
from typing import Any, NamedTuple

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.files import parse_json

FILE = "manifest.json"
VERSION = 1


class ShardEntry(NamedTuple):
    """name: the shard's path below the folder that all shards share. refused: what was not read, by reason."""

    name: str
    records: int
    bytes: int
    refused: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """storage, reader: class and options, as JSON; places do not count. measured_by: tokenizer and chat style of the
    sizes, {} while nothing is measured."""

    storage: dict[str, Any]
    reader: dict[str, Any]
    shards: tuple[ShardEntry, ...]
    measured_by: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Of reader, options, tokenizer and chat style: what a shard's sizes depend on."""
        return _digest([self.reader, self.measured_by])

    @property
    def identity(self) -> str:
        """Of the manifest as a whole: the same for the same records in the same order."""
        return _digest([self.storage["class"], self.reader, [shard[:3] for shard in self.shards]])


def described(config: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """Class and options of a storage or reader as JSON.

    Raises ValueError for an option that is no plain value.
    """
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    options = {name: value for name, value in fields.items() if name not in without}
    try:
        return {"class": type(config).__qualname__, **json.loads(json.dumps(options, default=_nested))}
    except TypeError as error:
        raise ValueError(
            f"data: an option of {config} is no plain value ({error}); readers have plain options."
        ) from error


def _nested(option: object) -> dict[str, Any]:
    """A reader in a reader. Raises TypeError for what is no dataclass."""
    if not dataclasses.is_dataclass(option) or isinstance(option, type):
        raise TypeError(f"Object of type {type(option).__name__} is not JSON serializable")
    return described(option)


def to_json(manifest: Manifest) -> bytes:
    """The file; one shard a line."""
    shards = ",\n".join(json.dumps(list(shard)) for shard in manifest.shards)
    parts = {name: getattr(manifest, name) for name in ("storage", "reader", "measured_by")}
    head = {"version": VERSION, **parts}
    return f'{json.dumps(head, indent=1)[:-2]},\n "shards": [\n{shards}\n]}}\n'.encode()


def from_json(data: bytes, name: str, remedy: str) -> Manifest:
    """Raises SourceError where the file is no manifest, or of another version."""
    try:
        value = parse_json(data)
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']}, wanted {VERSION}")
        shards = tuple(ShardEntry(str(name), int(n), int(b), dict(refused)) for name, n, b, refused in value["shards"])
        if any(number < 0 for shard in shards for number in (shard.records, shard.bytes, *shard.refused.values())):
            raise ValueError("a shard of less than no records")
        return Manifest(dict(value["storage"]), dict(value["reader"]), shards, dict(value["measured_by"]))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise SourceError(f"data: '{name}' is no manifest ({error}); delete it and {remedy}.") from error


def difference(was: Manifest, now: Manifest) -> str | None:
    """What of a manifest is not as the config and the files are now; None where all is."""
    for part in ("storage", "reader"):
        if text := _differing(getattr(was, part), getattr(now, part), part):
            return text
    before = {shard.name: shard for shard in was.shards}
    after = {shard.name: shard for shard in now.shards}
    for what, names in (("gone", before.keys() - after.keys()), ("new", after.keys() - before.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"'{min(names)}'{more} is {what}"
    for name, shard in after.items():
        if shard.bytes != before[name].bytes:
            return f"'{name}' has {shard.bytes:,} bytes, before {before[name].bytes:,}"
    if [shard.name for shard in was.shards] != [shard.name for shard in now.shards]:
        return "its shards stand there twice or in another order"
    return None


def differing_measure(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What the sizes were measured by and what they should be; None where it is the same."""
    return _differing(was, now, "") if was else None


def _differing(was: Mapping[str, Any], now: Mapping[str, Any], part: str) -> str | None:
    for name in (*now, *was):
        if was.get(name) != now.get(name):
            label = f"{part} {name}" if part else name
            return f"{label} was {_brief(was.get(name))} and is {_brief(now.get(name))}"
    return None


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
