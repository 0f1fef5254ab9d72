"""BLIP-3 beside BLIP-2 at nano: connector, first stage and decoder, over several seeds.

    python -m tools.connector_study FOLDER [--samples 12000] [--pairs 6000] [--seeds 0 1 2]

The paper claims no such numbers: which of the two learns more from the same samples is our own question. Trains every
arm (`experiments/ablations/blip2.py --at nano`) once a seed on equally many samples, and again for equally many FLOPs:
as many as BLIP-2's two stages take, so that an arm without the first stage trains for more steps. How many follows
from the FLOPs and samples a step that the objectives count of the first batches. Asks held-out drawn items; prints
tables, also in FOLDER as table.md, table.json and plot.png. What is finished stays: the same command goes on after a
kill. Some eighty minutes a seed on 2 idle CPU cores.
"""

import argparse
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass, replace
import itertools
import json
from pathlib import Path

import jax
import rich.console

from tools import connector_table, study, study_table
from tools.connector_table import BUDGETS, NAMES, Budget, Results
from tools.study_table import Result, cell
from tools.toolkit_environments import ROOT
from xgenmm_jax import api, files
from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.retrieval import retrieve_pairs
from xgenmm_jax.cli.compilation_cache import keep_compilations
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.cli.main import keep_memory
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.evaluation.tasks.suite import InputFormat, make_tasks, run_tasks
from xgenmm_jax.nano.retrieval import drawn_pairs
from xgenmm_jax.nano.tasks import DrawnWorld
from xgenmm_jax.reporting.machine import describe_machine, machine_sentence
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.metrics import read_metrics

SUBJECT = "connector study"
FIRST = "queries"
"""The run that is the first stage of BLIP-2."""
AFTER_FIRST = ("blip2", "qformer_trained")
COUNTED_BATCHES = 20
"""Of which samples and FLOPs a step are the mean."""
GROUPS = ("questions", "caption", "grounding", "reading", "multi_image")
LEFT_OUT = ("questions_wrong_image/", "reading_large/", "multi_image_shuffled")


@dataclass(frozen=True)
class Settings:
    """What a study is of. samples: of an arm's training, at equal samples. pairs: of BLIP-2's first stage, beside.

    items: of each kind that is asked. retrieved: held-out images, each with its caption, of which the first stage
    finds the right one.
    """

    samples: int = 12_000
    pairs: int = 6_000
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = tuple(NAMES)
    budgets: tuple[Budget, ...] = tuple(BUDGETS)
    items: int = 200
    retrieved: int = 200


@dataclass(frozen=True)
class Cost:
    """Of a step, mean."""

    samples: float
    flops: float


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and asks what is not there yet; writes and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=Settings.samples, help="of an arm's training")
    parser.add_argument("--pairs", type=int, default=Settings.pairs, help="of BLIP-2's first stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=Settings.seeds)
    parser.add_argument("--arms", nargs="+", default=Settings.arms, choices=NAMES)
    parser.add_argument("--budgets", nargs="+", default=Settings.budgets, choices=BUDGETS)
    parser.add_argument("--items", type=int, default=Settings.items, help="of each kind")
    parser.add_argument("--retrieved", type=int, default=Settings.retrieved, help="images that the first stage finds")
    options = parser.parse_args(argv)
    settings = Settings(
        options.samples, options.pairs, tuple(options.seeds), tuple(options.arms), tuple(options.budgets),
        options.items, options.retrieved,
    )  # fmt: skip
    keep_memory()
    keep_compilations()
    run_study(options.folder.resolve(), settings)


def run_study(folder: Path, settings: Settings) -> None:
    fixed = {name: value for name, value in vars(settings).items() if name not in ("seeds", "arms", "budgets")}
    fixed["figures"] = sorted(connector_table.FIGURES)
    study.keep_settings(folder, fixed, SUBJECT)
    costs = costs_of(folder)
    pairs = itertools.product(settings.budgets, settings.arms)
    steps = {(budget, arm): steps_of(arm, budget, costs, settings) for budget, arm in pairs}
    results: dict[Budget, list[Result]] = {budget: [] for budget in settings.budgets}
    for seed, budget, arm in itertools.product(settings.seeds, settings.budgets, settings.arms):
        results[budget].append(run_arm(folder, arm, seed, steps[budget, arm], costs, settings))
        write(folder, results, settings)
    console = rich.console.Console()
    for title, lines in connector_table.sections(results):
        study_table.show(title, lines, console)
    console.print(f"also in {folder / 'table.md'}, table.json and plot.png", soft_wrap=True)


def experiment(arm: str) -> TrainConfig:
    return load_experiment(ROOT / "experiments" / "ablations" / f"blip2.py:{arm}", at="nano")


def costs_of(folder: Path) -> dict[str, Cost]:
    """Samples and FLOPs a step of each run, counted once: a study that goes on keeps its steps."""
    file = folder / "costs.json"
    if not file.is_file():
        counted = {arm: cost_of(experiment(arm)) for arm in (FIRST, *NAMES)}
        files.write_whole(file, json.dumps({arm: vars(cost) for arm, cost in counted.items()}, indent=1))
    return {arm: Cost(**cost) for arm, cost in files.read_json(file).items()}


def cost_of(config: TrainConfig, count: int = COUNTED_BATCHES) -> Cost:
    """Mean of the first batches, as the objective counts them."""
    objective, samples, flops = config.objective, 0, 0.0
    opened = objective.batches(config.model, config.data, config.seed, State(), 0, 1)
    with contextlib.closing(opened) as batches:
        for rows, _, _ in itertools.islice(batches, count):
            samples += objective.count(rows).samples
            flops += objective.flops(config.model, rows, config.freeze)
    return Cost(samples / count, flops / count)


def steps_of(arm: str, budget: Budget, costs: dict[str, Cost], settings: Settings) -> int:
    """Steps of a run for a budget. Raises ValueError where they are none, of it or of the first stage."""
    first = round(settings.pairs / costs[FIRST].samples)
    if not first:
        raise ValueError(
            f"{SUBJECT}: --pairs: {settings.pairs} are no step, which takes {costs[FIRST].samples:.0f}; give more."
        )
    if arm == FIRST:
        return first
    of_first = first * costs[FIRST].flops
    steps = round(settings.samples / costs[arm].samples)
    if budget == "flops" and arm != "blip2":
        whole = of_first + round(settings.samples / costs["blip2"].samples) * costs["blip2"].flops
        left = whole - (of_first if arm in AFTER_FIRST else 0.0)
        steps = round(left / costs[arm].flops)
    if not steps:
        raise ValueError(
            f"{SUBJECT}: --samples: {settings.samples} are no step of {arm}, which takes {costs[arm].samples:.0f}; "
            "give more."
        )
    return steps


def config_of(arm: str, seed: int, steps: int, folder: Path) -> TrainConfig:
    """The experiment of an arm at nano, over so many steps."""
    config = experiment(arm)
    # Warm-up is a part of a shortened run, too.
    optimizer = replace(config.optimizer, warmup_steps=min(config.optimizer.warmup_steps, steps // 4))
    config = replace(config, seed=seed, steps=steps, optimizer=optimizer)
    if arm in AFTER_FIRST:
        start = replace(config.initialize, connector=str(folder / f"{FIRST}_{seed}"))
        config = replace(config, initialize=start)
    return config


def run_arm(folder: Path, arm: str, seed: int, steps: int, costs: dict[str, Cost], settings: Settings) -> Result:
    """A run of an arm, trained and asked as far as it is not yet; what its first stage took is counted with it."""
    name = f"{arm}_{steps}_{seed}"
    file = folder / f"{name}.json"
    if not file.is_file():
        first = folder / f"{FIRST}_{seed}"
        if arm in AFTER_FIRST:
            study.train(config_of(FIRST, seed, steps_of(FIRST, "samples", costs, settings), folder), first, SUBJECT)
            found(first, settings)
        run = folder / name
        study.train(config_of(arm, seed, steps, folder), run, SUBJECT)
        figures = judged(api.load(run), settings) | {"samples": float(read_metrics(run)[-1]["samples"])}
        runs = (first, run) if arm in AFTER_FIRST else (run,)
        result = Result(arm, seed, figures, sum(map(study.flops_of, runs)), sum(map(study.seconds_of, runs)))
        files.write_whole(file, json.dumps(vars(result), indent=1))
        jax.clear_caches()  # the next run compiles its own programs, or reads them from the disk
    return Result(**files.read_json(file))


def found(first: Path, settings: Settings) -> dict[str, float]:
    """Recall at 1 of the first stage, percent, mean of both directions: by contrast, and ranked again by matching."""
    file = first.with_name(f"{first.name}.json")
    if not file.is_file():
        ((result, _),) = retrieve_pairs(first, {"drawn": drawn_pairs(settings.retrieved)}).values()
        recalls = {name: getattr(result, name) for name in ("contrast", "matched")}
        means = {name: (one.to_text[0] + one.to_image[0]) / 2 for name, one in recalls.items()}
        files.write_whole(file, json.dumps(means))
    return files.read_json(file)


def judged(lmm: LMM, settings: Settings) -> dict[str, float]:
    """Figures of held-out items, in percent (`connector_table.FIGURES`). Small text is read by crops where it can."""
    suite = DrawnWorld(style="chat", groups=GROUPS, items=settings.items)
    asked = make_tasks((suite,), InputFormat(lmm.processor.chat, "chat", lmm.processor.anyres))
    tasks = [task for task in asked if not task.name.startswith(LEFT_OUT)]
    metrics = run_tasks(lmm.generator(), tasks, (suite,)).metrics
    names = {
        "questions": "questions/mean",
        "read": "questions/read",
        "captions": "caption/cider",
        "boxes": "grounding/iou",
        "small_text": "reading/anyres" if lmm.processor.anyres.grids else "reading/base",
        "several": "multi_image",
    }
    return {figure: 100 * metrics[name] for figure, name in names.items()}


def write(folder: Path, results: Results, settings: Settings) -> None:
    """table.md, table.json and plot.png of what there is."""
    machine, sections = describe_machine(), connector_table.sections(results)
    files_found = sorted(folder.glob(f"{FIRST}_*.json"))
    recalls = [files.read_json(file) for file in files_found]
    retrieval = ", ".join(
        f"{cell([one[name] for one in recalls], '.1f')} % by {words}"
        for name, words in (("contrast", "contrast"), ("matched", "matching"))
    )
    note = (
        "BLIP-3's paper claims no number of these: it has no row of BLIP-2 and no ablation against a Q-Former. "
        f"{settings.samples:,} samples at equal samples, and before them in A and E {settings.pairs:,} pairs of "
        "BLIP-2's first stage, whose FLOPs and time are counted with theirs; equal FLOPs are A's. "
        f"Mean ± standard deviation over seeds; {settings.items} held-out items of each kind, small text at any "
        f"resolution in D+ and in one view elsewhere. {machine_sentence(machine)}."
    )
    if recalls:
        note += (
            f"\n\nThe first stage alone finds the right one of {settings.retrieved} held-out images or captions: "
            f"recall at 1 {retrieval}; chance {100 / settings.retrieved:.1f} %."
        )
    parts = [f"**{title}**\n\n{study_table.markdown(lines)}" for title, lines in sections]
    files.write_whole(folder / "table.md", "\n\n".join([note, *parts, "![](plot.png)"]) + "\n")
    facts = {
        "settings": vars(settings),
        "machine": machine,
        "retrieval": {file.stem: one for file, one in zip(files_found, recalls, strict=True)},
        "runs": {budget: [vars(one) for one in of_budget] for budget, of_budget in results.items()},
    }
    files.write_whole(folder / "table.json", json.dumps(facts, indent=1))
    connector_table.plot(results, folder / "plot.png")


if __name__ == "__main__":
    main()
