"""Does BLIP-3 learn more than BLIP-2 from the same images and texts?

Paper: no table. BLIP-3's introduction names what it changes, connector, losses and data, and compares none of it with
BLIP-2 on equal data: the question, its arms and any number are ours. BLIP-2: arXiv 2301.12597.
Command: xgenmm train experiments/ablations/blip2.py:queries    then :blip2; all with --at nano too
         and :qformer, :resampler, :blip3, :qformer_trained (after :queries), :blip3_documents
         at nano all arms over several seeds, asked and counted: python -m tools.connector_study runs/connector_study
Hardware: as experiments/stage1.py; nano: 2 CPU cores.
Hours: as there for each arm, and as experiments/blip2/stage1.py for `queries`; nano: minutes.
Expected: `blip2` above `qformer` (BLIP-2's figure 5); which of `blip2` and `blip3` wins on one image is not known.

| arm | connector | its first stage | decoder |
|---|---|---|---|
| blip2 | Q-Former | contrast, matching, captions | frozen |
| qformer | Q-Former | none | frozen |
| resampler | resampler | none | frozen |
| blip3 | resampler | none | trained |
| qformer_trained | that of blip2 | as blip2's | trained |
| blip3_documents | resampler | none | trained |

All have one tower, one decoder to start from, the optimizer of stage 1, as many vision tokens an image, and random
connectors but for the one of the first stage. All but the last see the same samples in the same order: half of them
stage 1's captions and questions about one image, half those of fine-tuning, each image in one view; what BLIP-2 does
in a stage of fine-tuning is mixed in. `blip3_documents` takes what BLIP-2 cannot: both mixtures whole, with documents
of several images and text alone, at any resolution.
"""

from dataclasses import replace

from experiments import mixtures, recipes, sft_single, stage1
from experiments.blip2 import stage1 as blip2_stage1
from experiments.mixtures import Mixture
from experiments.recipes import Base
from xgenmm_jax.data.source import Source, without_changes
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import Initialize, TrainConfig

SEVERAL_OR_NONE = frozenset(
    (*mixtures.INTERLEAVED, "open_orca", "orca_math", "interleaved", "glossary", "text", "text_chat")
)
"""Sources and families whose records have several images, or none."""
QUESTIONS = frozenset(("lookups",))
"""Of stage 1's sources about one image those that are no captions."""


def config() -> TrainConfig:
    return blip3()


def queries(base: Base = stage1.config, first: Base = blip2_stage1.config) -> TrainConfig:
    """The first stage of `blip2` and `qformer_trained`, on the captions that all arms see."""
    arm, stage = _arm(base(), "queries"), first()
    model = replace(stage.model, vision=arm.model.vision, connector=replace(_qformer(arm, stage), out_width=0))
    captions = tuple((source, weight) for source, weight in _about_one(arm) if _name(source) not in QUESTIONS)
    return replace(
        stage,
        name=arm.name,
        model=model,
        data=replace(stage.data, mixture=captions, image_size_px=model.vision.image_size_px),
        initialize=Initialize(vision=arm.initialize.vision),
    )


def blip2(
    base: Base = stage1.config, tuning: Base = sft_single.config, first: Base = blip2_stage1.config
) -> TrainConfig:
    arm = qformer(base, tuning, first)
    start = replace(arm.initialize, connector=f"runs/{queries(base, first).name}", fresh=("connector/projection",))
    return replace(_arm(arm, "blip2"), initialize=start)


def qformer(
    base: Base = stage1.config, tuning: Base = sft_single.config, first: Base = blip2_stage1.config
) -> TrainConfig:
    arm = resampler(base, tuning)
    return replace(_arm(arm, "qformer"), model=replace(arm.model, connector=_qformer(arm, first())))


def resampler(base: Base = stage1.config, tuning: Base = sft_single.config) -> TrainConfig:
    arm = blip3(base, tuning)
    return replace(_arm(arm, "resampler"), freeze=(*arm.freeze, "decoder"))


def blip3(base: Base = stage1.config, tuning: Base = sft_single.config) -> TrainConfig:
    arm, tuned = _arm(base(), "blip3"), tuning()
    return replace(
        arm,
        data=replace(arm.data, mixture=_halves(_about_one(arm), _about_one(tuned))),
        initialize=replace(arm.initialize, connector_start=None),
        prompt=tuned.prompt,
    )


def qformer_trained(
    base: Base = stage1.config, tuning: Base = sft_single.config, first: Base = blip2_stage1.config
) -> TrainConfig:
    return replace(_arm(blip2(base, tuning, first), "qformer_trained"), freeze=blip3(base, tuning).freeze)


def blip3_documents(base: Base = stage1.config, tuning: Base = sft_single.config) -> TrainConfig:
    """In rows of fine-tuning, which have room for the crops of an image."""
    whole, tuned = base(), tuning()
    arm = _arm(blip3(base, tuning), "blip3_documents")
    mixture = _halves(whole.data.mixture, tuned.data.mixture)
    return replace(arm, data=replace(arm.data, mixture=mixture, anyres=tuned.data.anyres, row=tuned.data.row))


def _arm(base: TrainConfig, name: str) -> TrainConfig:
    return recipes.arm(base, f"blip2/{name}")


def _qformer(arm: TrainConfig, stage: TrainConfig) -> QFormerConfig:
    """Of the first stage's size, with as many queries as the resampler before the same decoder."""
    model = arm.model
    return replace(
        stage.model.connector,
        width=model.vision.width,
        queries=model.tokens_per_group,
        out_width=model.decoder.width,
    )


def _about_one(config: TrainConfig) -> Mixture:
    """What a mixture has of one image a record."""
    return tuple((source, weight) for source, weight in config.data.mixture if _name(source) not in SEVERAL_OR_NONE)


def _name(source: Source) -> str:
    """That of a source of `mixtures`, or of the family that nano's draws."""
    made = without_changes(source)
    return made.family if isinstance(made, Synthetic) else made.name


def _halves(*of: Mixture) -> Mixture:
    """Mixtures that give as many samples each; a source of both has the sum of its shares."""
    shares: dict[Source, float] = {}
    for mixture in of:
        total = sum(weight for _, weight in mixture)
        for source, weight in mixture:
            shares[source] = shares.get(source, 0.0) + weight / total / len(of)
    return tuple(shares.items())
