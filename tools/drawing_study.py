"""The study of BLIP3-o's designs at nano: what is drawn, by which objective, in which order, over several seeds.

    python -m tools.drawing_study FOLDER [--steps 500] [--seeds 0 1 2] [--start RUN]

Trains every arm (`experiments/ablations/blip3o_*.py --at nano`) once a seed, from the model of `make demo` and the
pixel decoder that ships, or those of RUN; draws open captions with it and judges them by program. Prints a table and
what the paper found, also in FOLDER as table.md, table.json and plot.png. What is finished stays: the same command
goes on after a kill. Of 500 steps an arm and seed takes 3 to 15 minutes of a core, all 70 minutes as two processes
with seeds of their own in one folder; without --steps, at the experiments' own 800, some two hours.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
import json
from pathlib import Path

import jax
from jaxtyping import Float32, UInt8
import numpy as np
import rich.console

from tools import drawing_table, study, study_table
from tools.study_table import Result, markdown
from tools.toolkit_environments import ROOT
from xgenmm_jax import api, files
from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.cli.compilation_cache import keep_compilations
from xgenmm_jax.cli.experiment_files import load_experiment
from xgenmm_jax.evaluation.image_generation import fid
from xgenmm_jax.evaluation.tasks.suite import InputFormat, make_tasks, run_tasks
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.models import drawing_features
from xgenmm_jax.models.blip3o import DrawingConfig, LinearHead, TowerTarget
from xgenmm_jax.nano.drawing.prompts import Prompt, benchmark
from xgenmm_jax.nano.drawing.scores import Scores, diversity, scores
from xgenmm_jax.nano.tasks import DrawnWorld
from xgenmm_jax.nano.world import draw
from xgenmm_jax.nano.world.splits import Split
from xgenmm_jax.reporting.machine import describe_machine, machine_sentence
from xgenmm_jax.training.config import Initialize, TrainConfig

SUBJECT = "drawing study"
Pictures = UInt8[np.ndarray, "n 64 64 3"]
NAMES = {
    "regression": "features, squared error",
    "flow": "features, flow matching (sequential)",
    "latents": "latents, flow matching",
    "joint": "features, flow matching, joint",
}
EXPERIMENTS = {
    "regression": "blip3o_objective.py:regression",
    "flow": "blip3o_objective.py:flow",
    "autoencoder": "blip3o_target.py:autoencoder",
    "latents": "blip3o_target.py:latents",
    "joint": "blip3o_strategy.py:joint",
}
FEATURES_AT_ONCE = 64


@dataclass(frozen=True)
class Settings:
    """What a study is of. start: a run with a trained pixel decoder; None: what the experiments begin with. steps:
    None for the experiments' own. captions: of each open tag, one picture each.

    repeated: captions such as "a red star", of which `images` pictures each are drawn, to count the places of what is
    right in them. questions: of each kind, about pictures.
    """

    start: str | None = None
    steps: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = tuple(NAMES)
    captions: int = 40
    repeated: int = 24
    images: int = 8
    questions: int = 100
    sampling: Sampling = Sampling()


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and judges what is not there yet; writes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=Path, help="a run with a trained pixel decoder, in place of demo's and ours")
    parser.add_argument("--steps", type=int, help="of every run; the experiments' own without")
    parser.add_argument("--seeds", type=int, nargs="+", default=Settings.seeds)
    parser.add_argument("--arms", nargs="+", default=Settings.arms, choices=NAMES)
    parser.add_argument("--captions", type=int, default=Settings.captions, help="of each tag")
    parser.add_argument("--questions", type=int, default=Settings.questions, help="of each kind")
    options = parser.parse_args(argv)
    settings = Settings(
        None if options.start is None else str(options.start.resolve()), options.steps, tuple(options.seeds),
        tuple(options.arms), options.captions, questions=options.questions,
    )  # fmt: skip
    keep_compilations()
    run_study(options.folder.resolve(), settings)


def run_study(folder: Path, settings: Settings) -> None:
    begin(folder, settings)
    results = []
    for seed in settings.seeds:
        for arm in settings.arms:
            results.append(run_arm(folder, arm, seed, settings))
            write(folder, results, settings)
    show(folder, results)


def begin(folder: Path, settings: Settings) -> None:
    """Writes the settings, to which seeds and arms may be added later. Raises ValueError where there are others."""
    fixed = {name: value for name, value in vars(settings).items() if name not in ("seeds", "arms", "sampling")}
    fixed |= {"sampling": vars(settings.sampling), "figures": sorted(drawing_table.FIGURES)}
    study.keep_settings(folder, fixed, SUBJECT)


def config_of(arm: str, seed: int, folder: Path, settings: Settings) -> TrainConfig:
    """The experiment of an arm at nano. An autoencoder is one for all seeds, as the pixel decoder of `start` is."""
    config = load_experiment(ROOT / "experiments" / "ablations" / EXPERIMENTS[arm], at="nano")
    start = str(folder / "autoencoder") if arm == "latents" else settings.start
    initialize = config.initialize if start is None else Initialize(run=start, fresh=config.initialize.fresh)
    steps = settings.steps or config.steps
    # Warm-up is a part of a shortened run, too.
    optimizer = replace(config.optimizer, warmup_steps=min(config.optimizer.warmup_steps, steps // 4))
    return replace(config, initialize=initialize, seed=seed, steps=steps, optimizer=optimizer)


def run_arm(folder: Path, arm: str, seed: int, settings: Settings) -> Result:
    """A run of an arm, trained and judged as far as it is not yet."""
    file = folder / f"{arm}_{seed}.json"
    if not file.is_file():
        if arm == "latents":
            study.train(config_of("autoencoder", 0, folder, settings), folder / "autoencoder", SUBJECT)
        run = folder / f"{arm}_{seed}"
        study.train(config_of(arm, seed, folder, settings), run, SUBJECT)
        figures = judged(api.load(run), settings)
        result = Result(arm, seed, figures, study.flops_of(run), study.seconds_of(run))
        files.write_whole(file, json.dumps(vars(result), indent=1))
        jax.clear_caches()  # the next run compiles its own programs, or reads them from the disk
    return Result(**files.read_json(file))


def judged(lmm: LMM, settings: Settings) -> dict[str, float]:
    """Figures of what a run draws and answers; see `drawing_table.FIGURES`."""
    by_split = {split: open_captions(split, settings.captions) for split in ("train", "held_out")}
    drawn = {split: drawn_once(lmm, prompts, settings) for split, (prompts, _) in by_split.items()}
    of_split = {split: scores(prompts, drawn[split]) for split, (prompts, _) in by_split.items()}
    true = np.concatenate([pictures for _, pictures in by_split.values()])
    return {
        "alignment": of_split["train"].overall,
        "held_out": of_split["held_out"].overall,
        **properties(of_split["train"]),
        **places(lmm, settings),
        "distance": distance(lmm, np.concatenate(list(drawn.values())), true),
        "understanding": understanding(lmm, settings),
    }


def open_captions(split: Split, per_tag: int, seed: int = 0) -> tuple[list[Prompt], Pictures]:
    """Captions of the open tags, and a true picture of each."""
    pairs = [(prompt, scene) for prompt, scene in benchmark(split, per_tag, seed) if prompt.tag != "dense"]
    return [prompt for prompt, _ in pairs], np.stack([np.asarray(draw.draw(scene)) for _, scene in pairs])


def drawn_once(lmm: LMM, prompts: Sequence[Prompt], settings: Settings) -> Pictures:
    """A picture of each caption."""
    drawings = lmm.draw([prompt.caption for prompt in prompts], sampling=settings.sampling)
    return np.concatenate([one.images for one in drawings])


def properties(of_split: Scores) -> dict[str, float]:
    """Percent of what is told that is there, also in pictures that are not right as a whole; of valid pictures."""
    return {name: getattr(of_split, name).percent for name in ("colors", "positions", "nouns", "valid")}


def places(lmm: LMM, settings: Settings) -> dict[str, float]:
    """Of captions that leave the place open: in how many of nine several pictures have their things, mean.

    places: of the right pictures; all_places: of all, where also what was not asked for counts.
    """
    prompts = [prompt for prompt, _ in benchmark("train", settings.repeated) if prompt.tag == "colors"]
    drawings = lmm.draw([prompt.caption for prompt in prompts], settings.images, seed=1, sampling=settings.sampling)
    found = [diversity(prompt, one.images) for prompt, one in zip(prompts, drawings, strict=True)]
    counts = {"places": [one.positions for one in found], "all_places": [one.all_positions for one in found]}
    return {name: float(np.mean(of_captions)) for name, of_captions in counts.items()}


def distance(lmm: LMM, first: Pictures, second: Pictures) -> float:
    """Frechet distance of two sets of pictures, by the run's own tower: its last states, mean over the image."""
    return fid.distance(*(fid.statistics(pooled_features(lmm, pictures)) for pictures in (first, second)))


def pooled_features(lmm: LMM, pictures: Pictures) -> Float32[np.ndarray, "n E"]:
    drawing = DrawingConfig(head=LinearHead(), target=TowerTarget(grid=1), queries=1)
    model = replace(lmm.config, drawing=drawing)
    features = jax.jit(lambda params, pixels: drawing_features.raw_features(model, params, pixels))
    made = []
    for start in range(0, len(pictures), FEATURES_AT_ONCE):
        chunk = pictures[start : start + FEATURES_AT_ONCE]
        whole = np.resize(chunk, (FEATURES_AT_ONCE, *chunk.shape[1:]))  # the last one filled up by repeating it
        made.append(np.asarray(features(lmm.params, whole))[: len(chunk), 0, 0])
    return np.concatenate(made)


def understanding(lmm: LMM, settings: Settings) -> float:
    """Percent of held-out questions about one image that are answered right, mean over their kinds."""
    suite = DrawnWorld(groups=("questions",), items=settings.questions)
    tasks = make_tasks((suite,), InputFormat(lmm.processor.chat, "chat", lmm.processor.anyres))
    return 100 * run_tasks(lmm.generator(), tasks, (suite,)).metrics["questions/mean"]


def write(folder: Path, results: Sequence[Result], settings: Settings) -> None:
    """table.md, table.json and plot.png of what there is."""
    true = figures_of_true(folder, results, settings)
    lines, found = drawing_table.table(NAMES, results, true), drawing_table.findings(NAMES, results)
    machine = describe_machine()
    note = (
        f"{settings.steps or 'The experiments own'} steps, seeds {', '.join(map(str, settings.seeds))}; mean ± "
        f"standard deviation over seeds. {settings.captions} open captions of each tag, {settings.sampling.steps} "
        f"steps of Euler's method, guidance {settings.sampling.guidance:g}; places: of {settings.repeated} captions, "
        f"{settings.images} pictures each, where {9 - 9 * (8 / 9) ** settings.images:.1f} are expected of places at "
        "random. FLOPs and time of autoencoder and pixel decoder, trained before, are not counted. "
        f"{machine_sentence(machine)}."
    )
    text = f"{note}\n\n{markdown(lines)}\n\n{markdown(found)}\n\n![](plot.png)\n"
    files.write_whole(folder / "table.md", text)
    facts = {
        "settings": {**vars(settings), "sampling": vars(settings.sampling)},
        "machine": machine,
        "true": true,
        "runs": [vars(one) for one in results],
        "findings": found[1:],
    }
    files.write_whole(folder / "table.json", json.dumps(facts, indent=1))
    drawing_table.plot(NAMES, results, true, folder / "plot.png")


def show(folder: Path, results: Sequence[Result]) -> None:
    """Prints the tables."""
    true = files.read_json(folder / "true.json")
    lines, found = drawing_table.table(NAMES, results, true), drawing_table.findings(NAMES, results)
    console = rich.console.Console()
    for title, rows in (("The study of drawing", lines), ("The paper and what was found", found)):
        study_table.show(title, rows, console)
    console.print(f"also in {folder / 'table.md'}, table.json and plot.png", soft_wrap=True)


def figures_of_true(folder: Path, results: Sequence[Result], settings: Settings) -> dict[str, float]:
    """The judge's scores of true pictures, and their distance from other true pictures of such captions."""
    file = folder / "true.json"
    if not file.is_file():
        lmm = api.load(folder / f"{results[0].arm}_{results[0].seed}")
        sets = [[open_captions(split, settings.captions, seed) for split in ("train", "held_out")] for seed in (0, 1)]
        of_split = [scores(*one) for one in sets[0]]
        pictures = [np.concatenate([pictures for _, pictures in one]) for one in sets]
        figures = {
            "alignment": of_split[0].overall,
            "held_out": of_split[1].overall,
            **properties(of_split[0]),
            "distance": distance(lmm, *pictures),
        }
        files.write_whole(file, json.dumps(figures))
    return files.read_json(file)


if __name__ == "__main__":
    main()
