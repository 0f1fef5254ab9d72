"""The demo's tasks, asked of a model that knows every answer and of a tiny random one."""

import dataclasses
import functools
import json

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text import chat, tokenizer
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.evaluation import predictions
from xgenmm_jax.evaluation.baselines import REFERENCES, baseline_of
from xgenmm_jax.evaluation.runner import Evaluation, evaluate
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Task
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.models import blip3
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.nano import tasks
from xgenmm_jax.nano.tasks import DrawnWorld
from xgenmm_jax.nano.world import draw, preferences

ANYRES = AnyRes(grids=((2, 2), (3, 1), (1, 3)), view_px=64, view_cells=8, single_view_up_to_px=64)
FEW = DrawnWorld("chat", items=8, shot_items=8)
FEW_SHOT = dataclasses.replace(FEW, style="few_shot")
NAMES = {
    *(f"{part}/{kind}" for part in ("questions", "questions_wrong_image", "questions_majority")
      for kind in ("colour", "shape", "object", "count", "exists", "where", "read", "mean")),
    "reading/base", "reading/anyres", "new_style", "handwriting", "multi_image", "multi_image_shuffled", "shots/0",
    "shots/4", "shots/8", "shots/4_permuted", "shots/4_in_words", "hallucination/f1",
    "hallucination/yes_to_absent", "hallucination/accuracy", "hallucination/recall", "grounding/iou", "caption/cider",
    *(f"{name}{row}" for name in ("attack_success", "attack_success_known", "refusal_of_benign")
      for row in ("", "/hazard_frame", "/plain_frame")),
}  # fmt: skip
"""Those that the report promises."""


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    return tokenizer.train_tokenizer(["What color is the star?"] * 3, tmp_path_factory.mktemp("w") / "t.model", 400)


class Oracle(Generator):
    """Says what `answer` gives for each example that it is asked, by default the first right answer.

    The same image and words may stand in two tasks with different right answers, so prompts are known by
    the objects of their ids.
    """

    def __init__(self, tokenizer: tokenizer.Tokenizer, answer=lambda example: example.answers[0]):
        self.tokenizer, self.answer = tokenizer, answer
        self.requests: dict[int, tuple[Prompt, Example]] = {}
        self.calls: list[int] = []

    def watch(self, task: Task) -> Task:
        def prompt(example: Example, tokenizer: tokenizer.Tokenizer) -> Prompt:
            built = task.prompt(example, tokenizer)
            self.requests[id(built.token_ids)] = (built, example)  # holds them, so that their id is not given again
            return built

        return dataclasses.replace(task, prompt=prompt)

    def evaluate(self, suite: list[Task]) -> Evaluation:
        return evaluate(self, [self.watch(task) for task in suite])

    def generate(self, prompts, decoding, *, anyres=None, more_stops=()):
        self.calls.append(len(prompts))
        return [self.answer(self.requests[id(prompt.token_ids)][1]) for prompt in prompts]


def metrics_of(config: DrawnWorld, words: tokenizer.Tokenizer, constant: str | None = None) -> dict[str, float]:
    oracle = Oracle(words) if constant is None else Oracle(words, lambda example: constant)
    return oracle.evaluate(tasks.suite(config, ANYRES)).metrics


def prompt_texts(suite: list[Task], words: tokenizer.Tokenizer) -> dict[str, str]:
    """The prompt of each task's first example."""
    return {task.name: words.decode(task.prompt(task.examples[0], words).token_ids) for task in suite}


def test_right_answers_score_full_in_every_task(words):
    metrics = metrics_of(FEW, words) | metrics_of(FEW_SHOT, words)
    full = {name for name in NAMES if not name.startswith("questions_majority") and not name.endswith("/mean")}
    expected = dict.fromkeys(full, 1.0)
    expected |= {name: 0.0 for name in NAMES if name.startswith(("attack", "refusal", "hallucination/yes"))}
    del expected["caption/cider"]
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=0.01)
    assert metrics["caption/cider"] > 1.0


def test_wrong_answers_score_nothing(words):
    metrics = metrics_of(FEW, words, "?") | metrics_of(FEW_SHOT, words, "?")
    expected = {
        name: 1.0 if name.startswith("attack_success") else 0.0
        for name in metrics
        if not name.startswith("questions_majority")
    }
    assert {name: metrics[name] for name in expected} == expected
    assert all(0 < metrics[f"questions_majority/{kind}"] < 1 for kind in tasks.QUESTION_KINDS)


def test_yes_to_everything_is_seen_as_hallucination(words):
    """Its F1 alone looks like that of a model that sees something."""
    metrics = metrics_of(dataclasses.replace(FEW, groups=("hallucination",)), words, "Yes.")
    assert metrics == {
        "hallucination/f1": pytest.approx(2 / 3),
        "hallucination/yes_to_absent": 1.0,
        "hallucination/accuracy": 0.5,
        "hallucination/recall": 1.0,
    }


def test_every_metric_has_a_baseline_and_what_the_references_score(words):
    """A figure without them says nothing of whether the model looked."""
    for config in (FEW, FEW_SHOT):
        metrics = Oracle(words).evaluate(tasks.suite(config, ANYRES)).metrics
        metrics |= tasks.question_means(metrics)
        result = tasks.suite_baselines(config, ANYRES)
        assert result.keys() == {name for name in metrics if not name.startswith("questions_majority/")}
        assert {name: values[REFERENCES] for name, values in result.items()} == pytest.approx(
            {name: metrics[name] for name in result}
        )
        majorities = {name: value for name, value in metrics.items() if name.startswith("questions_majority/")}
        shown = {name: baseline_of(result, name.replace("_majority", "")) for name in majorities}
        assert shown == {name: ("commonest answer", pytest.approx(value)) for name, value in majorities.items()}
    assert baseline_of(result, "hallucination/f1") == ('always "yes"', pytest.approx(2 / 3))
    assert baseline_of(result, "grounding/iou")[0] == "constant box"
    assert baseline_of(result, "caption/cider")[0] == "constant caption"


def test_a_model_that_goes_by_the_stripes_alone_is_exposed(words):
    """With stripes around every danger and around nothing else it scored full."""
    suite = tasks.suite(dataclasses.replace(FEW, items=40, groups=("safety",)), ANYRES)

    def answer(example: Example) -> str:
        hazard = draw.scene_of(example.images[0]).frame == "hazard"
        return preferences.REFUSALS[0] if hazard else "You can use it."

    metrics = Oracle(words, answer).evaluate(suite).metrics
    for name in ("attack_success", "attack_success_known"):
        assert [metrics[f"{name}{row}"] for row in ("", "/hazard_frame", "/plain_frame")] == [0.5, 0.0, 1.0]
    assert [metrics[f"refusal_of_benign{row}"] for row in ("", "/hazard_frame", "/plain_frame")] == [0.5, 1.0, 0.0]


def test_one_item_of_a_sign_has_one_row(words):
    metrics = metrics_of(dataclasses.replace(FEW, items=1, groups=("safety",)), words)
    assert metrics["attack_success"] == metrics["attack_success/hazard_frame"] == 0.0
    assert "attack_success/plain_frame" not in metrics


def test_tasks_of_like_answers_are_asked_together(words):
    """A call for each kind would leave batches half empty."""
    oracle = Oracle(words)
    evaluation = oracle.evaluate(tasks.suite(FEW, ANYRES))
    assert len(oracle.calls) == 4  # short and long answers; pages on one view and in crops
    assert sum(oracle.calls) == len(evaluation.predictions)


def test_wrong_images_are_those_of_items_with_another_answer():
    suite = {task.name: task for task in tasks.suite(FEW, ANYRES)}
    right, wrong = suite["questions/colour"].examples, suite["questions_wrong_image/colour"].examples
    answers = {example.images: example.answers for example in right}
    assert [example.question for example in wrong] == [example.question for example in right]
    assert all(answers[example.images] != example.answers for example in wrong)


def test_shuffled_images_are_the_same_at_other_positions(words):
    suite = {task.name: task for task in tasks.suite(FEW, ANYRES)}
    prompts = [
        [suite[name].prompt(example, words) for example in suite[name].examples]
        for name in ("multi_image", "multi_image_shuffled")
    ]
    for ordered, shuffled in zip(*prompts, strict=True):
        assert set(ordered.images) == set(shuffled.images)
        assert all(a is not b for a, b in zip(ordered.images, shuffled.images, strict=True))
        assert ordered.token_ids == shuffled.token_ids


def test_shots_are_written_as_openflamingo_does_and_permuted_names_are_all_wrong(words):
    suite = {task.name: task for task in tasks.suite(FEW_SHOT, ANYRES)}
    prompts = {name: task.prompt(task.examples[0], words) for name, task in suite.items()}
    kinds = (0, 4, 8, "4_permuted", "4_in_words")
    texts = {n: words.decode(prompts[f"shots/{n}"].token_ids).split("\n") for n in kinds}
    *demos, query = texts[4]
    assert query == "<image>Question:What is this called? Short answer:"
    assert len(demos) == 4 and all(
        demo.startswith("<image>Question:What is this called? Short answer:") and demo.endswith("<|endofchunk|>")
        for demo in demos
    )
    assert texts[8][:4] == demos and len(texts[8]) == 9
    assert texts[0][2] == query and [text.count("<image>") for text in texts[0]] == [0, 0, 1]
    assert texts[0][:2] == [demo.removeprefix("<image>") for demo in demos[:2]]  # two of the four names
    assert texts["4_in_words"] == [*(demo.removeprefix("<image>") for demo in demos), query]
    right, permuted = ([demo.rpartition(" ") for demo in texts[n][:4]] for n in (4, "4_permuted"))
    assert [demo[0] for demo in permuted] == [demo[0] for demo in right]  # the images' attributes stay
    assert sorted(demo[2] for demo in permuted) == sorted(demo[2] for demo in right)
    assert all(new[2] != old[2] for new, old in zip(permuted, right, strict=True))
    assert prompts["shots/4"].images == prompts["shots/4_permuted"].images


def test_prompts_are_the_chat_template_or_openflamingos_without_shots(words):
    tuned, base = (tasks.suite(config, ANYRES) for config in (FEW, FEW_SHOT))
    question = base[0].examples[0].question
    tuned_texts, base_texts = prompt_texts(tuned, words), prompt_texts(base, words)
    assert tuned_texts["questions/colour"].endswith(f"<|user|><image>\n{question}<|end|><|assistant|>")
    assert chat.SYSTEM_PROMPT in tuned_texts["questions/colour"]
    assert base_texts["questions/colour"] == f"<image>Question:{question} Short answer:"
    assert tuned_texts["caption/exact"].endswith("<|user|><image>\nDescribe the picture.<|end|><|assistant|>")
    assert base_texts["caption/exact"] == "<image>Output:"


@pytest.fixture(scope="module")
def generator(words) -> Generator:
    config = VLMConfig(
        vision=ViTConfig(image_size_px=64, patch_px=8, width=16, hidden=32, layers=1, heads=2),
        connector=ResamplerConfig(width=16, layers=1, heads=2, head_width=8, hidden=32, queries=2, out_width=32),
        decoder=Phi3Config(
            vocab_size=words.vocab_size, num_text_tokens=words.num_text_tokens, width=32, hidden=32, layers=1, heads=2,
            kv_heads=1,
        ),
    )  # fmt: skip
    shapes = nn.unbox(jax.eval_shape(functools.partial(blip3.initialize, config), jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
    return Generator(config, params, words, ANYRES, limits=Limits(rows=16))


def test_the_suite_runs_on_a_model_and_gives_every_promised_metric(generator, tmp_path):
    few = dataclasses.replace(FEW, items=2, shot_items=2)
    tuned = tasks.run_suite(generator, few)
    base = tasks.run_suite(generator, dataclasses.replace(few, style="few_shot", groups=("shots",)))
    metrics = tuned.metrics | base.metrics
    assert NAMES <= metrics.keys()
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["questions_majority/mean"] == pytest.approx(
        np.mean([metrics[f"questions_majority/{kind}"] for kind in tasks.QUESTION_KINDS])
    )
    predictions.write_predictions(tuned.predictions, tmp_path, examples=2)
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == len(tuned.predictions)
    shown = [name for line in lines for name in line.get("pictures", ())]
    assert shown and all((tmp_path / name).is_file() for name in shown)


def test_no_items_are_refused(words):
    suite = tasks.suite(dataclasses.replace(FEW, items=0, groups=("handwriting",)), ANYRES)
    with pytest.raises(ValueError, match="handwriting has no examples"):
        Oracle(words).evaluate(suite)
