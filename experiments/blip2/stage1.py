"""BLIP-2's first stage: what do 32 queries learn to read from a frozen tower through contrast, matching and captions?

Paper: arXiv 2301.12597, section 3.2 and 3.4; BLIP-3's introduction says what it replaces.
Command: xgenmm train experiments/blip2/stage1.py
Hardware: 16 A100-40G in the paper.
Hours: less than 6 days there.
Expected, Flickr30k zero-shot of the paper's ViT-g: recall at 1 of 97.6 to texts and 89.7 to images, after re-ranking.

The paper's: 250k steps of 1,680 pairs at 224 px, ITC, ITM and ITG at weight 1, AdamW, the mixture of 129M images.
Ours: captions have Phi-3's tokens and not BERT's (`stage1.py:bert` has these), and the Q-Former starts from random
numbers, where the paper's starts from BERT-base; the captions of CapFilt are one an image, as BLIP published them,
where the paper draws one of two; Visual Genome's images have no RandAugment, which the public code gives them.
"""

from dataclasses import replace

from experiments import recipes as shared
from experiments.blip2 import recipes
from xgenmm_jax.models import sizes
from xgenmm_jax.models.qformer import QFormerText
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.caption_rows import CaptionData
from xgenmm_jax.training.objectives.query_pretraining import QueryPretraining

PAIRS = 1680
BERT = "weights/bert-base-uncased/vocab.txt"


def config() -> TrainConfig:
    data = CaptionData(
        recipes.mixture(),
        tokenizer=shared.TOKENIZER,
        image_size_px=sizes.EVA_G.image_size_px,
        batch_rows=PAIRS,
        tokens=32,
        threads=16,
        ahead=8,
    )
    return TrainConfig(
        name="blip2/stage1",
        model=sizes.BLIP2_STAGE1,
        data=data,
        # The official pre-training takes every other pair for a negative.
        objective=QueryPretraining(finds_same=False),
        prompt="few_shot",
        steps=250_000,
        optimizer=recipes.optimizer(recipes.LEAST_LR_STAGE1),
        initialize=Initialize(vision=recipes.TOWER),
        checkpoint=shared.CHECKPOINTS,
        watchdog_seconds=shared.WATCHDOG_SECONDS,
    )


def bert() -> TrainConfig:
    """Captions in BERT's tokens, as the paper's; `--initialize.run` goes on from LAVIS' first stage, once converted."""
    base = config()
    model = replace(base.model, text=QFormerText())
    return replace(base, name="blip2/stage1_bert", model=model, data=replace(base.data, tokenizer=BERT))
