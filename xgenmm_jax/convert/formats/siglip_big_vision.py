"""SigLIP in big_vision's names: the `img/` tree of its .npz files, layers scanned or one by one.

Source: big_vision commit 0127fb6, `models/vit.py`.
"""

from xgenmm_jax.convert.rules import Rule, rule
from xgenmm_jax.models.vit import ViTConfig

ROOTS = ("params/img/", "img/", "params/", "")
"""What stands before the names: a two-tower checkpoint of training, its parameters alone, one tower alone."""
PATCH = "embedding/kernel"
POSITION = "pos_embedding"
SCANNED, UNROLLED = "Transformer/encoderblock/", "Transformer/encoderblock_{i}/"


def vision_rules(config: ViTConfig, root: str, scanned: bool) -> tuple[Rule, ...]:
    """Tower and pooled head. root: one of ROOTS."""
    block, head = f"{root}{SCANNED if scanned else UNROLLED}", f"{root}MAPHead_0/"
    return (
        rule("vision/patch_embedding/kernel", f"{root}{PATCH}"),
        rule("vision/patch_embedding/bias", f"{root}embedding/bias"),
        rule("vision/position_embedding", f"{root}{POSITION}", pattern="one p e -> (one p) e", sizes={"one": 1}),
        *_attention("vision/layers/attention", f"{block}MultiHeadDotProductAttention_0", config.layers),
        *_norm("vision/layers/norm1", f"{block}LayerNorm_0", config.layers),
        *_norm("vision/layers/norm2", f"{block}LayerNorm_1", config.layers),
        *_mlp("vision/layers/mlp", f"{block}MlpBlock_0", config.layers),
        *_norm("vision/post_norm", f"{root}Transformer/encoder_norm"),
        rule("vision/head/probe", f"{head}probe", pattern="one q e -> (one q) e", sizes={"one": 1}),
        *_pooling("vision/head", f"{head}MultiHeadDotProductAttention_0"),
        *_norm("vision/head/norm", f"{head}LayerNorm_0"),
        *_mlp("vision/head/mlp", f"{head}MlpBlock_0"),
    )


def _attention(ours: str, theirs: str, layers: int) -> tuple[Rule, ...]:
    names = ("query", "key", "value")
    return (
        rule(
            f"{ours}/qkv/kernel",
            *(f"{theirs}/{name}/kernel" for name in names),
            pattern="three e n h -> e three n h",
            layers=layers,
        ),
        rule(f"{ours}/qkv/bias", *(f"{theirs}/{name}/bias" for name in names), layers=layers),
        *_linear(f"{ours}/out", f"{theirs}/out", layers),
    )


def _pooling(ours: str, theirs: str) -> tuple[Rule, ...]:
    key_value = [f"{theirs}/{name}" for name in ("key", "value")]
    return (
        *_linear(f"{ours}/query", f"{theirs}/query"),
        rule(f"{ours}/key_value/kernel", *(f"{x}/kernel" for x in key_value), pattern="two e n h -> e two n h"),
        rule(f"{ours}/key_value/bias", *(f"{x}/bias" for x in key_value)),
        *_linear(f"{ours}/out", f"{theirs}/out"),
    )


def _linear(ours: str, theirs: str, layers: int = 0) -> tuple[Rule, ...]:
    return tuple(rule(f"{ours}/{name}", f"{theirs}/{name}", layers=layers) for name in ("kernel", "bias"))


def _norm(ours: str, theirs: str, layers: int = 0) -> tuple[Rule, ...]:
    return tuple(rule(f"{ours}/{name}", f"{theirs}/{name}", layers=layers) for name in ("scale", "bias"))


def _mlp(ours: str, theirs: str, layers: int = 0) -> tuple[Rule, ...]:
    return (*_linear(f"{ours}/fc1", f"{theirs}/Dense_0", layers), *_linear(f"{ours}/fc2", f"{theirs}/Dense_1", layers))
