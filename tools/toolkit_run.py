"""A nano model that answers yes and no, and with letters: what `tools/try_toolkits.py` takes into the toolkits.

Command: of tools/try_toolkits.py, with the folder of the conversations in TOOLKIT_CONVERSATIONS, and in TOOLKIT_START
the run to begin with; without one, the weights that ship.
Hardware: 2 CPU cores.
Hours: 2 to 5 minutes.
Expected: both words among the answers, no score.
"""

import os
from pathlib import Path

from experiments.nano import recipes
from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.nano.connector_start import pooling_start
from xgenmm_jax.nano.starting_weights import DECODER, VISION
from xgenmm_jax.training.config import Initialize, TrainConfig

STEPS, STEPS_FROM_RUN = 600, 300


def config() -> TrainConfig:
    folder = Path(os.environ["TOOLKIT_CONVERSATIONS"])
    asked = LlavaJson(str(folder / "conversations.json"), str(folder))
    mixture = ((asked, 0.8), (recipes.family("questions"), 0.2))
    data = recipes.data(mixture, recipes.ANY_RES, length=320, crops=8, batch_rows=6)
    if run := os.environ.get("TOOLKIT_START"):
        return recipes.stage("toolkits", data, STEPS_FROM_RUN, peak_lr=1e-3, initialize=Initialize(run=run))
    start = Initialize(vision=VISION, decoder=DECODER, connector_start=pooling_start)
    return recipes.stage("toolkits", data, STEPS, peak_lr=3e-3, initialize=start)
