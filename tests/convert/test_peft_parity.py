"""PEFT itself over transformers' Phi3ForCausalLM: it reads what is written here, what it writes is read here.

Needs the extra `parity`: pytest -m parity tests/convert
"""

from dataclasses import replace

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from released_parameters import read_tree

from xgenmm_jax.convert import peft
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.parameter_store import ArrayReader
from xgenmm_jax.models import lora
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.models.phi3 import Phi3
from xgenmm_jax.ops.masks import WindowConvention
from xgenmm_jax.ops.partitioning import unboxed

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
TOLERANCE = {"rtol": 0, "atol": 1e-5}
LENGTH = 9


@pytest.fixture
def phi3(tmp_path):
    """Theirs, ours with its parameters, and ids; grouped queries."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=40,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        sliding_window=6,
        pad_token_id=0,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    theirs = Phi3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.shape[1] ** -0.5 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "theirs")
    with open_source(tmp_path / "theirs") as source:
        params = {"decoder": read_tree(source)["decoder"]}
        ours = replace(source.config, window=WindowConvention.W)
    ids = np.random.default_rng(0).integers(0, 40, (2, LENGTH)).astype(np.int32)
    return theirs, ours, params, ids


def our_logits(config, params, ids):
    positions = jnp.broadcast_to(jnp.arange(LENGTH, dtype=jnp.int32)[None], ids.shape)
    run = jax.jit(Phi3(config).apply)
    return run({"params": params["decoder"]}, jnp.asarray(ids), jnp.ones_like(positions), positions)[..., :40]


def their_logits(model, ids):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(ids).long()).logits.numpy()


def test_an_adapter_of_ours_over_their_model(phi3, tmp_path):
    from peft import PeftModel

    theirs, config, params, ids = phi3
    updates = LoRA(rank=4, alpha=6.0, whole=("decoder/norm",))
    random = np.random.default_rng(1)
    boxed = lora.with_updates(boxed_of(config, params), updates, jax.random.key(0))
    flat = {name: np.asarray(leaf) for name, leaf in flatten_dict(unboxed(boxed), sep="/").items()}
    for name in flat:
        if name.endswith(lora.UP):
            flat[name] = 0.3 * random.standard_normal(flat[name].shape, np.float32)
    flat["decoder/norm/scale"] = flat["decoder/norm/scale"] * 1.25
    flat["decoder/layers/o_proj/lora_scale"] = np.float32([0.5, 1.5, 3.0])
    tree = unflatten_dict(flat, sep="/")
    stored = flatten_dict(lora.stored(tree, updates), sep="/")
    (tmp_path / "adapter").mkdir()
    peft.write(ArrayReader(stored), config, updates, "peft_phi3", tmp_path / "adapter")
    before = their_logits(theirs, ids)
    adapted = their_logits(PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval(), ids)
    assert np.abs(adapted - before).max() > 0.1
    np.testing.assert_allclose(our_logits(config, tree, ids), adapted, **TOLERANCE)


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_an_adapter_of_theirs_over_our_model(phi3, tmp_path, rank_stabilized):
    """Ranks and alphas by pattern, a module that trains whole, one that has no update."""
    from peft import LoraConfig, get_peft_model
    import torch

    theirs, config, params, ids = phi3
    settings = LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=["qkv_proj", "o_proj", "down_proj"],
        rank_pattern={r"layers\.1\.self_attn\.qkv_proj": 5},
        alpha_pattern={"o_proj": 2},
        modules_to_save=["lm_head"],
        use_rslora=rank_stabilized,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(theirs, settings).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    expected = their_logits(adapted, ids)
    assert np.abs(our_logits(config, params, ids) - expected).max() > 0.1
    adapter = peft.read(tmp_path / "adapter", config)
    flat = flatten_dict(params, sep="/") | adapter.updates | adapter.whole
    for tree in (unflatten_dict(flat, sep="/"), lora.merged(unflatten_dict(flat, sep="/"))):
        np.testing.assert_allclose(our_logits(config, tree, ids), expected, **TOLERANCE)


def boxed_of(config, params):
    """Parameters with their logical axis names."""
    from xgenmm_jax.convert.trees import abstract

    return jax.tree.map(
        lambda box, leaf: box.replace_boxed(jnp.asarray(leaf)),
        {"decoder": abstract(config)["decoder"]},
        params,
        is_leaf=lambda leaf: hasattr(leaf, "names"),
    )
