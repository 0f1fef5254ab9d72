"""Stage 2 at nano: does high resolution, with pages of 2 x 2 crops and strips in the mixture, teach it to read?

Paper: section 5.1, table 4 (experiments/stage2.py).
Command: xgenmm train experiments/nano/stage2.py --workdir runs/demo/stage2    (make demo runs all five)
Hardware: 2 CPU cores.
Hours: about 2 minutes.
Expected: no number of the paper's; the page of `make demo` shows its own.

As in the paper, OCR at high resolution replaces OCR at base resolution and captions give way to documents.
Unlike the paper's it asks questions as well, as stage 1 does.
"""

from experiments.nano import recipes
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    ocr_hd, pages = recipes.family("ocr_hd"), recipes.family("pages")
    mixture = (
        (recipes.family("caption"), 0.14),
        (recipes.family("dense"), 0.12),
        (recipes.family("lookups"), 0.14),
        (ocr_hd, 0.18),
        (pages, 0.20),
        (recipes.single_views(pages), 0.08),
        (recipes.family("grounding"), 0.02),
        (recipes.family("interleaved"), 0.09),
        (recipes.family("text"), 0.02),
        (recipes.family("glossary"), 0.02),
    )
    data = recipes.data(mixture, recipes.ANY_RES, length=320, crops=12, batch_rows=6)
    start = recipes.after("stage1")
    return recipes.stage("stage2", data, steps=130, peak_lr=2e-3, initialize=start, prompt="few_shot")
