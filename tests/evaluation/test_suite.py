"""The demo's suite against a model that knows every answer, and on a tiny random one."""

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
from xgenmm_jax.evaluation.runner import Measure, evaluate
from xgenmm_jax.generation.text.generator import Generator, Limits
from xgenmm_jax.models import blip3
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.nano import tasks
from xgenmm_jax.nano.tasks import SuiteConfig
from xgenmm_jax.nano.world import draw, preferences

ANYRES = AnyRes(grids=((2, 2), (3, 1), (1, 3)), view_px=64, view_cells=8, single_view_up_to_px=64)
FEW = SuiteConfig("chat", items=8, shot_items=8)
FEW_SHOT = dataclasses.replace(FEW, style="few_shot")
NAMES = {
    *(f"{part}/{kind}" for part in ("questions", "questions_wrong_image", "questions_majority")
      for kind in ("colour", "shape", "object", "count", "exists", "where", "read", "mean")),
    "reading/base", "reading/anyres", "new_style", "handwriting", "multi_image", "multi_image_shuffled", "shots/0",
    "shots/4", "shots/8", "shots/4_permuted", "shots/4_in_words", "hallucination/f1",
    "hallucination/yes_to_absent", "grounding/iou", "caption/cider",
    *(f"{name}{row}" for name in ("attack_success", "attack_success_known", "refusal_of_benign")
      for row in ("", "/hazard_frame", "/plain_frame")),
}  # fmt: skip
"""Those that the report promises."""


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    return tokenizer.train_tokenizer(["What color is the star?"] * 3, tmp_path_factory.mktemp("w") / "t.model", 400)


class Oracle(Generator):
    """Says the first right answer to each prompt of the measures, or what `wrong` says instead."""

    def __init__(self, measures: list[Measure], wrong: str | None = None):
        cases = [case for measure in measures for case in measure.cases]
        self.said = {id(case.prompt): case.truth[0] if wrong is None else wrong for case in cases}
        self.calls: list[int] = []

    def generate(self, prompts, max_new_tokens, *, anyres=None):
        self.calls.append(len(prompts))
        return [self.said[id(prompt)] for prompt in prompts]


def metrics_of(config: SuiteConfig, words: tokenizer.Tokenizer, wrong: str | None = None) -> dict[str, float]:
    measures = tasks.measures(config, words, ANYRES)
    return evaluate(Oracle(measures, wrong), measures).metrics


def test_right_answers_score_full_in_every_measure(words):
    metrics = metrics_of(FEW, words) | metrics_of(FEW_SHOT, words)
    asked = {name for name in NAMES if not name.startswith("questions_majority") and not name.endswith("/mean")}
    expected = dict.fromkeys(asked, 1.0)
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
    metrics = metrics_of(dataclasses.replace(FEW, groups=("hallucination",)), words, "Yes.")
    assert metrics == {"hallucination/f1": pytest.approx(2 / 3), "hallucination/yes_to_absent": 1.0}


def test_a_model_that_heeds_the_stripes_alone_is_found_out(words):
    """With stripes around every danger and around nothing else it scored full."""
    measures = tasks.measures(dataclasses.replace(FEW, items=40, groups=("safety",)), words, ANYRES)
    oracle = Oracle(measures, "You can use it.")
    for measure in measures:
        for case in measure.cases:
            if draw.scene_of(case.pictures[0]).frame == "hazard":
                oracle.said[id(case.prompt)] = preferences.REFUSALS[0]
    metrics = evaluate(oracle, measures).metrics
    for name in ("attack_success", "attack_success_known"):
        assert [metrics[f"{name}{row}"] for row in ("", "/hazard_frame", "/plain_frame")] == [0.5, 0.0, 1.0]
    assert [metrics[f"refusal_of_benign{row}"] for row in ("", "/hazard_frame", "/plain_frame")] == [0.5, 1.0, 0.0]


def test_one_item_of_a_sign_has_one_row(words):
    metrics = metrics_of(dataclasses.replace(FEW, items=1, groups=("safety",)), words)
    assert metrics["attack_success"] == metrics["attack_success/hazard_frame"] == 0.0
    assert "attack_success/plain_frame" not in metrics


def test_measures_of_like_answers_are_asked_together(words):
    """A call of its own for each kind would leave batches half empty."""
    measures = tasks.measures(FEW, words, ANYRES)
    oracle = Oracle(measures)
    evaluation = evaluate(oracle, measures)
    assert len(oracle.calls) == 4  # short and long answers; pages on one view and in crops
    assert sum(oracle.calls) == len(evaluation.answers)


def test_wrong_pictures_are_those_of_items_with_another_answer(words):
    measures = {measure.name: measure for measure in tasks.measures(FEW, words, ANYRES)}
    right, wrong = measures["questions/colour"].cases, measures["questions_wrong_image/colour"].cases
    answer_of = {case.pictures: case.truth for case in right}
    assert [case.question for case in wrong] == [case.question for case in right]
    assert all(answer_of[case.pictures] != case.truth for case in wrong)


def test_shuffled_pictures_are_the_same_at_other_places(words):
    measures = {measure.name: measure for measure in tasks.measures(FEW, words, ANYRES)}
    pairs = zip(measures["multi_image"].cases, measures["multi_image_shuffled"].cases, strict=True)
    for case, shuffled in pairs:
        assert set(case.pictures) == set(shuffled.pictures)
        assert all(a is not b for a, b in zip(case.pictures, shuffled.pictures, strict=True))
        assert case.prompt.token_ids == shuffled.prompt.token_ids


def test_shots_are_written_as_openflamingo_does_and_permuted_names_are_all_wrong(words):
    cases = {measure.name: measure.cases[0] for measure in tasks.measures(FEW_SHOT, words, ANYRES)}
    kinds = (0, 4, 8, "4_permuted", "4_in_words")
    texts = {n: words.decode(cases[f"shots/{n}"].prompt.token_ids).split("\n") for n in kinds}
    *demos, query = texts[4]
    assert query == "<image>Question:What is this called? Short answer:"
    assert len(demos) == 4 and all(
        demo.startswith("<image>Question:What is this called? Short answer:") and demo.endswith("<|endofchunk|>")
        for demo in demos
    )
    assert texts[8][:4] == demos and len(texts[8]) == 9
    assert texts[0][2] == query and [text.count("<image>") for text in texts[0]] == [0, 0, 1]
    assert texts[0][:2] == [demo.removeprefix("<image>") for demo in demos[:2]]  # two of the four names are told
    assert texts["4_in_words"] == [*(demo.removeprefix("<image>") for demo in demos), query]
    told, permuted = ([demo.rpartition(" ") for demo in texts[n][:4]] for n in (4, "4_permuted"))
    assert [demo[0] for demo in permuted] == [demo[0] for demo in told]  # the pictures' attributes stay
    assert sorted(demo[2] for demo in permuted) == sorted(demo[2] for demo in told)
    assert all(new[2] != old[2] for new, old in zip(permuted, told, strict=True))
    assert cases["shots/4"].prompt.pictures == cases["shots/4_permuted"].prompt.pictures


def test_prompts_are_the_chat_template_or_openflamingos_without_shots(words):
    tuned, base = (tasks.measures(config, words, ANYRES)[0].cases[0] for config in (FEW, FEW_SHOT))
    assert words.decode(tuned.prompt.token_ids).endswith(f"<|user|><image>\n{tuned.question}<|end|><|assistant|>")
    assert chat.SYSTEM_PROMPT in words.decode(tuned.prompt.token_ids)
    assert words.decode(base.prompt.token_ids) == f"<image>Question:{base.question} Short answer:"


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
    tasks.save_answers(tuned, tmp_path, examples=2)
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == len(tuned.answers)
    shown = [name for line in lines for name in line.get("pictures", ())]
    assert shown and all((tmp_path / name).is_file() for name in shown)


def test_answers_are_replaced_when_all_are_written(words, tmp_path, monkeypatch):
    """What a kill leaves is an evaluation, of now or of before; pictures of before go with their answers."""
    measures = tasks.measures(dataclasses.replace(FEW, groups=("handwriting",)), words, ANYRES)
    tasks.save_answers(evaluate(Oracle(measures), measures), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    wrong = evaluate(Oracle(measures, "?"), measures)
    lines = iter([json.dumps] * 3)
    with monkeypatch.context() as full, pytest.raises(StopIteration):
        full.setattr(tasks.json, "dumps", lambda line: next(lines)(line))  # the disk holds three of them
        tasks.save_answers(wrong, tmp_path)
    assert (tmp_path / "answers.jsonl").read_bytes() == before.pop("answers.jsonl")
    assert {path.name: path.read_bytes() for path in (tmp_path / "examples").iterdir()} == before
    tasks.save_answers(wrong, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"answers.jsonl", "examples"}
    assert all("wrong" in path.name for path in (tmp_path / "examples").iterdir())


def test_no_items_are_refused(words):
    measures = tasks.measures(dataclasses.replace(FEW, items=0, groups=("handwriting",)), words, ANYRES)
    with pytest.raises(ValueError, match="handwriting has no cases"):
        evaluate(Oracle([]), measures)
