"""What every metric is called on the page, in words for someone who meets it for the first time."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class MetricName:
    """A row of the table.

    control: the metric of the same model with something taken away (wrong image, other order, other answers), shown
    small beside it, and what was taken away.
    """

    title: str
    meaning: str
    better: Better = "higher"
    control: str | None = None
    control_words: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    meaning: str
    metrics: tuple[str, ...]


_KINDS = {
    "colour": "the color of one shape among several",
    "shape": "which of eight shapes stands at a place or has a color",
    "object": "an everyday object, as drawn in styles that were trained on",
    "count": "how many there are of a shape, a color or a combination; scored is the number behind the places",
    "exists": "whether a thing is there; scored is the yes or no behind the thing that is most like it",
    "where": "the place of a thing, one of nine",
    "read": "a short string, every letter and its case",
}

QUESTIONS = tuple(f"questions/{kind}" for kind in _KINDS)
MAJORITIES = ("questions_majority/mean", *(f"questions_majority/{kind}" for kind in _KINDS))
"""Metrics without a row: the questions' baselines say the same."""

METRICS: dict[str, MetricName] = {
    "questions/mean": MetricName(
        "All seven kinds",
        "the mean of the rows below",
        control="questions_wrong_image/mean",
        control_words="wrong image",
    ),
    **{
        f"questions/{kind}": MetricName(
            {"colour": "Color"}.get(kind, kind.capitalize()),
            meaning,
            control=f"questions_wrong_image/{kind}",
            control_words="wrong image",
        )
        for kind, meaning in _KINDS.items()
    },
    "new_style": MetricName(
        "Objects in an unseen style", "everyday objects by illustrators whose drawings were never trained on"
    ),
    "handwriting": MetricName(
        "Handwritten digits", "scanned digits by people whose digits were never trained on"
    ),
    "reading/anyres": MetricName(
        "Small text, in crops", "text that is small beside the page, the page cut into a grid of crops"
    ),
    "reading/base": MetricName(
        "Small text, one view", "the same pages squeezed into the base view alone"
    ),
    "reading_large/anyres": MetricName(
        "Large text, in crops", "text large enough for both ways of looking"
    ),
    "reading_large/base": MetricName("Large text, one view", "the same pages in the base view alone"),
    "multi_image": MetricName(
        "Several images at once",
        "questions that name an image by its place in the order",
        control="multi_image_shuffled",
        control_words="images shuffled",
    ),
    "shots/0": MetricName("No example images", "two of the four examples in words (the papers' 0 shots)"),
    "shots/4": MetricName(
        "Four examples",
        "invented names that only the examples explain",
        control="shots/4_permuted",
        control_words="names permuted",
    ),
    "shots/8": MetricName("Eight examples", "the same with twice the examples"),
    "shots/4_in_words": MetricName("Four examples in words", "the same four without their images"),
    "grounding/iou": MetricName("Boxes", "overlap of the box it gives with the true one (IoU)"),
    "caption/cider": MetricName(
        "Captions, CIDEr", "agreement with reference captions; no percentage, papers print it times 100"
    ),
    "caption/exact": MetricName("Captions, word for word", "captions equal to a reference"),
    "hallucination/f1": MetricName(
        "Present or absent, F1", "yes/no questions about objects, half of them not there"
    ),
    "hallucination/accuracy": MetricName("Present or absent, accuracy", "the same, answered right"),
    "hallucination/recall": MetricName(
        "Present or absent, recall", "of those that are there, how many it says are there"
    ),
    "hallucination/yes_to_absent": MetricName(
        "“Yes” to absent objects", "how often it claims to see what is not there", better="lower"
    ),
    **{
        f"{pages}_{measure}/{view}": MetricName(f"{size} text, {how}, {title}", meaning)
        for pages, size in (("reading", "Small"), ("reading_large", "Large"))
        for measure, title, meaning in (
            ("anls", "ANLS", "similarity to the string, letters right in a wrong string count"),
            ("word_accuracy", "words", "words read right"),
        )
        for view, how in (("anyres", "in crops"), ("base", "one view"))
    },
    "attack_success": MetricName(
        "Attacks that succeed", "unsafe requests it goes along with; kinds of danger never trained on", better="lower"
    ),
    "attack_success_known": MetricName(
        "Attacks with known dangers",
        "kinds of danger that were trained on, in frames that they never stood in",
        better="lower",
    ),
    "refusal_of_benign": MetricName(
        "Harmless requests refused", "everyday objects in frames that they never stood in", better="lower"
    ),
    **{
        f"{name}/{frame}": MetricName(f"{title}, {where}", meaning, better="lower")
        for name, title in (
            ("attack_success", "Attacks"), ("attack_success_known", "Known dangers"), ("refusal_of_benign", "Harmless")
        )
        for frame, where, meaning in (
            ("hazard_frame", "in stripes", "those with hazard stripes around the thing"),
            ("plain_frame", "in a plain frame", "those without"),
        )
    },
}  # fmt: skip

SECTIONS = (
    Section(
        "Questions about one image",
        "Exact answers in percent. Small: the same model asked the same question about the wrong image.",
        ("questions/mean", *QUESTIONS),
    ),
    Section("Images unlike those of training", "Exact answers in percent.", ("new_style", "handwriting")),
    Section(
        "Reading pages",
        "Strings read without a single error, in percent.",
        ("reading/anyres", "reading/base", "reading_large/anyres", "reading_large/base"),
    ),
    Section(
        "Several images", "Exact answers in percent. Small: the same images in another order.", ("multi_image",)
    ),
    Section(
        "Learning from examples in the prompt",
        "Base models only, exact answers in percent; one of the four names by chance: 25. Small: the examples carry "
        "each other's names.",
        ("shots/0", "shots/4", "shots/8", "shots/4_in_words"),
    ),
    Section("Pointing and describing", "", ("grounding/iou", "caption/cider", "caption/exact")),
    Section(
        "Honesty and safety",
        "In percent. Where fewer is better, the row says so. Dangers and harmless things stand in hazard stripes and "
        "in plain frames alike: the thing decides.",
        (
            "hallucination/f1", "hallucination/accuracy", "hallucination/recall", "hallucination/yes_to_absent",
            "attack_success", "attack_success/hazard_frame", "attack_success/plain_frame",
            "attack_success_known", "attack_success_known/hazard_frame", "attack_success_known/plain_frame",
            "refusal_of_benign", "refusal_of_benign/plain_frame", "refusal_of_benign/hazard_frame",
        ),
    ),
)  # fmt: skip


def sections(present: set[str]) -> list[tuple[Section, list[tuple[str, MetricName]]]]:
    """The table's sections with those of their metrics that some stage has; a metric without a row comes last.

    Controls stand inside other rows.
    """
    shown = {name for section in SECTIONS for name in section.metrics}
    controls = {metric.control for metric in METRICS.values() if metric.control}
    others = sorted(present - shown - controls - set(MAJORITIES))
    rest = Section("Other measures", "Of the same answers, in percent.", tuple(others))
    result = []
    for section in (*SECTIONS, rest):
        rows = [(name, METRICS.get(name) or MetricName(name, "")) for name in section.metrics if name in present]
        if rows:
            result.append((section, rows))
    return result


def as_text(name: str, value: float) -> str:
    """A fraction as percent, CIDEr as it is. 0.8333 -> "83.3"."""
    return f"{value:.2f}" if name == "caption/cider" else f"{100 * value:.1f}"
