"""The parts of a BLIP3-o beside its language model: read from the official file as it is, exported with every byte."""

from dataclasses import replace

import blip3o_goldens as goldens
import jax
import pytest
from safetensors.numpy import load_file, save_file

from xgenmm_jax.api.conversion import export_checkpoint, import_run
from xgenmm_jax.cli.convert import describe
from xgenmm_jax.convert import exporting
from xgenmm_jax.convert.detect import detect_format
from xgenmm_jax.convert.formats.blip3o import Blip3oParts
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.convert.tensor_shapes import Overrides
from xgenmm_jax.models import blip3o, sizes
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.ops.partitioning import unboxed

HEADS = Overrides(vision_heads=goldens.TOWER_HEADS)
OWN = ("model.dit.", "model.latent_queries", "model.gen_vision_tower.")


@pytest.fixture
def run(tmp_path):
    with open_source(goldens.MODEL, HEADS) as source:
        import_run(source, tmp_path / "run")
    return tmp_path / "run"


def edited(tmp_path, **changes):
    """A file with some tensors cut to their first rows, or without them for None."""
    tensors = load_file(goldens.MODEL)
    for name, rows in changes.items():
        name = f"model.dit.model.{name}"
        tensors[name] = tensors[name][:rows]
        if rows is None:
            del tensors[name]
    save_file(tensors, tmp_path / "edited.safetensors")
    return tmp_path / "edited.safetensors"


def test_export_gives_back_every_byte(tmp_path, run):
    notes = export_checkpoint(run, tmp_path / "back", "blip3o")
    theirs = {name: tensor for name, tensor in load_file(goldens.MODEL).items() if name.startswith(OWN)}
    ours = load_file(tmp_path / "back" / "model.safetensors")
    assert notes == () and ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    assert "text-to-image" in (tmp_path / "back" / "README.md").read_text()
    with pytest.raises(ValueError, match="choose --to blip3o"):
        export_checkpoint(run, tmp_path / "other", "xgenmm")


def test_sizes_are_those_of_the_file():
    with open_source(goldens.MODEL, HEADS) as source:
        assert source.family == "BLIP3-o"
        parts = source.config
    expected = goldens.numbers()["dit"]
    dit = parts.dit
    assert (dit.channels, dit.width, dit.layers, dit.heads, dit.kv_heads, dit.patch, dit.context_width) == tuple(
        expected[name]
        for name in ("in_channels", "dim", "n_layers", "n_heads", "n_kv_heads", "patch_size", "latent_embedding_size")
    )
    assert (dit.hidden, parts.queries, parts.tower.grid, parts.tower.hidden) == (128, 64, 32, 205)
    assert describe(parts).splitlines() == [
        "  dit: width 48, hidden 128, layers 2, heads 3, kv_heads 3",
        "  tower: image_size_px 64, patch_px 2, width 24, hidden 205, layers 2, heads 3",
    ]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_released_file_is_told_by_its_shapes(prefix):
    """Beside a language model whose names are Llama's; and the tower may be in another file."""
    stored = goldens.full_size("dit of 8B (Qwen2.5-VL-7B, 3584)", 24)
    shapes = {**stored, "model.latent_queries": (1, 64, 3584), "model.layers.0.self_attn.q_proj.weight": (3584, 3584)}
    shapes = {prefix + name: shape for name, shape in shapes.items()}
    detected = detect_format(shapes, {"model_type": "blip3o_qwen"})
    assert detected.config == Blip3oParts(replace(sizes.BLIP3O_8B, remat="none"), 64)
    assert detected.ignored(f"{prefix}model.layers.0.self_attn.q_proj.weight")
    assert not detected.ignored(f"{prefix}model.dit.model.layers.24.gate")
    tower = {prefix + name: shape for name, shape in goldens.full_size("EVA tower", 64).items()}
    assert detect_format(shapes | tower, {}).config.tower == replace(sizes.EVA_E, remat="none")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers.0.gate": 2}, "layers.1.gate has .3. for .2."),
        ({"layers.0.attn1.to_k.weight": 40}, "width 48 with 3 gates a layer has 40 rows of to_k"),
        ({"layers.0.feed_forward.linear_1.weight": 100}, "a feed-forward of 100; wanted .* at least 128"),
        ({"patch_embedder.proj.weight": 47}, r"patch_embedder.proj.weight has \[47, 24\] for \[48, 24\]"),
        ({"layers.1.norm2.weight": None}, "model.dit.model.layers.1.norm2.weight is missing"),
    ],
)
def test_another_width_is_one_sentence(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said) as error:
        open_source(edited(tmp_path, **changes), HEADS)
    assert "\n" not in str(error.value)


def test_what_the_file_does_not_tell_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="24 is no released width.*--vision-heads"):
        open_source(goldens.MODEL)
    with pytest.raises(ValueError, match="stands behind 'model.', BLIP3-o's behind 'model.dit.model.'"):
        open_source(goldens.EXTRA)


def test_a_run_that_draws_is_exported_by_its_own_leaves():
    """What it has more is named: the opening, the statistics, the pixels."""
    nano = sizes.nano()
    dit = DiTConfig(channels=96, width=128, layers=4, heads=4, kv_heads=4, context_width=128)
    drawing = blip3o.DrawingConfig(head=dit, target=blip3o.TowerTarget(4), queries=16)
    config = blip3o.Blip3oConfig(nano.vision, nano.connector, nano.decoder, drawing=drawing)
    tree = unboxed(jax.eval_shape(lambda key: blip3o.initialize(config, key), jax.random.key(0)))
    leaves = {name: leaf.shape for name, leaf in goldens.flat(tree["drawing"], "drawing").items()}
    plan = exporting.plan(config, "blip3o")
    assert leaves.keys() - {rule.ours for rule in plan.rules} == {"drawing/opening"}
    shapes = their_shapes(plan.rules, leaves)
    assert shapes["model.latent_queries"] == (1, 16, 128) and shapes["model.dit.model.layers.3.gate"] == (4,)
    assert len(plan.notes) == 2
    # The tower whose features are drawn was left out, unsaid.
    tower = goldens.eva()[0]
    head = replace(dit, channels=tower.width)
    of_eva = replace(config, drawing=replace(drawing, head=head, target=blip3o.EVATarget(tower, 4)))
    assert any(rule.ours.startswith("target/eva/") for rule in exporting.plan(of_eva, "blip3o").rules)
    linear = replace(config, drawing=replace(drawing, head=blip3o.LinearHead()))
    for other in (linear, nano):
        with pytest.raises(ValueError, match="no diffusion transformer"):
            exporting.plan(other, "blip3o")
