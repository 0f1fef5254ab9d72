"""A Llama-shaped decoder with a tokenizer.json: converted, trained from, stopped, resumed, asked, written back."""

from dataclasses import replace
import json
from pathlib import Path
import re
import signal

import jax
import numpy as np
from other_tokenizers import make_llama3
import pytest
from safetensors.numpy import load_file, save_file
import tiny_run

import xgenmm_jax
from xgenmm_jax.api.conversion import export_checkpoint
from xgenmm_jax.cli import main as cli
from xgenmm_jax.convert.formats import llama_hf
from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.convert.trees import shapes
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.text.chat import LLAMA3_STYLE, check_style
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.rotary import LongContext
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.ops.masks import WindowConvention
from xgenmm_jax.training.config import Initialize, load_config
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.objectives import packed_rows
from xgenmm_jax.training.sharding import MeshConfig

ONE = jax.devices()[:1]
DECODER = Phi3Config(
    vocab_size=346, num_text_tokens=346, num_extra_tokens=4, width=32, hidden=64, layers=2, heads=4, kv_heads=2,
    head_dim=16, rope_theta=500000.0, window=WindowConvention.NONE, init_std=0.1, tied_head=True,
    long_context=LongContext(trained_length=64),
)  # fmt: skip


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A folder as Hugging Face has it: tensors, config.json, tokenizer.json, tokenizer_config.json."""
    folder = make_llama3(tmp_path_factory.mktemp("released"))
    rules, leaves = llama_hf.decoder_rules(DECODER, ""), shapes(DECODER)
    random = np.random.default_rng(0)
    tensors = {
        name: (0.1 * random.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in their_shapes(rules, {rule.ours: leaves[rule.ours] for rule in rules}).items()
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(llama_hf.model_config(DECODER)))
    return folder


@pytest.fixture(scope="module")
def part(released, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "llama"
    assert cli.main(["convert", str(released), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def config(part):
    """Chat and captions on the imported part: ten lines of a config, as docs/usage.md shows them."""
    base = tiny_run.config(tiny_run.tokenizer(part.parent))
    model = replace(base.model, decoder=load_config(part).model)
    mixture = ((Synthetic("caption", 400), 1.0), (Synthetic("questions", 400), 1.0))
    data = replace(base.data, tokenizer=str(part / "tokenizer.json"), chat=LLAMA3_STYLE, mixture=mixture)
    return replace(base, model=model, data=data, initialize=Initialize(decoder=str(part)), mesh=MeshConfig(), steps=4)


@pytest.fixture(scope="module")
def run(config, part):
    """Its folder, and the result."""
    folder = part.parent / "run"
    return folder, train(config, folder, devices=ONE)


def test_the_part_holds_sizes_and_tokenizer_of_the_folder(part, released):
    model = load_config(part).model
    assert model == replace(DECODER, remat=model.remat)
    assert Tokenizer.load(part).fingerprint == Tokenizer.load(released).fingerprint
    assert {"tokenizer.json", "tokenizer_config.json"} <= {file.name for file in part.iterdir()}


def test_training_begins_with_its_weights_and_learns(run, part):
    folder = run[0]
    losses = [row["loss"] for row in read_metrics(folder)]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert (folder / "tokenizer.json").read_bytes() == (part / "tokenizer.json").read_bytes()


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_unbroken_one(run, config, tmp_path, monkeypatch):
    batches = loader.batches

    def interrupted(*arguments):
        for number, batch in enumerate(batches(*arguments), start=1):
            if number == 2:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(packed_rows.loader, "batches", interrupted)
    assert train(config, tmp_path / "run", devices=ONE).step == 2
    monkeypatch.setattr(packed_rows.loader, "batches", batches)
    resumed = train(load_config(tmp_path / "run"), tmp_path / "run", devices=ONE)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, run[1].params)


def test_another_tokenizer_is_refused_where_a_run_goes_on(run, config, tmp_path):
    other = make_llama3(tmp_path / "other", pieces=339)
    with pytest.raises(ValueError, match="was started with another tokenizer"):
        train(replace(config, data=replace(config.data, tokenizer=str(other))), run[0], devices=ONE)


def test_it_answers(run):
    lmm = xgenmm_jax.load(run[0])
    image = np.full((40, 30, 3), 200, np.uint8)
    answers = lmm.generate(["<image>\nHow many?"], [[image]], max_new_tokens=4, chat_template=True)
    assert len(answers) == 1 and isinstance(answers[0], str)
    prompt = lmm.processor.prompt("How many?", [image])
    assert lmm.tokenizer.decode(prompt.token_ids[:2]) == "<|begin_of_text|><|start_header_id|>"


def test_its_language_model_is_written_as_llamas(run, tmp_path, released):
    assert cli.main(["convert", str(run[0]), str(tmp_path / "out"), "--to", "llama"]) == 0
    names = {name for file in (tmp_path / "out").glob("*.safetensors") for name in load_file(file)}
    assert names == {name for file in released.glob("*.safetensors") for name in load_file(file)}
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (released / "tokenizer.json").read_bytes()
    with pytest.raises(ValueError, match="has Llama's form"):
        export_checkpoint(run[0], tmp_path / "no", "xgenmm")


def test_the_config_of_the_usage_page_takes_the_part(part, tmp_path, monkeypatch):
    """Its ten lines, with the part where they expect it: tokenizer, sizes and parameters fit each other."""
    usage = (Path(__file__).parents[2] / "docs/usage.md").read_text()
    (code,) = re.findall(r"## Another language model.*?```python\n(.*?)```", usage, re.DOTALL)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/llama32_1b").symlink_to(part)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(code, namespace)
    made = namespace["config"]()
    assert len(Tokenizer.load(made.data.tokenizer)) == made.model.decoder.logits
    check_style(made.data.chat, Tokenizer.load(made.data.tokenizer))
    tree = jax.eval_shape(lambda key: made.objective.init(made.model, key), jax.random.key(0))
    assert made.initialize.decoder == "weights/llama32_1b" and "head_kernel" not in tree["decoder"]


def test_the_part_is_written_back_byte_for_byte(part, released, tmp_path):
    assert cli.main(["convert", str(part), str(tmp_path / "out"), "--to", "llama"]) == 0
    ours, theirs = (
        {name: array.tobytes() for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}
        for folder in (tmp_path / "out", released)
    )
    assert ours == theirs
