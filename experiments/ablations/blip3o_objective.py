"""Features of the image tower by squared error or by flow matching?

Paper: BLIP3-o (arXiv 2505.09568), its study of designs: a (regression) and b (flow), no table published.
Command: xgenmm train experiments/ablations/blip3o_objective.py:flow    then :regression; with --at nano too
         at nano all arms of the three files, drawn and scored: python -m tools.drawing_study runs/drawing_study
Hardware: as experiments/blip3o/pretrain.py; nano: 2 CPU cores.
Hours: as there for `flow`, somewhat fewer for `regression`, which has no DiT; nano: about ten minutes an arm.
Expected: flow matching above in alignment, and different images of one caption; regression gives one image a caption.

Both begin with the frozen model and the pixel decoder that the stage begins with, a head that is random by the run's
seed, and see the same captions in the same order. Nano's are the world's open ones ("a red star"): dense captions
determine the picture, and there regression loses nothing (docs/reference/blip3o.md#small-scale-measurements). At
full size the captions are the stage's.
"""

from dataclasses import replace

from experiments import recipes
from experiments.blip3o import pretrain
from experiments.recipes import Base
from xgenmm_jax.data.source import Mapped, Source
from xgenmm_jax.models.blip3o import DrawingConfig, LinearHead
from xgenmm_jax.nano.drawing.source import CaptionsToDraw
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.feature_regression import FeatureRegression


def config() -> TrainConfig:
    return flow()


def flow(base: Base = pretrain.config) -> TrainConfig:
    return study_arm(base(), "objective/flow")


def regression(base: Base = pretrain.config) -> TrainConfig:
    arm = study_arm(base(), "objective/regression")
    return replace(with_drawing(arm, replace(arm.model.drawing, head=LinearHead())), objective=FeatureRegression())


def study_arm(base: TrainConfig, name: str) -> TrainConfig:
    """What all arms of the study are a change of: the stage with open captions and a head of the run's own seed."""
    mixture = tuple((_open(source), weight) for source, weight in base.data.mixture)
    fresh = tuple(dict.fromkeys(("drawing", *base.initialize.fresh)))
    return replace(
        recipes.arm(base, f"blip3o_{name}"),
        data=replace(base.data, mixture=mixture),
        initialize=replace(base.initialize, fresh=fresh),
    )


def with_drawing(arm: TrainConfig, drawing: DrawingConfig) -> TrainConfig:
    """The arm with another drawing part."""
    return replace(arm, model=replace(arm.model, drawing=drawing))


def _open(source: Source) -> Source:
    if isinstance(source, Mapped) and isinstance(source.source, CaptionsToDraw):
        return replace(source, source=replace(source.source, detail="open"))
    return source
