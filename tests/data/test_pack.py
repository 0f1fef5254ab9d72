"""Packed shards: the rows of the source they were made of, whole after a kill, nothing lost unseen."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sharded_data import assert_same_batches, captions, data, take, write_tars
from tar_files import caption_tar, jpeg, write_tar

from xgenmm_jax.data import pack
from xgenmm_jax.data.errors import UNREADABLE, SourceError
from xgenmm_jax.data.images import encoded, image_from_bytes
from xgenmm_jax.data.pack import pack_source, packed_source
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.readers.records import decode, encode_choices
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.tfds import Tfds

SHARDS, RECORDS = 4, 12
COCO = Path(__file__).parent.parent / "fixtures" / "tfds" / "coco_captions" / "2014" / "1.1.0"


@dataclasses.dataclass(frozen=True)
class Pages(OneChoice):
    """Documents of {"text", "image", "lost"}."""

    label = "pages"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("text",)

    def read(self, raw, choice: int) -> Document:
        parts = (raw.image(raw.fields["image"]), raw.text("text"))
        return Document(raw.key, parts, "\n", raw.fields["lost"])


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_tars(tmp_path / "tars", SHARDS, RECORDS)


def assert_same_rows(config: DataConfig, source: ShardedSource, count: int = 6) -> None:
    packed = dataclasses.replace(config, mixture=((source, 1.0),))
    assert_same_batches(take(config, count), take(packed, count))


def test_packed_tars_give_the_rows_of_the_tars(folder, words, tmp_path):
    done = []
    packed = pack_source(captions(folder), tmp_path / "new", 2, progress=lambda *told: done.append(told))
    assert (packed.shards, packed.new, packed.parts, packed.records, packed.bad) == (4, 4, 4, SHARDS * RECORDS, {})
    assert done[-1] == ("image_captions: shards packed", 4, 4)
    assert_same_rows(data(words, captions(folder)), packed_source(tmp_path / "new"))
    sums = json.loads((tmp_path / "new" / "checksums.json").read_text())["sha256"]
    shards = sorted((tmp_path / "new").glob("*.array_record"))
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}
    # Records of records are packed as they are, byte for byte.
    pack_source(packed_source(tmp_path / "new"), tmp_path / "again")
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.array_record")}
    assert again == {path.name: path.read_bytes() for path in shards}


def test_all_texts_of_a_record_are_kept(words, tmp_path):
    """COCO has five captions an image; each draw takes one."""
    reader = ImageCaptions(image=("image",), caption="captions/text")
    source = ShardedSource(Tfds(str(COCO), "train"), reader, index=str(tmp_path / "index"))
    pack_source(source, tmp_path / "new")
    opened, packed = source.open(), packed_source(tmp_path / "new").open()
    texts = [{one.record(0, np.random.default_rng(n)).text for n in range(60)} for one in (opened, packed)]
    assert len(texts[0]) > 1 and texts[0] == texts[1]
    assert_same_rows(data(words, source, window=8), packed_source(tmp_path / "new"))


def test_images_beside_and_what_documents_lack_are_kept(words, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(9):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(jpeg((30 + number, 20), number))
    rows = [{"text": f"a red circle {n}", "image": f"{n}.jpg", "lost": n % 3} for n in range(9)]
    (tmp_path / "pages.json").write_text(json.dumps(rows))
    source = ShardedSource(JsonFiles(str(tmp_path / "pages.json"), str(tmp_path / "images")), Pages())
    pack_source(source, tmp_path / "new")
    packed = packed_source(tmp_path / "new").open()
    document = packed.record(5, np.random.default_rng(0))
    assert (document.id, document.separator, document.dropped) == ("pages.json[5]", "\n", 2)
    assert_same_rows(data(words, source), packed_source(tmp_path / "new"))


def test_what_cannot_be_read_is_listed_and_the_rest_packed(folder, tmp_path):
    samples = [(f"{n:04}", {"jpg": jpeg(seed=n), "txt": b"a red circle"}) for n in range(RECORDS)]
    samples[3][1]["txt"] = b" "
    samples[7][1]["jpg"] = b"none"
    write_tar(folder / "0002.tar", [*samples, ("../out", {"txt": b"x"})])
    packed = pack_source(captions(folder), tmp_path / "new", shard_records=5)
    assert packed.records == SHARDS * RECORDS - 2 and packed.parts == 3 * 3 + 2
    lines = [json.loads(line) for line in (tmp_path / "new" / "bad.jsonl").read_text().splitlines()]
    assert {(one["record"], one["shard"], one["reason"]) for one in lines} == {
        ("0002.tar[3]", "0002.tar", UNREADABLE),
        ("0002.tar[7]", "0002.tar", UNREADABLE),
        ("../out.txt", "0002.tar", "a name that leads out of its folder"),
    }
    assert packed.bad[UNREADABLE][0] == 2 and "'txt' is empty" in packed.bad[UNREADABLE][1]


def test_a_killed_pack_goes_on_and_is_not_read_before(folder, tmp_path, monkeypatch):
    source, new = captions(folder), tmp_path / "new"
    write, written = pack.array_record.write_blobs, []

    def killed_in_the_third(path, blobs):
        written.append(path.name)
        if len(written) == 3:
            path.with_name(f"{path.name}.1-2.partial").write_bytes(b"half")
            path.write_bytes(b"a part without its note")
            raise KeyboardInterrupt
        return write(path, blobs)

    monkeypatch.setattr(pack.array_record, "write_blobs", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        pack_source(source, new)
    with pytest.raises(SourceError, match="is not noted"):
        packed_source(new).open()
    monkeypatch.setattr(pack.array_record, "write_blobs", write)
    before = {path: path.stat().st_mtime_ns for path in new.glob("00000[01]-*")}
    packed = pack_source(source, new)
    assert (packed.new, packed.records, len(before)) == (2, SHARDS * RECORDS, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before and not list(new.glob("*.partial"))
    assert pack_source(source, new).new == 0
    # A shard of it that was damaged is packed again, alone.
    (new / "000002-000.array_record").write_bytes(b"short")
    assert pack_source(source, new).new == 1 and len(packed_source(new).open()) == SHARDS * RECORDS


def test_a_folder_of_something_else_is_refused(folder, tmp_path):
    pack_source(captions(folder), tmp_path / "new")
    with pytest.raises(ValueError, match=r"packed from something else: shard_records was 10000 and is 5"):
        pack_source(captions(folder), tmp_path / "new", shard_records=5)
    (folder / "0003.tar").unlink()
    with pytest.raises(ValueError, match=r"packed from something else: '0003.tar' is gone"):
        pack_source(captions(folder), tmp_path / "new")
    with pytest.raises(ValueError, match="holds the source"):
        pack_source(captions(folder), folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match=r"holds 'mine.txt', which packing did not write"):
        pack_source(captions(folder), tmp_path / "full")
    with pack._alone(tmp_path / "new"), pytest.raises(ValueError, match="another process packs"):
        (folder / "0003.tar").write_bytes(b"")
        caption_tar(folder / "0003.tar", RECORDS, seed=3)
        pack_source(captions(folder), tmp_path / "new")


def test_nothing_readable_is_an_error(folder, tmp_path):
    write_tar(tmp_path / "bad" / "0.tar", [("a", {"jpg": b"none", "txt": b"x"})])
    with pytest.raises(SourceError, match=r"none of the records of image_captions can be read \(1 bad, the first"):
        pack_source(captions(tmp_path / "bad"), tmp_path / "new")


def test_images_are_packed_as_they_are_or_without_loss():
    """Of a page of a TIFF, the whole file would be its first page."""
    pages = [PIL.Image.new("RGB", (9 + n, 7), (10 * n, 20, 30)) for n in range(3)]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    for page in range(3):
        image = image_from_bytes(file.getvalue(), "pages", official=True, page=page)
        again = image_from_bytes(encoded(image), "again", official=True)
        assert again.size_px == image.size_px == (9 + page, 7)
        assert again.load().tobytes() == image.load().tobytes()
    assert encoded(image_from_bytes(jpeg(), "one", official=True)) == jpeg()
    assert encoded(image_from_bytes(jpeg(), "seen", official=False)) != jpeg()


def test_choices_share_images_and_name_their_own():
    blank = LazyImage((1, 1), lambda: None)
    one, other = jpeg((9, 7), 1), jpeg((8, 5), 2)
    choices = [(Document("d", (blank, "a")), [one]), (Document("d", ("b", blank, blank)), [other, one])]
    data_ = encode_choices(choices)
    assert data_.count(one) == 1
    first, second = (decode(data_, choice=number) for number in range(2))
    assert first.parts[0].size_px == (9, 7) and first.parts[1] == "a"
    assert [part.size_px for part in second.parts[1:]] == [(8, 5), (9, 7)]
    with pytest.raises(ValueError, match="was not written by"):
        decode(data_.replace(b'"images": [0]', b'"images": [9]'))
