"""The drawn world's six tags: captions drawn by a run, judged by a program, over several seeds; and their page."""

from collections.abc import Sequence
from dataclasses import dataclass
import statistics
from typing import Any, ClassVar, NamedTuple

from jaxtyping import UInt8
import numpy as np
import PIL.Image

from xgenmm_jax.evaluation.predictions import Metrics
from xgenmm_jax.evaluation.tasks.suite import DrawingSuite
from xgenmm_jax.generation.images.drawer import Drawer
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.nano.drawing.judge import Seen, judge, things
from xgenmm_jax.nano.drawing.prompts import Prompt, benchmark
from xgenmm_jax.nano.drawing.scores import Scores, scores, shuffled
from xgenmm_jax.nano.world import draw
from xgenmm_jax.nano.world.splits import Split
from xgenmm_jax.reporting.images import png_uri
from xgenmm_jax.reporting.page import render_template

Pictures = UInt8[np.ndarray, "n 64 64 3"]
SHOWN = 6
"""Captions of each tag on the page."""
READ = 3
"""Things that are named under a drawing."""
TAG_WORDS = {
    "single_object": "one thing", "two_object": "two things", "counting": "several of a kind",
    "colors": "a thing of a color", "position": "a thing at a place", "color_attr": "two things, each of a color",
    "dense": "every thing with its color and place",
}  # fmt: skip
PROPERTY_WORDS = {
    "told/colors": "colors", "told/positions": "places", "told/nouns": "shapes and objects",
    "valid": "as many recognized things as told",
}  # fmt: skip


class Drawn(NamedTuple):
    """What a suite has drawn and how it was judged."""

    prompts: list[Prompt]
    true: Pictures
    images: dict[int, Pictures]
    """By seed."""
    metrics: Metrics


@dataclass(frozen=True)
class DrawnPictures(DrawingSuite):
    """Held-out captions, `per_tag` of each tag, drawn once a seed.

    Metrics are fractions in [0, 1]: drawing/TAG (mean over seeds), drawing/TAG/spread (standard deviation over seeds),
    drawing/overall (mean of the open tags, as GenEval's), drawing/told/nouns, colors and positions (each thing told, by
    itself), drawing/valid, the same against shuffled captions as drawing_shuffled/..., and of the true pictures as
    drawing_true/....
    """

    per_tag: int = 50
    seeds: tuple[int, ...] = (0, 1, 2)
    split: Split = "held_out"
    sampling: Sampling = Sampling()

    name: ClassVar[str] = "drawn_pictures"

    def draw(self, drawer: Drawer) -> Drawn:
        """Draws and judges."""
        pairs = benchmark(self.split, self.per_tag)
        prompts = [prompt for prompt, _ in pairs]
        true = np.stack([np.asarray(draw.draw(scene)) for _, scene in pairs])
        captions = [prompt.caption for prompt in prompts]
        images: dict[int, Pictures] = {}
        for seed in self.seeds:
            drawn = [one.images for one in drawer.draw(captions, 1, seed, self.sampling)]
            if drawn[0] is None:
                raise ValueError("drawing: the run makes features and no pixels of them; train its pixel decoder.")
            images[seed] = np.concatenate(drawn)
        return Drawn(prompts, true, images, _metrics(prompts, true, list(images.values())))

    def metrics_of(self, drawer: Drawer) -> tuple[Metrics, str]:
        """The metrics, and the page of drawings."""
        drawn = self.draw(drawer)
        return drawn.metrics, page(drawn, self.sampling, self.split)


def _figures(one: Scores) -> dict[str, float]:
    per_property = {"nouns": one.nouns, "colors": one.colors, "positions": one.positions}
    shares = {**one.tags, "valid": one.valid, **{f"told/{name}": share for name, share in per_property.items()}}
    return {name: share.percent / 100 for name, share in shares.items()} | {"overall": one.overall / 100}


def _metrics(prompts: Sequence[Prompt], true: Pictures, images: Sequence[Pictures]) -> Metrics:
    metrics: dict[str, float] = {}
    wrong = shuffled(prompts)
    for group, judged in (("drawing", prompts), ("drawing_shuffled", wrong)):
        each = [_figures(scores(judged, one)) for one in images]
        for name in each[0]:
            values = [figures[name] for figures in each]
            metrics[f"{group}/{name}"] = statistics.fmean(values)
            if len(values) > 1 and group == "drawing":
                metrics[f"{group}/{name}/spread"] = statistics.stdev(values)
    return metrics | {f"drawing_true/{name}": value for name, value in _figures(scores(prompts, true)).items()}


def page(drawn: Drawn, sampling: Sampling, split: Split) -> str:
    """Drawings beside the truth, with the judge's word on each, as one HTML page."""
    metrics, by_tag = drawn.metrics, {}
    for number, prompt in enumerate(drawn.prompts):
        by_tag.setdefault(prompt.tag, []).append(number)
    tables = [
        {"head": "whole pictures", "rows": [_row(metrics, tag, TAG_WORDS[tag]) for tag in by_tag]},
        {"head": "what is told, each by itself", "rows": [_row(metrics, *one) for one in PROPERTY_WORDS.items()]},
    ]
    groups = [
        {
            "tag": TAG_WORDS[tag],
            "captions": len(numbers),
            "examples": [_example(drawn, number) for number in numbers[:SHOWN]],
        }
        for tag, numbers in by_tag.items()
    ]
    return render_template(
        "xgenmm_jax.nano.drawing", "drawings.html", is_held_out=split == "held_out", steps=sampling.steps,
        guidance=sampling.guidance, tables=tables, groups=groups, seeds=list(drawn.images), refresh_s=0,
    )  # fmt: skip


def _row(metrics: Metrics, name: str, words: str) -> dict[str, Any]:
    """In percent. spread: None of a single seed."""
    spread = metrics.get(f"drawing/{name}/spread")
    return {
        "words": words,
        "right": 100 * metrics[f"drawing/{name}"],
        "spread": None if spread is None else 100 * spread,
        "shuffled": 100 * metrics[f"drawing_shuffled/{name}"],
        "true": 100 * metrics[f"drawing_true/{name}"],
    }


def _example(drawn: Drawn, number: int) -> dict[str, Any]:
    prompt = drawn.prompts[number]
    return {
        "caption": prompt.caption,
        "true": _uri(drawn.true[number]),
        "drawings": [
            {
                "image": _uri(images[number]),
                "is_right": judge(prompt, images[number]).is_correct,
                "read": _in_words(things(images[number])),
            }
            for images in drawn.images.values()
        ],
    }


def _in_words(seen: Sequence[Seen]) -> str:
    """What the judge reads in a picture: "red star, green thing and 3 more"; "nothing"."""
    words = [f"{one.color} {one.noun or 'thing'}" for one in seen[:READ]]
    more = f" and {len(seen) - READ} more" if len(seen) > READ else ""
    return ", ".join(words) + more if seen else "nothing"


def _uri(image: UInt8[np.ndarray, "64 64 3"]) -> str:
    return png_uri(PIL.Image.fromarray(image))
