"""Fine-tuning at nano: can it compare several images, with single ones mixed in so as not to be forgotten?

Paper: section 5.2, table 2 (experiments/sft_multi.py).
Command: xgenmm train experiments/nano/sft_multi.py --workdir runs/demo/sft_multi    (make demo runs all five)
Hardware: 2 CPU cores.
Hours: about 2 minutes.
Expected: no number of the paper's; the page of `make demo` shows its own.
"""

from experiments.nano import recipes
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    pages = recipes.family("page_questions")
    mixture = (
        (recipes.family("multi_image"), 0.30),
        (recipes.family("questions"), 0.46),
        (recipes.family("lookups"), 0.04),
        (pages, 0.16),
        (recipes.single_views(pages), 0.04),
    )
    data = recipes.data(mixture, recipes.ANY_RES, length=320, crops=8, batch_rows=6)
    return recipes.stage("sft_multi", data, steps=230, peak_lr=5e-4, initialize=recipes.after("sft_single"))
