"""`xgenmm curate COMMAND`: data sets as the paper's own are made, out of a user's images."""

from collections.abc import Sequence
import importlib
import sys

from xgenmm_jax.cli.errors import nearest

COMMANDS = {
    "ocr": ("the text in images, in the schema of BLIP3-OCR-200M", "curate_ocr", "main"),
    "ocr-hd": ("the same of large images, read at full size", "curate_ocr", "main_hd"),
    "grounding": ("objects and their boxes, in the schema of BLIP3-GROUNDING-50M", "curate_grounding", "main"),
    "noised": ("pairs of answers, the worse one a run's own about a noised image", "curate_noised", "main"),
    "tuning-set": ("prompts and a teacher's pictures, in the form of BLIP3o-60k", "curate_tuning_set", "main"),
}
"""Command -> (what it does, its module beside this one, the function there)."""


def main(argv: Sequence[str]) -> int:
    """Runs one of them; gives the exit code."""
    command, *rest = argv or ["--help"]
    if command in ("-h", "--help"):
        print("usage: xgenmm curate COMMAND [options]; xgenmm curate COMMAND --help lists them\n")
        for name, (does, _, _) in COMMANDS.items():
            print(f"  {name:<11}{does}")
        return 0
    if command not in COMMANDS:
        print(f"xgenmm curate: no command '{command}'; {nearest(command, COMMANDS)}.", file=sys.stderr)
        return 2
    _, module, function = COMMANDS[command]
    return int(getattr(importlib.import_module(f"xgenmm_jax.cli.{module}"), function)(rest))
