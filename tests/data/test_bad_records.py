"""Records of sharded sources that cannot be used: each costs its part of its row and is counted; too many end a run.

With and without worker processes alike.
"""

from collections import Counter
import contextlib
import dataclasses
import io
import itertools
import os
from pathlib import Path
import struct
import subprocess
import time
import zlib

import mixed_sources
import numpy as np
import PIL.EpsImagePlugin
import PIL.Image
import pytest
from sharded_data import SEED, take, write_tars
from tar_files import caption_tar, jpeg, write_tar

from xgenmm_jax.data.errors import BAD_IMAGE, NOT_AS_INDEXED, UNREADABLE, SourceError
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.rows import loader, quarantine
from xgenmm_jax.data.rows.config import DataConfig, LoaderConfig
from xgenmm_jax.data.rows.loader import HostBatch
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.training.runs.skipped import SkippedLog, read_skipped

SHARDS, RECORDS = 5, 12


@pytest.fixture
def folder(tmp_path) -> Path:
    mixed_sources.tokenizer(tmp_path)
    write_tars(tmp_path / "tars", SHARDS, RECORDS)
    return tmp_path


def config_of(folder: Path, workers: int = 0, **options) -> DataConfig:
    tars = mixed_sources.CountedTars(f"{folder}/tars/*.tar", log=str(folder / "reads"))
    return mixed_sources.config(
        folder, workers, mixture=((ShardedSource(tars, ImageCaptions()), 1.0),), **{"max_bad_rate": 1.0} | options
    )


# Images.

NOISE = PIL.Image.fromarray(np.random.default_rng(5).integers(0, 255, (20, 24, 3), np.uint8))
GRAY_16 = np.random.default_rng(6).integers(0, 2**16, (20, 24), np.uint16)


def encoded(image: PIL.Image.Image, format_: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def exif(orientation: int, resolution: tuple[int, int] = (72, 1)) -> bytes:
    """A camera's metadata: how it was held, and its dots per inch as a fraction."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHII", 0x011A, 5, 1, 8 + 2 + 24 + 4)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4) + struct.pack("<II", *resolution)


def bomb(side: int = 9_440) -> bytes:
    """A PNG of 89.1 million pixels, in its header: more than ours, less than Pillow refuses."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", b"x"))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


TURNED = NOISE.transpose(PIL.Image.Transpose.ROTATE_90)
OTHER_PAGE = PIL.Image.new("RGB", (50, 8), "red")
READ = {
    "one pixel": encoded(NOISE.crop((0, 0, 1, 1)), "PNG"),
    "CMYK": encoded(NOISE.convert("CMYK"), "JPEG"),
    "16 bits": encoded(PIL.Image.fromarray(GRAY_16), "PNG"),
    "palette with transparency": encoded(NOISE.quantize(16), "PNG", transparency=3),
    "EXIF rotation": encoded(NOISE, "JPEG", exif=exif(6)),
    "EXIF with a zero denominator": encoded(NOISE, "JPEG", exif=exif(8, (72, 0))),
    "animated GIF": encoded(NOISE.quantize(8), "GIF", save_all=True, append_images=[TURNED.quantize(8)]),
    "multi-page TIFF of JPEG": encoded(NOISE, "TIFF", compression="jpeg", save_all=True, append_images=[OTHER_PAGE]),
}
"""Images that Pillow reads."""
LEFT_OUT = {
    "truncated": (encoded(NOISE.resize((60, 50)), "JPEG")[:1200], BAD_IMAGE, "is truncated or damaged"),
    "empty": (b"", UNREADABLE, "has no bytes"),
    "bomb": (bomb(), UNREADABLE, "9440 x 9440 pixels, more than 89,000,000"),
    "EPS": (encoded(NOISE, "EPS"), UNREADABLE, "is EPS, which is not read here"),
}
"""Images that are not: why, and what is said."""


def as_the_released_code_reads(name: str) -> PIL.Image.Image:
    """The pixels of an image as the released code hands them on; of 16 bits, which it clips to white, the high byte."""
    if name == "16 bits":
        return PIL.Image.fromarray((GRAY_16 >> 8).astype(np.uint8)).convert("RGB")
    with PIL.Image.open(io.BytesIO(READ[name])) as image:
        return image.convert("RGB")


def write_images(path: Path, read: dict[str, bytes]) -> dict[str, str]:
    """A tar of READ, or what is given for them, LEFT_OUT and whole ones; gives the name of each record by its label."""
    images = {**read, **{name: data for name, (data, _, _) in LEFT_OUT.items()}}
    images |= {f"whole {n}": jpeg((30, 20), n) for n in range(6)}
    names = list(images)
    write_tar(path, ((name.replace(" ", "_"), {"jpg": images[name], "txt": b"a red circle"}) for name in names))
    return {f"{path.name}[{number}]": name for number, name in enumerate(names)}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_what_the_released_code_reads_or_is_left_out_with_its_reason(tmp_path, monkeypatch, workers):
    """Rows of odd files are those of PNGs with the same pixels. EPS is never opened: Pillow runs Ghostscript on it."""
    trap = tmp_path / "bin" / "gs"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{trap.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(PIL.EpsImagePlugin, "gs_binary", None)
    plain = {name: encoded(as_the_released_code_reads(name), "PNG") for name in READ}
    got = {}
    for kind, images in (("odd", READ), ("plain", plain)):
        mixed_sources.tokenizer(tmp_path)
        names = write_images(tmp_path / kind / "tars" / "a.tar", images)
        (tmp_path / kind / "small.model").symlink_to(tmp_path / "small.model")
        got[kind] = take(config_of(tmp_path / kind, workers if kind == "odd" else 0), 8)
    for one, other in zip(got["odd"], got["plain"], strict=True):
        assert one.sample_ids == other.sample_ids and mixed_sources.row_hashes(one) == mixed_sources.row_hashes(other)
        assert sorted(one.skipped) == sorted(other.skipped)
    ids = {id_ for one in got["odd"] for row in one.sample_ids for id_ in row.split(" + ") if id_}
    assert ids == {f"a.tar/{name.replace(' ', '_')}" for name in names.values() if name not in LEFT_OUT}
    by_id = {f"a.tar/{name}": name for name in LEFT_OUT}
    left_out = {names.get(skip.record) or by_id[skip.record]: skip for one in got["odd"] for skip in one.skipped}
    assert left_out.keys() == LEFT_OUT.keys()
    for name, (_, reason, said) in LEFT_OUT.items():
        skip = left_out[name]
        assert (skip.source, skip.shard, skip.reason) == ("image_captions", "a.tar", reason) and said in skip.detail
    assert not (tmp_path / "ran").exists()
    with pytest.raises(subprocess.CalledProcessError), PIL.Image.open(io.BytesIO(LEFT_OUT["EPS"][0])) as image:
        image.load()
    assert (tmp_path / "ran").exists(), "the trap is none"


# Records and shards.


def test_records_that_cannot_be_used_are_counted_by_shard_and_reason(folder):
    samples = [(f"{n:04}", {"jpg": jpeg(seed=n), "txt": b"a red circle"}) for n in range(RECORDS)]
    samples[3][1]["txt"] = b" "
    samples[5][1]["jpg"] = b"GIF89a"
    write_tar(folder / "tars" / "0002.tar", samples)
    skipped = [skip for one in take(config_of(folder), 12) for skip in one.skipped]
    bad = {(skip.record, skip.reason, skip.shard) for skip in skipped}
    assert bad == {(f"0002.tar[{n}]", UNREADABLE, "0002.tar") for n in (3, 5)}


def damage(folder: Path, config: DataConfig, shard: str, numbers: tuple[int, ...]) -> None:
    """Zeros inside the JPEGs of these records, behind their headers."""
    path = folder / "tars" / shard
    offsets = config.mixture[0][0].storage.locate(str(path)).arrays["offset"]
    content = bytearray(path.read_bytes())
    for number in numbers:
        start = int(offsets[number]) + 700
        content[start : start + 150] = bytes(150)
    path.write_bytes(content)


def id_of(record: str) -> str:
    """The id of a record of `caption_tar`: "0001.tar[4]" and "0001.tar/000000004" are one."""
    shard, _, number = record.removesuffix("]").partition("[")
    return f"{shard}/{int(number):09}" if number else record


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_behind_the_index_changes_its_own_segments_alone(folder, tmp_path, workers):
    """A shard that goes away and images that are damaged leave padding; every other row keeps its hash."""
    config = config_of(folder, workers)
    whole = take(config_of(folder), 90)
    source = config.mixture[0][0].storage
    Path(source.log).unlink()
    damage(folder, config, "0001.tar", (4, 7))
    log, step = SkippedLog(tmp_path, 0), 0
    got: list[HostBatch] = []
    with contextlib.closing(loader.batches(config, SEED)) as iterator:
        # The shard goes when every process has opened the source; before, the run would not begin.
        while len({process for process, *_ in source.reads()}) < max(1, workers) and len(got) < 50:
            got.append(next(iterator))
            time.sleep(0.3 if workers else 0)
        (folder / "tars" / "0003.tar").unlink()
        got += itertools.islice(iterator, 40)
    lost: Counter[str] = Counter()
    for step, (one, other) in enumerate(zip(whole, got, strict=False), start=1):
        log.add(step, other.skipped)
        assert one.state == other.state
        missing = [
            Counter(id_ for id_ in before.split(" + ") if id_) - Counter(id_ for id_ in after.split(" + ") if id_)
            for before, after in zip(one.sample_ids, other.sample_ids, strict=True)
        ]
        hashes = zip(mixed_sources.row_hashes(one), mixed_sources.row_hashes(other), strict=True)
        assert [before != after for before, after in hashes] == [bool(row) for row in missing]
        assert sum(missing, Counter()) == Counter(id_of(skip.record) for skip in other.skipped)
        lost += sum(missing, Counter())
        # Of a row that has lost something the rest is as it was.
        is_gone = (one.batch.segment_ids > 0) & (other.batch.segment_ids == 0)
        for name in ("token_ids", "segment_ids", "positions", "loss_mask", "slot"):
            np.testing.assert_array_equal(getattr(one.batch, name)[~is_gone], getattr(other.batch, name)[~is_gone])
        crops = other.batch.crop_segment > 0
        np.testing.assert_array_equal(one.batch.pixels[crops], other.batch.pixels[crops])
        assert not other.batch.pixels[~crops].any() and not other.batch.loss_mask[is_gone].any()
        seen = other.seen["image_captions"]
        assert seen.tried - seen.samples == len(other.skipped) and seen.tried == one.seen["image_captions"].tried
    shards = {id_.split("/")[0] for id_ in lost}
    assert shards == {"0001.tar", "0003.tar"} and len({id_ for id_ in lost if id_.startswith("0003")}) == RECORDS
    # What a run writes down: a line each time, with source, shard, record and reason.
    lines = read_skipped(tmp_path / "skipped.jsonl")
    assert sum(line["count"] for line in lines) == log.figures["skipped"] == lost.total()
    assert {(line["source"], line["shard"], id_of(line["record"]), line["reason"]) for line in lines} == {
        ("image_captions", id_.split("/")[0], id_, BAD_IMAGE if id_.startswith("0001") else UNREADABLE) for id_ in lost
    }


def test_a_record_of_another_size_than_its_index_says_is_left_out(folder):
    """A tar that was written anew, as large as before and with longer captions."""
    config = config_of(folder)
    take(config, 1)
    path = folder / "tars" / "0002.tar"
    before = path.stat().st_size
    caption_tar(path, RECORDS, seed=2, words=9)
    assert path.stat().st_size == before
    skipped = [skip for one in take(config, 12) for skip in one.skipped]
    assert skipped and {skip.shard for skip in skipped} == {"0002.tar"}
    assert NOT_AS_INDEXED in {skip.reason for skip in skipped} <= {NOT_AS_INDEXED, UNREADABLE}


def test_a_run_stops_where_too_much_of_a_source_is_bad(folder, monkeypatch):
    """At the same batch with and without workers, with what it was."""
    monkeypatch.setattr(quarantine, "LAST", 100)
    samples = [(f"{n:04}", {"jpg": jpeg(seed=n), "txt": b"a red circle" if n % 4 else b" "}) for n in range(RECORDS)]
    write_tar(folder / "tars" / "0002.tar", samples)
    take(config_of(folder, max_bad_rate=0.2), 30)
    stopped = []
    for workers in (0, 2):
        config = dataclasses.replace(config_of(folder, max_bad_rate=0.03), loader=LoaderConfig(workers=workers))
        with contextlib.closing(loader.batches(config, SEED)) as iterator:
            said = r"data: [1-9][0-9,]* samples of image_captions cannot be used, more than 3.0% of 100 .*0002.tar"
            with pytest.raises(SourceError, match=said):
                for _ in range(1000):
                    last = next(iterator).state
        stopped.append(last)
    assert stopped[0] == stopped[1] > (0, 0)
