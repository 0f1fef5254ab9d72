"""The vision tower that nano starts from: sigmoid contrast with captions, a captioning decoder beside it (as SigLIP 2).

Command: make starting-weights, or
xgenmm train experiments/nano/starting_weights/vision_tower.py --workdir runs/weights/vision_tower
The softmax loss of CLIP and DFN: --objective.contrast softmax. Half of the captions are predicted in parallel, from the
image alone: reading starts earlier than with next-token prediction only. `vision_tower_reading` continues.
"""

from experiments.nano import recipes
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.sizes import NANO_VISION
from xgenmm_jax.nano.captioner import CaptionerConfig
from xgenmm_jax.nano.text_tower import TextTowerConfig
from xgenmm_jax.nano.tower_pretraining import ContrastCaption, TowerConfig
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.caption_rows import CaptionData
from xgenmm_jax.training.optimizer import OptimizerConfig

TOKENS = 32
"""Captions are cut here: one in thirteen is longer."""


def config() -> TrainConfig:
    rows = Tokenizer.load(recipes.TOKENIZER).vocab_size
    model = TowerConfig(
        vision=NANO_VISION,
        text=TextTowerConfig(
            width=64, hidden=128, layers=1, heads=4, vocab_size=rows, max_positions=TOKENS, out_width=NANO_VISION.width
        ),
        captioner=CaptionerConfig(width=96, hidden=256, layers=2, heads=4, vocab_size=rows, max_positions=TOKENS),
    )
    data = CaptionData(
        mixture=((recipes.family("dense", 4_000_000), 0.85), (recipes.family("caption", 4_000_000), 0.15)),
        tokenizer=recipes.TOKENIZER,
        image_size_px=NANO_VISION.image_size_px,
        batch_rows=64,
        tokens=TOKENS,
    )
    return TrainConfig(
        name="nano/vision_tower",
        model=model,
        data=data,
        objective=ContrastCaption(contrast="sigmoid", contrast_weight=0.1, caption_weight=1.0, parallel=0.5),
        steps=5_000,
        optimizer=OptimizerConfig(
            peak_lr=1.5e-3, warmup_steps=400, weight_decay=0.02, decay_vectors=False, betas=(0.9, 0.98)
        ),
        freeze=(),
        log_every=50,
    )
