"""The model card that an export writes: a README.md with the hub's front matter, from the run's own files alone.

Nothing is guessed: what no file of the run says is "not known". Of paths the last part alone is written: a card is
published.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import importlib
import json
import math
from pathlib import PurePosixPath
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.evaluation import results
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.hardware import CHIPS
from xgenmm_jax.paths import Path
from xgenmm_jax.reporting.markdown import one_line, table, yaml_lines
from xgenmm_jax.reporting.page import minutes

CARD_FILE = "README.md"
NOT_KNOWN = "not known"
STARTS = {"run": "all parts", "vision": "vision", "connector": "connector", "decoder": "decoder", "adapter": "updates"}
"""Fields of `Initialize` that name weights, and what these are of."""
TASKS = {
    "xgenmm": "image-text-to-text",
    "siglip": "image-feature-extraction",
    "phi3": "text-generation",
    "llama": "text-generation",
    "blip3o": "text-to-image",
    "peft": "image-text-to-text",
    "peft_phi3": "text-generation",
    "blip2": "image-feature-extraction",
    "lavis": "image-feature-extraction",
}
"""Layout to the hub's name of what the model does."""


@dataclass(frozen=True)
class SourceFigures:
    """A source of the mixture: its share by weight, records, and samples and tokens trained on; None: not known."""

    name: str
    weight: float
    records: int | None
    samples: int | None
    tokens: int | None
    licence: str


@dataclass(frozen=True)
class RunFacts:
    """What a run's files say. settings: of config.json. row: of metrics.jsonl, the last one with a loss until the
    exported step; {} where none is. held_out: the last figures of the held-out loss. scores: of each profile's folder.
    started_with: {} where the run did not keep it."""

    settings: Mapping[str, Any]
    commit: str
    step: int
    row: Mapping[str, int | float]
    held_out: Mapping[str, int | float]
    sources: tuple[SourceFigures, ...]
    started_with: Mapping[str, Any]
    scores: Mapping[str, Sequence[Result]]


def read(run: Path, step: int) -> RunFacts:
    """The facts of a run folder for its checkpoint of a step. Raises ValueError where a file of it is damaged."""
    settings = _object(run / "config.json")
    started_file = run / "started_with.json"
    started_with = _object(started_file) if started_file.is_file() else {}
    commit = run / "commit"
    rows = [row for row in _metrics(run / "metrics.jsonl") if row.get("step", math.inf) <= step]
    row = next((row for row in reversed(rows) if "loss" in row), {})
    held_out = next((row for row in reversed(rows) if "held_out/loss" in row), {})
    folder = run / "evaluation"
    profiles = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    scores = {profile.name: results.read(profile) for profile in profiles}
    return RunFacts(
        settings,
        files.read_text(commit).strip() if commit.is_file() else NOT_KNOWN,
        step,
        row,
        held_out,
        tuple(_sources(settings, started_with, row)),
        started_with,
        {name: listed for name, listed in scores.items() if listed},
    )


def markdown(facts: RunFacts, layout: str, notes: Sequence[str] = ()) -> str:
    """The card. layout: of `TASKS`. notes: what the layout cannot hold, a sentence each."""
    name = one_line(str(facts.settings.get("name", "model")))
    sections = (
        ("Base", _base(facts)),
        ("Data", _data(facts)),
        ("Recipe", _recipe(facts)),
        ("Scores", _scores(facts)),
        ("Limits", _limits(facts, notes)),
    )
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    about = {
        "xgenmm": "A vision-language model in xGen-MM's layout",
        "siglip": "The vision tower of a run, in SigLIP's layout",
        "phi3": "The language model of a run, in Phi-3's layout",
        "llama": "The language model of a run, in Llama's layout",
        "blip3o": "What draws images, without its language model, in BLIP3-o's layout",
        "peft": "Low-rank updates of a vision-language model, in PEFT's layout over xGen-MM's",
        "peft_phi3": "Low-rank updates of a language model, in PEFT's layout over Phi-3's",
        "blip2": "A BLIP-2 without its language model, in transformers' layout",
        "lavis": "The first stage of a BLIP-2, in LAVIS' layout",
    }[layout]
    front = "\n".join(yaml_lines(_front_matter(facts, layout, name)))
    lead = f"{about}, exported at step {facts.step:,} of a run of xgenmm_jax (BLIP-3 in JAX)."
    return f"---\n{front}\n---\n\n# {name}\n\n{lead}\n\n{body}\n"


def _front_matter(facts: RunFacts, layout: str, name: str) -> dict[str, Any]:
    """Licences of weights follow from their base and data, which no file of a run tells: the owner sets them."""
    front: dict[str, Any] = {
        "license": "unknown",
        "pipeline_tag": TASKS[layout],
        "tags": ["xgenmm_jax", "jax", {"xgenmm": "xgen-mm"}.get(layout, layout)],
    }
    if layout in ("blip3o", "lavis"):
        return front
    if layout != "xgenmm":
        front["library_name"] = "peft" if layout.startswith("peft") else "transformers"
        return front
    measured = [
        {
            "task": {"type": TASKS[layout]},
            "dataset": {"name": result.title, "type": result.task},
            "metrics": [
                {"type": result.headline, "name": f"{result.headline} ({profile})", "value": result.value.value}
            ],
        }
        for profile, listed in facts.scores.items()
        for result in listed
        if not math.isnan(result.value.value) and not _is_of_another_step(facts, result)
    ]
    return front | ({"model-index": [{"name": name, "results": measured}]} if measured else {})


def _base(facts: RunFacts) -> str:
    initialize = facts.settings.get("initialize") or {}
    parts = {field: initialize[field] for field in STARTS if initialize.get(field)}
    if not parts:
        if _is_imported(facts):
            return "Imported weights, as they were; this code has not trained them."
        return "Random weights: the run was initialised from none."
    prints = facts.started_with.get("initialize", {})
    rows = []
    for field, path in parts.items():
        one = prints.get(field, {})
        which = f"checkpoint {one['checkpoint']}" if "checkpoint" in one else NOT_KNOWN if not one else "file"
        folder, base = PurePosixPath(str(path)).name, one.get("name")
        name = f"{folder} ({base})" if isinstance(base, str) and base != folder else folder
        rows.append((STARTS[field], name, which, one.get("sha256", NOT_KNOWN)))
    return table(("part", "initialised from", "of it", "SHA-256"), rows)


def _is_imported(facts: RunFacts) -> bool:
    """Whether the run is what `xgenmm convert` makes of released weights: its step 0, no metrics."""
    return not facts.row and str(facts.settings.get("name", "")).startswith("imported/")


def _data(facts: RunFacts) -> str:
    if not facts.sources:
        return "None: the run has no mixture of data."
    rows = [
        (
            source.name, f"{source.weight:.1%}", *map(_count, (source.records, source.samples, source.tokens)),
            source.licence,
        )
        for source in facts.sources
    ]  # fmt: skip
    of_sources = table(("source", "weight", "records", "samples seen", "tokens seen", "licence"), rows)
    return f"{of_sources}\n\nTokens are positions of rows, vision tokens included; shares are of the first host's rows."


def _recipe(facts: RunFacts) -> str:
    settings, row = facts.settings, facts.row
    if _is_imported(facts):
        return "Not trained by this code."
    optimizer, data = settings.get("optimizer") or {}, settings.get("data") or {}
    row_settings = data.get("row") or {}
    rows = [
        ("commit of xgenmm_jax", facts.commit),
        ("objective", str((settings.get("objective") or {}).get("class", NOT_KNOWN)).rpartition(":")[2]),
        ("steps", f"{facts.step:,} of {_count(settings.get('steps'))}"),
        ("samples, tokens", f"{_count(row.get('samples'))}, {_count(row.get('tokens'))}"),
        ("optimizer", f"{optimizer.get('algorithm', NOT_KNOWN)}, betas {optimizer.get('betas', NOT_KNOWN)}"),
        (
            "learning rate",
            f"{optimizer.get('peak_lr', NOT_KNOWN)}, {optimizer.get('schedule', NOT_KNOWN)}, "
            f"{optimizer.get('warmup_steps', NOT_KNOWN)} steps of warm-up",
        ),
        ("weight decay, clipping", f"{optimizer.get('weight_decay')}, {optimizer.get('clip_norm')}"),
        ("rows of a batch, their length", f"{_count(data.get('batch_rows'))}, {_count(row_settings.get('length'))}"),
        ("frozen", _frozen(settings)),
        ("seed", str(settings.get("seed", NOT_KNOWN))),
        ("hardware", _hardware(row)),
        ("time of training", minutes(row["seconds"]) if "seconds" in row else NOT_KNOWN),
        ("loss at the end", f"{row['loss']:.4f}" if "loss" in row else NOT_KNOWN),
    ]
    if settings.get("lora"):
        rows.append(("low-rank updates", _updates(facts)))
    if facts.held_out:
        rows.append(("held-out loss", f"{facts.held_out['held_out/loss']:.4f} at step {facts.held_out['step']:,}"))
    return table(("what", "value"), rows)


def _frozen(settings: Mapping[str, Any]) -> str:
    if updates := settings.get("lora"):
        return " and ".join(("all but the low-rank updates", *(updates.get("whole") or ())))
    return ", ".join(settings.get("freeze") or ()) or "nothing"


def _updates(facts: RunFacts) -> str:
    updates, base = facts.settings["lora"], (facts.settings.get("initialize") or {}).get("run")
    numbers = ", ".join(f"{name} {updates.get(name, NOT_KNOWN)}" for name in ("rank", "alpha", "dropout"))
    sha256 = facts.started_with.get("initialize", {}).get("run", {}).get("sha256", NOT_KNOWN)
    over = f"{PurePosixPath(str(base)).name} (SHA-256 {sha256})" if base else "the parts above"
    return f"{numbers}, of {', '.join(updates.get('targets') or ()) or NOT_KNOWN}, over {over}"


def _hardware(row: Mapping[str, int | float]) -> str:
    """From speeds in the metrics: how many devices, and of which chip where its peak is known by MFU."""
    one, all_ = row.get("tokens_per_second_per_device"), row.get("tokens_per_second")
    if not one or not all_:
        return NOT_KNOWN
    devices = round(all_ / one)
    number = f"{devices} device{'s' if devices > 1 else ''}"
    if not row.get("mfu") or not row.get("model_flops_per_second"):
        return f"{number} of a kind that is not known"
    peak = row["model_flops_per_second"] / row["mfu"] / devices
    names = [name for name, chip in CHIPS.items() if math.isclose(chip.peak_flops, peak, rel_tol=1e-3)]
    return f"{number}, {' or '.join(names) or f'{peak / 1e12:.0f} TFLOP/s'}"


def _scores(facts: RunFacts) -> str:
    rows = [
        (
            result.title, profile, result.headline, f"{result.value.value:.2f}",
            "" if math.isnan(result.value.stderr) else f"±{result.value.stderr:.2f}", _count(result.value.items),
            result.judge, "another step" if _is_of_another_step(facts, result) else "",
        )
        for profile, listed in facts.scores.items()
        for result in listed
    ]  # fmt: skip
    if not rows:
        return "Not measured: the run's folder has no scores."
    head = ("benchmark", "profile", "score", "value", "standard error", "items", "judge", "measured at")
    return table(head, rows)


def _is_of_another_step(facts: RunFacts, result: Result) -> bool:
    tokens = facts.row.get("tokens")
    return bool(result.tokens and tokens is not None and result.tokens != tokens)


def _limits(facts: RunFacts, notes: Sequence[str]) -> str:
    lines = [*notes, *dict.fromkeys(_said((facts.settings.get("data") or {}).get("mixture"), "limits"))]
    measured = "Only the scores above were" if facts.scores else "Nothing was"
    lines.append(f"{measured} measured; nothing tells how it answers in other languages, or harmful requests.")
    lines.append("The licence of the weights follows from those of base and data: set it before this is published.")
    return "\n".join(f"- {one_line(line)}" for line in lines)


def _sources(
    settings: Mapping[str, Any], started_with: Mapping[str, Any], row: Mapping[str, int | float]
) -> Iterator[SourceFigures]:
    """Of each entry of the mixture; shares of samples and tokens are logged where there is more than one."""
    mixture = (settings.get("data") or {}).get("mixture") or []
    total = sum(weight for _, weight in mixture) or 1.0
    opened = started_with.get("data", [])
    for number, (source, weight) in enumerate(mixture):
        known = opened[number] if number < len(opened) else {}
        name = str(known.get("source") or str(source.get("class", NOT_KNOWN)).rpartition(":")[2])
        counts = []
        for kind in ("samples", "tokens"):
            share = row.get(f"share/{kind}/{name}", 1.0 if len(mixture) == 1 else None)
            counts.append(None if share is None or kind not in row else round(share * row[kind]))
        yield SourceFigures(name, weight / total, known.get("records"), *counts, _licence(source))


def _licence(source: Any) -> str:
    """Of the first class within a source's settings that says its data's licence."""
    return next(_said(source, "licence"), NOT_KNOWN)


def _said(settings: Any, attribute: str) -> Iterator[str]:
    """What the classes of this package within a source's settings say of their data by a class variable."""
    if isinstance(settings, Mapping):
        said = getattr(_class_of(settings.get("class")), attribute, None)
        if isinstance(said, str):
            yield said
        settings = list(settings.values())
    for inner in settings if isinstance(settings, list) else ():
        yield from _said(inner, attribute)


def _class_of(reference: Any) -> Any:
    """The class of this package that settings name; None where they name none that is there."""
    module, _, name = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if module.partition(".")[0] != "xgenmm_jax":
        return None
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _object(file: Path) -> Mapping[str, Any]:
    value = files.read_json(file, "copy it again.")
    if not isinstance(value, dict):
        raise ValueError(f"'{file}' holds no JSON object; copy it again.")
    return value


def _metrics(file: Path) -> Iterator[dict[str, Any]]:
    """Rows; a last line that a killed process left in half is passed over."""
    for line in files.read_lines(file, "replace") if file.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else NOT_KNOWN
