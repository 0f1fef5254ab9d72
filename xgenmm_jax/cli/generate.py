"""`xgenmm generate RUN [--image FILE ...] QUESTION`: a run's answer about pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Arguments:
    """A run's answer about pictures, or about none."""

    run: tyro.conf.Positional[Path]
    """A folder that `xgenmm train` wrote."""
    question: tyro.conf.Positional[str]
    image: Annotated[tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="FILE")] = ()
    """A picture file; again for each further picture, in order."""
    max_new_tokens: int = 64
    """The longest answer."""


def main(argv: Sequence[str]) -> int:
    """Prints the answer; gives the exit code."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="xgenmm generate")
    if arguments.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens: got {arguments.max_new_tokens}; give 1 or more.")
    # Imported here: --help does not wait for JAX.
    from xgenmm_jax import api

    run = api.load(arguments.run)
    prompt = run.prompt(arguments.question, arguments.image)
    print(run.generator().generate([prompt], arguments.max_new_tokens)[0])
    return 0
