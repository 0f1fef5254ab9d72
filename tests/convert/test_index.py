"""Shards and their index: what an index may name, and links as Hugging Face's cache has them."""

import json
from pathlib import Path

from checkpoints_made import TINY28
import numpy as np
import pytest
from safetensors.numpy import save_file

from xgenmm_jax.cli.main import main
from xgenmm_jax.convert.tensor_files import open_tensors

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path):
    """Two shards; a file elsewhere that is nobody's business."""
    (tmp_path / "model").mkdir()
    save_file({"a": np.arange(3, dtype=np.float32)}, tmp_path / "model" / FIRST)
    save_file({"b": np.arange(4, dtype=np.float32)}, tmp_path / "model" / SECOND)
    save_file({"b": np.zeros(4, np.float32)}, tmp_path / "secret.safetensors")
    return tmp_path / "model"


def write_index(folder: Path, weight_map, text: str | None = None) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}) if text is None else text)


def names(path: Path) -> list[str]:
    tensors = open_tensors(path)
    tensors.close()
    return sorted(tensors.infos)


@pytest.mark.parametrize(
    "leads_out",
    ["../secret.safetensors", "/etc/passwd", "sub/../../secret.safetensors", "./../secret.safetensors", "//x/y", ".."],
)
def test_an_index_opens_nothing_outside_of_its_folder(folder, leads_out):
    """A downloaded index had any file opened that its author named."""
    write_index(folder, {"a": FIRST, "b": leads_out})
    with pytest.raises(ValueError, match=r"names '.*' for tensor b, which is outside of its folder and is not opened"):
        open_tensors(folder)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_name_that_leads_back_in_is_refused_too(folder, absolute):
    """Where files lie is told without looking at them: the folder may be moved."""
    write_index(folder, {"a": FIRST, "b": str(folder / SECOND) if absolute else f"../model/{SECOND}"})
    with pytest.raises(ValueError, match="outside of its folder"):
        open_tensors(folder)


def test_shards_in_a_folder_below_and_links_are_read(folder, tmp_path):
    (folder / "parts").mkdir()
    (folder / SECOND).rename(folder / "parts" / SECOND)
    write_index(folder, {"a": FIRST, "b": f"./parts/{SECOND}"})
    assert names(folder) == names(folder / INDEX) == ["a", "b"]
    (folder / FIRST).rename(tmp_path / "..elsewhere")
    (folder / FIRST).symlink_to("../..elsewhere")
    assert names(folder) == ["a", "b"]


@pytest.fixture
def cache(folder, tmp_path):
    """A model as Hugging Face's cache has it: every file a link into a folder of blobs without endings."""
    write_index(folder, {"a": FIRST, "b": SECOND})
    blobs, snapshot = tmp_path / "hub/models--x--y/blobs", tmp_path / "hub/models--x--y/snapshots/0a1b"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def test_the_cache_of_hugging_face_is_read(cache, tmp_path):
    assert names(cache) == names(cache / INDEX) == ["a", "b"]
    assert names(cache / FIRST) == ["a"]
    (tmp_path / "linked").symlink_to(cache)
    assert names(tmp_path / "linked") == ["a", "b"]
    with pytest.raises(ValueError, match=r"holds no .safetensors and no .npz; give '.*snapshots/0a1b'"):
        open_tensors(cache.parents[1])


def test_a_file_of_the_cache_that_is_gone_is_told(cache):
    """A download that broke off leaves links to nothing."""
    (cache / SECOND).resolve().unlink()
    with pytest.raises(ValueError, match=r"00002.*' is missing \(it is a link to '../../blobs/.*', which is gone"):
        open_tensors(cache)
    (cache / INDEX).resolve().unlink()
    (cache / FIRST).resolve().unlink()
    with pytest.raises(ValueError, match=f"links whose files are gone: {FIRST}, {SECOND}, {INDEX}"):
        open_tensors(cache)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "is no index of shards"),
        ("{", "is no index of shards"),
        ("[]", "it holds a list"),
        ("null", "it holds a NoneType"),
        ('"model.safetensors"', "it holds a str"),
        ("[" * 100_000, "is no index of shards"),
        ("{}", 'it has no object "weight_map"'),
        ('{"weight_map": null}', 'it has no object "weight_map"'),
        ('{"weight_map": ["a"]}', 'it has no object "weight_map"'),
        ('{"weight_map": {}}', "names no tensors"),
        ('{"weight_map": {"a": 1}}', "names 1 for tensor a, which is no file"),
        ('{"weight_map": {"a": null}}', "names null for tensor a, which is no file"),
        ('{"weight_map": {"a": ["x"]}}', r'names \["x"\] for tensor a, which is no file'),
        ('{"weight_map": {"a": ""}}', 'names "" for tensor a, which is no file'),
        ('{"weight_map": {"a": "x\\u0000"}}', r'names "x\\u0000" for tensor a, which is no file'),
        (f'{{"weight_map": {{"a": "{FIRST}", "b": "{SECOND}", "a": "{SECOND}"}}}}', "it names a more than once"),
        ('{"weight_map": {}, "weight_map": {"a": "x"}}', "it names weight_map more than once"),
        ('{"weight_map": {"a": "other.safetensors"}}', "other.safetensors' is missing; the index names it"),
        ('{"weight_map": {"a": "."}}', "is missing; the index names it"),
    ],
)
def test_an_index_that_is_none_is_one_sentence(folder, tmp_path, capsys, text, sentence):
    write_index(folder, None, text)
    with pytest.raises(ValueError, match=sentence) as error:
        open_tensors(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    before = sorted(tmp_path.rglob("*"))
    assert main(["convert", str(folder), str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"xgenmm convert: {error.value}\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_index_of_another_encoding_or_with_a_mark_is_told_or_read(folder):
    text = json.dumps({"weight_map": {"a": FIRST, "b": SECOND}})
    (folder / INDEX).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert names(folder) == ["a", "b"]
    (folder / INDEX).write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match="is not UTF-8"):
        open_tensors(folder)


def test_a_header_that_names_a_tensor_twice_is_refused(tmp_path):
    """Which of the two was read depended on their order."""
    one = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f"{{{one},{one}}}".encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="has no safetensors header .it names a more than once."):
        open_tensors(file)


def test_the_golden_is_still_read_through_links(tmp_path):
    for file in TINY28.iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert names(tmp_path) == names(TINY28)
