"""BLIP-2's first stage at nano: do queries learn to read nano's tower through contrast, matching and captions?

Paper: arXiv 2301.12597, section 3.2 (its stage at full size: experiments/blip2/stage1.py).
Command: xgenmm train experiments/nano/blip2_stage1.py --workdir runs/demo/blip2_stage1
Hardware: 2 CPU cores.
Hours: about 0.2.
Expected: no number of the paper's. A matching loss of 0.6365 is that of a model that learned nothing of pairs.

Drawn captions repeat themselves, so pairs of one text are no negatives of each other (`finds_same`), else the hardest
negative is a positive. The optimizer is that of nano's other stages.
"""

from dataclasses import replace

from experiments.nano import recipes
from xgenmm_jax.data.text.caption_tokens import OWN_IDS
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.qformer import QFormerText
from xgenmm_jax.nano.starting_weights import VISION
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.caption_rows import CaptionData
from xgenmm_jax.training.objectives.query_pretraining import QueryPretraining
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.part_rates import PartRate, PartRates

PAIRS = 32
TOKENS = 32


def config() -> TrainConfig:
    text = QFormerText(len(Tokenizer.load(recipes.TOKENIZER)) + OWN_IDS, TOKENS)
    connector = replace(sizes.NANO_QFORMER, out_width=0)
    return TrainConfig(
        name="nano/blip2_stage1",
        model=Blip2Config(sizes.NANO_VISION, connector, text, projection=64),
        data=CaptionData(
            ((recipes.family("caption"), 0.5), (recipes.family("dense"), 0.25), (recipes.family("ocr"), 0.25)),
            recipes.TOKENIZER,
            image_size_px=sizes.NANO_VISION.image_size_px,
            batch_rows=PAIRS,
            tokens=TOKENS,
        ),
        objective=QueryPretraining(),
        prompt="few_shot",
        steps=300,
        optimizer=OptimizerConfig(
            algorithm="muon",
            peak_lr=3e-3,
            warmup_steps=50,
            weight_decay=0.01,
            decay_vectors=False,
            betas=(0.9, 0.98),
            # The temperature is learned as it is: at the rate of the others it would reach 0 from 0.07 in 25 steps.
            parts=PartRates(further=(("heads/temperature", PartRate(peak_lr=1e-4)),)),
        ),
        initialize=Initialize(vision=VISION),
    )
