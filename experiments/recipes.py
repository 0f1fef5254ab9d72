"""What the paper's stages share: sizes, where weights lie, rows, optimizers, budgets. The data are in mixtures.py.

Weights. Folders under `weights/` that `xgenmm convert` makes of SigLIP (Hugging Face or big_vision), Phi-3-mini and
Phi-3-medium: `xgenmm convert DOWNLOADED weights/siglip_so400m_384`. Phi-3's `tokenizer.model` comes along.

Hours in the stages' heads are estimates, not measurements: 25.3 GFLOP a position for Phi-3-mini's training, 0.86
TFLOP a crop (tower forward, resampler trained), at half of a TPU v5p's 459 TFLOP/s and 0.4 of an H100's 989 TFLOP/s.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from experiments import mixtures
from experiments.mixtures import Mixture
from xgenmm_jax.data.anyres import GRIDS_12, AnyRes
from xgenmm_jax.data.rows.config import DataConfig, LoaderConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.models import sizes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.training.config import CheckpointConfig, HeldOut, Initialize, TrainConfig
from xgenmm_jax.training.optimizer import OptimizerConfig

TOKENIZER = "weights/phi3_mini_4k/tokenizer.model"
SIGLIP = "weights/siglip_so400m_384"


@dataclass(frozen=True)
class Size:
    """A model of the paper. Its runs lie in `runs/{name}/`."""

    name: str
    model: VLMConfig
    decoder: str
    """Weights of the language model that it starts from."""

    def run(self, stage: str) -> str:
        """The run folder of a stage, where the next one starts."""
        return f"runs/{self.name}/{stage}"


B4 = Size("4b", sizes.B4, "weights/phi3_mini_4k")
B14 = Size("14b", sizes.B14, "weights/phi3_medium_4k")

# Rows. 4096 positions, 512 rows and 16 images a row are MM1's (arXiv 2403.09611); the paper publishes none of these.
ROW_LENGTH = 4096
ROWS = 512
FILL = 0.98
"""Part of the positions that is not padding, assumed; the run's log shows its own."""
FILL_HIGH_RESOLUTION = 0.93
"""The same where images take up to 13 crops: few samples share a row, and two of 13 crops do not share one of 24."""
CHUNK = 1024
"""Positions of a row that go through the head at once: the head travels between chips, or through a chip's memory, once
a chunk, and its logits are 131 MB a row in float32."""
BASE_RESOLUTION = AnyRes(grids=())
HIGH_RESOLUTION = AnyRes(grids=GRIDS_12)
"""At most 12 crops and no side above 4 * 384 = 1536 px (section 5.1). The paper's list of grids is not published."""
LOADER = LoaderConfig(threads=16, ahead=8)
CHECKPOINTS = CheckpointConfig(every_steps=500, every_seconds=0.0, keep=2)
HELD_OUT = HeldOut(every_steps=500, samples=2048)
"""Some 340 rows, which take the time of a fifth of a step, beside what reading them takes: 0.1 % of a run."""
HELD_OUT_ONE_IN = 1000
"""Of pre-training's sources, whose published records are more than a run sees. Those of fine-tuning are seen whole."""
WATCHDOG_SECONDS = 1800.0
"""A run that hangs ends after so long, to be started again (docs/launch.md). What a healthy one waits for in one piece
is shorter: compiling its step (about 5 minutes for 14B on two cores), three steps under way, and a checkpoint (49 GB at
4B, 171 GB at 14B) that is written and read again for its checksums, or verified and restored, where 0.2 GB/s suffice
for the larger. Evaluation and the first weights are not timed. Raise it where opening the data takes longer, as it may
with 10,000 files in a mounted bucket."""


def steps_of(tokens: float, fill: float = FILL) -> int:
    """Steps that see a budget of multimodal tokens: positions, vision tokens included, padding not."""
    return round(tokens / (ROWS * ROW_LENGTH * fill))


def pretraining(mixture: Mixture, anyres: AnyRes, crops: int) -> DataConfig:
    """Packed rows for stage 1 and 2. crops: of a row, where text and images run out together on average."""
    return DataConfig(
        mixture=mixture,
        tokenizer=TOKENIZER,
        row=RowConfig(length=ROW_LENGTH, crops=crops, images=16, vision_tokens=128, too_long="drop"),
        anyres=anyres,
        batch_rows=ROWS,
        loader=LOADER,
        held_out_one_in=HELD_OUT_ONE_IN,
    )


PRETRAINING = OptimizerConfig(
    peak_lr=5e-5, schedule="cosine", warmup_steps=500, final_fraction=0.1, weight_decay=0.1, clip_norm=1.0
)
"""Ours: nothing is published. Weight decay and clipping are the defaults of the released script, which grew out of a
pre-training script; 5e-5 is half its rate, for a decoder that trains whole from Phi-3's weights."""

# Fine-tuning. The released script has 64 samples a step; here they are 16 rows of 4 at most (`fine_tuning`).
BATCH_SAMPLES = 64
FINE_TUNING = OptimizerConfig(
    peak_lr=2e-5, schedule="cosine", warmup_steps=2000, betas=(0.9, 0.999), weight_decay=0.0, clip_norm=1.0
)


def fine_tuning(mixture: Mixture, anyres: AnyRes = HIGH_RESOLUTION, length: int = 6144, crops: int = 40) -> DataConfig:
    """16 rows of up to 4 samples.

    The script trains unpacked rows of any length and cuts text at 2048 tokens; here 4 samples share a row and
    conversations are cut behind the last answer that fits. Room is ample for 4 of average size (6 crops, 1200
    positions) but not for any 4, so large samples share rows with small ones: a step holds the published 64 at most,
    some 64 of one image and some 64 where half have two to four (`python tools/step_sizes.py`, which says what lengths
    it assumes). No sample needs more than the decoder's window can carry: a position sees 2048 keys and the positions
    of a segment restart, so 6144 is no longer context.
    """
    return DataConfig(
        mixture=mixture,
        tokenizer=TOKENIZER,
        row=RowConfig(length=length, crops=crops, images=16, vision_tokens=128, segments=4, too_long="drop"),
        anyres=anyres,
        batch_rows=BATCH_SAMPLES // 4,
        loader=LOADER,
    )


# Ablations. Their arms take the stage that they change, `def mlp(base=stage1.config)`; `--at nano` gives nano's.
Base = Callable[[], TrainConfig]
FINE_TUNED_SAMPLES = sum(mixtures.EXAMPLE.values())
"""As many as the released example has, 816,639: the section's "about 1M samples"."""


def arm(base: TrainConfig, name: str) -> TrainConfig:
    """The base as an ablation's arm of its size: "4b/stage1" becomes "4b/ablations/connector/mlp"."""
    return replace(base, name=f"{base.name.partition('/')[0]}/ablations/{name}")


def at_most(base: TrainConfig, steps: int) -> TrainConfig:
    """The base, ended earlier where it is longer; nano's stages are shorter than any budget of the paper's."""
    return replace(base, steps=min(base.steps, steps))


def fine_tuned(base: TrainConfig, name: str) -> TrainConfig:
    """The ablations' fine-tuning: some of the base's mixture, from the stage 1 beside the base's start."""
    start = Initialize(run=str(Path(base.initialize.run or "").with_name("stage1")))
    return replace(at_most(arm(base, name), FINE_TUNED_SAMPLES // BATCH_SAMPLES), initialize=start)
