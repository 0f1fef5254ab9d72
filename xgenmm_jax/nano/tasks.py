"""The tasks of the demo: what a model of this project can do, on held-out embedded data.

Every metric is a fraction in [0, 1], but `caption/cider`, which is CIDEr-D as COCO's tools give it (papers print 100
times that).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import functools
from typing import Any, ClassVar, Literal, get_args

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.prompts import Demonstration
from xgenmm_jax.evaluation import baselines, fewshot
from xgenmm_jax.evaluation.predictions import Metrics
from xgenmm_jax.evaluation.runner import Evaluation, evaluate
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.prompts import ChatPrompt, FewShotPrompt
from xgenmm_jax.evaluation.tasks.suite import InputFormat, Suite
from xgenmm_jax.evaluation.tasks.task import BuildPrompt, Score, Task
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.nano import scoring
from xgenmm_jax.nano.world import documents, draw
from xgenmm_jax.nano.world.evaluation_items import ON_SIGNS, WITH_EVIDENCE, Item, ItemKind, items

Group = Literal[
    "questions", "reading", "new_style", "handwriting", "multi_image", "shots", "hallucination", "safety", "grounding",
    "caption", "beside",
]  # fmt: skip
ALL_GROUPS: tuple[Group, ...] = get_args(Group)
GROUPS: tuple[Group, ...] = tuple(group for group in ALL_GROUPS if group != "beside")
"""Without what no stage teaches."""
NOT_FOR: dict[str, tuple[Group, ...]] = {"chat": ("shots",), "few_shot": ("multi_image", "safety")}
"""Groups that a style leaves out."""

QUESTION_KINDS: dict[str, ItemKind] = {
    "colour": "color", "shape": "shape", "object": "object", "count": "count", "exists": "exists", "where": "where",
    "read": "read",
}  # fmt: skip
"""Of `questions/mean`, which always holds all of them: the metric's word and the data's."""

SHORT_ANSWER = Decoding(max_new_tokens=12)
"""Of a word, a string, a position, a yes or no."""
LONG_ANSWER = Decoding(max_new_tokens=48)
"""Of a caption, a box, or a number or a yes or no behind its evidence."""

ItemsOf = Callable[[ItemKind], Sequence[Item]]
"""The items of a kind, the same objects at every call: tasks share images, which are then encoded once."""


@dataclass(frozen=True)
class DrawnWorld(Suite):
    """What is asked, and how.

    style: "chat" for fine-tuned models; "few_shot" for base models, which get OpenFlamingo's prompts; "auto": as the
    run was trained, which `tasks` is told.
    groups: those that the style does not suit are left out: shots for chat, several images and safety for few_shot.
    items: of each kind; shot_items: of each number of shots.
    """

    style: Literal["auto", "chat", "few_shot"] = "auto"
    groups: tuple[Group, ...] = GROUPS
    items: int = 300
    shot_items: int = 500
    seed: int = 0
    name: ClassVar[str] = "drawn_world"

    def tasks(self, model: InputFormat) -> list[Task]:
        """Items are drawn here, and their images when they are asked."""
        style = model.prompt if self.style == "auto" else self.style
        return suite(replace(self, style=style), model.anyres, model.chat)

    def further_metrics(self, metrics: Metrics) -> Metrics:
        """The means over all kinds of questions."""
        return question_means(metrics)


def run_suite(generator: Generator, config: DrawnWorld, style: ChatStyle = ChatStyle()) -> Evaluation:  # noqa: B008
    """Every metric of the suite, and all predictions.

    style: the chat template that the model was tuned with.
    """
    evaluation = evaluate(generator, suite(config, generator.anyres, style))
    return replace(evaluation, metrics=evaluation.metrics | question_means(evaluation.metrics))


def suite_baselines(config: DrawnWorld, anyres: AnyRes) -> baselines.Baselines:
    """Baselines of every metric that `run_suite` gives; `questions_majority` has none, it is one."""
    result: baselines.Baselines = {}
    for task in suite(config, anyres):
        result |= baselines.task_baselines(task)
    result = {metric: values for metric, values in result.items() if not metric.startswith("questions_majority/")}
    for name in (baselines.COMMONEST, baselines.REFERENCES):
        of_name = {metric: values[name] for metric, values in result.items() if name in values}
        for metric, mean in question_means(of_name).items():
            result.setdefault(metric, {})[name] = mean
    return result


def question_means(metrics: Metrics) -> Metrics:
    """The means over all kinds of questions, of those metrics that every kind has."""
    means = {}
    for name in ("questions", "questions_wrong_image", "questions_majority"):
        if all(f"{name}/{kind}" in metrics for kind in QUESTION_KINDS):
            means[f"{name}/mean"] = sum(metrics[f"{name}/{kind}"] for kind in QUESTION_KINDS) / len(QUESTION_KINDS)
    return means


def suite(config: DrawnWorld, anyres: AnyRes, style: ChatStyle = ChatStyle()) -> list[Task]:  # noqa: B008
    """The tasks of a config, whose style is not "auto", in the order of the metrics.

    anyres: the model's; where it has no grids, reading is asked on one view alone.
    """

    @functools.cache
    def items_of(kind: ItemKind) -> Sequence[Item]:
        return items(kind, config.shot_items if kind == "shots" else config.items, seed=config.seed)

    # Base models are asked by few-shot prompts, tuned ones by their chat template.
    few_shot = config.style == "few_shot"
    prompt = FewShotPrompt() if few_shot else ChatPrompt(style)
    caption_prompt = FewShotPrompt(caption=True) if few_shot else prompt

    def task(
        name: str, kind: ItemKind, score: Score = scoring.vqa_score, prompt: BuildPrompt = prompt, **options: Any
    ) -> list[Task]:
        return [_task(name, items_of(kind), prompt, score, **options)]

    def safety(name: str, kind: ItemKind, score: Score) -> list[Task]:
        return task(name, kind, score, summarize=scoring.by_frame, constant_answers=scoring.refuse_or_comply)

    # A function a group: items are drawn for the groups that are asked alone.
    make: dict[Group, Callable[[], list[Task]]] = {
        "questions": lambda: _questions(items_of, prompt),
        "reading": lambda: _reading(items_of, prompt, anyres),
        "new_style": lambda: task("new_style", "new_style"),
        "handwriting": lambda: task("handwriting", "handwriting"),
        "multi_image": lambda: _multi_image(items_of, prompt),
        "shots": lambda: _shots(items_of("shots")),
        "hallucination": lambda: task(
            "hallucination", "hallucination", scoring.verdict_score,
            decoding=LONG_ANSWER, summarize=scoring.hallucination_metrics,
            constant_answers=scoring.yes_or_no,
        ),
        "safety": lambda: [
            *safety("attack_success", "unsafe", scoring.compliance_score),
            *safety("attack_success_known", "unsafe_known", scoring.compliance_score),
            *safety("refusal_of_benign", "benign", scoring.refusal_score),
        ],
        "grounding": lambda: task(
            "grounding/iou", "grounding", scoring.box_score,
            decoding=LONG_ANSWER, constant_answers=scoring.one_box,
        ),
        "caption": lambda: task(
            "caption/exact", "caption", prompt=caption_prompt,
            decoding=LONG_ANSWER, summarize=scoring.caption_metrics, constant_answers=scoring.one_caption,
        ),
        "beside": lambda: task("beside", "beside"),
    }  # fmt: skip
    groups = [group for group in config.groups if group not in NOT_FOR[config.style]]
    return [task for group in groups for task in make[group]()]


def _task(
    name: str,
    shown: Sequence[Item],
    prompt: BuildPrompt,
    score: Score,
    images: Sequence[tuple[LazyImage, ...]] | None = None,
    decoding: Decoding = SHORT_ANSWER,
    **options: Any,
) -> Task:
    """images: of each item, by default its own."""
    images = [item.images for item in shown] if images is None else images
    examples = tuple(
        Example(item.id, seen, item.question, item.answers, fields=_fields(item))
        for item, seen in zip(shown, images, strict=True)
    )
    return Task(name, examples, prompt, score, decoding, **options)


def _fields(item: Item) -> dict[str, str]:
    return {"frame": draw.scene_of(item.images[0]).frame} if item.kind in ON_SIGNS else {}


def _questions(items_of: ItemsOf, prompt: BuildPrompt) -> list[Task]:
    """Each kind with its images and with those of other items."""
    tasks = []
    for word, kind in QUESTION_KINDS.items():
        shown, score, decoding = items_of(kind), scoring.vqa_score, SHORT_ANSWER
        if kind == "read":
            score = scoring.reading_score
        elif kind in WITH_EVIDENCE:
            score, decoding = scoring.verdict_score, LONG_ANSWER
        right = _task(f"questions/{word}", shown, prompt, score, decoding=decoding, summarize=scoring.with_majority)
        tasks.append(right)
        # An item whose answer all others share has no wrong image.
        with_wrong = [item for item in shown if item.wrong_images]
        if with_wrong:
            wrong = [item.wrong_images for item in with_wrong]
            tasks.append(_task(f"questions_wrong_image/{word}", with_wrong, prompt, score, wrong, decoding=decoding))
    return tasks


def _reading(items_of: ItemsOf, prompt: BuildPrompt, anyres: AnyRes) -> list[Task]:
    """Small and large text on pages, held to one view and, if the model can, in crops."""
    views = {"base": replace(anyres, grids=())}
    if anyres.grids:
        views["anyres"] = anyres
    kinds: dict[str, ItemKind] = {"reading": "reading_small", "reading_large": "reading_large"}
    return [
        _task(
            f"{name}/{view}", items_of(kind), prompt, scoring.reading_score,
            anyres=cut, summarize=scoring.reading_metrics,
        )
        for name, kind in kinds.items()
        for view, cut in views.items()
    ]  # fmt: skip


def _multi_image(items_of: ItemsOf, prompt: BuildPrompt) -> list[Task]:
    """Questions about several images, in their order and in another."""
    shown = items_of("multi_image")
    shuffled = [tuple(item.images[index] for index in item.order) for item in shown]
    return [
        _task("multi_image", shown, prompt, scoring.vqa_score),
        _task("multi_image_shuffled", shown, prompt, scoring.vqa_score, shuffled),
    ]


def _shots(shown: Sequence[Item]) -> list[Task]:
    """Invented names that demonstrations explain: four, eight, and their controls.

    0 carries two of the four without their images, as OpenFlamingo's does; 4_in_words all four. 4_permuted: each
    attribute keeps its image and gets another's name.
    """
    item_of = {item.id: item for item in shown}

    def task(name: str, shots: int, permuted: bool = False, in_words: bool = False) -> Task:
        def demonstrations(example: Example) -> list[Demonstration]:
            return _demonstrations(item_of[example.id], shots, permuted)

        return _task(f"shots/{name}", shown, FewShotPrompt(demonstrations, text_only=in_words), scoring.name_score)

    return [
        task("0", 2, in_words=True),
        task("4", 4),
        task("8", 8),
        task("4_permuted", 4, permuted=True),
        task("4_in_words", 4, in_words=True),
    ]


def _demonstrations(item: Item, shots: int, permuted: bool) -> list[Demonstration]:
    demos = item.demos[:shots]
    names = [demo.name for demo in demos]
    if permuted:
        names = fewshot.permuted_answers(names)
    return [
        Demonstration(demo.image, demo.question, documents.called(demo.attribute, name))
        for demo, name in zip(demos, names, strict=True)
    ]
