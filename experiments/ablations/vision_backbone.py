"""Which tower: DFN (softmax contrastive, ViT-H/14 at 378 px) or SigLIP (sigmoid, So400m/14 at 384 px)?

Paper: table 3, stage 1 with 10B tokens, 4 and 8 shots.
Command: xgenmm train experiments/ablations/vision_backbone.py:siglip    and :dfn
         at nano first :tower_sigmoid and :tower_softmax, then :sigmoid and :softmax (nano's own pair, so without --at)
Hardware: 64 TPU v5p chips; nano: 2 CPU cores.
Hours: 6 each (estimates, experiments/recipes.py); nano: an hour a tower, minutes for stage 1.
Expected, 4 / 8 shots:     TextVQA        OK-VQA         COCO            TextCaps
                 DFN       41.1 / 41.9    48.4 / 49.5    107.2 / 109.4   78.2 / 79.9
                 SigLIP    49.1 / 50.5    48.4 / 48.9    108.7 / 110.2   84.7 / 88.6

At 4B the towers differ in loss, data, size and resolution at once, and in form: CLIP's has a class token, a norm
before its layers and another GELU. `xgenmm convert` reads both (experiments/recipes.py); DFN in open_clip's layout. The
nano towers differ in the contrastive loss alone, which the paper's pair does not.
"""

from dataclasses import replace

from experiments import recipes, stage1
from experiments.nano import stage1 as nano_stage1
from experiments.nano.starting_weights import vision_tower
from xgenmm_jax.models import sizes
from xgenmm_jax.training.config import TrainConfig

NAME = "ablations/vision_backbone"
TOKENS = 10e9
DFN = replace(sizes.DFN_H378, remat="full")


def config() -> TrainConfig:
    return siglip()


def siglip() -> TrainConfig:
    return replace(stage1.config(), name=f"4b/{NAME}/siglip", steps=recipes.steps_of(TOKENS))


def dfn() -> TrainConfig:
    base = siglip()
    # The resampler works at the tower's width, its feed-forward at four times that.
    connector = replace(base.model.connector, width=DFN.width, hidden=4 * DFN.width)
    return replace(
        base,
        name=f"4b/{NAME}/dfn",
        model=replace(base.model, vision=DFN, connector=connector),
        data=replace(base.data, anyres=replace(base.data.anyres, view_px=DFN.image_size_px)),
        initialize=replace(base.initialize, vision="weights/dfn5b_vit_h_378"),
    )


def tower_sigmoid() -> TrainConfig:
    return _nano_tower("sigmoid")


def tower_softmax() -> TrainConfig:
    return _nano_tower("softmax")


def sigmoid() -> TrainConfig:
    return _nano("sigmoid")


def softmax() -> TrainConfig:
    return _nano("softmax")


def _nano_tower(contrast: str) -> TrainConfig:
    base = vision_tower.config()
    return replace(base, name=f"nano/{NAME}/tower_{contrast}", objective=replace(base.objective, contrast=contrast))


def _nano(contrast: str) -> TrainConfig:
    base = nano_stage1.config()
    tower = replace(base.initialize, vision=f"runs/nano/{NAME}/tower_{contrast}")
    return replace(base, name=f"nano/{NAME}/{contrast}", initialize=tower)
