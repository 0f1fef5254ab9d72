"""Fine-tuning at nano: what does the model answer after conversations about single images?

Paper: section 5.2, table 1 (experiments/sft_single.py).
Command: xgenmm train experiments/nano/sft_single.py --workdir runs/demo/sft_single    (make demo runs all five)
Hardware: 2 CPU cores.
Hours: about 6 minutes.
Expected: no number of the paper's; the page of `make demo` shows its own.
"""

from experiments.nano import recipes
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    pages = recipes.family("page_questions")
    mixture = (
        (recipes.family("questions"), 0.60),
        (recipes.family("lookups"), 0.11),
        (pages, 0.20),
        (recipes.single_views(pages), 0.05),
        (recipes.family("text_chat"), 0.04),
    )
    data = recipes.data(mixture, recipes.ANY_RES, length=320, crops=8, batch_rows=6)
    return recipes.stage("sft_single", data, steps=650, peak_lr=3e-3, initialize=recipes.after("stage2"))
