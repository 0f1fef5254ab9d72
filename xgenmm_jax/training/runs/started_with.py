"""What a run began with: its data and its weights, as numbers of records and checksums in its folder.

A run that goes on is held to them. Places, names and times do not count, bytes do. Once it has saved it needs the
weights no more, so they may be gone, and a run among them may have trained on.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
import json
import logging
from typing import Any, NamedTuple

from xgenmm_jax import files, hub
from xgenmm_jax.data.identity import fingerprint, identity
from xgenmm_jax.paths import Path, is_in_bucket, user_path
from xgenmm_jax.training.config import Initialize, TrainConfig, read_object
from xgenmm_jax.training.runs import checkpoint_files
from xgenmm_jax.training.runs.checkpoints import FOLDER, newest
from xgenmm_jax.training.runs.initialize import PARTS, find_weights
from xgenmm_jax.training.runs.run_folder import CONFIG_FILE, STARTED_WITH_FILE

LOG = logging.getLogger(__name__)

Print = Mapping[str, Any]
"""Of a file: `fingerprint`. Of a run's newest checkpoint: {"checkpoint": its step, "of", "sha256", "name"}."""


class Change(NamedTuple):
    """field: of Initialize, or "data". text: what, "... before, ... now". was, now: Prints of weights."""

    field: str
    text: str
    was: Print | None = None
    now: Print | None = None


def started_with(config: TrainConfig) -> dict[str, Any]:
    """{"data": `identity` of the mixture, "initialize": {field: Print}} as they are now, without weights that are gone.

    Raises ValueError where data do not open.
    """
    prints = {field: _print_of(field, source) for field, source in _sources_of(config.initialize).items()}
    weights = {field: value for field, value in prints.items() if value is not None}
    return {"data": identity(getattr(config.data, "mixture", ())), "initialize": weights}


def keep(config: TrainConfig, run: Path, has_saved: bool) -> None:
    """Writes what the run begins with; nothing where it has saved and this is there."""
    file = run / STARTED_WITH_FILE
    if has_saved and file.is_file():
        return
    now = started_with(config)
    if file.is_file():
        changed = "; ".join(f"{change.field}: {change.text}" for change in _changes(_read(run), now, config.initialize))
        if changed:
            LOG.warning("run folder: '%s' has saved nothing yet and begins anew with %s", run, changed)
    files.write_whole(file, json.dumps(now, indent=1) + "\n")


def add_sources(config: TrainConfig, run: Path) -> list[str]:
    """Adds the sources that the mixture has got at its end since; gives the names of all."""
    begun = _read(run)
    new = config.data.mixture[len(begun["data"]) :]
    if new:
        begun["data"] += identity(new)
        files.write_whole(run / STARTED_WITH_FILE, json.dumps(begun, indent=1) + "\n")
    return [source["source"] for source in begun["data"]]


def compare(config: TrainConfig, run: Path, needs_weights: bool) -> None:
    """Holds a run that has saved to what it began with; nothing is written.

    needs_weights: it lacks its reference, which was read from them.

    Raises ValueError with what was, what is and what to do.
    """
    if not (run / STARTED_WITH_FILE).is_file():
        LOG.warning(
            "run folder: '%s' is of before %s was kept, which is written now: data%s are taken for those that it began "
            "with", run, STARTED_WITH_FILE, " and weights (for its reference)" if needs_weights else "",
        )  # fmt: skip
        return
    changes = _changes(_read(run), started_with(config), config.initialize)
    problems = [problem for change in changes if (problem := _problem(change, config, run, needs_weights)) is not None]
    if problems:
        more = f" ({len(problems) - 1} more changed)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}, or start anew with another --workdir{more}.")


def _problem(change: Change, config: TrainConfig, run: Path, needs_weights: bool) -> str | None:
    """What keeps the run from going on with a change, and what to do."""
    field, text, was, now = change
    other = f"{field}: {text}: not what the run in '{run}' began with"
    if field == "data":
        return f"{other}; put the data back as they were"
    if needs_weights:
        if field == "initialize.run" and _checkpoint_of_then(was, config.initialize.run) is not None:
            return None
        if config.lora is not None:
            return f"{other}, which its low-rank updates change; put it back as it was"
        return f"{other}, whose reference was read there and is not whole in its own folder; put it back as it was"
    if now is None:
        return None
    if _has_trained_on(was, now):
        LOG.warning("%s: %s; the run in '%s' goes on from what it has saved itself", field, text, run)
        return None
    return f"{other}; put it back as it was, move it away (the run goes on from what it has saved itself)"


def weights_of(config: TrainConfig, run: Path) -> Initialize:
    """Where the weights that a run began with are read again: of a run that has trained on, the checkpoint of then."""
    if config.initialize.run is None or not (run / STARTED_WITH_FILE).is_file():
        return config.initialize
    checkpoint = _checkpoint_of_then(_read(run)["initialize"].get("run"), config.initialize.run)
    return config.initialize if checkpoint is None else dataclasses.replace(config.initialize, run=str(checkpoint))


def base_of(config: TrainConfig, run: Path) -> Initialize:
    """Where the parameters are read that a run's low-rank updates change: as `weights_of`, without an adapter.

    A path that does not begin at the root is looked for from where the process stands, then from the folders that the
    run lies in: runs are read from anywhere, and may be moved together.

    Raises ValueError where they are gone, or others than then.
    """
    sources = {field: _found(source, run) for field, source in _sources_of(config.initialize).items()}
    config = dataclasses.replace(config, initialize=dataclasses.replace(config.initialize, adapter=None, **sources))
    if not (run / STARTED_WITH_FILE).is_file():
        LOG.warning(
            "run folder: '%s' has no %s; what its low-rank updates change is taken as it is now", run, STARTED_WITH_FILE
        )
        return config.initialize
    now = {field: _print_of(field, source) for field, source in sources.items()}
    begun = {"data": [], "initialize": _read(run)["initialize"]}
    for change in _changes(begun, {"data": [], "initialize": now}, config.initialize):
        problem = _problem(change, config, run, needs_weights=True)
        if problem is not None:
            raise ValueError(f"{problem}.")
    return weights_of(config, run)


def run_before(start: Initialize, run: Path) -> Print | None:
    """Of the run that a run began with, where that gave all of its parameters; None where it did not, or none says.

    start: of the run's config. An adapter it may name, whose updates stand beside these parameters.
    """
    if start != Initialize(run=start.run, adapter=start.adapter) or not (run / STARTED_WITH_FILE).is_file():
        return None
    return _read(run)["initialize"].get("run")


def difference_from(was: Print, run: Path) -> str | None:
    """What of a run's newest checkpoint, or of a checkpoint, is another than it was; None where nothing is."""
    now = _print_of("run", str(run))
    return None if now is not None and _are_same(was, now) else _difference(was, now)


def _found(source: str, run: Path) -> str:
    """A path of the config as it is from here; where nothing is there, of the first place that has it."""
    if source.startswith(hub.SCHEME):
        return source
    path = user_path(source, "initialize")
    if is_in_bucket(path) or path.exists():
        return source
    parents = [run.parent] if is_in_bucket(run) else run.absolute().parents
    candidates = (*(folder / source for folder in parents), parents[0] / path.name)
    return str(next((path for path in candidates if path.exists()), source))


def _read(run: Path) -> dict[str, Any]:
    file, remedy = run / STARTED_WITH_FILE, "delete it, and what is there now is taken for what the run began with"
    value = read_object(file, {"data": list, "initialize": dict}, remedy)
    sources = [source for source in value["data"] if _has(source, source=str, records=int, files=list)]
    prints = [one for source in sources for one in source["files"]] + [*value["initialize"].values()]
    if len(sources) < len(value["data"]) or not all(_has(one, sha256=str, of=str) for one in prints):
        raise ValueError(f"'{file}' holds something else than a run writes there; {remedy}.")
    return value


def _has(value: Any, **kinds: type) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in kinds.items())


def _sources_of(config: Initialize) -> dict[str, str]:
    return {field: getattr(config, field) for field in ("run", *PARTS) if getattr(config, field) is not None}


def _print_of(field: str, source: str) -> Print | None:
    """None where nothing is there."""
    try:
        path = user_path(source, f"initialize.{field}") if field == "run" else find_weights(source, field)
        if path.is_file():
            return fingerprint(path)
        checkpoint = newest(path)
        return {**_print_of_checkpoint(checkpoint), **_name_of(checkpoint.parent.parent)}
    except ValueError:
        return None


def _name_of(run: Path) -> dict[str, str]:
    """A run's own name, which tells a model card more than its folder's does; {} where it has none."""
    file = run / CONFIG_FILE
    name = read_object(file, {}, "copy it again").get("name") if file.is_file() else None
    return {"name": name} if isinstance(name, str) else {}


def _print_of_checkpoint(folder: Path) -> Print:
    """Of its list of checksums; where it has none, of its files. The parameters' alone: nothing else is taken over."""
    if checkpoint_files.has_checksums(folder):
        listed = json.loads(files.read_text(folder / checkpoint_files.LIST_FILE))
        kind, value = "checksums", {name: entry for name, entry in listed.items() if name.startswith("params/")}
    else:
        names = (f"params/{name}" for name in files.tree(folder / "params"))
        kind, value = "files", {name: fingerprint(folder / name) for name in names}
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return {"checkpoint": folder.name, "of": kind, "sha256": digest}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], config: Initialize) -> Iterator[Change]:
    for was, is_ in zip(before["data"], now["data"], strict=False):
        text = _data_change(was, is_)
        if text is not None:
            yield Change("data", f"'{is_['source']}': {text}")
    for field, source in _sources_of(config).items():
        was, is_ = before["initialize"].get(field), now["initialize"].get(field)
        if was is not None and (is_ is None or not _are_same(was, is_)):
            yield Change(f"initialize.{field}", f"'{source}': {_difference(was, is_)}", was, is_)


def _data_change(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    if len(was["files"]) != len(now["files"]):
        at = f"{len(was['files'])} files before, {len(now['files'])} now"
    else:
        pairs = zip(was["files"], now["files"], strict=True)
        at = next((f"{b['name']}: {_difference(a, b)}" for a, b in pairs if not _are_same(a, b)), None)
    if was["records"] != now["records"]:
        return f"{was['records']:,} records before, {now['records']:,} now" + ("" if at is None else f" ({at})")
    return at


def _are_same(was: Print, now: Print) -> bool:
    return all(was.get(name) == now.get(name) for name in ("of", "sha256", "bytes"))


def _difference(was: Print, now: Print | None) -> str:
    if now is None:
        return "gone"
    if "checkpoint" in was and "checkpoint" in now and was["checkpoint"] != now["checkpoint"]:
        return f"checkpoint {was['checkpoint']} before, {now['checkpoint']} now"
    if "bytes" in was and "bytes" in now and was["bytes"] != now["bytes"]:
        return f"{was['bytes']:,} bytes before, {now['bytes']:,} now"
    return f"sha256 {was['sha256'][:12]} before, {now['sha256'][:12]} now"


def _has_trained_on(was: Print, now: Print) -> bool:
    steps = [str(one.get("checkpoint")) for one in (was, now)]
    return all(step.isdigit() for step in steps) and int(steps[0]) < int(steps[1])


def _checkpoint_of_then(was: Print | None, source: str) -> Path | None:
    """The checkpoint that weights were read from, where it still lies in its run with the same bytes."""
    if was is None or not str(was.get("checkpoint")).isdigit():
        return None
    folder = user_path(source, "initialize.run") / FOLDER / was["checkpoint"]
    return folder if (folder / "params").is_dir() and _are_same(was, _print_of_checkpoint(folder)) else None
