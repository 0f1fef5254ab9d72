"""A whole run at the smallest size: real model, real data, seconds."""

from pathlib import Path

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.chat import ChatStyle
from xgenmm_jax.data.packing import RowConfig
from xgenmm_jax.data.pipeline import DataConfig
from xgenmm_jax.data.tokenizer import Tokenizer, train_tokenizer
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.models.vlm import VLMConfig
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import CheckpointConfig, TrainConfig
from xgenmm_jax.training.next_token import NextToken
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.sharding import MeshConfig


def tokenizer(folder: Path) -> Path:
    path = folder / "small.model"
    train_tokenizer(["a red circle and the blue square in the center"] * 9, path, pieces=400)
    return path


def model(tokenizer_path: Path) -> VLMConfig:
    """Sizes that eight devices divide: 4 key-value heads, widths of 32."""
    tokens = Tokenizer.load(tokenizer_path)
    return VLMConfig(
        vision=ViTConfig(image_size_px=32, patch_px=8, width=32, hidden=64, layers=1, heads=4),
        connector=ResamplerConfig(width=32, layers=1, heads=4, head_width=8, hidden=64, queries=4, out_width=32),
        decoder=Phi3Config(
            vocab_rows=tokens.vocab_rows,
            initial_len=tokens.initial_len,
            width=32,
            hidden=64,
            layers=2,
            heads=4,
            kv_heads=4,
            init_std=0.1,
        ),
    )


def data(tokenizer_path: Path, mixture=None, rows: int = 8) -> DataConfig:
    return DataConfig(
        mixture=mixture or ((Synthetic("caption", 400), 1.0),),
        tokenizer=str(tokenizer_path),
        row=RowConfig(length=192, crops=2, images=2, vision_tokens=4, too_long="drop"),
        anyres=AnyRes(grids=(), view_px=32, view_cells=4),
        batch_rows=rows,
        window=64,
        chat=ChatStyle(system=None),
    )


def config(tokenizer_path: Path, steps: int = 6) -> TrainConfig:
    """One device of the eight would be a mesh of its own; all eight split rows."""
    return TrainConfig(
        name="tiny",
        model=model(tokenizer_path),
        data=data(tokenizer_path),
        loss=NextToken(chunk=32),
        steps=steps,
        optimizer=OptimizerConfig(peak_lr=1e-2, warmup_steps=2, weight_decay=0.1),
        mesh=MeshConfig(fsdp=4, tensor=2),
        log_every=1,
        checkpoint=CheckpointConfig(every_seconds=0.0),
    )
