"""`xgenmm verify SOURCE`: what one checks by hand after a download or a conversion, on a page and in the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
import pathlib
from typing import Literal

import tyro

from xgenmm_jax import files, hub
from xgenmm_jax.cli.options import LocalPath, RunSource, Source, UserPath, parse, refuse_no_file

MOST_STEPS = 1000
WIDTH = 160
"""Columns of text that goes to no terminal."""


@dataclass(frozen=True)
class Arguments:
    """Looks at tensors, tokenizer, views, outputs and a few training steps. Exit code 1 where something is off."""

    source: tyro.conf.Positional[RunSource]
    """A folder or file of released weights, or a run folder; or a model of the hub, ORG/MODEL or ORG/MODEL@REVISION."""
    adapter: Source | None = None
    """Low-rank updates in PEFT's layout, by path or name, trained over SOURCE: the model with them is looked at."""
    reference: LocalPath | None = None
    """What a good model gave, by --write-reference; by default verify_reference.npz in the folder, if it is there."""
    write_reference: LocalPath | None = None
    """Write what this model gives, an .npz of plain arrays."""
    output: UserPath | None = None
    """The page; by default NAME.verify.html in the current folder."""
    tokenizer: Source | None = None
    """A tokenizer.model, or a model of the hub that has one; by default the one beside the tensors."""
    base: bool | None = None
    """Released weights of the base model, which sees one view; by default as preprocessor_config.json says."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of computation."""
    steps: int = 5
    """Training steps of the connector; 0 for none."""


def main(argv: Sequence[str]) -> int:
    """Checks, writes the page, prints; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm verify")
    if not 0 <= arguments.steps <= MOST_STEPS:
        raise ValueError(f"--steps: got {arguments.steps}, wanted 0 to {MOST_STEPS}.")
    name = arguments.source.resolve().name if isinstance(arguments.source, pathlib.Path) else arguments.source.name
    output = arguments.output or pathlib.Path(f"{name}.verify.html")
    refuse_no_file(output, "--output")
    if arguments.write_reference is not None:
        refuse_no_file(arguments.write_reference, "--write-reference")
    # Imported here: --help does not wait for JAX.
    import rich.console

    from xgenmm_jax.verifying import checking, page

    source = hub.fetch(arguments.source, "SOURCE")
    tokenizer = None if arguments.tokenizer is None else hub.fetch(arguments.tokenizer, "--tokenizer", "tokenizer")
    adapter = None if arguments.adapter is None else hub.fetch(arguments.adapter, "--adapter")
    options = checking.Options(
        arguments.dtype, arguments.base, tokenizer, arguments.reference, arguments.write_reference,
        arguments.steps, adapter,
    )  # fmt: skip
    progress = rich.console.Console(stderr=True)
    sections = checking.check(source, options, lambda what: progress.print(f"looking at {what}", style="dim"))
    files.write_whole(output, page.html(str(arguments.source), sections))
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = WIDTH  # a file's lines are as long as they need to be
    for section in sections:
        if section.rows:
            console.print(page.for_terminal(section))
        for note in section.notes:
            print(f"note: {note}")
    faults = [fault for section in sections for fault in section.faults]
    for fault in faults:
        print(f"off: {fault}")
    print(f"{len(faults)} off; the page is {output}" if faults else f"nothing is off; the page is {output}")
    return 1 if faults else 0
