"""One forward pass that keeps what happens inside, by name.

A name is a part and a path of modules: "vision/layers" is what each layer of the tower gives, stacked on a leading
axis, "vision/layers/mlp" what its feed-forward adds, "decoder/norm" the decoder's last states. "vision/attention",
"resampler/attention" and "decoder/attention" are attention weights, of a Q-Former ("qformer/attention") those of its
queries on the image in every group of layers; "embeddings" is the decoder's input.
"""

from collections.abc import Iterable
import difflib
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from xgenmm_jax.batch import Batch
from xgenmm_jax.models import blip3
from xgenmm_jax.models.blip3 import VLM, VLMConfig, smallest_batch, splice
from xgenmm_jax.models.mlp_connector import MLPConnectorConfig
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.ops.partitioning import unboxed

EMBEDDINGS = "embeddings"
ATTENTION = "attention"


class Forward(NamedTuple):
    """Shapes are the batch's; filling is not cut off."""

    logits: Float[Array, "B T V"]
    """Float32; those at t predict the token at t + 1."""
    loss: Float[Array, ""]
    """Mean cross entropy of the targets, 0 where there are none."""
    vision_features: Float[Array, "n P E"]
    vision_tokens: Float[Array, "g Q D"]
    probed: dict[str, Array]


def connector_name(config: VLMConfig) -> str:
    """What names call the connector."""
    if isinstance(config.connector, QFormerConfig):
        return "qformer"
    return "mlp_connector" if isinstance(config.connector, MLPConnectorConfig) else "resampler"


@functools.partial(jax.jit, static_argnames=("config", "probe"))
def forward(
    config: VLMConfig, params: PyTree, batch: Batch, targets: Bool[Array, "B T"], probe: tuple[str, ...] = ()
) -> Forward:
    """Features, vision tokens, logits, loss over `targets`, and the intermediates that `probe` names (`check_names`).

    Only what is named is returned: attention weights of other parts are never computed.
    """
    modules = {_module_path(config, name) for name in probe if not _is_attention(name) and name != EMBEDDINGS}
    collections = ["intermediates"] * bool(modules) + [ATTENTION] * any(map(_is_attention, probe))

    def is_probed(module: nn.Module, method: str) -> bool:
        return method == "__call__" and module.path in modules

    result = VLM(config).apply(
        {"params": params},
        batch,
        method=_outputs,
        mutable=collections or False,
        capture_intermediates=is_probed if modules else False,
    )
    (features, tokens, embeddings, logits), state = result if collections else (result, {})
    probed = {name: embeddings if name == EMBEDDINGS else _find(config, state, name) for name in probe}
    losses = -_log_probs(logits[:, :-1], batch.token_ids[:, 1:])
    is_target = targets[:, 1:]
    loss = jnp.sum(jnp.where(is_target, losses, 0.0)) / jnp.maximum(jnp.sum(is_target), 1)
    return Forward(logits, loss, features, tokens, probed)


def _outputs(model: VLM, batch: Batch):
    config = model.config
    text = model.decoder.embed(batch.token_ids)
    if batch.pixels.shape[1]:
        features = model.features(batch)
        tokens = model.connect(features, batch)
        embeddings = splice(text, tokens, batch.slot)
    else:
        features = jnp.zeros((0, config.vision.features, config.vision.width), config.dtype)
        tokens = jnp.zeros((0, config.tokens_per_group, config.decoder.width), config.dtype)
        embeddings = text
    logits = model.logits(model.decoder.hidden(embeddings, batch.segment_ids, batch.positions))
    features = features.reshape(-1, *features.shape[-2:])
    return features, tokens.reshape(-1, config.tokens_per_group, tokens.shape[-1]), embeddings, logits


def _log_probs(logits: Float[Array, "B t V"], token_ids) -> Float[Array, "B t"]:
    # Pads of rows without vision tokens may lie above the logits' width in foreign tokenizers: they are no targets.
    ids = jnp.minimum(token_ids, logits.shape[-1] - 1)[..., None]
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), ids, axis=-1)[..., 0]


@functools.lru_cache(maxsize=16)
def names(config: VLMConfig) -> tuple[str, ...]:
    """Every name that `forward` knows for a model, in alphabetical order. Nothing is computed."""
    batch = smallest_batch(config)
    boxed = jax.eval_shape(functools.partial(blip3.initialize, config), jax.random.key(0))
    params = unboxed(boxed)
    apply = functools.partial(
        VLM(config).apply, method=_outputs, mutable=["intermediates", ATTENTION], capture_intermediates=True
    )
    _, state = jax.eval_shape(lambda params, batch: apply({"params": params}, batch), params, batch)
    known = {EMBEDDINGS}
    for path, _ in jax.tree_util.tree_leaves_with_path(state["intermediates"]):
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        known.add("/".join([_part(config, keys[0]), *keys[1:-1]]))
    known |= {f"{_part(config, part)}/{ATTENTION}" for part in state[ATTENTION]}
    return tuple(sorted(known))


def check_names(config: VLMConfig, probe: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, in a fixed order. Raises ValueError that lists the known ones where one is unknown."""
    known = names(config)
    for name in probe:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"probe: no intermediate '{name}'; {hint}Known are {', '.join(known)}.")
    return tuple(sorted(set(probe)))


def _is_attention(name: str) -> bool:
    return name.count("/") == 1 and name.endswith(f"/{ATTENTION}")


def _part(config: VLMConfig, module: str) -> str:
    return connector_name(config) if module == "connector" else module


def _module_path(config: VLMConfig, name: str) -> tuple[str, ...]:
    part, *rest = name.split("/")
    return ("connector" if part == connector_name(config) else part, *rest)


def _find(config: VLMConfig, state: Any, name: str) -> Array:
    """The one array below a name: a layer's output without its carried cache, or its attention weights."""
    part, *rest = _module_path(config, name)
    if _is_attention(name):
        weights = state[ATTENTION][part]
        if part == "connector" and isinstance(config.connector, QFormerConfig):
            weights = weights["layers"]["layer0"]["cross"]  # not "attention", of the queries on each other
        return jax.tree.leaves(weights)[0]
    node = state["intermediates"][part]
    for key in rest:
        node = node[key]
    return jax.tree.leaves(node["__call__"])[0]
