"""Prompts, ids, limits and seeds of the public interface: any kind that means something, one sentence for the rest."""

import json
import os
from pathlib import Path
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import tiny28

import xgenmm_jax
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.generation.text import decode
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.training.sharding import MeshConfig, make_mesh

IMAGE, PAD, LAST = tiny28.IMAGE_ID, 299, 302
PIXELS = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def lmm(mesh):
    """The released folder, without a tokenizer: ids in, ids out."""
    return xgenmm_jax.load(tiny28.FOLDER, mesh=mesh)


@pytest.fixture
def nothing_runs(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("something ran")

    for name in ("generate_rows", "begin_rows"):
        monkeypatch.setattr(decode, name, fail)
    monkeypatch.setattr("xgenmm_jax.models.probes.forward", fail)
    monkeypatch.setattr("xgenmm_jax.generation.text.beam.beam_rows", fail)


def test_ids_and_numbers_of_every_kind_are_taken(lmm, unchecked_signatures):
    asked = {"max_new_tokens": 3}
    expected = lmm.generate_ids([[5, 6, 7]], **asked)
    for prompts in (
        np.array([[5, 6, 7]]), [np.array([5, 6, 7], np.uint16)], jnp.array([[5, 6, 7]]), ((5, 6, 7),),
        [[np.int64(5), 6, 7]], [Prompt((5, 6, 7), ())], iter([[5, 6, 7]]),
    ):  # fmt: skip
        assert lmm.generate_ids(prompts, None, Decoding(num_beams=np.int8(1)), max_new_tokens=np.int32(3)) == expected
    assert lmm.generate_ids([], **asked) == lmm.generate_ids([], [], **asked) == lmm.generate([]) == []


def test_images_of_a_single_prompt_may_lie_flat(lmm, tmp_path):
    PIL.Image.fromarray(PIXELS).save(tmp_path / "a.png")
    expected = lmm.generate_ids([[5, IMAGE, 6]], [[PIL.Image.fromarray(PIXELS)]], max_new_tokens=2)
    name = str(tmp_path / "a.png")
    for images in (name, [name], [[name]], [PIXELS], PIXELS, [[PIXELS]], [(tmp_path / "a.png").read_bytes()]):
        assert lmm.generate_ids([[5, IMAGE, 6]], images, max_new_tokens=2) == expected
        flat, nested = (lmm.batch([[5, IMAGE, 6]], given) for given in (images, [[PIXELS]]))
        np.testing.assert_array_equal(flat.pixels, nested.pixels)
    several = lmm.generate_ids([[5, IMAGE, 6], [7]], [[name], None], max_new_tokens=2)
    assert several[:1] == expected
    with pytest.raises(ValueError, match="in place of a list of images; give each prompt its own list"):
        lmm.generate_ids([[5, IMAGE], [IMAGE]], [name, name])
    with pytest.raises(ValueError, match="prompt 0 has its images already; give none beside it"):
        lmm.generate_ids([Prompt((IMAGE,), ())], [[name]])


@pytest.mark.parametrize(
    "prompts, sentence",
    [
        ([[LAST + 1]], f"prompt 0 has the id 303 at 0; the model's ids are 0 to {LAST}"),
        ([[5], [6, -1]], "prompt 1 has the id -1 at 1"),
        ([[2**31 + 5]], "prompt 0 has the id 2147483653 at 0"),
        ([Prompt((5, 10**6), ())], "prompt 0 has the id 1000000 at 1"),
        ([[]], "prompt 0 is empty"),
        ([Prompt((), ())], "prompt 0 is empty"),
        ([[PAD, PAD]], "prompt 0 is nothing but pads"),
        ([[5.0]], "prompt 0 holds 5.0"),
        ([None], "prompt 0 is None"),
        ([[5, None]], "prompt 0 holds None"),
        ([b"hi"], "prompt 0 is b'hi'"),
        ([["hi"]], "prompt 0 holds 'hi'"),
        ([{"role": "user"}], "prompt 0 is a dict"),
        ([[[5, 6]]], "prompt 0 is a list that begins with a list"),
        ([5, 6], r"got one row of numbers, beginning with 5; give a list of prompts, here \[\[...\]\]"),
        (np.array([5, 6]), "got one row of numbers, beginning with 5"),
        (5, "got 5; give a list of prompts"),
        (None, "got None; give a list of prompts"),
        (b"hi", "got b'hi'; give a list of prompts"),
        ({"a": 1}, "got a dict; give a list of prompts"),
        (Prompt((5,), ()), "got a Prompt; give a list of prompts"),
    ],
)
def test_prompts_that_are_none_are_refused_before_anything_runs(lmm, nothing_runs, prompts, sentence):
    """Ids above the vocabulary were read as its last one, an empty prompt was answered, a float was cut."""
    for decoding in (Decoding(2), Decoding(2, num_beams=2), Decoding(2, temperature=1.0)):
        with pytest.raises(ValueError, match=sentence):
            lmm.generate_ids(prompts, decoding=decoding)
    if isinstance(prompts, list) and len(prompts) == 1:
        with pytest.raises(ValueError, match=sentence):
            lmm.generate(prompts, max_new_tokens=2, stream=True)


@pytest.mark.parametrize("value", [0, -5])
def test_no_tokens_are_refused_everywhere(lmm, nothing_runs, value):
    for ask in (
        lambda: lmm.generate_ids([[5]], max_new_tokens=value),
        lambda: lmm.generate_ids([[5]], decoding=Decoding(num_beams=2), max_new_tokens=value),
        lambda: lmm.generate_ids([], max_new_tokens=value),
        lambda: lmm.generate([[5]], max_new_tokens=value, stream=True),
        lambda: lmm.generator().stream(Prompt((5,), ()), Decoding(value)),
    ):
        with pytest.raises(ValueError, match=f"got max_new_tokens {value}; give 1 or more"):
            ask()
    with pytest.raises(ValueError, match="got num_beams 400, more than the model's 303 ids"):
        lmm.generate_ids([[5]], decoding=Decoding(1, num_beams=400))
    with pytest.raises(ValueError, match="2000 new tokens exceed the largest bucket"):
        lmm.generate_ids([[5]], max_new_tokens=2000)


def test_stop_ids_of_every_kind(lmm):
    asked = {"max_new_tokens": 6}
    free = lmm.generate_ids([[5, 6]], stop_ids=(), **asked)[0]
    end = free[2]
    expected = free[: free.index(end)]
    before = set(lmm._generators)
    for stops in (end, [end], (end,), {end}, np.array([end]), np.int64(end), [end, end]):
        assert lmm.generate_ids([[5, 6]], stop_ids=stops, **asked)[0] == expected
    assert len(free) == 6 and set(lmm._generators) - before == {(end,)}
    for stops in (LAST + 1, -1, "<|end|>", [1.5], [None]):
        with pytest.raises(ValueError, match="generation: stop_ids "):
            lmm.generate_ids([[5, 6]], stop_ids=stops, **asked)


def test_seeds_of_any_size_draw_answers_of_their_own(lmm, unchecked_signatures):
    """2**32 + 5 drew what 5 draws, 2**70 ended in an overflow."""

    def drawn(seed):
        return tuple(lmm.generate_ids([[5, 6]], decoding=Decoding(14, temperature=2.0, seed=seed), stop_ids=())[0])

    seeds = (5, 2**32 + 5, 5 - 2**32, -5, 2**70 + 5, np.int64(6))
    answers = [drawn(seed) for seed in seeds]
    assert len(set(answers)) == len(seeds)
    assert [drawn(seed) for seed in seeds[1:4]] == answers[1:4]


@pytest.mark.parametrize(
    "rows, options, sentence",
    [
        ([[LAST + 1, 5]], {}, "forward: row 0 has the id 303 at 0"),
        ([[5], [-100]], {}, "forward: row 1 has the id -100 at 0"),
        ([[5], []], {}, "forward: row 1 is empty"),
        ([], {}, "forward: got no rows"),
        ([5, 6], {}, "forward: got one row of numbers, beginning with 5"),
        (np.zeros((1, 2, 3), int), {}, r"forward: row 0 is an array of shape \(2, 3\)"),
        ([["a"]], {}, "forward: row 0 holds 'a'"),
        ("text", {}, "forward: got 'text'; give a list of rows of ids"),
        ([[5, 6]], {"labels": [[5]]}, "labels of row 0 are 1 numbers for 2 ids"),
        ([[5, 6]], {"labels": [[[5, 6]]]}, "labels of row 0 are a list that begins with a list"),
        ([[5, 6]], {"labels": [None]}, "labels of row 0 are None for 2 ids"),
        ([[5, 6]], {"labels": [5, 6]}, "got one row of numbers, beginning with 5; give a row of labels for every row"),
        ([[5, 6]], {"labels": -100}, "got -100; give a row of labels"),
        ([[5, 6]], {"labels": [[5, 7]]}, "labels of row 0 are not its tokens"),
        ([[5, 6], [7]], {"labels": [[5, 6]]}, "got 2 rows of ids, 2 lists of images and 1 rows of labels"),
        ([[5, 6]], {"probe": "decoder/layer"}, "no intermediate 'decoder/layer'; did you mean decoder/layers"),
        ([[5, 6]], {"probe": [3]}, "probe: got a list that begins with 3; give names of intermediates"),
        ([[5, 6]], {"probe": 3}, "probe: got 3; give names of intermediates"),
        ([[5, 6]], {"probe": ["embeddings", None]}, "probe: got a list that begins with 'embeddings'; give names"),
    ],
)
def test_rows_that_are_none_are_refused_before_anything_runs(lmm, nothing_runs, rows, options, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        lmm.forward(rows, **options)
    assert "\n" not in str(error.value)


def test_one_intermediate_may_be_named_by_itself(lmm):
    """Its letters were looked for: no intermediate 'd'."""
    assert lmm.forward([[5, 6]], probe="embeddings").probed.keys() == {"embeddings"}
    assert lmm.forward([[5, 6]], probe=None).probed == lmm.forward([[5, 6]], probe=iter(())).probed == {}
    assert lmm.forward([[5, 6]], labels=np.array([[-100, 6]])).loss == lmm.forward([[5, 6]], labels=[[-100, 6]]).loss


@pytest.mark.parametrize(
    "path, options, sentence",
    [
        ("Salesforce/some-model", {}, "no folder 'Salesforce/some-model' here, .* HF_HUB_OFFLINE forbids"),
        (Path("Salesforce/some-model"), {}, "or for a model of the hub give hf://Salesforce/some-model"),
        (Path("https://x/y"), {}, "no file or folder 'https:/x/y'"),
        ("", {}, "load: got the empty path"),
        (None, {}, "load: got a NoneType, wanted a path"),
        (b"run", {}, "load: got a bytes, wanted a path"),
        (tiny28.FOLDER, {"dtype": "fp16"}, "load: got dtype 'fp16'; give one of float32, bfloat16"),
        (tiny28.FOLDER, {"dtype": "int8"}, "load: got dtype 'int8'"),
        (tiny28.FOLDER, {"dtype": np.float64}, "load: got dtype 'float64'"),
        (tiny28.FOLDER, {"mesh": (1, 8)}, "load: got a tuple that begins with 1 for mesh; give one of training"),
        (tiny28.FOLDER, {"mesh": "cpu"}, "load: got 'cpu' for mesh"),
        (tiny28.FOLDER, {"overrides": {"vision_heads": 2}}, "load: got a dict for overrides; give convert.tensor"),
        (tiny28.FOLDER, {"tokenizer": "nowhere.model"}, "tokenizer: no file 'nowhere.model'"),
    ],
)
def test_what_cannot_be_loaded_is_refused(path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        xgenmm_jax.load(path, **options)


def test_a_dtype_may_be_a_type(mesh):
    for dtype in ("bfloat16", jnp.bfloat16, np.dtype(jnp.bfloat16)):
        assert xgenmm_jax.load(tiny28.FOLDER, dtype=dtype, mesh=mesh).config.dtype == "bfloat16"


UNCHECKED = """
import dataclasses, json, sys, xgenmm_jax
lmm = xgenmm_jax.load(sys.argv[1])
names = [field.name for field in dataclasses.fields(xgenmm_jax.Decoding)]
told = []
for settings in json.loads(sys.argv[2]):
    for ask in (lmm.generate_ids, lmm.generate):
        try:
            options = {name: value for name, value in settings.items() if name in names}
            others = {name: value for name, value in settings.items() if name not in names}
            ask([[5, 6]], **{"decoding": xgenmm_jax.Decoding(**{"max_new_tokens": 2, **options}), **others})
            told.append("nothing")
        except ValueError as error:
            told.append(str(error))
print(json.dumps(told))
"""


def test_numbers_of_the_wrong_kind_are_refused_for_users(tmp_path):
    """Without the tests' own check of signatures, as users have it."""
    settings = [
        {"max_new_tokens": "5"}, {"max_new_tokens": 2.5}, {"max_new_tokens": None}, {"num_beams": 2.0}, {"top_k": "a"},
        {"seed": 1.5}, {"seed": None}, {"temperature": "hot"}, {"temperature": None}, {"length_penalty": [1]},
        {"top_p": "0.5"}, {"stop_ids": {"a": 1}}, {"stop_ids": "x"}, {"images": 3},
        {"decoding": 5}, {"decoding": {"top_k": 2}},
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(xgenmm_jax.__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", UNCHECKED, str(tiny28.FOLDER), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout.splitlines()[-1])
    assert len(errors) == 2 * len(settings)
    for number, sentence in enumerate(errors):
        name = next(iter(settings[number // 2]))
        assert "give" in sentence and "\n" not in sentence and (name in sentence or name == "images"), sentence


@pytest.mark.parametrize("sampling", [{"steps": 3}, None])
def test_what_does_not_say_how_to_draw_is_told(lmm, unchecked_signatures, sampling):
    with pytest.raises(ValueError, match=r"draw: got sampling .*; give a Sampling"):
        lmm.draw(["a star"], sampling=sampling)
