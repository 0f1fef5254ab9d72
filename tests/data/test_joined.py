"""From a source's URLs to packed documents: listed, fetched by another program, joined, packed."""

import hashlib
import json
from pathlib import Path
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg, write_tar

from xgenmm_jax.cli import main as cli
from xgenmm_jax.data import joined, urls
from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.joined import JoinedImages, join
from xgenmm_jax.data.pack import pack_source, packed_source
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.readers.mint import MintHtml
from xgenmm_jax.data.readers.mmc4 import Mmc4
from xgenmm_jax.data.readers.obelics import Obelics
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.urls import list_urls

A, B, C, GONE = (f"http://example.org/{name}.jpg" for name in ("a", "b", "c?x=1&y=é", "gone"))
SIZES = {A: (40, 30), B: (16, 24), C: (20, 20)}


def sha256(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def row(*parts: str) -> dict:
    is_url = [part.startswith("http") for part in parts]
    images = [part if url else None for part, url in zip(parts, is_url, strict=True)]
    texts = [None if url else part for part, url in zip(parts, is_url, strict=True)]
    return {"images": images, "texts": texts}


def documents(folder: Path, *rows: dict, images: str | None = None, reader=None) -> ShardedSource:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "0.parquet")
    return ShardedSource(Parquet(f"{folder}/*.parquet", images), reader or Obelics())


def listed(folder: Path) -> dict[str, str]:
    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    assert all(table.column_names == ["url", "hash"] for table in tables)
    pairs = [pair for table in tables for pair in zip(*table.to_pydict().values(), strict=True)]
    assert [hash_ for _, hash_ in pairs] == sorted(hash_ for _, hash_ in pairs)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def fetched(path: Path, *asked: str, with_hash: bool = True) -> Path:
    """A tar as img2dataset writes one with `save_additional_columns`: what it could not fetch is not in it."""
    samples = []
    for number, url in enumerate(url for url in asked if url in SIZES):
        told = {"url": url, "key": f"{number:09}", "status": "success", "sha256": "0" * 64}
        told |= {"hash": sha256(url)} if with_hash else {}
        samples.append((f"{number:09}", {"jpg": jpeg(SIZES[url]), "json": json.dumps(told, indent=4).encode()}))
    return write_tar(path, samples)


def shown(record: Document) -> list:
    return [part.size_px if isinstance(part, LazyImage) else part for part in record.parts]


def test_urls_are_listed_once_with_their_hash_in_its_order(tmp_path):
    source = documents(
        tmp_path / "data", row(A, "one", B), row("two", A), row("three"), row(C, "x", "http://" + "x" * 9000)
    )
    found = list_urls(source, tmp_path / "list")
    assert listed(tmp_path / "list") == {url: sha256(url) for url in (A, B, C)}
    assert found == urls.ListedUrls(4, 1, 4, {"more than 8,192 bytes": 1}, 3, 1)
    assert [path.name for path in (tmp_path / "list").iterdir()] == ["00000.parquet"]


def test_a_list_is_the_same_in_little_memory_and_many_files(tmp_path):
    rows = [row("text", *(f"http://example.org/{number % 70}" for number in range(n, n + 9))) for n in range(60)]
    source = documents(tmp_path / "data", *rows)
    whole = list_urls(source, tmp_path / "whole")
    small = list_urls(source, tmp_path / "small", file_urls=20, most_bytes=3000)
    assert listed(tmp_path / "small") == listed(tmp_path / "whole")
    assert (whole.urls, whole.files, small.urls, small.files, small.named) == (68, 1, 68, 4, 540)


def test_images_that_would_not_be_opened_are_listed_where_one_before_may_be_missing(tmp_path):
    source = documents(tmp_path / "data", row(A, "one", B, C), reader=Obelics(most_images=1, missing="error"))
    list_urls(source, tmp_path / "list")
    assert set(listed(tmp_path / "list")) == {A, B, C}


def test_captions_and_sentences_name_urls_too(tmp_path):
    pq.write_table(pa.table({"url": [A, "coco/1.jpg"], "caption": ["x", "y"]}), tmp_path / "kale.parquet")
    reader = ImageCaptions(image=(), image_name="url", caption="caption")
    list_urls(ShardedSource(Parquet(str(tmp_path / "kale.parquet")), reader), tmp_path / "list")
    assert set(listed(tmp_path / "list")) == {A}
    infos = [{"raw_url": url, "matched_text_index": 0, "matched_sim": sim} for url, sim in ((B, 0.3), (C, 0.1))]
    (tmp_path / "docs.jsonl").write_text(json.dumps({"text_list": ["One."], "image_info": infos}) + "\n")
    list_urls(
        ShardedSource(JsonFiles(str(tmp_path / "docs.jsonl")), Mmc4(), index=str(tmp_path / "i")), tmp_path / "two"
    )
    assert set(listed(tmp_path / "two")) == {B}


def test_a_source_without_urls_and_a_folder_that_is_there_are_refused(tmp_path):
    source = documents(tmp_path / "data", row("one"), row("two"))
    with pytest.raises(
        ValueError, match="none of the 2 records of obelics names the URL of an image, as Obelics reads"
    ):
        list_urls(source, tmp_path / "list")
    assert not (tmp_path / "list").exists() and not (tmp_path / "list.partial").exists()
    (tmp_path / "list").mkdir()
    with pytest.raises(ValueError, match="list' is there; name a new folder"):
        list_urls(source, tmp_path / "list")


@pytest.mark.parametrize("with_hash", [True, False])
@pytest.mark.parametrize("most_bytes", [1 << 20, 400])
def test_images_are_found_by_their_url(tmp_path, with_hash, most_bytes):
    fetched(tmp_path / "tars" / "00000.tar", A, GONE, B, with_hash=with_hash)
    fetched(tmp_path / "tars" / "00001.tar", C, A, with_hash=with_hash)
    found = join(f"{tmp_path}/tars/*.tar", tmp_path / "joined", most_bytes=most_bytes)
    assert found == joined.Joined(2, 3, {"the URL of another one": 1})
    images = JoinedImages(str(tmp_path / "joined"))
    assert {url: images.open(url).size_px for url in SIZES} == SIZES
    np.testing.assert_array_equal(
        np.asarray(images.open(C).load()), np.asarray(image_from_bytes(jpeg(SIZES[C]), "c", official=True).load())
    )
    with pytest.raises(ValueError, match=r"'http://example.org/gone.jpg' is not among the 3 of '.*joined'"):
        images.open(GONE)
    with pytest.raises(ValueError, match="'coco/1.jpg' is no URL"):
        images.open("coco/1.jpg")


def test_hashes_that_agree_in_their_first_bytes_are_told_apart(tmp_path):
    """Some do among 1e9 images, where 64 bits of each are compared."""
    first = bytes.fromhex(sha256(A))[:8]
    samples = []
    for number, size in enumerate(((8, 8), (9, 9), (10, 10))):
        told = {"hash": (first + bytes([number]) * 24).hex()}
        samples.append((f"{number}", {"jpg": jpeg(size), "json": json.dumps(told).encode()}))
    write_tar(tmp_path / "0.tar", samples)
    join(str(tmp_path / "0.tar"), tmp_path / "joined")
    index = JoinedImages(str(tmp_path / "joined"))._index
    offsets = [index.find(first + bytes([number]) * 24)[1] for number in range(3)]
    assert sorted(set(offsets)) == offsets
    assert index.find(first + bytes([7]) * 24) is None


def test_what_is_no_image_of_a_url_is_left_out_and_counted(tmp_path):
    told = json.dumps({"url": A}).encode()
    samples = [
        ("0", {"jpg": jpeg(SIZES[A]), "json": told}),
        ("1", {"jpg": jpeg()}),
        ("2", {"jpg": jpeg(), "json": b"{"}),
        ("3", {"jpg": jpeg(), "json": json.dumps({"url": None, "hash": "../x"}).encode()}),
        ("4", {"txt": b"x", "json": json.dumps({"url": B}).encode()}),
    ]
    write_tar(tmp_path / "0.tar", samples)
    found = join(str(tmp_path / "0.tar"), tmp_path / "joined")
    assert found == joined.Joined(1, 1, {"no URL in its JSON": 3, "no image": 1})
    write_tar(tmp_path / "bad" / "0.tar", samples[1:])
    with pytest.raises(
        SourceError, match="no sample of .* is an image of a URL: 3 have no URL in its JSON, 1 have no im"
    ):
        join(str(tmp_path / "bad" / "0.tar"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_tars_that_changed_or_went_and_a_damaged_index_are_errors_of_the_source(tmp_path):
    tar = fetched(tmp_path / "0.tar", A, B)
    join(str(tar), tmp_path / "joined")
    whole = tar.read_bytes()
    tar.write_bytes(whole + bytes(512))
    with pytest.raises(SourceError, match=r"bytes and had .* when it was joined; join again"):
        JoinedImages(str(tmp_path / "joined")).open(A)
    # Of the same size, but in another order.
    fetched(tar, B, A)
    tar.write_bytes(tar.read_bytes()[: len(whole)].ljust(len(whole), b"\0"))
    with pytest.raises((SourceError, RecordError), match="join|index"):
        JoinedImages(str(tmp_path / "joined")).open(A)
    tar.unlink()
    joined._opened.cache_clear()
    with pytest.raises(SourceError, match="no file"):
        JoinedImages(str(tmp_path / "joined")).open(A)
    (tmp_path / "joined" / "more.bin").write_bytes(b"1")
    joined._opened.cache_clear()
    with pytest.raises(SourceError, match="no whole index of fetched images .* delete the folder and join again"):
        JoinedImages(str(tmp_path / "joined"))


def test_a_tar_that_is_cut_off_is_named(tmp_path):
    tar = fetched(tmp_path / "0.tar", A, B)
    tar.write_bytes(tar.read_bytes()[:1500])
    with pytest.raises(SourceError, match=r"0\.tar"):
        join(str(tar), tmp_path / "joined")


def test_documents_are_packed_with_what_came_back_and_need_no_tar_then(tmp_path):
    """What is missing is counted, in the document and over the source."""
    rows = [row(A, "one", GONE, B), row("two", C), row(GONE, "three"), row(GONE, A, "four")]
    for reader, name in ((Obelics(), "obelics"), (MintHtml(missing="leave_out"), "mint")):
        source = documents(tmp_path / name, *rows, reader=reader)
        list_urls(source, tmp_path / f"{name}-list")
        tar = fetched(tmp_path / f"{name}-tars" / "0.tar", *listed(tmp_path / f"{name}-list"))
        join(str(tar), tmp_path / f"{name}-joined")
        source = documents(tmp_path / name, *rows, images=str(tmp_path / f"{name}-joined"), reader=reader)
        packed = pack_source(source, tmp_path / f"{name}-packed")
        assert packed.records == 3 and packed.bad.keys() == {"unreadable record"}
        tar.unlink()
        records = packed_source(tmp_path / f"{name}-packed").open()
        documents_ = [records.record(number, np.random.default_rng(0)) for number in range(3)]
        assert [shown(one) for one in documents_] == [
            [SIZES[A], "one", SIZES[B]],
            ["two", SIZES[C]],
            [SIZES[A], "four"],
        ]
        assert [one.dropped for one in documents_] == [1, 0, 1]


def test_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, code: int = 0) -> str:
        assert cli.main(["data", *words]) == code
        printed = capsys.readouterr()
        return re.sub(r"[ │┃]+", " ", printed.err if code else printed.out)

    documents(tmp_path / "data", row(A, "one", GONE), row("two"))
    text = run("urls", "parquet:data/*.parquet", "list", "--reader", "obelics")
    assert "records without a URL 1" in text and "different URLs 2" in text
    fetched(tmp_path / "tars" / "0.tar", *listed(tmp_path / "list"))
    assert "images 1" in run("join", "tars/*.tar", "joined")
    text = run("check", "parquet:data/*.parquet", "--reader", "obelics", "--images", "joined")
    assert "images left out a record median 1" in text
    assert "is there; name a new folder" in run("urls", "parquet:data/*.parquet", "list", "--reader", "obelics", code=1)
    assert "no file matches 'gone/*.tar'" in run("join", "gone/*.tar", "other", code=1)
