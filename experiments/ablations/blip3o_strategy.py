"""Understanding first and then drawing, or both at once?

Paper: BLIP3-o (arXiv 2505.09568): sequential training is chosen; no number that compares them is published.
Command: xgenmm train experiments/ablations/blip3o_strategy.py:sequential    then :joint; with --at nano too
Hardware: as experiments/blip3o/pretrain.py, with optimizer state of the decoder for `joint`; nano: 2 CPU cores.
Hours: as there, about half as many again for `joint`; nano: ten to twenty minutes an arm.
Expected: not known. Sequential training leaves understanding as it is, to the bit.

`joint` trains the decoder too: the flow loss on captions to draw and the next-token loss on the fine-tuning's
questions, weighted 1 : 1. Its rows are more, so that it draws about as many captions a step as `sequential`. An image
to understand has one view there, and a conversation is cut behind the last answer that fits into a row. It begins, as
`sequential` does, with the model after fine-tuning.
"""

from dataclasses import replace

from experiments import sft_single
from experiments.ablations import blip3o_objective
from experiments.blip3o import pretrain
from experiments.recipes import Base
from xgenmm_jax.training.config import TrainConfig

QUESTIONS = 1 / 3
"""Understanding samples for each caption to draw; with half as many rows again, nano's rows then hold 49 captions a
step beside 15 questions, and `sequential`'s 48."""


def config() -> TrainConfig:
    return sequential()


def sequential(base: Base = pretrain.config) -> TrainConfig:
    return blip3o_objective.flow(base)


def joint(base: Base = pretrain.config, understanding: Base = sft_single.config) -> TrainConfig:
    arm = blip3o_objective.study_arm(base(), "strategy/joint")
    captions, questions = arm.data.mixture, understanding().data.mixture
    share = QUESTIONS * sum(weight for _, weight in captions) / sum(weight for _, weight in questions)
    mixture = (*captions, *((source, share * weight) for source, weight in questions))
    return replace(
        arm,
        data=replace(arm.data, mixture=mixture, batch_rows=3 * arm.data.batch_rows // 2),
        objective=replace(arm.objective, text_weight=1.0),
        freeze=tuple(part for part in arm.freeze if part != "decoder"),
    )
