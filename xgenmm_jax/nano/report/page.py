"""report.html and report.json from the report's content. The page loads nothing and runs nothing."""

import json
from pathlib import Path
import shlex
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.evaluation.baselines import baseline_of
from xgenmm_jax.evaluation.scorers.boxes import parse_box
from xgenmm_jax.nano.report.content import STAGE_TITLES, ReportContent, StageContent, report_json
from xgenmm_jax.nano.report.metric_names import METRICS, QUESTIONS, MetricName, as_text, sections
from xgenmm_jax.reporting.curves import curve
from xgenmm_jax.reporting.machine import machine_sentence
from xgenmm_jax.reporting.page import count_in_words, minutes, render_template

REFRESH_S = 20

_EXAMPLE_ORDER = (
    *QUESTIONS, "new_style", "handwriting", "reading/anyres", "reading/base", "multi_image",
    "shots/4", "shots/4_in_words", "grounding/iou", "hallucination",
    "attack_success", "attack_success_known", "refusal_of_benign", "caption/exact",
)  # fmt: skip
_EXAMPLE_TITLES = {
    "hallucination": MetricName("Present or absent", "is the thing there?"),
    "caption/exact": MetricName("Captions", "marked right only where equal to a reference, word for word"),
}


def write_report(content: ReportContent, folder: Path) -> None:
    """Writes both files, each at once: a reader never sees half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("report.json", json.dumps(report_json(content), indent=1) + "\n"),
        ("report.html", render(content)),
    ):
        files.write_whole(folder / name, text)


def render(content: ReportContent) -> str:
    """The page. Names are shown as they are, whatever of HTML they hold; in a command as the shell takes them."""
    latest = content.latest
    return render_template(
        "xgenmm_jax.nano.report",
        "report.html",
        content=content,
        run="" if latest is None else shlex.quote(f"{content.workdir}/{latest.name}"),
        refresh_s=REFRESH_S if content.running else 0,
        stages=[_stage(stage) for stage in content.stages],
        headline=headline(content),
        status=status(content),
        tiles=tiles(content),
        table=table(content),
        examples=examples(content),
        photographs=_latest_part(content, "photographs"),
        looks=_latest_part(content, "looks"),
        machine=machine_sentence(content.machine),
        minutes=minutes,
    )


def headline(content: ReportContent) -> str:
    """What was trained, in one sentence."""
    done = sum(stage.state == "done" for stage in content.stages)
    size = f"{content.parameters / 1e6:.1f} million parameters" if content.parameters else "A small model"
    samples = sum(stage.samples for stage in content.stages)
    tokens = sum(stage.tokens for stage in content.stages)
    where = f"{content.machine.get('cores', '?')} CPU cores"
    accelerator = content.machine.get("accelerator")
    if accelerator:
        where = str(accelerator)
    if done == len(content.stages):
        return (
            f"{size}, trained through {count_in_words(done)} stages on {samples:,} samples and {tokens:,} tokens in "
            f"{minutes(content.seconds)} on {where}, evaluation included."
        )
    seen = f" {samples:,} samples and {tokens:,} tokens seen in {minutes(content.seconds)}." if samples else ""
    progress = f"{count_in_words(done)} of {count_in_words(len(content.stages))} stages done"
    return f"{size}, being trained on {where}; {progress}.{seen}"


def status(content: ReportContent) -> str:
    """What goes on now; empty when all is done."""
    at = next((stage for stage in content.stages if stage.state in ("training", "evaluating")), None)
    if at is None:
        waiting = any(stage.state == "waiting" for stage in content.stages)
        return "Starting" if waiting and content.running else "Stopped. The same command continues." if waiting else ""
    if not content.running:
        return f"Stopped in {at.name} at step {at.step:,} of {at.steps:,}. The same command continues."
    if at.state == "evaluating":
        return f"Evaluating {at.name}"
    if not at.step:
        return f"Training {at.name}: compiling"
    left = at.last("seconds") / at.step * (at.steps - at.step)
    time_left = f", about {minutes(left)} left in this stage" if left or at.step >= at.steps else ""
    return f"Training {at.name}: step {at.step:,} of {at.steps:,}{time_left}"


def tiles(content: ReportContent) -> list[dict[str, str]]:
    """The figures to look at first: (label, value, unit, note)."""
    result = []
    last = content.latest
    metrics = last.metrics if last else {}
    if "questions/mean" in metrics:
        wrong = metrics.get("questions_wrong_image/mean")
        note = f"with the wrong image {as_text('', wrong)}" if wrong is not None else ""
        result.append(_tile("Questions answered right", metrics["questions/mean"], note))
    reader = next((stage for stage in reversed(content.stages) if "reading/anyres" in stage.metrics), None)
    if reader is not None:
        note = f"in one view {as_text('', reader.metrics['reading/base'])}" if "reading/base" in reader.metrics else ""
        # Not every stage looks at crops.
        note += f", after {reader.name}" if reader is not last else ""
        result.append(_tile("Small text read exactly", reader.metrics["reading/anyres"], note))
    multi = [(stage.name, stage.metrics["multi_image"]) for stage in content.stages if "multi_image" in stage.metrics]
    if multi:
        note = f"before that stage {as_text('', multi[0][1])}" if len(multi) > 1 else ""
        result.append(_tile("Several images at once", multi[-1][1], note))
    attack = [stage.metrics["attack_success"] for stage in content.stages if "attack_success" in stage.metrics]
    if attack:
        note = f"before preference tuning {as_text('', attack[-2])}" if len(attack) > 1 else "before preference tuning"
        # A model that refuses everything has no attack that succeeds.
        if "refusal_of_benign" in metrics:
            note += f"; harmless requests refused {as_text('', metrics['refusal_of_benign'])}"
        result.append(_tile("Attacks that succeed", attack[-1], note))
    return result


def _tile(label: str, value: float, note: str) -> dict[str, str]:
    return {"label": label, "value": as_text("", value), "unit": "%", "note": note}


def table(content: ReportContent) -> list[dict[str, Any]]:
    """Sections of rows of cells, a cell for each stage."""
    present = {name for stage in content.stages for name in stage.metrics}
    result = []
    for section, rows in sections(present):
        lines = [_row(content, name, metric) for name, metric in rows]
        result.append({"title": section.title, "meaning": section.meaning, "rows": lines})
    return result


def _row(content: ReportContent, name: str, metric: MetricName) -> dict[str, Any]:
    values = [stage.metrics.get(name) for stage in content.stages]
    known = [value for value in values if value is not None]
    best = (max if metric.better == "higher" else min)(known)
    differ = len({as_text(name, value) for value in known}) > 1
    cells = []
    for stage, value in zip(content.stages, values, strict=True):
        control = stage.metrics.get(metric.control) if metric.control else None
        cells.append(
            {
                "value": None if value is None else as_text(name, value),
                "best": value is not None and differ and as_text(name, value) == as_text(name, best),
                "control": None if control is None else as_text(name, control),
            }
        )
    baseline = baseline_words = ""
    for stage in content.stages:
        if constant := baseline_of(stage.baselines, name):
            baseline, baseline_words = as_text(name, constant[1]), constant[0]
    return {
        "name": name,
        "metric": metric,
        "cells": cells,
        "baseline": baseline,
        "baseline_words": baseline_words,
        "is_mean": name == "questions/mean",
    }


def examples(content: ReportContent) -> list[dict[str, Any]]:
    """Groups of items; each item with the answer of every stage that was asked it, images of the latest."""
    # By measure and id: what was asked, and the answers in order of the stages.
    items: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in content.stages:
        for example in stage.gallery["examples"] if stage.gallery else ():
            item = items.setdefault(example["measure"], {}).setdefault(example["id"], {"answers": []})
            better = _example_name(example["measure"]).better
            score = example["score"] if better == "higher" else 1.0 - example["score"]
            item |= {key: example[key] for key in ("question", "truth", "pictures", "labels")}
            text = example["answer"].removeprefix("<bbox>").removesuffix("</bbox>")
            item["answers"].append(
                {"stage": stage.name, "text": text, "score": score, "box": parse_box(example["answer"])}
            )
    # Measures in the page's order, and what a card shows beside question and answers.
    order = [name for name in _EXAMPLE_ORDER if name in items] + sorted(set(items) - set(_EXAMPLE_ORDER))
    groups = []
    for name in order:
        group = list(items[name].values())
        for item in group:
            if name.startswith("grounding"):
                item["truth_box"], item["answer_box"] = parse_box(item["truth"][0]), item["answers"][-1]["box"]
            item["truth_words"] = "a refusal" if name.startswith("attack_success") else item["truth"][0]
            item["grade"] = "overlap" if name.startswith("grounding") else ""
        groups.append({"name": name, "metric": _example_name(name), "items": group})
    return groups


def _example_name(measure: str) -> MetricName:
    return _EXAMPLE_TITLES.get(measure) or METRICS.get(measure) or MetricName(measure, "")


def _latest_part(content: ReportContent, part: str) -> dict[str, Any] | None:
    """A part of the newest gallery that has it, and whose it is."""
    for stage in reversed(content.stages):
        if stage.gallery and stage.gallery.get(part):
            return {"stage": stage.name, "items": stage.gallery[part]}
    return None


def _stage(stage: StageContent) -> dict[str, Any]:
    title, subtitle, meaning = STAGE_TITLES.get(stage.name, (stage.name, "", ""))
    seconds = stage.last("seconds")
    rate = stage.tokens / seconds if seconds else None
    label = f"Loss of {stage.name} over {stage.steps} steps"
    return {
        "name": stage.name,
        "title": title,
        "subtitle": subtitle,
        "meaning": meaning,
        "content": stage,
        "progress": min(1.0, stage.step / stage.steps) if stage.steps else 0.0,
        "curve": curve([(row["step"], row["loss"]) for row in stage.curve], stage.steps, label),
        "tokens_per_second": rate,
    }
