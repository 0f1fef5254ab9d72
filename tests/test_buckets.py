"""What a disk does by renaming a bucket does otherwise: files and folders are whole or known not to be."""

import os
import stat
import threading
import time

from buckets import pointing_at
from etils import epath
import pytest

from xgenmm_jax import buckets, files, requests
from xgenmm_jax.paths import is_in_bucket, user_path


@pytest.fixture
def folder(bucket, tmp_path):
    """A folder of a bucket that no other test has."""
    return user_path(f"{bucket}/{tmp_path.name}", "--workdir")


def test_a_url_is_a_path_with_the_same_methods(folder):
    path = folder / "a" / "b.json"
    assert is_in_bucket(path) and isinstance(path, epath.Path) and str(path).startswith("gs://bucket/")
    assert os.fspath(path) == str(path) and path.name == "b.json" and path.parent == folder / "a"
    assert user_path(path, "--workdir") == path == path.absolute() and user_path("gs://b", "--workdir").name == "b"
    files.write_whole(path, '{"a": "\ud83d"}\n')
    assert path.stat().st_size == 13 and stat.S_ISREG(path.stat().st_mode) and stat.S_ISDIR(folder.stat().st_mode)
    assert files.read_json(path) == {"a": "\ufffd"} and path.is_file() and folder.is_dir() and not path.is_dir()
    assert files.size(path) == 13 and [one.name for one in folder.glob("*/b*")] == ["b.json"]


@pytest.mark.parametrize("url", ["http://host/run", "file:///run", "az://a/b", "GS://b/x", "gs://", "gs:///x", "gs://b/.."])
def test_other_urls_are_refused_with_what_is_taken(url):
    with pytest.raises(ValueError, match=rf"^--workdir: got '{url}', wanted gs://BUCKET/... or s3://BUCKET/...*"):
        user_path(url, "--workdir")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'s3://b/x' cannot be opened, s3fs is not installed: pip .*\[buckets\]"):
        user_path("s3://b/x", "--workdir")


def test_a_file_is_written_by_a_function_as_on_a_disk(folder, tmp_path):
    """Libraries write to a disk; what they wrote is uploaded."""
    files.write_whole(folder / "x.bin", lambda beside: beside.write_bytes(b"x" * 1000))
    assert (folder / "x.bin").read_bytes() == b"x" * 1000
    with files.on_disk(folder / "x.bin") as local:
        assert local.name == "x.bin" and local.read_bytes() == b"x" * 1000
    assert not local.exists()
    files.copy(folder / "x.bin", tmp_path / "x.bin")
    files.copy(tmp_path / "x.bin", folder / "y.bin")
    files.copy(folder / "y.bin", folder / "z.bin")
    assert files.are_equal(tmp_path / "x.bin", folder / "z.bin")
    files.write_whole(folder / "z.bin", b"x" * 999 + b"y")
    assert not files.are_equal(folder / "x.bin", folder / "z.bin")
    assert files.tree(folder) == {"x.bin": 1000, "y.bin": 1000, "z.bin": 1000}


def test_trees_are_alike_on_a_disk_and_in_a_bucket(folder, tmp_path):
    for place in (folder, tmp_path):
        for name in ("b", "a/x", "a/y/z"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(place / name, name)
        assert list(files.tree(place).items()) == [("a/x", 3), ("a/y/z", 5), ("b", 1)]
        files.move(place / "a", place / "c")
        files.move(place / "b", place / "d")
        assert files.tree(place) == {"c/x": 3, "c/y/z": 5, "d": 1}
        files.delete_tree(place / "c")
        assert files.tree(place) == {"d": 1} and files.tree(place / "none") == {}
        files.delete_tree(place)
        assert not place.exists()
        files.delete_tree(place)


def test_a_folder_in_a_bucket_tells_that_it_is_not_whole(folder):
    """A kill leaves it half-written at its place; only what holds UNFINISHED is not whole, so that copies are."""
    with files.whole_folder(folder) as inside:
        assert inside == folder == files.partial_folder(folder)
        files.write_whole(inside / "a", "1")
        with pytest.raises(ValueError, match=r"^SOURCE: '.*' was not written to its end \(UNFINISHED lies in it\)"):
            files.check_whole(folder, "SOURCE")
        with pytest.raises(FileExistsError), files.whole_folder(folder):
            pass
        assert files.tree(folder).keys() == {"a", "UNFINISHED"}
    files.check_whole(folder, "SOURCE")
    with pytest.raises(FileExistsError), files.whole_folder(folder):
        pass
    with files.whole_folder(folder, replace=True) as inside:
        assert files.tree(folder).keys() == {"UNFINISHED"}
        files.write_whole(inside / "b", "2")
    assert files.tree(folder) == {"b": 1}
    with pytest.raises(KeyError), files.whole_folder(folder, replace=True):
        raise KeyError
    assert files.tree(folder) == {}


def test_of_several_that_make_an_object_one_does(folder):
    path, made = folder / "lock", []

    def make(number: int) -> None:
        if buckets.write_if(path, b"%d" % number, None) is not None:
            made.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    said, version = buckets.read_version(path)
    assert said == b"%d" % made[0] and buckets.read_version(folder / "none") is None
    # Replaced by who knows its version, and nobody else.
    newer = buckets.write_if(path, b"next", version)
    assert newer not in (None, version) and buckets.write_if(path, b"late", version) is None
    assert buckets.read_version(path) == (b"next", newer)
    buckets.delete(path)
    buckets.delete(path)
    assert buckets.write_if(path, b"late", newer) is None and buckets.read(path) is None


def test_a_mistyped_bucket_is_one_sentence(bucket):
    buckets.check(user_path(f"{bucket}/any/run", "--workdir"), "--workdir")
    mistyped = user_path("gs://buckett/run", "--workdir")
    with pytest.raises(ValueError, match=r"^--workdir: no bucket 'gs://buckett'; check its name, or make it.$"):
        buckets.check(mistyped, "--workdir")
    for write in (lambda: files.write_whole(mistyped, b"x"), lambda: buckets.write_if(mistyped, b"x", None)):
        with pytest.raises(ValueError, match=r"^'gs://buckett/run' cannot be written: no such bucket; check"):
            write()


def test_a_server_that_does_not_answer_is_one_sentence_in_time(monkeypatch):
    monkeypatch.setattr(requests, "TIMEOUT_S", 1.0)
    with pointing_at(monkeypatch, "http://localhost:9"):
        started = time.monotonic()
        with pytest.raises(ValueError, match=r"^--workdir: 'gs://b' cannot be listed \(no answer in [0-9.]+ s\)"):
            buckets.check(user_path("gs://b/run", "--workdir"), "--workdir")
        assert time.monotonic() - started < 10
