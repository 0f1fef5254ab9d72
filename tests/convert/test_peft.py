"""Adapters in PEFT's layout: written from updates and read back, and what is refused of them."""

from dataclasses import replace
import json

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xgenmm_jax.convert import peft, peft_settings
from xgenmm_jax.convert.exporting import plan
from xgenmm_jax.convert.parameter_store import ArrayReader
from xgenmm_jax.convert.trees import abstract
from xgenmm_jax.models import lora
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.ops.partitioning import unboxed

MODEL = VLMConfig(
    vision=ViTConfig(image_size_px=16, patch_px=8, width=16, hidden=24, layers=2, heads=2),
    connector=ResamplerConfig(width=16, layers=1, heads=2, head_width=8, hidden=32, queries=2, out_width=24),
    decoder=Phi3Config(vocab_size=40, num_text_tokens=36, width=24, hidden=20, layers=3, heads=6, kv_heads=2),
)
EVERYWHERE = LoRA(rank=3, alpha=5.0, dropout=0.25, targets=("decoder/layers", "connector/layers", "vision/layers"))


def random_tree(config, updates, seed=0):
    """All leaves with updates far from zero, numpy, by path."""

    def make(key):
        return lora.with_updates(unboxed_tree(config), updates, key)

    def unboxed_tree(config):
        return jax.tree.map(
            lambda leaf: leaf.replace_boxed(jax.numpy.zeros(leaf.value.shape)),
            abstract(config),
            is_leaf=lambda leaf: hasattr(leaf, "names"),
        )

    flat = flatten_dict(unboxed(make(jax.random.key(0))), sep="/")
    random = np.random.default_rng(seed)
    return {
        name: np.asarray(leaf) if name.endswith((lora.SCALE, lora.DROPOUT)) else random.standard_normal(
            leaf.shape, np.float32
        )
        for name, leaf in flat.items()
    }


def written(folder, updates=EVERYWHERE, config=MODEL, layout="peft", change=lambda flat: flat):
    folder.mkdir(parents=True)
    flat = change(random_tree(config, updates))
    stored = flatten_dict(lora.stored(unflatten_dict(flat, sep="/"), updates), sep="/")
    notes = peft.write(ArrayReader(stored), config, updates, layout, folder)
    return flat, stored, notes


def edited(folder, tensors=lambda found: found, **settings):
    """The adapter with other settings and tensors."""
    file = folder / peft_settings.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    save_file(tensors(load_file(folder / peft.MODEL_FILE)), folder / peft.MODEL_FILE)


def test_updates_come_back_as_they_went(tmp_path):
    """Fused and grouped queries, keys and values, heads, and three of their modules in one kernel."""
    _, stored, _ = written(tmp_path / "adapter")
    adapter = peft.read(tmp_path / "adapter", MODEL)
    kept = {name: leaf for name, leaf in stored.items() if not name.endswith(lora.DROPOUT)}
    assert adapter.updates.keys() == kept.keys()
    for name, leaf in kept.items():
        assert np.array_equal(adapter.updates[name], leaf), name
    assert all((ranks == 3).all() for ranks in adapter.ranks.values()) and not adapter.whole
    settings = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["lora_dropout"]) == (3, 5, 0.25)
    names = load_file(tmp_path / "adapter" / peft.MODEL_FILE)
    shape = names["base_model.model.vlm.lang_model.model.layers.2.self_attn.qkv_proj.lora_B.weight"].shape
    assert shape == (40, 3) and "alpha_pattern" in settings and settings["alpha_pattern"] == {}
    modules = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in names}
    assert modules == set(settings["target_modules"])


@pytest.mark.parametrize("name", ["xgenmm", "phi3"])
def test_an_adapter_changes_their_weights_as_updates_change_ours(tmp_path, name):
    """W' + scale B A in their layout is the exported kernel of W + scale A B."""
    updates = EVERYWHERE if name == "xgenmm" else LoRA(rank=3, alpha=5.0)
    flat, _, _ = written(tmp_path / "adapter", updates, layout="peft" if name == "xgenmm" else "peft_phi3")
    tensors = load_file(tmp_path / "adapter" / peft.MODEL_FILE)
    merged = flatten_dict(lora.merged(unflatten_dict(flat, sep="/")), sep="/")
    count = 0
    for rule in plan(MODEL, name).rules:
        for layer in rule.slices():
            pieces = rule.pieces(layer)
            before, after = (
                rule.transform.back(tree[rule.ours] if layer is None else tree[rule.ours][layer], len(pieces))
                for tree in (flat, merged)
            )
            for piece, old, new in zip(pieces, before, after, strict=True):
                module = f"{peft.PREFIX}{piece.name.removesuffix('.weight')}"
                down = tensors.get(module + peft.A)
                if down is None:
                    np.testing.assert_array_equal(old, new)
                    continue
                count += 1
                update = 5.0 / 3.0 * tensors[module + peft.B] @ down
                np.testing.assert_allclose(old + update, new, rtol=0, atol=1e-5)
    assert count * 2 == len(tensors)


def test_modules_that_train_whole_are_saved(tmp_path):
    updates = replace(EVERYWHERE, targets=("decoder/layers",), whole=("connector", "decoder/layers/input_norm"))
    _, stored, _ = written(tmp_path / "adapter", updates)
    settings = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    layers = [f"vlm.lang_model.model.layers.{number}.input_layernorm" for number in range(3)]
    assert settings["modules_to_save"] == [*layers, "vlm.vision_tokenizer"]
    adapter = peft.read(tmp_path / "adapter", MODEL)
    whole = {name: leaf for name, leaf in stored.items() if not lora.is_update(name)}
    assert adapter.whole.keys() == whole.keys()
    assert all(np.array_equal(adapter.whole[name], leaf) for name, leaf in whole.items())
    with pytest.raises(ValueError, match="latents' trained whole and lies in no module without others"):
        written(tmp_path / "part", replace(updates, whole=("connector/latents",)))


def test_scales_of_their_own_are_patterns(tmp_path):
    def change(flat):
        flat["decoder/layers/o_proj/lora_scale"] = np.float32([0.3, 5 / 3, 7.0])
        return flat

    _, stored, _ = written(tmp_path / "adapter", change=change)
    adapter = peft.read(tmp_path / "adapter", MODEL)
    for name in (name for name in stored if name.endswith(lora.SCALE)):
        assert np.array_equal(adapter.updates[name], stored[name]), name
    # PEFT's own patterns: a module's end, or a regular expression; alpha / sqrt(rank) where it is rank-stabilized.
    edited(tmp_path / "adapter", alpha_pattern={"o_proj": 6, r"layers\.1\.mlp\.down_proj": 9}, use_rslora=True)
    adapter = peft.read(tmp_path / "adapter", MODEL)
    np.testing.assert_allclose(adapter.updates["decoder/layers/o_proj/lora_scale"], 6 / 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(adapter.updates["decoder/layers/down_proj/lora_scale"] * 3**0.5, [5, 9, 5], rtol=1e-6)


def test_ranks_of_their_own_and_modules_left_out(tmp_path):
    """Queries and values alone, each with an A of its own, of two ranks; layer 0 without any."""
    written(tmp_path / "adapter", replace(EVERYWHERE, targets=("vision/layers/attention/qkv",)))
    random = np.random.default_rng(1)
    stem = "vlm.vision_encoder.encoder.layers.1.self_attn"
    pairs = {
        x: (random.standard_normal((r, 16), np.float32), random.standard_normal((16, r), np.float32))
        for x, r in (("q", 2), ("v", 4))
    }
    edited(
        tmp_path / "adapter",
        lambda _: {
            f"{peft.PREFIX}{stem}.{x}_proj{end}": tensor
            for x, both in pairs.items()
            for end, tensor in zip((peft.A, peft.B), both, strict=True)
        },
        r=2,
        lora_alpha=3,
        rank_pattern={"v_proj": 4},
    )
    adapter = peft.read(tmp_path / "adapter", MODEL)
    assert adapter.ranks["vision/layers/attention/qkv/kernel"].tolist() == [0, 6]
    kernel = np.zeros((2, 16, 3, 2, 8), np.float32)
    beside = "vision/layers/attention/qkv/"
    updates = {kind: adapter.updates[beside + kind] for kind in (lora.DOWN, lora.UP, lora.SCALE)}
    got = lora.merged_kernel(kernel, updates, stacked=True)
    assert not got[0].any() and not got[1][:, 1].any()
    for number, (x, r) in ((0, ("q", 2)), (2, ("v", 4))):
        wanted = (3 / r * pairs[x][1] @ pairs[x][0]).T.reshape(16, 2, 8)
        np.testing.assert_allclose(got[1][:, number], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora true, which is not read"),
        ({"bias": "all"}, 'bias "all", which is not read; wanted "none"'),
        ({"init_lora_weights": "pissa"}, "init_lora_weights .* merge it with PEFT"),
        ({"peft_type": "IA3"}, "peft_type IA3; wanted LORA"),
        ({"r": 4}, r"layers\.0\.mlp\.down_proj\.lora_A\.weight has \[3, 20\] for \[4, 20\]"),
        ({"lora_alpha": "5"}, "no number above 0"),
        ({"rank_pattern": [1]}, "no number above 0"),
        ({"alpha_pattern": {"(": 1}}, "is no pattern"),
    ],
)
def test_settings_that_are_not_read(tmp_path, settings, message):
    written(tmp_path / "adapter", LoRA(rank=3))
    edited(tmp_path / "adapter", **settings)
    with pytest.raises(ValueError, match=message):
        peft.read(tmp_path / "adapter", MODEL)


def renamed(old, new):
    return lambda found: {name.replace(old, new): tensor for name, tensor in found.items()}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (renamed("lora_A.weight", "lora_embedding_A"), "lora_embedding_A', which is not read"),
        (renamed("base_model.model.", ""), "which is not read; wanted base_model.model.<module>"),
        (renamed("layers.2.", "layers.9."), r"of another model: there is no vlm.*layers\.9\..* and 1 more here"),
        (lambda found: dict(list(found.items())[1:]), "has one of lora_A and lora_B alone"),
        (lambda found: {**found, "base_model.model.x.lora_magnitude_vector": np.ones(3, np.float32)}, "no DoRA"),
        (lambda found: {name: tensor.astype(np.int32) for name, tensor in found.items()}, "has dtype I32"),
    ],
)
def test_tensors_that_are_not_read(tmp_path, tensors, message):
    written(tmp_path / "adapter", LoRA(rank=3))
    edited(tmp_path / "adapter", tensors)
    with pytest.raises(ValueError, match=message):
        peft.read(tmp_path / "adapter", MODEL)


def test_pickles_missing_files_and_no_json_are_refused(tmp_path):
    written(tmp_path / "adapter", LoRA(rank=3))
    (tmp_path / "adapter" / peft.MODEL_FILE).rename(tmp_path / "adapter/adapter_model.bin")
    with pytest.raises(ValueError, match="pickle"):
        peft.read(tmp_path / "adapter", MODEL)
    (tmp_path / "adapter/adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        peft.read(tmp_path / "adapter", MODEL)
    with pytest.raises(ValueError, match="has no adapter_config.json"):
        peft.read(tmp_path, MODEL)


@pytest.mark.parametrize(
    ("target", "layout", "message"),
    [
        ("vision/patch_embedding", "peft", "is no linear map of its own"),
        ("vision/head/query", "peft", "is no linear map of its own"),
        ("connector/layers", "peft_phi3", "the layout has no place for 'connector/layers"),
    ],
)
def test_updates_without_a_place_in_the_layout_are_refused(tmp_path, target, layout, message):
    with pytest.raises(ValueError, match=message):
        written(tmp_path / "adapter", LoRA(rank=2, targets=(target,)), layout=layout)
