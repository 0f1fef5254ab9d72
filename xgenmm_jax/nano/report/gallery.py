"""The page's content of one stage: metrics, answers with their images, captions of photographs, attention maps."""

from collections import Counter
from collections.abc import Sequence
import re
from typing import Any, Literal

import PIL.Image

from xgenmm_jax.data.records import LazyImage, Turn
from xgenmm_jax.data.text import prompts
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.runner import Evaluation
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.nano.report.photographs import photographs
from xgenmm_jax.probing.answer_attention import answer_attention, has_spatial_queries
from xgenmm_jax.reporting.images import jpeg_uri, png_uri
from xgenmm_jax.reporting.maps import canvas_to_image, enlarged, spotlight

Style = Literal["chat", "few_shot"]

EXAMPLES = 4
"""Of each measure: its first items, whether right or wrong."""
LOOKS = ("reading/anyres", "questions/where", "questions/read", "questions/object", "questions/colour")
"""Measures of whose first item the page shows where the resampler looked."""
_NOT_SHOWN = (
    "questions_wrong_image/", "multi_image_shuffled", "shots/0", "shots/8", "shots/4_permuted", "reading_large/",
)  # fmt: skip
_WORKED = re.compile(r"Short answer:(.*?)<\|endofchunk\|>")
_PHOTOGRAPH_PX = 320
_LOOK_PX = 256
_QUERY_PX = 80


def collect(
    generator: Generator, params: Any, evaluation: Evaluation, style: Style, chat_style: ChatStyle
) -> dict[str, Any]:
    """All of it as JSON, images as data URIs.

    style: "few_shot" for base models, which are asked to caption; "chat" for tuned ones, which are asked to describe.
    """
    return {
        "metrics": evaluation.metrics,
        "examples": examples(evaluation.predictions, generator.tokenizer, generator.anyres.view_px),
        "photographs": _photographs(generator, style, chat_style),
        "looks": _looks(generator, params, evaluation.predictions),
    }


def examples(answers: Sequence[Prediction], tokenizer: Tokenizer, view_px: int) -> list[dict[str, Any]]:
    """The first EXAMPLES answers of each measure that is shown, with images as the model saw them.

    "labels" are the answers that the prompt's worked examples carry, one for each image that has one.
    """
    taken: Counter[str] = Counter()
    result = []
    for answer in answers:
        if answer.task.startswith(_NOT_SHOWN) or taken[answer.task] >= EXAMPLES:
            continue
        taken[answer.task] += 1
        images = [image.load() for image in answer.prompt.images]
        if answer.task == "reading/base":
            images = [image.resize((view_px, view_px), PIL.Image.Resampling.BICUBIC) for image in images]
        labels: list[str] = []
        if len(images) > 1:
            labels = _WORKED.findall(tokenizer.decode(list(answer.prompt.token_ids)))
        result.append({**answer.to_json(), "pictures": [png_uri(image) for image in images], "labels": labels})
    return result


def _photographs(generator: Generator, style: Style, chat_style: ChatStyle) -> list[dict[str, str]]:
    shown = photographs()
    if not shown:
        return []
    small = [_scaled(photograph.image, _PHOTOGRAPH_PX) for photograph in shown]
    prompts = [_describe(image, style, generator.tokenizer, chat_style) for image in small]
    captions = generator.generate(prompts, Decoding(max_new_tokens=48))
    return [
        {
            "name": photograph.name,
            "about": photograph.about,
            "source": photograph.source,
            "picture": jpeg_uri(image.load()),
            "caption": caption,
        }
        for photograph, image, caption in zip(shown, small, captions, strict=True)
    ]


def _describe(image: LazyImage, style: Style, tokenizer: Tokenizer, chat_style: ChatStyle) -> Prompt:
    if style == "few_shot":
        return prompts.few_shot_prompt((), image, None, tokenizer)
    return prompts.chat_prompt([Turn("user", "<image>\nDescribe the picture.")], (image,), tokenizer, chat_style)


def _looks(generator: Generator, params: Any, answers: Sequence[Prediction]) -> list[dict[str, Any]]:
    if not has_spatial_queries(generator.config):
        return []
    first: dict[str, Prediction] = {}
    for answer in answers:
        first.setdefault(answer.task, answer)
    return [_look(generator, params, first[name]) for name in LOOKS if name in first]


def _look(generator: Generator, params: Any, answer: Prediction) -> dict[str, Any]:
    seen = answer_attention(
        generator.config, params, generator.tokenizer, generator.anyres, answer.prompt, answer.text
    )
    image = answer.prompt.images[0].load()
    target = enlarged(image.size, _LOOK_PX)
    queries = len(seen.base)

    def lit(heat, squashed: bool, size=target) -> str:
        return jpeg_uri(spotlight(image, canvas_to_image(heat, image.size, size, squashed)))

    # The base view as all queries see it, and as the answer weighs the queries; then the grid of crops alike.
    views = [
        {"label": "View: all queries", "picture": lit(seen.base.mean(0), True)},
        {"label": "View: as the answer weighs them", "picture": lit(_weighted(seen.base, seen.weight[:queries]), True)},
    ]
    if seen.crops is not None:
        weighted = _weighted(seen.crops, seen.weight[queries:])
        views += [
            {"label": "Crops: all queries", "picture": lit(seen.crops.mean(0), False)},
            {"label": "Crops: as the answer weighs them", "picture": lit(weighted, False)},
        ]
    # The sixteen queries that the answer looks at most, each with its own spotlight.
    thumb = enlarged(image.size, _QUERY_PX)
    order = sorted(range(queries), key=lambda q: -seen.weight[q])[:16]
    share = max(float(seen.weight[:queries].sum()), 1e-12)
    return {
        **answer.to_json(),
        "picture": png_uri(image),
        "size": list(image.size),
        "views": views,
        "queries": [
            {"number": q, "share": float(seen.weight[q]) / share, "picture": lit(seen.base[q], True, thumb)}
            for q in order
        ],
        "crops_share": 0.0 if seen.crops is None else 1.0 - share,
    }


def _weighted(heat, weight):
    return (heat * weight[:, None, None]).sum(0)


def _scaled(image: LazyImage, longer_px: int) -> LazyImage:
    """The image decoded once, its longer side at most `longer_px`."""
    pixels = image.load()
    if max(pixels.size) > longer_px:
        pixels = pixels.resize(enlarged(pixels.size, longer_px), PIL.Image.Resampling.LANCZOS)
    return LazyImage(pixels.size, lambda: pixels)
