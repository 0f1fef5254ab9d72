"""`xgenmm draw RUN "a red star" -o star.png`: images of what a caption says."""

from collections.abc import Sequence
from dataclasses import dataclass
import io
import pathlib
from typing import Annotated

import tyro

from xgenmm_jax import files
from xgenmm_jax.cli.options import RunPath, UserPath, parse, refuse_no_file
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.paths import Path

FORMATS = (".png", ".jpg", ".jpeg", ".webp")
MOST_IMAGES = 1024


@dataclass(frozen=True)
class Arguments:
    """Draws what a caption says with a run that was trained to draw."""

    run: tyro.conf.Positional[RunPath]
    """A folder that `xgenmm train` wrote, of a model with a drawing part."""
    caption: tyro.conf.Positional[str]
    output: Annotated[UserPath, tyro.conf.arg(aliases=["-o"])] = pathlib.Path("drawing.png")
    """The file, .png, .jpg or .webp. Of several images those behind the first have -2, -3, ... in their names."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1
    """Images, each from other noise."""
    seed: int = 0
    """Of the noise; the same seed draws the same images."""
    sampling: tyro.conf.OmitArgPrefixes[Sampling] = Sampling()
    """How they are drawn."""
    average: bool = True
    """Draw with the moving average of the parameters, where the run keeps one; --no-average: with its last step's."""


def main(argv: Sequence[str]) -> int:
    """Draws, writes the files, names them; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm draw")
    if not arguments.caption.strip():
        raise ValueError("draw: got an empty prompt; say what to draw.")
    if not 1 <= arguments.n <= MOST_IMAGES:
        raise ValueError(f"-n: got {arguments.n}, wanted 1 to {MOST_IMAGES}.")
    if arguments.seed < 0:
        raise ValueError(f"--seed: got {arguments.seed}, wanted 0 or more.")
    if arguments.output.suffix.lower() not in FORMATS:
        raise ValueError(f"--output: got '{arguments.output}', wanted a name that ends with {', '.join(FORMATS)}.")
    paths = [numbered(arguments.output, number) for number in range(arguments.n)]
    for path in paths:
        refuse_no_file(path, "--output")
    # Imported here: --help does not wait for JAX.
    import PIL.Image

    from xgenmm_jax import api
    from xgenmm_jax.training import device_memory

    with device_memory.explained("these images", f"give fewer (-n, now {arguments.n}); {device_memory.ON_CPU}"):
        model = api.load(arguments.run, average=arguments.average)
        (drawing,) = model.draw([arguments.caption], arguments.n, seed=arguments.seed, sampling=arguments.sampling)
    if drawing.images is None:
        raise ValueError(
            f"draw: the run in '{arguments.run}' makes features and no pixels of them; train its pixel decoder, or "
            "take the features in Python: load(RUN).draw([...])[0].features."
        )
    for path, image in zip(paths, drawing.images, strict=True):
        held = io.BytesIO()
        PIL.Image.fromarray(image).save(held, format=PIL.Image.registered_extensions()[path.suffix.lower()])
        files.write_whole(path, held.getvalue())
        print(path)
    return 0


def numbered(path: Path, number: int) -> Path:
    """The file of an image: star.png, star-2.png, star-3.png."""
    return path if number == 0 else path.with_name(f"{path.stem}-{number + 1}{path.suffix}")
