"""`xgenmm evaluate RUN --tasks geneval,dpg --data DIR`: a run's pictures in the folders of benchmarks of drawing."""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import sys
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from xgenmm_jax.evaluation.image_generation.prompts import BENCHMARKS, Benchmark, BenchmarkPrompt
from xgenmm_jax.paths import Path

if TYPE_CHECKING:
    from xgenmm_jax.api import LMM
    from xgenmm_jax.generation.images.sampling import Sampling


@runtime_checkable
class Asked(Protocol):
    """Those of `cli.evaluate.Arguments` that are read here."""

    run: Path
    tasks: str | None
    data: Path | None
    output: Path | None
    items: int | None
    seed: int


def asked_for(tasks: str) -> list[Benchmark] | None:
    """The benchmarks of drawing that --tasks lists; None where it lists none.

    Raises ValueError where others stand among them.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    drawing = [name for name in BENCHMARKS if name in names]
    if not drawing:
        return None
    others = [name for name in names if name not in BENCHMARKS]
    if others:
        raise ValueError(
            f"--tasks: got {', '.join(drawing)}, which are drawn, together with {', '.join(others)}; give them in two "
            "commands."
        )
    return drawing


def main(arguments: Asked, benchmarks: list[Benchmark], is_first: bool) -> int:
    """Draws what is not there yet; gives the exit code. All hosts compute, the first one writes."""
    from rich.progress import track

    from xgenmm_jax import api
    from xgenmm_jax.evaluation.image_generation import exports
    from xgenmm_jax.evaluation.image_generation.prompts import IMAGES_PER_PROMPT, prompts
    from xgenmm_jax.generation.images.sampling import Sampling
    from xgenmm_jax.training.runs import fingerprints

    if arguments.data is None:
        raise ValueError("--data: give the folder with the benchmarks' prompt files (docs/evaluation.md).")
    selected = {name: prompts(name, arguments.data)[: arguments.items] for name in benchmarks}
    run = api.load(arguments.run)
    run.drawer()  # a run that does not draw ends here
    sampling = Sampling()
    made_by = {"model": fingerprints.of_model(arguments.run), "seed": arguments.seed, **dataclasses.asdict(sampling)}
    for name, every in selected.items():
        folder = (arguments.output or arguments.run / "evaluation" / "drawing") / name
        if is_first:
            exports.begin_or_continue(folder, made_by)
        left = _left(name, folder, every, is_first)
        drawn = _drawn(run, every, left, IMAGES_PER_PROMPT[name], arguments.seed, sampling)
        shown = track(drawn, name, sum(left), disable=not is_first or not sys.stderr.isatty())
        if is_first:
            exports.write(name, folder, shown)
            print(f"{name}: {sum(left)} prompts drawn, {len(every)} in {folder}")
        else:
            for _ in drawn:
                pass
    return 0


def _left(name: Benchmark, folder: Path, every: Sequence[BenchmarkPrompt], is_first: bool) -> list[bool]:
    """Of each prompt whether it is to be drawn, as the first host finds: all draw the same ones together."""
    import jax
    from jax.experimental import multihost_utils
    import numpy as np

    from xgenmm_jax.evaluation.image_generation import exports

    is_left = np.zeros(len(every), bool)
    if is_first:
        names = {(prompt.folder, prompt.id) for prompt in exports.remaining(name, folder, every)}
        is_left[:] = [(prompt.folder, prompt.id) in names for prompt in every]
    if jax.process_count() > 1:
        is_left = np.asarray(multihost_utils.broadcast_one_to_all(is_left))
    return is_left.tolist()


def _drawn(
    run: "LMM", every: Sequence[BenchmarkPrompt], left: Sequence[bool], count: int, seed: int, sampling: "Sampling"
) -> Iterator[tuple]:
    """(prompt, its images), prompt by prompt. The noise follows from the prompt's number in the whole benchmark."""
    import PIL.Image

    drawer, start = run.drawer(), 0
    # Prompts that follow each other are one call, which fills its batches.
    for is_left, group in itertools.groupby(left):
        part = every[start : start + len(list(group))]
        if is_left:
            drawings = drawer.draw([prompt.text for prompt in part], count, seed, sampling, start)
            for prompt, drawing in zip(part, drawings, strict=True):
                if drawing.images is None:
                    raise ValueError("draw: the run makes features and no pixels of them; train its pixel decoder.")
                yield prompt, [PIL.Image.fromarray(image) for image in drawing.images]
        start += len(part)
