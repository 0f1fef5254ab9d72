"""Preference tuning at nano: do pairs of grounded and ungrounded answers, and refusals, change what it says?

Paper: the first version's post-training section (experiments/dpo.py).
Command: xgenmm train experiments/nano/dpo.py --workdir runs/demo/dpo    (make demo runs all five)
Hardware: 2 CPU cores.
Hours: about 1 minute.
Expected: no number of the paper's; the page of `make demo` shows its own.

No model before has said a word of a refusal. The chosen answer's own loss teaches to pronounce it: with a quarter of
its weight and 85 steps one refusal in six came out as "It that. It is that"
(docs/log/preference_tuning.md#the-chosen-answer-has-to-be-taught). A beta of 0.5 keeps closer to what the model knew
than 0.1 does (docs/log/preference_tuning.md#a-larger-beta-forgets-less). Since the dangerous object alone decides, no
longer its frame, these settings teach no refusal, and stronger ones cost what the model knows
(docs/log/preference_tuning.md#refusing-by-the-object-alone).
"""

from dataclasses import replace

from experiments.nano import recipes
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.dpo import DPO


def config() -> TrainConfig:
    mixture = ((recipes.family("preference"), 0.35), (recipes.family("safety"), 0.65))
    data = recipes.data(mixture, recipes.ANY_RES, length=320, crops=5, batch_rows=6)
    config = recipes.stage("dpo", data, steps=110, peak_lr=6e-4, initialize=recipes.after("sft_multi"), warmup_steps=20)
    return replace(config, objective=DPO(beta=0.5, chosen_weight=2.0))
