"""Objects are read like files; what does not answer is an error in time, and says of what."""

import http.server
import multiprocessing
import socket
import sys
import threading
import time

from buckets import pointing_at, troubled
import pytest
from tar_files import caption_tar

from xgenmm_jax import requests
from xgenmm_jax.data.errors import RecordError, SourceError, is_of_a_record
from xgenmm_jax.data.storage import files, remote
from xgenmm_jax.data.storage.tars import Tars


@pytest.fixture
def trouble(monkeypatch):
    with troubled(monkeypatch) as kind:
        yield kind


@pytest.fixture(params=["disk", "memory", "gs"])
def folder(request, tmp_path):
    """An empty folder on a disk, in memory and in an emulated bucket."""
    if request.param == "disk":
        return str(tmp_path / "data")
    return (
        f"memory://{tmp_path.name}"
        if request.param == "memory"
        else f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    )


def test_files_and_objects_are_read_alike(folder):
    path = files.join(folder, "a/0.bin")
    assert files.read_whole(path) is None and not files.exists(path)
    data = bytes(range(256)) * 100
    files.write_whole(path, data)
    assert files.exists(path) and files.exists(files.parent(path)) and files.read_whole(path) == data
    assert files.size(path) == len(data)
    assert files.read(path, 250, 20) == data[250:270] and files.read(path, len(data) - 1, 1) == data[-1:]
    with files.stream(path) as file:
        assert file.read(10) == data[:10] and file.read() == data[10:]
    files.write_whole(path, b"other")
    assert files.read_whole(path) == b"other" and files.size(path) == 5
    files.remove(path)
    files.remove(path)
    assert files.read_whole(path) is None and files.names_in(files.parent(path)) == set()


def test_what_is_gone_or_ends_early_is_an_error_of_the_source(folder):
    path = files.join(folder, "0.bin")
    for ask in (lambda: files.size(path), lambda: files.read(path, 0, 1), lambda: files.stream(path).__enter__()):
        with pytest.raises(SourceError, match=r"no file '.*0.bin'"):
            ask()
    files.write_whole(path, b"x" * 100)
    with pytest.raises(SourceError, match=r"0.bin' has 100 bytes and was to have 111; copy it again"):
        files.read(path, 90, 21)


def test_patterns_name_the_same_files_everywhere(folder):
    names = ["08.tar", "09.tar", "10.tar", ".11.tar", "12.tar.partial", "x.json", "b/20.tar", "c/20.tar", "c/d/30.tar"]
    for name in names:
        files.write_whole(files.join(folder, name), b"x")

    def found(pattern):
        return [path.removeprefix(f"{folder}/") for path in files.matching(files.join(folder, pattern), (".tar",))]

    assert found("*.tar") == found("{08..10}.tar") == ["08.tar", "09.tar", "10.tar"] == found("*")
    assert found("0[!8].tar") == found("09.tar") == ["09.tar"] and found("1?.tar") == ["10.tar"]
    assert found("*/2*.tar") == ["b/20.tar", "c/20.tar"] and found("{08..09}.*") == ["08.tar", "09.tar"]
    with pytest.raises(SourceError, match=r"11.tar' and 1 more"):
        found("{08..12}.tar")
    for pattern in ("x*.tar", "none/*.tar"):
        with pytest.raises(SourceError, match="no file matches"):
            found(pattern)


def test_an_object_whose_name_looks_like_a_pattern_is_read():
    files.write_whole("memory://looks/a[b].tar", b"x")
    assert files.matching("memory://looks/a[b].tar") == ("memory://looks/a[b].tar",)


def test_a_folder_is_listed_once_and_sizes_come_from_the_listing(trouble, monkeypatch):
    for number in range(300):
        trouble.put(f"a/{number:04}.tar", b"x" * number)
    shards = files.matching("troubled://a/{0000..0299}.tar")
    assert len(shards) == 300 and trouble.calls == ["ls"]
    assert [files.size(shard) for shard in shards] == list(range(300)) and trouble.calls == ["ls"]
    # What is kept has a bound; what is not kept is asked for.
    monkeypatch.setattr(remote, "MOST_SIZES", 100)
    files.matching("troubled://a/*.tar")
    trouble.calls.clear()
    assert [files.size(shards[number]) for number in (0, 150, 299)] == [0, 150, 299] and trouble.calls == ["info"] * 2


def test_folders_are_those_of_paths_and_urls():
    assert files.parent("gs://b/a/0.tar") == "gs://b/a" and files.parent("gs://b/0.tar") == "gs://b"
    assert files.parent("a/0.tar") == "a" and files.parent("0.tar") == "."
    assert files.join("gs://b/", "x/y.bin") == "gs://b/x/y.bin" and files.base_name("gs://b/a/0.tar") == "0.tar"
    assert files.common_parent(["gs://b/a/c/0.tar", "gs://b/a/cd/1.tar"]) == "gs://b/a"
    assert files.common_parent(["gs://b/a/0.tar"]) == "gs://b/a" and files.common_parent(["a/x.tar", "b/y.tar"]) == "."
    assert files.common_parent(["/a/b/x.tar", "/a/c/y.tar"]) == "/a"
    for paths in (["gs://a/x", "gs://b/x"], ["gs://a/x", "s3://a/x"], ["gs://a/x", "/a/x"]):
        with pytest.raises(ValueError, match="no folder in common"):
            files.common_parent(paths)
    assert files.is_remote("s3://b/x") and not any(map(files.is_remote, ("/a/b", "C:/x", "a:b", "gs:/b/x")))


def test_a_request_that_fails_twice_is_made_a_third_time(trouble):
    url = trouble.put("x", b"0123456789")
    trouble.fails = {"cat_file": [ConnectionResetError("reset"), OSError("503")], "info": [TimeoutError()] * 2}
    assert files.read(url, 2, 3) == b"234" and files.size(url) == 10
    assert trouble.calls == ["cat_file"] * 3 + ["info"] * 3


def test_waits_double_and_differ(trouble, monkeypatch):
    waits = []
    monkeypatch.setattr(requests, "BACKOFF_S", 1.0)
    monkeypatch.setattr(requests.time, "sleep", waits.append)
    for _ in range(20):
        with pytest.raises(SourceError, match="no such host"):
            trouble.fails = {"info": [OSError("no such host")] * 3}
            files.size("troubled://x")
    assert all(0.5 <= wait <= 1.5 for wait in waits[::2]) and all(1 <= wait <= 3 for wait in waits[1::2])
    assert len(set(waits)) == 40


def test_what_is_forbidden_is_asked_for_once(trouble):
    trouble.fails = {"info": [PermissionError("no access for anonymous callers")] * 3}
    with pytest.raises(SourceError, match=r"troubled://x.*no access for anonymous.*permissions"):
        files.size("troubled://x")
    assert trouble.calls == ["info"]


def test_a_range_that_cannot_be_read_costs_its_record_where_the_bucket_answers(trouble):
    url = trouble.put("x", b"0123456789")
    trouble.fails = {"cat_file": [ConnectionResetError(104, "reset")] * 9}
    with pytest.raises(ValueError, match=r"bytes 2 to 5 of 'troubled://x' cannot be read .*reset") as caught:
        files.read(url, 2, 3)
    assert is_of_a_record(caught.value) and trouble.calls == ["cat_file"] * 3 + ["info"]
    # For whoever reads all of it the object is not whole.
    with pytest.raises(SourceError, match="cannot be read"), files.stream(url) as file:
        file.read()


def test_a_bucket_that_does_not_answer_either_is_an_error_of_the_source(trouble):
    url = trouble.put("x", b"0123456789")
    trouble.fails = {"cat_file": [OSError("503")] * 3, "info": [OSError("503")]}
    with pytest.raises(SourceError, match=r"troubled://x.*503.*check the network"):
        files.read(url, 2, 3)


@pytest.mark.parametrize("silent", [{"cat_file", "info", "ls"}, {"cat_file"}])
def test_what_never_answers_is_an_error_in_time(trouble, monkeypatch, silent):
    monkeypatch.setattr(requests, "TIMEOUT_S", 0.4)
    url = trouble.put("a/x.tar", b"0123456789")
    trouble.silent = silent
    asks = {
        "cat_file": [lambda: files.read(url, 0, 1), lambda: files.read_whole(url)],
        "info": [lambda: files.size(url), lambda: files.exists(url)],
        "ls": [lambda: files.matching("troubled://a/{0..1}.tar")],
    }
    for ask in sum((asks[method] for method in silent), []):
        started = time.monotonic()
        with pytest.raises(ValueError, match=r"'troubled://a/?.*no answer in"):
            ask()
        assert time.monotonic() - started < 1.0


def test_a_server_that_never_answers_is_an_error_in_time(monkeypatch):
    pytest.importorskip("gcsfs", reason="gcsfs is not installed; pip install xgenmm_jax[test]")
    monkeypatch.setattr(requests, "TIMEOUT_S", 1.0)
    with (
        socket.create_server(("localhost", 0)) as server,
        pointing_at(monkeypatch, f"http://localhost:{server.getsockname()[1]}"),
    ):
        for ask in (lambda: files.read("gs://b/0.tar", 0, 9), lambda: files.matching("gs://b/*.tar")):
            started = time.monotonic()
            with pytest.raises(SourceError, match=r"gs://b/.*no answer in (0\.[78]|1)"):
                ask()
            assert time.monotonic() - started < 3


class _CutBodies(http.server.BaseHTTPRequestHandler):
    """An object of 1,000 bytes whose sizes are told and whose contents break off in the middle."""

    def do_GET(self):
        body = b"x" * 1000 if "alt=media" in self.path else b'{"name": "0.tar", "bucket": "b", "size": "1000"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:500])

    def log_message(self, *arguments):
        pass


def test_an_answer_that_breaks_off_costs_a_record(monkeypatch):
    pytest.importorskip("gcsfs", reason="gcsfs is not installed; pip install xgenmm_jax[test]")
    monkeypatch.setattr(requests, "TIMEOUT_S", 2.0)
    with http.server.ThreadingHTTPServer(("localhost", 0), _CutBodies) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pointing_at(monkeypatch, f"http://localhost:{server.server_port}"):
            with pytest.raises(ValueError, match=r"bytes 100 to 900 of 'gs://b/0.tar' cannot be read") as caught:
                files.read("gs://b/0.tar", 100, 800)
        server.shutdown()
    assert is_of_a_record(caught.value)


def test_a_url_whose_package_is_missing_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SourceError, match=r"s3://b/0.tar'.*s3fs is not installed: pip install xgenmm_jax\[buckets\]"):
        files.size("s3://b/0.tar")
    with pytest.raises(SourceError, match="nothing://b/0.tar"):
        files.size("nothing://b/0.tar")


def test_many_threads_read_one_object(folder):
    path = files.join(folder, "0.bin")
    data = bytes(range(256)) * 40
    files.write_whole(path, data)
    wrong = []

    def read(start: int) -> None:
        for offset in range(start, start + 20):
            if files.read(path, offset, 64) != data[offset : offset + 64]:
                wrong.append(offset)

    threads = [threading.Thread(target=read, args=(100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(requests._FILE_SYSTEMS) <= 3


@pytest.mark.slow
def test_a_spawned_process_reads_an_object_that_this_one_has_read(bucket, tmp_path):
    """The loader's workers are spawned; an event loop or a session taken over would wait without end."""
    url = f"{bucket}/{tmp_path.name}/0.bin"
    files.write_whole(url, b"0123456789")
    assert files.read(url, 2, 3) == b"234"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap_async(files.read, [(url, 2, 3), (url, 4, 5)]).get(60) == [b"234", b"45678"]


def test_tars_give_the_same_samples_from_a_bucket(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "CHUNK_BYTES", 4096)
    local = [caption_tar(tmp_path / f"{number}.tar", 12, seed=number) for number in range(2)]
    for path in local:
        files.write_whole(files.join(folder, path.name), path.read_bytes())
    here, there = Tars(f"{tmp_path}/*.tar"), Tars(files.join(folder, "*.tar"))
    for path, shard in zip(here.shards(), there.shards(), strict=True):
        assert here.size(path) == there.size(shard)
        wanted, located = here.locate(path), there.locate(shard)
        assert all((wanted.arrays[name] == located.arrays[name]).all() for name in ("offset", "size"))
        one, other = here.open(path, wanted, ()), there.open(shard, located, ())
        assert [one.read(n).fields for n in range(12)] == [other.read(n).fields for n in range(12)]


def test_a_sample_whose_range_cannot_be_read_costs_one_record(trouble, tmp_path):
    shard = trouble.put("0.tar", caption_tar(tmp_path / "0.tar", 3).read_bytes())
    tar = Tars(shard).open(shard, Tars(shard).locate(shard), ())
    trouble.fails = {"cat_file": [OSError("503")] * 3}
    with pytest.raises(RecordError, match=r"0.tar\[1\].*503") as caught:
        tar.read(1)
    assert is_of_a_record(caught.value) and tar.read(1).fields.keys() == {"jpg", "txt", "json"}


@pytest.mark.parametrize("keep", [0, 100, 700, 2000, 5000, "between members"])
def test_a_cut_tar_in_a_bucket_is_the_error_of_one_on_disk(trouble, tmp_path, keep):
    path = caption_tar(tmp_path / "0.tar", 5)
    keep = int(Tars(str(path)).locate(str(path)).arrays["offset"][3]) if keep == "between members" else keep
    path.write_bytes(path.read_bytes()[:keep])
    said = []
    for shard in (str(path), trouble.put("0.tar", path.read_bytes())):
        with pytest.raises(SourceError, match="copy it again") as caught:
            Tars(shard).locate(shard)
        said.append(str(caught.value).replace(shard, "0.tar"))
    assert said[0] == said[1]


def test_a_tar_is_walked_once_from_its_beginning_on(trouble, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "CHUNK_BYTES", 4096)
    data = caption_tar(tmp_path / "0.tar", 40).read_bytes()
    url = trouble.put("0.tar", data)
    read, ranges = trouble.cat_file, []
    monkeypatch.setattr(
        trouble, "cat_file", lambda self, path, start, end: ranges.append((start, end)) or read(self, path, start, end)
    )
    assert Tars(url).locate(url).records == 40
    assert ranges == sorted(ranges) and all(end - start <= 4096 for start, end in ranges)
    assert sum(end - start for start, end in ranges) <= len(data) + 4096


def test_an_object_that_is_cut_while_it_is_walked_is_an_error_of_the_source(trouble, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "CHUNK_BYTES", 4096)
    data = caption_tar(tmp_path / "0.tar", 40).read_bytes()
    url = trouble.put("0.tar", data)
    with files.stream(url) as file:
        file.read(100)
        trouble.put("0.tar", data[:6000])
        with pytest.raises(SourceError, match=r"troubled://0.tar' has 6,000 bytes and was to have 12,288"):
            file.read()
