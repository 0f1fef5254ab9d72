"""`xgenmm data COMMAND`: what is to be trained on is looked at, indexed and packed."""

from collections.abc import Sequence
import importlib
import sys

from xgenmm_jax.cli.errors import nearest

COMMANDS = {
    "check": "read some records and say what they hold, and which are bad; writes nothing",
    "show": "write a page of packed rows as the model gets them, with crops and the loss mask",
    "index": "make manifests and sizes, of whole sources or of what an experiment reaches",
    "pack": "write a source's records into shards of this project's own",
    "urls": "list the URLs of a source's images, to be fetched by another program",
    "join": "index the tars of images that were fetched by URL",
}
"""Command -> what it does; its module is `data_` and its name, beside this one."""


def main(argv: Sequence[str]) -> int:
    """Runs one of them; gives the exit code."""
    command, *rest = argv or ["--help"]
    if command in ("-h", "--help"):
        print("usage: xgenmm data COMMAND [options]; xgenmm data COMMAND --help lists them\n")
        for name, does in COMMANDS.items():
            print(f"  {name:<8}{does}")
        return 0
    if command not in COMMANDS:
        print(f"xgenmm data: no command '{command}'; {nearest(command, COMMANDS)}.", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"xgenmm_jax.cli.data_{command}").main(rest))
