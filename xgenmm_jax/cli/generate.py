"""`xgenmm generate RUN [--image FILE ...] QUESTION`: a run's answer about images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
import sys
from typing import Annotated

import tyro

from xgenmm_jax import hub
from xgenmm_jax.cli.hosts import joined, take_hosts
from xgenmm_jax.cli.options import RunSource, UserPath, parse
from xgenmm_jax.generation.text.decoding import Decoding


@dataclass(frozen=True)
class Arguments:
    """A run's answer about images, or about none.

    Several hosts: the same command on each, with --distributed.* as for `xgenmm train`; the first one prints.
    """

    run: tyro.conf.Positional[RunSource]
    """A folder that `xgenmm train` wrote, or a released xGen-MM v1.5 folder; or a model of the hub, ORG/MODEL or
    ORG/MODEL@REVISION."""
    question: tyro.conf.Positional[str]
    image: Annotated[tyro.conf.UseAppendAction[tuple[UserPath, ...]], tyro.conf.arg(metavar="FILE")] = ()
    """An image file; again for each further image, in order."""
    official_images: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read images as the released code does: a photo as the camera held it, transparency dropped. By default a photo
    is turned upright and transparency lies on white."""
    chat_template: tyro.conf.FlagCreatePairsOff[bool] = False
    """Ask in the chat template, whatever the run was trained on. By default a base model, such as a run of stage1, is
    asked as `xgenmm evaluate` asks it: <image>Question:... Short answer:"""
    no_chat_template: tyro.conf.FlagCreatePairsOff[bool] = False
    """The run goes on with the text as it stands."""
    decoding: tyro.conf.OmitArgPrefixes[Decoding] = Decoding(max_new_tokens=64)
    """How the answer is written."""
    stream: bool = field(default_factory=lambda: sys.stdout.isatty())
    """Print the answer while it is written; by default where the output is a terminal. Beams print at the end."""


def main(argv: Sequence[str]) -> int:
    """Prints the answer; gives the exit code."""
    argv, hosts = take_hosts(argv)
    arguments = parse(Arguments, argv, "xgenmm generate")
    if arguments.chat_template and arguments.no_chat_template:
        raise ValueError("--chat-template: got --no-chat-template as well; give one of them.")
    # Imported here: --help does not wait for JAX.
    from xgenmm_jax.training import device_memory

    decoding = arguments.decoding
    fewer = f"fewer beams (--num-beams, now {decoding.num_beams}), " if decoding.num_beams > 1 else ""
    remedies = (
        f"give {fewer}a shorter answer (--max-new-tokens, now {decoding.max_new_tokens}), fewer or smaller images, or "
        f"more devices; {device_memory.ON_CPU}"
    )
    with joined(hosts) as is_first, device_memory.explained("this answer", remedies):
        return _generate(arguments, is_first)


def _generate(arguments: Arguments, is_first: bool) -> int:
    import jax

    from xgenmm_jax import api

    run = api.load(hub.fetch(arguments.run, "RUN"), official_images=arguments.official_images)
    template = True if arguments.chat_template else False if arguments.no_chat_template else None
    prompt = run.prompt(arguments.question, arguments.image, template)
    show = print if is_first else lambda *_, **__: None
    # With several hosts only one of them may have a terminal, and all compute alike.
    if arguments.stream and arguments.decoding.num_beams == 1 and jax.process_count() == 1:
        for piece in run.generator().stream(prompt, arguments.decoding):
            show(piece, end="", flush=True)
        show()
    else:
        show(run.generator().generate([prompt], arguments.decoding)[0])
    return 0
