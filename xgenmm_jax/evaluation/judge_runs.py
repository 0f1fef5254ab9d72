"""Answers that the rules have scored, judged: beside the rules' scores, never in their place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import math

from xgenmm_jax.evaluation.judge import MOST_SENT, THREADS, Judge, Server
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Choice
from xgenmm_jax.evaluation.tasks.judging import Judging
from xgenmm_jax.evaluation.tasks.task import Scored, Task
from xgenmm_jax.paths import Path

OnProgress = Callable[[str, int, int], None]
"""(title, answers done, answers in all) of the benchmark that is judged."""

NOTHING_TOLD: OnProgress = lambda *_: None  # noqa: E731


@dataclass(frozen=True)
class JudgeSetup:
    """Who judges. prompt: in place of the benchmark's own; with the placeholders of `judging`."""

    server: Server
    prompt: str | None = None
    threads: int = THREADS


def judged_benchmarks(benchmarks: Sequence[Benchmark], profile: Profile | None, setup: JudgeSetup) -> list[Benchmark]:
    """Those of which a judge is asked something by a profile; None: by each benchmark's own.

    Raises: ValueError where there is none, or where one prompt would be used for questions of several kinds.
    """
    by_profile = [(one, one.choice(profile).profile) for one in benchmarks]
    judged = [one for one, chosen in by_profile if one.judging is not None and chosen in one.judging.profiles]
    if not judged:
        names = ", ".join(f"{one.name} ({chosen})" for one, chosen in by_profile)
        raise ValueError(
            f"--judge: by their profiles rules alone score {names}; leave the judge away, or give other tasks."
        )
    prompts = {one.judging.prompt: one.name for one in judged if one.judging is not None}
    if setup.prompt is not None and len(prompts) > 1:
        raise ValueError(
            f"--judge-prompt: {' and '.join(prompts.values())} are judged by prompts of their own; give one for tasks "
            "of one kind, and judge the others apart."
        )
    return judged


def judged(
    benchmark: Benchmark,
    predictions: Sequence[Prediction],
    choice: Choice,
    result: Result,
    setup: JudgeSetup,
    replies: Path,
    on_progress: OnProgress = NOTHING_TOLD,
) -> Result:
    """A benchmark's scores with a judge.

    predictions: as the rules scored them, result: their scores; of these what the judge does not change stays in the
    table. replies: the file in which the judge's replies are kept.

    Raises: JudgeError where the judge cannot be asked; what it has replied by then is kept.
    """
    if benchmark.judging is None:
        raise ValueError(f"{benchmark.name}: rules alone score it; leave the judge away.")
    rule = replace(benchmark.judging, prompt=setup.prompt or benchmark.judging.prompt)
    judge = Judge(setup.server, replies, setup.threads)
    ask = _Ask(judge, rule, benchmark.task((), choice), choice)
    indices = [index for index, one in enumerate(predictions) if benchmark.judging.asks(one, choice.profile)]
    for prediction in (predictions[index] for index in indices):
        if (size := len(ask.prompt(prediction))) > MOST_SENT:
            raise ValueError(
                f"judge: the prompt about example '{prediction.example.id}' of {benchmark.name} has {size:,} "
                f"characters, more than {MOST_SENT:,}; shorten its answer."
            )
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(f"{benchmark.title}, judged", done, len(indices))

    advance(0)
    scores = judge.each(ask, [predictions[index] for index in indices], advance)
    new = list(predictions)
    for index, scored in zip(indices, scores, strict=True):
        new[index] = replace(new[index], score=scored.score, extracted=scored.extracted)
    table = (rule.summarize or benchmark.summarize)(new, choice.profile)
    value = table[result.headline].value
    return replace(
        result,
        scores={**result.scores, **table},
        normalized=benchmark.normalize(value) if not math.isnan(value) else math.nan,
        judge=f"{setup.server.model}, prompt {judging.fingerprint(rule.prompt)}",
    )


@dataclass(frozen=True)
class _Ask:
    """What a judge makes of a prediction."""

    judge: Judge
    rule: Judging
    task: Task
    choice: Choice

    def __call__(self, prediction: Prediction) -> Scored:
        prompt, example = self.prompt(prediction), self.rule.shown(prediction.example)
        for temperature in self.rule.temperatures:
            scored = self.rule.read(self.judge.reply(prompt, temperature), example, self.choice.profile)
            if scored is not None:
                return scored
        return Scored(0.0, None)

    def prompt(self, prediction: Prediction) -> str:
        example = self.rule.shown(prediction.example)
        texts = {
            "question": example.question,
            "answer": multiple_choice.first_answer(example),
            "prediction": self.task.read_answer(prediction.text),
            "options": multiple_choice.option_lines(example),
        }
        return judging.filled(self.rule.prompt, texts)
