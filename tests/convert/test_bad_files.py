"""Files that cannot be used: one sentence that names what is wrong, and nothing written."""

import json

from checkpoints_made import TINY28, tiny28, tiny28_settings, write
import numpy as np
import pytest
from safetensors.numpy import save_file

from xgenmm_jax.api.conversion import export_checkpoint, import_run
from xgenmm_jax.cli.main import main
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.tensor_files import open_tensors

NORM = "vlm.vision_tokenizer.norm.weight"
DOWN = "vlm.lang_model.model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def shards(tmp_path):
    """The golden in three shards with an index."""
    with open_source(TINY28) as source:
        import_run(source, tmp_path / "run")
    export_checkpoint(tmp_path / "run", tmp_path / "shards", "xgenmm", shard_bytes=2_000_000)
    return tmp_path / "shards"


def test_everything_missing_spare_and_misshapen_is_listed_at_once(tmp_path):
    tensors = tiny28()
    del tensors[DOWN]
    tensors[NORM] = np.zeros(33, np.float32)
    tensors["vlm.lang_model.lm_head.scale"] = np.zeros(3, np.float32)
    for layer in range(6):
        tensors[f"vlm.vision_tokenizer.layers.{layer}.0.to_q.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError) as error:
        open_source(write(tmp_path / "bad", tensors, tiny28_settings()))
    text = str(error.value)
    assert f"{DOWN} is missing" in text and f"{NORM} has [33] for [32]" in text
    assert "vlm.lang_model.lm_head.scale is spare" in text
    first = "vlm.vision_tokenizer.layers.0.0.to_q.bias"
    assert f"{first} ... vlm.vision_tokenizer.layers.5.0.to_q.bias (6 layers) is spare" in text


def test_missing_embedding_is_named_though_sizes_are_read_from_it(tmp_path):
    tensors = tiny28()
    del tensors["vlm.lang_model.model.embed_tokens.weight"], tensors["vlm.vision_tokenizer.latents"]
    with pytest.raises(ValueError, match="latents is missing.*embed_tokens.weight is missing"):
        open_source(write(tmp_path / "bad", tensors, tiny28_settings()))


def test_wrong_dtype(tmp_path):
    tensors = tiny28()
    tensors[NORM] = tensors[NORM].astype(np.int64)
    with pytest.raises(ValueError, match=f"{NORM} has dtype I64 for F32, BF16 or F16"):
        open_source(write(tmp_path / "bad", tensors, tiny28_settings()))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"vision_encoder_config": "so400m"}, "'so400m' as vision_encoder_config"),
        ({"vision_encoder_config": {"siglip_vision_config": [1]}}, r"\[1\] as siglip_vision_config"),
        ({"text_config": None}, "None as text_config"),
    ],
)
def test_parts_of_the_settings_that_are_no_objects_are_told(tmp_path, settings, told):
    """They ended as an AttributeError."""
    with pytest.raises(ValueError, match=f"config.json' has {told}, wanted an object"):
        open_source(write(tmp_path / "bad", tiny28(), json.dumps({**json.loads(tiny28_settings()), **settings})))


def test_truncated_file(tmp_path):
    folder = write(tmp_path / "bad", tiny28(), tiny28_settings())
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    with pytest.raises(ValueError, match="model.safetensors' is cut short.*tensor vlm"):
        open_source(folder)
    file.write_bytes(data[:20])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        open_source(folder)
    file.write_bytes(b"\x10" + bytes(7) + b"no json at all, x" + bytes(100))
    with pytest.raises(ValueError, match="no safetensors header"):
        open_source(folder)


def test_truncated_shard_missing_shard_and_stale_index(shards):
    second = shards / "model-00002-of-00003.safetensors"
    data = second.read_bytes()
    second.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="model-00002-of-00003.safetensors' is cut short"):
        open_source(shards)
    second.unlink()
    with pytest.raises(ValueError, match="shard '.*model-00002-of-00003.safetensors' is missing"):
        open_source(shards)
    second.write_bytes(data)
    index = shards / "model.safetensors.index.json"
    text = json.loads(index.read_text())
    where = text["weight_map"].pop(DOWN)
    index.write_text(json.dumps(text))
    with pytest.raises(ValueError, match=f"{where}' holds beside the index's tensors: {DOWN}"):
        open_source(shards)
    text["weight_map"] |= {DOWN: where, "vlm.more": where}
    index.write_text(json.dumps(text))
    with pytest.raises(ValueError, match=f"{where}' lacks the index's tensors: vlm.more"):
        open_source(shards)
    index.unlink()
    with pytest.raises(ValueError, match="holds 3 files .* and no index"):
        open_source(shards)
    index.write_text("{}")
    with pytest.raises(ValueError, match="is no index of shards"):
        open_source(shards)


@pytest.mark.parametrize("name", ["checkpoint_0.pt", "pytorch_model.bin", "x.ckpt", "x.pth"])
def test_pickles_are_refused_with_the_way_out(tmp_path, name):
    """They are not even opened: this one is no pickle."""
    (tmp_path / name).write_bytes(b"never read")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(ValueError, match="is a pickle.*turn it into safetensors: python -c"):
            open_tensors(path)


def test_object_arrays_in_npz_are_refused(tmp_path):
    """numpy would unpickle them."""
    np.savez(tmp_path / "bad.npz", **{"params/img/embedding/kernel": np.array([{}], object)})
    with pytest.raises(ValueError, match="has dtype object|cannot be read|no known family|does not fit"):
        open_source(tmp_path / "bad.npz")
    tensors = open_tensors(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        tensors.read("params/img/embedding/kernel")
    tensors.close()


def test_truncated_npz(tmp_path):
    source = TINY28.parent / "big_vision_scanned/siglip.npz"
    (tmp_path / "cut.npz").write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cut.npz' is no whole .npz file"):
        open_source(tmp_path / "cut.npz")


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(ValueError, match="holds no .safetensors and no .npz"):
        open_tensors(tmp_path)
    with pytest.raises(ValueError, match="no file or folder"):
        open_tensors(tmp_path / "nothing")
    (tmp_path / "model.gguf").write_bytes(b"x")
    with pytest.raises(ValueError, match="neither .safetensors nor .npz"):
        open_tensors(tmp_path / "model.gguf")


def test_failure_while_writing_leaves_nothing(tmp_path):
    """A file that shrinks after its header was read."""
    folder = write(tmp_path / "source", tiny28(), tiny28_settings())
    with open_source(folder) as source:
        with open(folder / "model.safetensors", "r+b") as file:
            file.truncate(100_000)
        with pytest.raises(ValueError, match="ended within tensor"):
            import_run(source, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_existing_destination_is_refused(tmp_path):
    (tmp_path / "there").mkdir()
    with open_source(TINY28) as source:
        with pytest.raises(ValueError, match="there' exists; give a new folder"):
            import_run(source, tmp_path / "there")
        (tmp_path / "new.partial").mkdir()
        with pytest.raises(ValueError, match="new.partial' is left of a conversion"):
            import_run(source, tmp_path / "new")


def truncated(folder):
    file = folder / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def without_index_entry(folder):
    file = folder / "model.safetensors.index.json"
    text = json.loads(file.read_text())
    del text["weight_map"][DOWN]
    file.write_text(json.dumps(text))


def of_integers(folder):
    """The same number of bytes under another dtype."""
    file = folder / "model-00001-of-00003.safetensors"
    file.write_bytes(file.read_bytes().replace(b'weight":{"dtype":"F32"', b'weight":{"dtype":"I32"', 1))


def of_another_family(folder):
    for file in folder.iterdir():
        file.unlink()
    save_file({"llama.weight": np.zeros(3, np.float32)}, folder / "other.safetensors")


def pickled(folder):
    for file in folder.iterdir():
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never read")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (truncated, "model-00002-of-00003.safetensors"),
        (without_index_entry, DOWN),
        (of_integers, "vlm.vision_encoder.embeddings.patch_embedding.weight has dtype I32 for F32, BF16 or F16"),
        (of_another_family, "llama.weight"),
        (pickled, "pytorch_model.bin"),
    ],
)
def test_command_tells_it_in_one_line_and_writes_nothing(shards, tmp_path, capsys, spoil, named):
    spoil(shards)
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    assert main(["convert", str(shards), str(tmp_path / "new")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(shards) in error and named in error
    assert sorted(tmp_path.iterdir()) == before
