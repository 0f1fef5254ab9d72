"""VLMEvalKit with one of our runs as its model `xgenmm_jax`.

    python -m xgenmm_jax.integrations.vlmevalkit --run RUN [options] -- --data MMStar POPE --judge exact_matching

What follows `--` goes to VLMEvalKit's run.py, with `--model xgenmm_jax` in front. Works with the fork ms-vlmeval 0.0.20
and with a checkout (`--checkout`). See docs/evaluation.md, In lmms-eval and VLMEvalKit.
"""

import argparse
from collections.abc import Sequence
import functools
import importlib
import importlib.util
from pathlib import Path
import runpy
import sys
from typing import Any

from xgenmm_jax.integrations import import_stand_ins
from xgenmm_jax.integrations.toolkit_requests import MOST_NEW_TOKENS, vlmevalkit_message
from xgenmm_jax.paths import run_path

MODEL = "xgenmm_jax"


def main(argv: Sequence[str] | None = None) -> None:
    """Registers the model and runs VLMEvalKit in this process; exits as it does."""
    arguments, rest = parse(list(sys.argv[1:] if argv is None else argv))
    # VLMEvalKit would log the error of a run that is not there, and end as if all were well.
    if not run_path(arguments.run, "--run").exists():
        raise SystemExit(f"--run: no file or folder '{arguments.run}'; give a run folder or a released one.")
    if arguments.checkout is not None:
        if not (arguments.checkout / "run.py").is_file():
            raise SystemExit(f"--checkout: no run.py in '{arguments.checkout}'; give a checkout of VLMEvalKit.")
        sys.path.insert(0, str(arguments.checkout))
    if importlib.util.find_spec("vlmeval") is None:
        raise SystemExit("vlmevalkit: no module 'vlmeval'; install ms-vlmeval, or give --checkout DIR.")
    if arguments.stand_ins:
        import_stand_ins.install(arguments.stand_in_for)
    register(arguments.run, dtype=arguments.dtype, max_new_tokens=arguments.max_new_tokens)
    if arguments.local_data:
        accept_local_data()
    sys.argv = ["run.py", "--model", MODEL, *rest]
    if arguments.checkout is not None:
        runpy.run_path(str(arguments.checkout / "run.py"), run_name="__main__")
    else:
        runpy.run_module("vlmeval.run", run_name="__main__")


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and VLMEvalKit's, which follow `--`."""
    parser = argparse.ArgumentParser(
        prog="python -m xgenmm_jax.integrations.vlmevalkit",
        description="VLMEvalKit with a run as its model. Its own options follow --, as: -- --data MMStar",
    )
    parser.add_argument("--run", required=True, help="a run folder, or a released xGen-MM folder")
    parser.add_argument("--dtype", help="of parameters and computation, float32 or bfloat16; by default the run's")
    parser.add_argument("--max-new-tokens", type=int, default=MOST_NEW_TOKENS, help="the longest answer; %(default)s")
    parser.add_argument("--checkout", type=Path, help="a checkout of VLMEvalKit; by default the installed package")
    parser.add_argument(
        "--local-data",
        action="store_true",
        help="take the files in LMUData as they are: one of another checksum than the published is not downloaded anew",
    )
    parser.add_argument(
        "--stand-ins",
        action="store_true",
        help="empty modules for what VLMEvalKit imports and is not installed, as torchvision; what uses them fails",
    )
    parser.add_argument(
        "--stand-in-for", nargs="*", default=[], metavar="MODULE", help="with --stand-ins: further modules, by name"
    )
    parser.add_argument("rest", nargs="*", metavar="-- OPTIONS", help="VLMEvalKit's own")
    own_arguments, rest = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    arguments = parser.parse_args(own_arguments)
    if arguments.rest or "--model" in rest:
        parser.error(f"VLMEvalKit's options follow --, without --model: it is {MODEL}")
    return arguments, list(rest)


def register(run: str, dtype: str | None = None, max_new_tokens: int = MOST_NEW_TOKENS) -> None:
    """Makes VLMEvalKit know the model, which is loaded when the first question is asked.

    Imports VLMEvalKit. Raises ImportError that names what it imports and what is not installed.
    """
    try:
        models = importlib.import_module("vlmeval.vlm")
        config = importlib.import_module("vlmeval.config")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"vlmevalkit: it imports '{error.name}', which is not installed; install it, or give --stand-ins "
            f"(with --stand-in-for {error.name} if it goes on)."
        ) from error
    created = model_class()
    setattr(models, created.__name__, created)
    config.supported_VLM[MODEL] = functools.partial(created, run=run, dtype=dtype, max_new_tokens=max_new_tokens)


def model_class() -> type:
    """The class of the model as VLMEvalKit calls it; made here because its base is VLMEvalKit's."""
    base: Any = importlib.import_module("vlmeval.vlm.base").BaseModel

    class XGenMMJax(base):
        """A run. run, dtype: as `xgenmm_jax.load`. max_new_tokens: the longest answer."""

        INTERLEAVE = True
        INSTALL_REQ = False

        def __init__(self, run: str, dtype: str | None = None, max_new_tokens: int = MOST_NEW_TOKENS, **unknown: Any):
            super().__init__()
            if unknown:
                raise ValueError(f"xgenmm_jax: no argument {', '.join(unknown)}; wanted run, dtype, max_new_tokens.")
            from xgenmm_jax import api
            from xgenmm_jax.generation.text.schedule import Limits
            from xgenmm_jax.integrations.toolkit_model import ToolkitModel

            lmm = api.load(run, dtype=dtype, official_images=True)
            # VLMEvalKit asks one question at a time.
            self._model = ToolkitModel(lmm, Limits(rows=1, few_shapes=True))
            self._max_new_tokens = max_new_tokens

        def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
            """The answer to one message. Raises ValueError where it holds something else than texts and images."""
            return self._model.answer(vlmevalkit_message(message), self._max_new_tokens)

    return XGenMMJax


def accept_local_data() -> None:
    """Lets VLMEvalKit's data sets take the file of their name in LMUData, whatever its checksum."""
    for dataset in importlib.import_module("vlmeval.dataset").DATASET_CLASSES:
        if getattr(dataset, "DATASET_MD5", None):
            dataset.DATASET_MD5 = {}


if __name__ == "__main__":
    main()
