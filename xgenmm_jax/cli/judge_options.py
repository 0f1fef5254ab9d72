"""The options of a judge, which `xgenmm evaluate --tasks` and `xgenmm score` share."""

from dataclasses import dataclass
import os
from typing import TYPE_CHECKING

from xgenmm_jax import files
from xgenmm_jax.cli.options import UserPath

if TYPE_CHECKING:
    from xgenmm_jax.evaluation.judge_runs import JudgeSetup

KEY_VARIABLE = "XGENMM_JUDGE_KEY"


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """A model that scores MM-Vet's answers and reads those that the rules cannot; without one rules alone score."""

    judge: str | None = None
    """Address of a server of OpenAI's form, up to /v1: it scores MM-Vet and reads answers that the rules cannot."""
    judge_model: str | None = None
    """The judge's name there, as gpt-4-turbo."""
    judge_key_variable: str | None = None
    """The environment variable that holds the key, by default XGENMM_JUDGE_KEY; where that is not set none is sent."""
    judge_prompt: UserPath | None = None
    """A text in place of ours; {question}, {answer}, {prediction} and {options} in it are replaced."""
    judge_threads: int = 8
    """Requests at once."""


def setup_of(options: JudgeOptions) -> "JudgeSetup | None":
    """Who judges; None where no judge is asked for.

    Raises: ValueError for options that do not go together, a key or a prompt that is not there.
    """
    from xgenmm_jax.evaluation.judge import Server
    from xgenmm_jax.evaluation.judge_runs import JudgeSetup
    from xgenmm_jax.evaluation.tasks import judging

    if options.judge is None:
        for name in ("judge_model", "judge_key_variable", "judge_prompt"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')}: there is no judge; give its address (--judge URL).")
        return None
    if options.judge_model is None:
        raise ValueError("--judge-model: got none; give the judge's name at the server.")
    if options.judge_threads < 1:
        raise ValueError(f"--judge-threads: got {options.judge_threads}; give 1 or more.")
    if options.judge_key_variable is not None and not os.environ.get(options.judge_key_variable):
        # Not repeated: it may be the key itself.
        raise ValueError("--judge-key-variable: no such variable is set; give the name of the one that holds the key.")
    key = os.environ.get(options.judge_key_variable or KEY_VARIABLE, "").strip()
    prompt = None
    if options.judge_prompt is not None:
        prompt = files.read_text(options.judge_prompt)
        judging.check_prompt(prompt, f"--judge-prompt: '{options.judge_prompt}'")
    return JudgeSetup(Server(options.judge, options.judge_model, key), prompt, options.judge_threads)
