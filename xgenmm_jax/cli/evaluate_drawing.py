"""`xgenmm evaluate RUN --tasks geneval,dpg --data DIR`: a run's pictures in the folders of benchmarks of drawing."""

from collections.abc import Iterator
import sys
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from xgenmm_jax.evaluation.image_generation.prompts import BENCHMARKS, Benchmark
from xgenmm_jax.paths import Path

if TYPE_CHECKING:
    from xgenmm_jax.api import LMM

PROMPTS_PER_CALL = 8


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

    if arguments.data is None:
        raise ValueError("--data: give the folder with the benchmarks' prompt files (docs/evaluation.md).")
    selected = {name: prompts(name, arguments.data)[: arguments.items] for name in benchmarks}
    run = api.load(arguments.run)
    run.drawer()  # a run that does not draw ends here
    for name, every in selected.items():
        folder = (arguments.output or arguments.run / "evaluation" / "drawing") / name
        left = exports.remaining(name, folder, every)
        numbers = {prompt.id: number for number, prompt in enumerate(every)}
        drawn = _drawn(run, left, numbers, IMAGES_PER_PROMPT[name], arguments.seed)
        shown = track(drawn, name, len(left), disable=not is_first or not sys.stderr.isatty())
        if is_first:
            exports.write(name, folder, shown)
            print(f"{name}: {len(left)} prompts drawn, {len(every)} in {folder}")
        else:
            for _ in drawn:
                pass
    return 0


def _drawn(run: "LMM", left: list, numbers: dict[str, int], count: int, seed: int) -> Iterator[tuple]:
    """(prompt, its images), prompt by prompt. The noise follows from the prompt's number in the whole benchmark."""
    import PIL.Image

    from xgenmm_jax.generation.images.sampling import Sampling

    drawer, start = run.drawer(), 0
    while start < len(left):
        # Prompts that follow each other are drawn together.
        end = start + 1
        while end < len(left) and end - start < PROMPTS_PER_CALL and _follows(numbers, left[end - 1], left[end]):
            end += 1
        part = left[start:end]
        texts = [prompt.text for prompt in part]
        for prompt, drawing in zip(
            part, drawer.draw(texts, count, seed, Sampling(), numbers[part[0].id]), strict=True
        ):
            if drawing.images is None:
                raise ValueError("draw: the run makes features and no pixels of them; train its pixel decoder.")
            yield prompt, [PIL.Image.fromarray(image) for image in drawing.images]
        start = end


def _follows(numbers: dict[str, int], one, other) -> bool:
    return numbers[other.id] == numbers[one.id] + 1
