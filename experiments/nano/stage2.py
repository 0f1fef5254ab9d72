"""Stage 2 at nano: high-resolution pre-training; pages of 2 x 2 crops and strips join the mixture.

Command: xgenmm train experiments/nano/stage2.py --workdir runs/demo/stage2 (about 2 minutes on 2 cores).
As in the paper, OCR at high resolution replaces OCR at base resolution and captions give way to documents.
Unlike the paper's it asks questions as well, as stage 1 does.
"""

from experiments.nano import common
from xgenmm_jax.training.config import TrainConfig


def config() -> TrainConfig:
    ocr_hd, pages = common.family("ocr_hd"), common.family("pages")
    mixture = (
        (common.family("caption"), 0.14),
        (common.family("dense"), 0.12),
        (common.family("lookups"), 0.14),
        (ocr_hd, 0.18),
        (pages, 0.20),
        (common.single_views(pages), 0.08),
        (common.family("grounding"), 0.02),
        (common.family("interleaved"), 0.09),
        (common.family("text"), 0.02),
        (common.family("glossary"), 0.02),
    )
    data = common.data(mixture, common.ANY_RES, length=320, crops=12, batch_rows=6)
    start = common.after("stage1")
    return common.stage("stage2", data, steps=130, peak_lr=2e-3, initialize=start, prompt="few_shot")
