"""Drawing at nano: can the frozen model of `make demo` draw pictures of the drawn world's captions?

Paper: BLIP3-o (arXiv 2505.09568), sequential training, CLIP features by flow matching.
Command: make draw    (or: xgenmm train experiments/nano/draw.py --workdir runs/draw)
Hardware: 2 CPU cores.
Hours: about ten minutes.
Expected: no number of the paper's; the page of `make draw` shows its own.

What makes pixels of features ships, as the tower does whose features they are. make pixel-decoder trains it again;
delete runs/weights/pixels first, where it has been.
"""

from dataclasses import replace

from experiments.nano import recipes
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.readers import caption_sets
from xgenmm_jax.data.rows.config import Asking, DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.data.storage.tars import Tars
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.to_draw import CAPTION, DrawingPrompt, ToDraw
from xgenmm_jax.models.autoencoder import PixelDecoderConfig
from xgenmm_jax.models.blip3o import UNDERSTANDING, Blip3oConfig, DrawingConfig, TowerTarget
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.nano.drawing.source import CaptionsToDraw
from xgenmm_jax.nano.drawing.suite import DrawnPictures
from xgenmm_jax.nano.starting_weights import PIXELS, TOKENIZER, VISION
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.flow_matching import FlowMatching
from xgenmm_jax.training.objectives.pixel_decoding import PixelDecoding
from xgenmm_jax.training.optimizer import OptimizerConfig

QUERIES, GRID = 16, 4
PROMPT = DrawingPrompt(QUERIES, f"draw {CAPTION}")
"""Short, in words that the tokenizer has whole."""
PIXEL_DECODER = PixelDecoderConfig(
    channels=96, grid=GRID, image_size_px=64, patch_px=8, width=128, hidden=384, layers=3, heads=4
)
DIT = DiTConfig(
    channels=96, width=192, layers=4, heads=6, kv_heads=6, context_width=128, multiple_of=64
)


def model() -> Blip3oConfig:
    vlm = recipes.model()
    drawing = DrawingConfig(head=DIT, target=TowerTarget(grid=GRID), queries=QUERIES, pixels=PIXEL_DECODER)
    return Blip3oConfig(**vars(vlm), drawing=drawing)


def data(detail: str = "both", batch_rows: int = 16) -> DataConfig:
    """Rows of 128 positions with up to three captions: about 45 images a batch."""
    return DataConfig(
        mixture=((Mapped(CaptionsToDraw(detail=detail), PROMPT), 1.0),),
        tokenizer=TOKENIZER,
        row=RowConfig(128, crops=1, images=1, vision_tokens=model().tokens_per_group, segments=3, too_long="drop"),
        anyres=AnyRes(grids=(), view_px=64, view_cells=8),
        batch_rows=batch_rows,
        window=1024,
        chat=ChatStyle(system=None),
        target_px=64,
        asked=Asking(recipes.ANY_RES, ChatStyle(system=None)),
    )


def pixels() -> TrainConfig:
    """Features to pixels, on noised features of true pictures: what ships as starting weights. Words are not read."""
    return TrainConfig(
        name="nano/draw_pixels",
        model=model(),
        data=data(),
        objective=PixelDecoding(),
        steps=2400,
        optimizer=OptimizerConfig(
            algorithm="muon", peak_lr=3e-3, warmup_steps=50, betas=(0.9, 0.98), decay_vectors=False
        ),
        initialize=Initialize(vision=VISION),
        freeze=(*UNDERSTANDING, "drawing", "target"),
        average_decay=0.99,
    )


def tune() -> TrainConfig:
    """On a tuning set: xgenmm curate tuning-set runs/tuning_set --prompts drawn."""
    source = ShardedSource(Tars("runs/tuning_set/*.tar"), ToDraw(caption_sets.BLIP3O, PROMPT), name="tuning_set")
    base = config()
    return replace(
        base,
        name="nano/draw_tune",
        data=replace(base.data, mixture=((source, 1.0),)),
        steps=200,
        optimizer=replace(base.optimizer, peak_lr=5e-4),
        initialize=Initialize(run="runs/draw"),
    )


def config() -> TrainConfig:
    """Captions to features."""
    return replace(
        pixels(),
        name="nano/draw",
        objective=FlowMatching(draws=2),
        steps=800,
        optimizer=OptimizerConfig(
            algorithm="muon", peak_lr=2e-3, warmup_steps=50, betas=(0.9, 0.98), decay_vectors=False
        ),
        initialize=Initialize(run="runs/demo/sft_multi", pixels=PIXELS, fresh=("drawing",)),
        freeze=(*UNDERSTANDING, "target", "pixels"),
        average_decay=0.995,
        evaluate=(DrawnPictures(),),
    )
