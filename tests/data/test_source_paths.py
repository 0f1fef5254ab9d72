"""Paths of data as users write them."""

import glob
from pathlib import Path
import subprocess
import sys

import pytest

from xgenmm_jax.data import source_paths


@pytest.mark.parametrize("name", ["a[b]", "train[2024]*", "what?", "with space", "[", "x]y", "é[ü]"])
def test_a_folder_that_is_there_as_written_is_no_pattern(tmp_path, name):
    """A set in brackets named other files, or none, and the data seemed to be missing."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.txt").touch()
    assert glob.glob(source_paths.literal_first(tmp_path / name / "*.txt")) == [str(tmp_path / name / "1.txt")]


def test_a_pattern_without_such_a_folder_stays_one(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "c[1].txt").touch()
    matches = glob.glob(source_paths.literal_first(tmp_path / "[ab]" / "c[1].txt"))
    assert sorted(matches) == [str(tmp_path / name / "c[1].txt") for name in "ab"]
    assert source_paths.literal_first("a[0-9]/b*") == "a[0-9]/b*"


def test_home_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a[b]").mkdir()
    assert source_paths.at_home("~/a.json") == tmp_path / "a.json"
    assert source_paths.literal_first("~/a[b]/*") == str(tmp_path / "a[[]b]" / "*")
    assert source_paths.at_home("a~/~b") == Path("a~/~b")


def test_no_home_is_one_sentence(tmp_path, monkeypatch):
    """`Path.expanduser` raises RuntimeError, which the command shows as a traceback."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'~nobody-of-this-name/x' begins with ~ and no home folder is known"):
        source_paths.at_home("~nobody-of-this-name/x")
    Path("~old.json").touch()
    assert source_paths.at_home("~old.json") == Path("~old.json")
    code = "import pwd; pwd.getpwuid = lambda uid: {}['']\n"
    code += "from xgenmm_jax.data.source_paths import at_home; at_home('~/x')"
    environment = {"PYTHONPATH": str(Path(source_paths.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert b"ValueError: data: '~/x' begins with ~" in done.stderr


@pytest.mark.parametrize("path", ["coco/1.png", "./coco/1.png", "coco/../coco/1.png", "coco/deep/1.png"])
def test_links_inside_the_folder_are_followed(tmp_path, path):
    """Parts of an image folder are links to where the data sets lie, and were refused."""
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "1.png").touch()
    (tmp_path / "disk" / "deep" / "1.png").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "coco").symlink_to(tmp_path / "disk")
    assert source_paths.inside(tmp_path / "images", path).is_file()
    absolute = str(tmp_path / "images" / path)
    assert source_paths.inside(tmp_path / "images", absolute).is_file()


@pytest.mark.parametrize(
    "path", ["../1.png", "a/../../1.png", "/etc/passwd", "..", "../images-2/1.png", "/", "coco/../../x"]
)
def test_what_leaves_the_folder_as_written_is_refused(tmp_path, path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "coco").symlink_to(tmp_path / "disk")
    with pytest.raises(ValueError, match="lies outside of '.*images'; move it inside"):
        source_paths.inside(tmp_path / "images", path)


def test_absolute_paths_of_a_linked_folder_are_inside_either_way(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "disk")
    for top in ("disk", "images"):
        assert source_paths.inside(tmp_path / "images", str(tmp_path / top / "1.png")).name == "1.png"
