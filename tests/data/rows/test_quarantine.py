"""One bad record costs that record: it is left out, counted and named, and nothing else of the data changes."""

import dataclasses
import itertools
import json
import logging
import re

import numpy as np
import PIL.Image
import pytest
import sharded_data
from sharded_data import assert_same
from window_samples import window_samples

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.errors import BAD_IMAGE, NO_ROW, UNREADABLE, UNUSABLE, Skip, SourceError
from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.data.readers.records import RecordFiles, write_records
from xgenmm_jax.data.records import Document, LazyImage, Preference, Turn
from xgenmm_jax.data.rows import build, quarantine
from xgenmm_jax.data.rows.config import DataConfig, LoaderConfig
from xgenmm_jax.data.rows.loader import HostBatch
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.rows.quarantine import SampleIds
from xgenmm_jax.data.rows.window import measurer_of, open_sources, plan_window
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.nano.sources import Synthetic

ANYRES = AnyRes(grids=((2, 2),), view_px=32, view_cells=4, single_view_up_to_px=32)
RECORDS = 60


@pytest.fixture
def folder(tmp_path):
    """Images of 48 x 40 px: one whole, copies of it, and what copies become."""
    noise = np.random.default_rng(3).integers(0, 255, (40, 48, 3), np.uint8)
    for name in ("whole.png", "whole.jpg"):
        PIL.Image.fromarray(noise).save(tmp_path / name)
    png, jpg = ((tmp_path / f"whole.{kind}").read_bytes() for kind in ("png", "jpg"))
    (tmp_path / "cut.png").write_bytes(png[:900])
    (tmp_path / "cut.jpg").write_bytes(jpg[:900])
    (tmp_path / "zeroed.png").write_bytes(png[:400] + bytes(400) + png[800:])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    return tmp_path


def llava(folder, images: dict[int, str | list[str]], name: str = "data", **rows) -> LlavaJson:
    """RECORDS conversations about whole.png, but for those named."""
    entries = []
    for n in range(RECORDS):
        image = images.get(n, "whole.png")
        markers = "<image>" * (len(image) if isinstance(image, list) else 1)
        turns = [{"from": "human", "value": f"{markers}\nred {n}?"}, {"from": "gpt", "value": f"the circle {n}"}]
        entries.append({"id": f"r{n}", "image": image, "conversations": turns} | rows.get(f"r{n}", {}))
    (folder / f"{name}.json").write_text(json.dumps(entries))
    return LlavaJson(str(folder / f"{name}.json"), str(folder))


def data(words: str, *mixture, **options) -> DataConfig:
    row = RowConfig(length=200, crops=10, images=6, vision_tokens=4, too_long="drop")
    return sharded_data.data(words, *mixture, **({"window": 32, "row": row} | options))


def take(config: DataConfig, count: int = 10, *where, **host) -> list[HostBatch]:
    return sharded_data.take(config, count, *where, **host)


def kinds(batches: list[HostBatch]) -> set[tuple[str, str]]:
    return {(skip.record.split("/")[-1], skip.reason) for one in batches for skip in one.skipped}


def test_records_that_cannot_be_used_are_left_out_by_record_and_reason(folder, words, caplog):
    """Each of them ended the run where it was drawn, and again at each restart."""
    bad = {3: "cut.png", 9: "gone.png", 12: "empty.png", 20: "page.jpg", 31: "../whole.png", 44: "cut.jpg"}
    two_markers = {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "<image>"}]}
    long = {"conversations": [{"from": "human", "value": "red" * 300}, {"from": "gpt", "value": "x"}]}
    unequal = {"image": ["whole.png"] * 2, "conversations": two_markers["conversations"]}
    config = data(words, llava(folder, bad, r50=long, r55=unequal))
    with caplog.at_level(logging.WARNING):
        got = take(config, 12)
    assert kinds(got) == {
        ("r3", BAD_IMAGE), ("r44", BAD_IMAGE),
        ("r50", NO_ROW), ("r55", UNUSABLE),
        *((f"r{n}", UNREADABLE) for n in (9, 12, 20, 31)),
    }  # fmt: skip
    details = {skip.record.split("/")[-1]: skip.detail for one in got for skip in one.skipped}
    said = {"r3": "cut.png' is truncated", "r9": "no file .*gone.png", "r31": "lies outside", "r44": "cut.jpg",
            "r50": "exceed the row's 200", "r55": "1 <image>.* 2 images"}  # fmt: skip
    assert all(re.search(pattern, details[record]) for record, pattern in said.items())
    ids = {id_ for one in got for row in one.sample_ids for id_ in row.split(" + ")}
    assert ids == {f"llava/data/r{n}" for n in range(RECORDS) if n not in {*bad, 50, 55}}
    # Several epochs have passed: each is counted each time and logged once.
    assert sum(skip.record.endswith("/r9") for one in got for skip in one.skipped) > 1
    assert caplog.text.count("left out llava/data/r9 of llava/data, unreadable record: data: llava/data/r9: ") == 1


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "zeroed.png"])
def test_an_image_that_cannot_be_decoded_leaves_its_place_empty(folder, words, name):
    """All other samples lie where they lie beside a whole image, to the last pixel; positions do not move."""
    kind = name.split(".")[-1]
    damaged, whole = (
        take(data(words, llava(folder, {7: image, 8: image}, image.split(".")[0])), 8)
        for image in (name, f"whole.{kind}")
    )
    count = 0
    for one, other in zip(damaged, whole, strict=True):
        assert one.state == other.state
        ids = [[id_.split("/")[-1] for id_ in row.split(" + ")] for row in other.sample_ids]
        assert one.sample_ids == [
            " + ".join(f"llava/{name.split('.')[0]}/{id_}" for id_ in row if id_ not in ("r7", "r8")) for row in ids
        ]
        for b, row in enumerate(ids):
            gone = [number + 1 for number, id_ in enumerate(row) if id_ in ("r7", "r8")]
            count += len(gone)
            is_gone = np.isin(other.batch.segment_ids[b], gone)
            crops_gone = np.isin(other.batch.crop_segment[b], gone)
            images_gone = np.unique(other.batch.crop_image[b][crops_gone])
            empty = build.empty_rows(1, data(words).row, ANYRES, Tokenizer.load(words).pad_id)
            for field in ("token_ids", "segment_ids", "positions", "loss_mask", "slot"):
                want = np.where(is_gone, getattr(empty, field)[0], getattr(other.batch, field)[b])
                np.testing.assert_array_equal(getattr(one.batch, field)[b], want)
            for field in ("pixels", "crop_image", "crop_segment"):
                want = getattr(other.batch, field)[b].copy()
                want[crops_gone] = getattr(empty, field)[0][crops_gone]
                np.testing.assert_array_equal(getattr(one.batch, field)[b], want)
            for field in ("image_grid", "image_size_px", "image_valid"):
                want = getattr(other.batch, field)[b].copy()
                want[images_gone] = 0
                np.testing.assert_array_equal(getattr(one.batch, field)[b], want)
    assert count == sum(len(one.skipped) for one in damaged) > 2


def everywhere(folder, words, **options) -> DataConfig:
    source = llava(folder, {3: "cut.png", 9: "gone.png", 30: ["whole.png", "cut.jpg"]}, r5={"conversations": []})
    return data(words, source, Synthetic("questions", 100), **options)


def skipped_of(batches: list[HostBatch]) -> list[list[Skip]]:
    return [sorted(one.skipped) for one in batches]


def test_rows_and_counts_do_not_depend_on_hosts(folder, words):
    whole = take(everywhere(folder, words), 48)
    parts = [take(everywhere(folder, words), 48, host=host, hosts=2) for host in (0, 1)]
    for one, *halves in zip(whole, *parts, strict=True):
        assert_same(one.batch, Batch(*map(np.concatenate, zip(*(half.batch for half in halves), strict=True))))
        assert one.sample_ids == [*halves[0].sample_ids, *halves[1].sample_ids]
        assert sorted(one.skipped) == sorted(halves[0].skipped + halves[1].skipped)
    assert {skip.reason for one in parts[1] for skip in one.skipped} == {BAD_IMAGE}


def test_rows_and_counts_do_not_depend_on_where_a_run_is_resumed(folder, words):
    """A record that is counted is counted at the same step again, and at none twice."""
    whole = take(everywhere(folder, words))
    opening = [skip for skip in whole[0].skipped if skip.at_opening]
    assert [(skip.record, skip.count) for skip in opening] == [("llava/data/r5", 1)]
    assert not any(skip.at_opening for one in whole[1:] for skip in one.skipped)
    for done in (1, 3, 4, 7):
        again = take(everywhere(folder, words), len(whole) - done, whole[done - 1].state)
        assert [one.sample_ids for one in again] == [one.sample_ids for one in whole[done:]]
        drawn = [[skip for skip in one.skipped if not skip.at_opening] for one in again]
        assert [sorted(one) for one in drawn] == skipped_of(whole[done:])
        assert [skip for skip in again[0].skipped if skip.at_opening] == opening


@pytest.mark.parametrize(
    "loader",
    [LoaderConfig(threads=4, ahead=6), LoaderConfig(threads=1, workers=2, ahead=1)],
    ids=["threads", "workers"],
)
def test_rows_and_counts_do_not_depend_on_threads_and_workers(folder, words, loader):
    whole, got = take(everywhere(folder, words)), take(everywhere(folder, words, loader=loader))
    for one, other in zip(whole, got, strict=True):
        assert_same(one.batch, other.batch)
        assert (one.sample_ids, one.state) == (other.sample_ids, other.state)
    assert skipped_of(got) == skipped_of(whole) != [[]] * len(whole)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_windows_without_a_sample_are_passed_over_and_counted(folder, words, window):
    """In a window of one sample, one bad record is all of it; it ended the run."""
    config = data(words, llava(folder, {n: "gone.png" for n in range(0, RECORDS, 2)}), window=window, batch_rows=6)
    whole = take(config, 6)
    unreadable = [skip for one in whole for skip in one.skipped if skip.reason == UNREADABLE]
    state = whole[-1].state
    opened, count = open_sources(config), state.window + (state.row > 0)
    windows = [plan_window(config, opened, measurer_of(config), 7, n) for n in range(count)]
    assert sum(skip.count for skip in unreadable) == sum(len(one.skipped) for one in windows) > 10
    assert any(not one.rows for one in windows)
    ids = [" + ".join(one.id for one in row) for n in range(count) for row in window_samples(config, 7, n)]
    assert [row for one in whole for row in one.sample_ids] == ids[:36]
    for done in range(1, 6):
        again = take(config, 6 - done, whole[done - 1].state)
        assert [one.sample_ids for one in again] == [one.sample_ids for one in whole[done:]]
        assert skipped_of(again) == skipped_of(whole[done:])
    config = dataclasses.replace(config, loader=LoaderConfig(threads=4, ahead=8))
    assert skipped_of(take(config, 6)) == skipped_of(whole)


def test_a_window_of_nothing_is_an_error_that_says_why(folder, words):
    gone = llava(folder, {n: "gone.png" for n in range(RECORDS)})
    for window, tried, last in ((32, 32, 0), (100, 100, 0), (5, 35, 6), (1, 32, 31)):
        said = f"none of the {tried} samples up to window {last} can be used: {tried} unreadable record"
        with pytest.raises(SourceError, match=said):
            take(data(words, gone, window=window), 1)


@pytest.mark.parametrize("hosts", [1, 4])
def test_images_none_of_which_can_be_decoded_are_an_error(folder, words, hosts):
    """A folder that was taken away must not be trained on to the end, with a loss of 0."""
    config = data(words, llava(folder, {n: "cut.png" for n in range(RECORDS)}))
    with pytest.raises(SourceError, match="not one of [0-9]+ samples can be used: .*unreadable image"):
        take(config, 100, hosts=hosts)


def test_a_sample_that_a_row_must_hold_is_an_error(folder, words):
    row = RowConfig(length=30, crops=10, images=6, vision_tokens=4)
    with pytest.raises(ValueError, match="sample llava/data/r.* does not fit"):
        take(data(words, llava(folder, {}), row=row), 1)


def test_errors_of_workers_name_the_record(folder, words):
    config = data(words, llava(folder, {n: "gone.png" for n in range(RECORDS)}), loader=LoaderConfig(workers=1))
    with pytest.raises(Exception, match="none of the 32 samples up to .*gone.png"):
        take(config, 1)


def test_pairs_and_records_in_files_are_left_out_too(folder, words):
    def pair(n: int):
        blob = (folder / ("cut.png" if n % 5 == 2 else "whole.png")).read_bytes()
        turns = (Turn("user", f"<image>\n{n}?"),)
        return Preference(f"p{n}", (LazyImage((48, 40), lambda: None),), turns, "the red", "a blue"), [blob]

    write_records(folder / "a.array_record", map(pair, range(30)))
    path = folder / "a.array_record"
    blob = bytearray(path.read_bytes())
    blob[blob.index(b'"p11"')] = 0
    path.write_bytes(blob)
    got = take(data(words, RecordFiles(str(path))), 8)
    damaged = {record for record, reason in kinds(got) if reason == BAD_IMAGE}
    assert damaged == {f"p{n}" for n in range(2, 30, 5)}
    [(record, reason)] = [kind for kind in kinds(got) if kind[1] != BAD_IMAGE]
    assert record.endswith("a.array_record'") and reason == UNREADABLE  # its id cannot be read
    for one in got:
        for row in one.batch.segment_ids:
            present = set(row.tolist()) - {0}
            assert {(n + 1) // 2 for n in present if n % 2} == {n // 2 for n in present if n % 2 == 0}


def test_what_is_told_is_told_once_and_not_without_end(caplog):
    skip_logger = quarantine.SkipLogger()
    many = [Skip("s", f"r{n}", BAD_IMAGE, "x") for n in range(200)]
    with caplog.at_level(logging.WARNING):
        skip_logger.log([*many, *many])
        skip_logger.log([Skip("s", "r1", UNREADABLE, "y"), Skip("t", "r1", BAD_IMAGE, "x")])
        at_opening = [Skip("s", "r9", "no object", "7", 3, True), Skip("s", "r2", "turns out of order", "z", 1, True)]
        skip_logger.log(at_opening)
    lines = caplog.messages
    assert len(lines) == quarantine.MOST_LOGGED + 3
    assert lines[quarantine.MOST_LOGGED - 1].endswith("x; further ones of this kind are counted alone")
    assert lines[-1].startswith("data: s leaves out 4 entries: 3 no object (first: r9: 7), 1 turns out of order")


def test_ids_carry_what_is_skipped_and_are_a_list():
    ids = SampleIds.of(["a", "b + c"], [Skip("s", "d", "x", "y")])
    assert ids == ["a", "b + c"] and ids.skipped[0].record == "d" and SampleIds(["a"]).skipped == ()


def test_documents_of_one_source_do_not_take_part_in_anothers_count(folder, words):
    write_records(folder / "d.array_record", [(Document(f"d{n}", (f"red {n}",)), []) for n in range(40)])
    documents = RecordFiles(str(folder / "d.array_record"))
    config = data(words, llava(folder, {n: "gone.png" for n in range(0, RECORDS, 3)}), documents)
    skipped = itertools.chain.from_iterable(one.skipped for one in take(config, 6))
    assert {(skip.source, skip.reason) for skip in skipped} == {("llava/data", UNREADABLE)}


def test_the_window_is_what_could_be_packed(folder, words):
    config = dataclasses.replace(data(words, llava(folder, {n: "gone.png" for n in range(1, RECORDS)})), window=120)
    window = plan_window(config, open_sources(config), measurer_of(config), 7, 0)
    assert [[one.id for one in row] for row in window_samples(config, 7, 0)] == [["llava/data/r0"] * 2]
    assert len(window.skipped) == 118
