"""A trained run in three lines, for notebooks and the command line.

    run = api.load("runs/demo/sft_multi")
    run.generator().generate([run.prompt("How many red shapes are there?", ["my.png"])], max_new_tokens=20)
"""

from collections.abc import Sequence
from dataclasses import dataclass
import functools
from pathlib import Path
from typing import Any

from flax import linen as nn
import jax
import numpy as np

from xgenmm_jax.data import chat
from xgenmm_jax.data.chat import Prompt
from xgenmm_jax.data.pictures import open_picture
from xgenmm_jax.data.records import Conversation, Preference, Turn
from xgenmm_jax.data.tokenizer import Tokenizer
from xgenmm_jax.generation.generator import Generator, Limits
from xgenmm_jax.models import vlm
from xgenmm_jax.models.vlm import VLMConfig
from xgenmm_jax.training import checkpoints, run_folder
from xgenmm_jax.training.config import TrainConfig, load_config
from xgenmm_jax.training.sharding import MeshConfig, make_mesh, param_shardings


@dataclass(frozen=True)
class Run:
    """What a run folder holds: config, newest parameters, tokenizer."""

    folder: Path
    config: TrainConfig
    params: Any
    tokenizer: Tokenizer

    def generator(self, limits: Limits = Limits()) -> Generator:  # noqa: B008 - frozen
        """Answers of this run's model, pictures cut as in its training."""
        return Generator(self.config.model, self.params, self.tokenizer, self.config.data.anyres, limits=limits)

    def is_tuned(self) -> bool:
        """Whether it was trained on conversations; else it is a base model."""
        sources = [source for source, _ in self.config.data.mixture]
        if not sources:
            # Imported: without data. Released instruct models see grids of views, the base model one view.
            return bool(self.config.data.anyres.grids)
        first = [source.open().record(0, np.random.default_rng(0)) for source in sources]
        return any(isinstance(record, Conversation | Preference) and record.pictures for record in first)

    def prompt(self, question: str, pictures: Sequence[str | Path] = ()) -> Prompt:
        """A question about picture files in the run's chat template.

        Raises ValueError where a file is no picture.
        """
        opened = tuple(open_picture(path) for path in pictures)
        turn = Turn("user", "<image>\n" * len(opened) + question)
        return chat.chat_prompt([turn], opened, self.tokenizer, self.config.data.chat)


def load(folder: str | Path) -> Run:
    """A run folder that `xgenmm train` wrote, with the parameters of its newest checkpoint.

    Raises ValueError where there is none, or it is not one of a vision-language model.
    """
    folder = Path(folder)
    config = load_config(folder)
    if not isinstance(config.model, VLMConfig):
        raise ValueError(
            f"run folder: '{folder}' holds a {type(config.model).__name__.removesuffix('Config')} alone, which answers "
            "no questions; give a run of a vision-language model, or start one from it: --initialize."
        )
    checkpoints.newest(folder)
    tokenizer = Tokenizer.load(folder / run_folder.TOKENIZER_FILE)
    return Run(folder, config, checkpoints.restore_params(folder, _abstract(config.model)), tokenizer)


def _abstract(model: VLMConfig) -> Any:
    """Shapes and shardings over the devices that are here, whatever mesh the run had."""
    boxed = jax.eval_shape(functools.partial(vlm.initialize, model), jax.random.key(0))
    shardings = param_shardings(make_mesh(MeshConfig()), boxed)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        shardings,
    )
