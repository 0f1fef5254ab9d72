"""`xgenmm generate RUN [--image FILE ...] QUESTION`: a run's answer about pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
import sys
from typing import Annotated

import tyro

from xgenmm_jax.cli.options import RunPath, UserPath, parse


@dataclass(frozen=True)
class Arguments:
    """A run's answer about pictures, or about none."""

    run: tyro.conf.Positional[RunPath]
    """A folder that `xgenmm train` wrote."""
    question: tyro.conf.Positional[str]
    image: Annotated[tyro.conf.UseAppendAction[tuple[UserPath, ...]], tyro.conf.arg(metavar="FILE")] = ()
    """A picture file; again for each further picture, in order."""
    official_images: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read pictures as the released code does: a photo as the camera held it, transparency dropped. By default a photo
    is turned upright and transparency lies on white."""
    chat_template: tyro.conf.FlagCreatePairsOff[bool] = False
    """Ask in the chat template, whatever the run was trained on. By default a base model, such as a run of stage1, is
    asked as `xgenmm evaluate` asks it: <image>Question:... Short answer:"""
    no_chat_template: tyro.conf.FlagCreatePairsOff[bool] = False
    """The run goes on with the text as it stands."""
    max_new_tokens: int = 64
    """The longest answer."""
    num_beams: int = 1
    """More than 1: beam search of so many beams."""
    temperature: float = 0.0
    """Above 0: draws from the model's probabilities at this temperature instead of taking the likeliest token."""
    top_k: int = 0
    """Draws from so many likeliest tokens; 0: from all."""
    top_p: float = 1.0
    """Draws from the fewest tokens whose probabilities add up to this."""
    seed: int = 0
    """Another seed draws another answer."""
    stream: bool = field(default_factory=lambda: sys.stdout.isatty())
    """Print the answer while it is written; by default where the output is a terminal. Beams print at the end."""


def main(argv: Sequence[str]) -> int:
    """Prints the answer; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm generate")
    if arguments.chat_template and arguments.no_chat_template:
        raise ValueError("--chat-template: got --no-chat-template as well; give one of them.")
    # Imported here: --help does not wait for JAX.
    from xgenmm_jax import api
    from xgenmm_jax.generation.arguments import options

    drawn = {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p", "seed")}
    options(arguments.max_new_tokens, arguments.num_beams, **drawn)  # before the model is read
    run = api.load(arguments.run, official_images=arguments.official_images)
    template = True if arguments.chat_template else False if arguments.no_chat_template else None
    prompt = run.prompt(arguments.question, arguments.image, template)
    generator, most = run.generator(), arguments.max_new_tokens
    if arguments.stream and arguments.num_beams == 1:
        for piece in generator.stream(prompt, most, **drawn):
            print(piece, end="", flush=True)
        print()
    else:
        print(generator.generate([prompt], most, num_beams=arguments.num_beams, **drawn)[0])
    return 0
