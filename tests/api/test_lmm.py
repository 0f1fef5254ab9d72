"""The public interface: runs and released folders alike, buckets, errors, streams."""

import dataclasses
import functools
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest
from random_parameters import random_parameters
import tiny28

import xgenmm_jax
from xgenmm_jax.api.conversion import import_run
from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text import prompts
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer
from xgenmm_jax.models import blip3, probes
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.runs import run_folder
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress
from xgenmm_jax.training.sharding import MeshConfig, make_mesh
from xgenmm_jax.training.step import TrainState

IMAGE = tiny28.IMAGE_ID


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def released(mesh):
    return xgenmm_jax.load(tiny28.FOLDER, mesh=mesh)


@pytest.fixture(scope="module")
def run(tmp_path_factory, mesh):
    """A run folder of random parameters with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("runs")
    words = train_tokenizer(["What color is the star?"] * 3, folder / "words.model", 400)
    model = VLMConfig(
        vision=ViTConfig(image_size_px=16, patch_px=8, width=16, hidden=32, layers=1, heads=2),
        connector=ResamplerConfig(width=16, layers=1, heads=2, head_width=8, hidden=32, queries=2, out_width=32),
        decoder=Phi3Config(
            vocab_size=words.vocab_size, num_text_tokens=words.num_text_tokens, width=32, hidden=32, layers=1, heads=2,
            kv_heads=1, init_std=0.3,
        ),
    )  # fmt: skip
    data = DataConfig(
        mixture=((Synthetic("questions"), 1.0),),
        tokenizer=str(folder / "words.model"),
        row=RowConfig(length=192, crops=5, images=4, vision_tokens=2),
        anyres=AnyRes(view_px=16, view_cells=2),
        batch_rows=8,
    )
    params = unboxed(jax.jit(blip3.initialize, static_argnums=0)(model, jax.random.key(0)))
    run_folder.prepare(TrainConfig("toy", model, data, NextToken(), steps=1), folder / "toy")
    with Checkpoints(folder / "toy", keep=1) as checkpoints:
        zero = jax.numpy.zeros(())
        checkpoints.save(TrainState(jax.numpy.int32(1), params, {"count": zero}, jax.numpy.ones((), bool)), Progress())
    return xgenmm_jax.load(folder / "toy", mesh=mesh)


def noise(width: int, height: int) -> PIL.Image.Image:
    """The same for the same size."""
    return PIL.Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, xgenmm_jax; dir(xgenmm_jax); assert not {'jax', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="has no attribute 'lode'; public are LMM, Crops"):
        xgenmm_jax.lode  # noqa: B018 - the access is the test


def test_an_imported_run_and_the_released_folder_are_the_same_model(released, tmp_path, mesh):
    with open_source(tiny28.FOLDER) as source:
        import_run(source, tmp_path / "run")
    words = train_tokenizer(["a b"] * 3, tmp_path / "run/tokenizer.model", 400)
    assert isinstance(words, Tokenizer)
    run_lmm = xgenmm_jax.load(tmp_path / "run", mesh=mesh)
    assert run_lmm.config == released.config and run_lmm.processor.anyres == released.processor.anyres
    jax.tree.map(np.testing.assert_array_equal, run_lmm.params, released.params)


def test_rows_over_a_mesh_give_what_one_device_gives(released):
    """Three rows on four row shards: filled up, and the filling cut off."""
    mesh = make_mesh(MeshConfig(fsdp=4), jax.devices()[:4])
    spread = xgenmm_jax.load(tiny28.FOLDER, mesh=mesh)
    token_ids, images = [[5, IMAGE, 6], [7, 8], [IMAGE, 9, IMAGE]], [[noise(40, 30)], [], [noise(9, 60), noise(28, 28)]]
    probe = ("vision/layers", "resampler/layers", "decoder/layers", "decoder/attention")
    one, many = (lmm.forward(token_ids, images, probe=probe) for lmm in (released, spread))
    assert one.logits.shape == many.logits.shape == (3, 1 + 7 * 8, 303)
    np.testing.assert_array_equal(one.attend_mask.sum(1), [2 + 5 * 8, 2, 1 + 7 * 8])
    for name, array in one.probed.items():
        np.testing.assert_allclose(many.probed[name], array, rtol=0, atol=1e-4, err_msg=name)


def test_an_image_is_its_crops(run):
    """What the processor cuts and normalises is what the device does with bytes."""
    image, ids = noise(30, 20), [[3, run.tokenizer.image_id, 4]]
    from_bytes = run.forward(ids, [[image]])
    crops = run.processor.crops(image)
    assert crops.pixels.dtype == np.float32 and crops.size_px == (30, 20) and len(crops.pixels) == 5
    from_crops = run.forward(ids, [[crops]])
    np.testing.assert_allclose(from_bytes.logits, from_crops.logits, rtol=0, atol=1e-5)


def test_images_are_seen_as_a_person_sees_them_unless_the_official_reading_is_asked_for(run, tmp_path):
    """A phone's photo lay on its side, a logo's transparent ground was black."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    noise(30, 20).save(tmp_path / "phone.png", exif=exif)
    PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "logo.png")
    official = xgenmm_jax.load(run.folder, mesh=run.mesh, official_images=True)
    with PIL.Image.open(tmp_path / "phone.png") as phone, PIL.Image.open(tmp_path / "logo.png") as logo:
        for photo, ground in ((phone, logo), (tmp_path / "phone.png", str(tmp_path / "logo.png"))):
            assert run.processor.image(photo).size_px == run.processor.crops(photo).size_px == (20, 30)
            assert official.processor.image(photo).size_px == official.processor.crops(photo).size_px == (30, 20)
            assert run.processor.crops(ground).pixels[0].min() == 1
            assert official.processor.crops(ground).pixels[0].max() == -1


def test_padding_changes_nothing(released):
    alone = released.forward([[5, IMAGE, 6, 7]], [[noise(28, 28)]])
    padded = released.forward([[5, IMAGE, 6, 7, 299, 299], [1] * 30], [[noise(28, 28)], []])
    length = alone.logits.shape[1]
    assert alone.logits.shape[0] == 1 and not padded.attend_mask[0, length:].any()
    np.testing.assert_allclose(padded.logits[0, :length], alone.logits[0], rtol=0, atol=2e-5)


def test_calls_of_like_size_share_a_compilation(released):
    released.forward([[1] * 20], None)
    before = probes.forward._cache_size()
    for length in (17, 25, 31):
        released.forward([[2] * length], None)
    assert probes.forward._cache_size() == before


def test_default_targets_are_the_text(released):
    ids = [5, IMAGE, 6, 7, 299]
    expected = released.forward([ids], [[noise(28, 28)]], labels=[[-100, -100, 6, 7, -100]]).loss
    assert released.forward([ids], [[noise(28, 28)]]).loss == expected > 0


def test_errors_of_forward(released):
    with pytest.raises(ValueError, match="row 0 has 2 <image> ids and 1 images"):
        released.forward([[IMAGE, IMAGE]], [[noise(28, 28)]])
    with pytest.raises(ValueError, match="no intermediate 'decoder/layer'; did you mean decoder/layers. Known are"):
        released.forward([[1, 2]], probe=("decoder/layer",))
    with pytest.raises(ValueError, match="labels of row 0 are not its tokens"):
        released.forward([[1, 2]], labels=[[1, 3]])
    with pytest.raises(ValueError, match="1 rows of ids, 2 lists of images"):
        released.forward([[1, 2]], [[], []])
    with pytest.raises(ValueError, match=r"got crops of \(30, 30, 3\), the tower takes \(28, 28, 3\)"):
        released.forward([[IMAGE]], [[xgenmm_jax.Crops(np.zeros((1, 30, 30, 3), np.float32), (30, 30))]])


def test_every_known_intermediate_can_be_probed(released):
    names = released.probe_names
    assert {"vision/layers", "resampler/attention", "decoder/layers", "vision/attention", "embeddings"} <= set(names)
    out = released.forward([[5, IMAGE, 6]], [[noise(56, 28)]], probe=names)
    assert out.probed.keys() == set(names)
    assert out.probed["vision/layers"].shape == (2, 3, 4, 32)
    assert out.probed["vision/attention"].shape == (2, 3, 2, 4, 4)
    assert out.probed["resampler/layers"].shape == (6, 3, 8, 32)
    assert out.probed["decoder/attention"].shape == (2, 1, 4, 26, 26)
    np.testing.assert_allclose(out.probed["decoder/attention"].sum(-1), 1, rtol=0, atol=1e-5)
    assert all(len(out.probed[name]) == 2 for name in names if name.startswith("decoder/layers/"))


def test_every_known_intermediate_of_a_q_former_can_be_probed(run):
    """Its attention was that of the queries to each other, and crops and features were cut as if they were text."""
    connector = QFormerConfig(width=16, inner=16, hidden=32, layers=3, heads=2, queries=3, out_width=32)
    model = dataclasses.replace(run.config, connector=connector)
    params = random_parameters(functools.partial(blip3.initialize, model))
    lmm = LMM(run.folder, dataclasses.replace(run.run, model=model), params, run.processor, run.mesh)
    names = [name for name in lmm.probe_names if name.startswith("qformer")]
    out = lmm.forward([[run.tokenizer.image_id, 3]], [[noise(30, 20)]], probe=names)
    crops, patches = 5, 4
    assert len(out.vision_tokens) == crops and out.probed["qformer/norm"].shape == (3, 16)
    attention = out.probed["qformer/attention"]
    assert attention.shape == (1, crops, 2, 3, patches)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=0, atol=1e-5)
    assert out.probed["qformer/layers"].shape == out.probed["qformer/layers/layer0/cross"].shape == (1, crops, 3, 16)
    assert out.probed["qformer/last_layers"].shape == (1, crops, 3, 16)
    assert out.probed["qformer/feature_norm"].shape == (crops, patches, 16)


def test_generate_streams_what_it_gives(run):
    asked = {"images": [[noise(30, 20)]], "max_new_tokens": 9}
    (answer,) = run.generate(["What color is the star?"], **asked)
    assert "".join(run.generate(["What color is the star?"], stream=True, **asked)) == answer
    assert run.is_tuned()
    plain = run.generate(["What color is the star?"], chat_template=False, **asked)
    ids = run.processor.prompt("What color is the star?", asked["images"][0], chat_template=False).token_ids
    assert run.generate([ids], **asked) == plain
    assert run.tokenizer.decode(run.generate_ids([ids], **asked)[0], keep_special=False).strip() == plain[0]


def test_a_base_model_is_asked_as_the_suite_asks_it(run):
    """It was asked in a template that it has never seen, by the command, and in bare text here."""
    base = dataclasses.replace(run.run, prompt="few_shot")
    model = xgenmm_jax.LMM(run.folder, base, run.params, run.processor, run.mesh)
    image = model.processor.image(noise(30, 20))
    assert not model.is_tuned()
    assert model.prompt("is it red?", [image]) == prompts.few_shot_prompt((), image, "is it red?", model.tokenizer)
    words = {count: model.tokenizer.decode(model.prompt("who?", [image] * count).token_ids) for count in (0, 2)}
    assert words == {0: "Question:who? Short answer:", 2: "<image><image>Question:who? Short answer:"}
    for text, template in (("a star", False), ("a star", True), ("<image>a star", None)):
        asked = model.prompt(text, [image], template)
        assert asked == model.processor.prompt(text, [image], bool(template))
    asked = {"images": [[image]], "max_new_tokens": 5}
    assert model.generate(["who?"], **asked) == model.generate([model.prompt("who?", [image])], max_new_tokens=5)
    assert model.generate(["who?"], **asked) != model.generate(["who?"], chat_template=True, **asked)
    assert model.prompt("who?", chat_template=True) == run.prompt("who?")


@pytest.mark.parametrize(("size", "crops"), [((16, 64), 4), ((64, 64), 5), ((70, 20), 4)])
def test_forward_refuses_crops_that_fixed_sampling_would_lose(run, size, crops):
    config = dataclasses.replace(
        run.run, model=dataclasses.replace(run.config, token_sampling=TokenSampling.FIXED_SAMPLING, max_image_crops=2)
    )
    processor = dataclasses.replace(
        run.processor, anyres=AnyRes(grids=((1, 3), (3, 1), (2, 2)), view_px=16, view_cells=2)
    )
    model = xgenmm_jax.LMM(run.folder, config, run.params, processor, run.mesh)
    image_id = run.tokenizer.image_id
    with pytest.raises(ValueError, match=rf"got 2, and an image of {size[0]} x {size[1]} px takes {crops} crops"):
        model.batch([[1, image_id]], [[PIL.Image.new("RGB", size)]])


def test_errors_of_generate(run, released):
    with pytest.raises(ValueError, match="a stream has one prompt"):
        run.generate(["a", "b"], stream=True)
    with pytest.raises(ValueError, match="give a list of prompts"):
        run.generate("a")
    with pytest.raises(ValueError, match="2 prompts and 1 lists of images"):
        run.generate(["a", "b"], [[]])
    with pytest.raises(ValueError, match=r"has no tokenizer.model, so .* has no ids; put it beside the weights"):
        released.generate(["a"])


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        xgenmm_jax.load(tmp_path)
    with pytest.raises(ValueError, match="has 32012 ids, the embedding 300"):
        xgenmm_jax.load(tiny28.FOLDER, tokenizer=tiny28.FOLDER.parent / "phi3_tokenizer/tokenizer.model")
