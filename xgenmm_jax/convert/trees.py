"""The parameter tree that a config stands for, without its numbers."""

from collections.abc import Mapping
import functools
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp

from xgenmm_jax.convert.formats import bert
from xgenmm_jax.convert.formats.bert import BertStart
from xgenmm_jax.convert.formats.blip2 import Blip2Parts
from xgenmm_jax.convert.formats.blip3o import Blip3oParts
from xgenmm_jax.convert.rules import Shape
from xgenmm_jax.models import blip2, blip3
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.dit import DiT
from xgenmm_jax.models.eva import EVA
from xgenmm_jax.models.phi3 import Phi3, Phi3Config
from xgenmm_jax.models.qformer import QFormer
from xgenmm_jax.models.vit import ViT, ViTConfig
from xgenmm_jax.ops.partitioning import unboxed

Config = VLMConfig | ViTConfig | Phi3Config | Blip3oParts | Blip2Config | Blip2Parts | BertStart
"""The whole model, a tower or a language model alone; what draws images, or BLIP-2, without its language model; what
a Q-Former begins with."""


def abstract(config: Config) -> dict[str, Any]:
    """Leaves as ShapeDtypeStructs, boxed with their logical names; a part alone stands under its name."""
    key = jax.random.key(0)
    if isinstance(config, VLMConfig):
        return jax.eval_shape(functools.partial(blip3.initialize, config), key)
    if isinstance(config, Blip2Config):
        return jax.eval_shape(functools.partial(blip2.initialize, config), key)
    if isinstance(config, Blip2Parts):
        features = jnp.zeros((1, config.vision.features, config.vision.width))
        connector = jax.eval_shape(QFormer(config.connector).init, key, features)["params"]
        return {**abstract(config.vision), "connector": connector}
    if isinstance(config, BertStart):
        return _bert(config)
    if isinstance(config, ViTConfig):
        pixels = jnp.zeros((1, config.image_size_px, config.image_size_px, 3))
        init = functools.partial(ViT(config).init, method="features_and_pooled")
        return {"vision": jax.eval_shape(init, key, pixels)["params"]}
    if isinstance(config, Blip3oParts):
        return _drawing(config, key)
    row = jnp.zeros((1, 1), jnp.int32)
    return {"decoder": jax.eval_shape(Phi3(config).init, key, row, row, row)["params"]}


def _drawing(config: Blip3oParts, key: jax.Array) -> dict[str, Any]:
    dit, tower = config.dit, config.tower
    x, context = jnp.zeros((1, dit.patch, dit.patch, dit.channels)), jnp.zeros((1, 1, dit.context_width))
    drawing = {"dit": jax.eval_shape(DiT(dit).init, key, x, jnp.zeros(1), context)["params"]}
    if config.queries:
        queries = jax.ShapeDtypeStruct((config.queries, dit.context_width), jnp.float32)
        drawing["queries"] = nn.LogicallyPartitioned(queries, (None, "embed"))
    if tower is None:
        return {"drawing": drawing}
    pixels = jnp.zeros((1, tower.image_size_px, tower.image_size_px, 3))
    return {"drawing": drawing, "target": {"eva": jax.eval_shape(EVA(tower).init, key, pixels)["params"]}}


def _bert(config: BertStart) -> dict[str, Any]:
    """Of a first stage's leaves those that BERT has; a tower of the width that the connector names stands for any."""
    vision = ViTConfig(image_size_px=1, patch_px=1, width=config.connector.width, heads=1, layers=1)
    whole = flatten_dict(abstract(Blip2Config(vision, config.connector, config.text)), sep="/")
    return unflatten_dict({one.ours: whole[one.ours] for one in bert.rules(config)}, sep="/")


@functools.lru_cache(maxsize=8)
def shapes(config: Config) -> Mapping[str, Shape]:
    """Path, "vision/layers/norm1/scale", to shape."""
    leaves = jax.tree_util.tree_leaves_with_path(unboxed(abstract(config)))
    return {"/".join(str(key.key) for key in path): leaf.shape for path, leaf in leaves}
