"""Stage 1 at nano: what does a frozen tower teach a small language model through captions and documents?

Paper: section 5.1, figure 3 (its stage: experiments/stage1.py).
Command: xgenmm train experiments/nano/stage1.py --workdir runs/demo/stage1    (make demo runs all five)
Hardware: 2 CPU cores.
Hours: about 4 minutes.
Expected: no number of the paper's; the page of `make demo` shows its own.

The paper's stage 1 (experiments/stage1.py) with the embedded data in place of its mixtures, and fewer interleaved
documents than the paper's half: an image in one teaches far less than a captioned one, and what is learned here
goes by images (docs/log/connector_and_optimizer.md#neither-rate-nor-batch-nor-initialization-of-the-latents). Unlike
the paper's it asks questions as well: captions alone undo what the language model knows of looking things up
(docs/log/language_model.md#captions-alone-undo-lookup).
"""

from experiments.nano import recipes
from xgenmm_jax.nano.connector_start import pooling_start
from xgenmm_jax.nano.starting_weights import DECODER, VISION
from xgenmm_jax.training.config import Initialize, TrainConfig


def config() -> TrainConfig:
    mixture = (
        (recipes.family("caption"), 0.22),
        (recipes.family("dense"), 0.20),
        (recipes.family("ocr"), 0.20),
        (recipes.family("lookups"), 0.22),
        (recipes.family("grounding"), 0.02),
        (recipes.family("interleaved"), 0.10),
        (recipes.family("text"), 0.03),
        (recipes.family("glossary"), 0.03),
    )
    data = recipes.data(mixture, recipes.ONE_VIEW, length=320, crops=8, batch_rows=6)
    start = Initialize(vision=VISION, decoder=DECODER, connector_start=pooling_start)
    return recipes.stage("stage1", data, steps=340, peak_lr=3e-3, initialize=start, prompt="few_shot")
