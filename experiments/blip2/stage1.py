"""BLIP-2's first stage: what do 32 queries learn to read from a frozen tower through contrast, matching and captions?

Paper: arXiv 2301.12597, section 3.2 and 3.4; BLIP-3's introduction says what it replaces.
Command: xgenmm train experiments/blip2/stage1.py
Hardware: 16 A100-40G in the paper.
Hours: less than 6 days there.
Expected, Flickr30k zero-shot of the paper's ViT-g: recall at 1 of 97.6 to texts and 89.7 to images, after re-ranking.

The paper's: 250k steps of 1,680 pairs at 224 px, ITC, ITM and ITG at weight 1, AdamW, the mixture of 129M images.
Ours: captions have Phi-3's tokens and the Q-Former starts from random numbers, where the paper has BERT's tokens and
starts from BERT-base (`stage1.py:bert` has both); the captions of CapFilt are one an image, as BLIP published them,
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
BERT_START = "weights/bert_qformer"
"""`xgenmm convert weights/bert-base-uncased weights/bert_qformer`."""
WITHOUT_BERT = (
    "connector/query_embedding", "connector/feature_norm", "connector/layers/layer0/cross",
    "connector/layers/layer0/cross_norm", "heads/image_projection", "heads/text_projection", "heads/matching",
    "heads/temperature",
)  # fmt: skip
"""What BERT has not: drawn from the run's seed."""


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
    """Captions in BERT's tokens and a Q-Former from BERT-base, as the paper's."""
    base = config()
    model = replace(base.model, text=QFormerText())
    initialize = replace(base.initialize, connector=BERT_START, fresh=WITHOUT_BERT)
    data = replace(base.data, tokenizer=BERT)
    return replace(base, name="blip2/stage1_bert", model=model, data=data, initialize=initialize)


def lavis() -> TrainConfig:
    """The same, going on from the first stage that LAVIS released, once `xgenmm convert` has read it."""
    base = bert()
    return replace(base, name="blip2/stage1_lavis", initialize=Initialize(run=recipes.TOWER))
