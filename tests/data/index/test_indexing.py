"""Indexing before a run: what its steps reach and no more, in processes, after a kill, again where it is outdated."""

import contextlib
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from sharded_data import captions, data, write_tars
from tar_files import caption_tar, write_tar

from xgenmm_jax.data.errors import UNREADABLE, SourceError
from xgenmm_jax.data.index.indexing import check_ready, index_experiment, index_source, windows_needed
from xgenmm_jax.data.index.source_index import SourceIndex
from xgenmm_jax.data.index.workers import Measuring
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.data.storage.tars import Tars
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import train_tokenizer

SHARDS, RECORDS, STEPS = 9, 12, 5
STYLE = ChatStyle(system=None)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_tars(tmp_path / "tars", SHARDS, RECORDS)


def sized(folder: Path) -> set[str]:
    return {path.name.removesuffix(".sizes.npz") for path in folder.glob(".index/*/*.sizes.npz")}


@contextlib.contextmanager
def not_measuring(monkeypatch):
    """Any shard that is walked or measured in here fails the test."""

    def refuse(*arguments):
        raise AssertionError("the index is written")

    with monkeypatch.context() as patch:
        patch.setattr(SourceIndex, "measure", refuse)
        patch.setattr(SourceIndex, "_write", refuse)
        yield


def test_processes_write_what_one_process_writes(folder, words, tmp_path):
    done = []
    one = index_source(
        captions(folder), Measuring(words, STYLE), progress=lambda what, now, of: done.append((what, now, of))
    )
    several = index_source(captions(folder, index=str(tmp_path / "other")), Measuring(words, STYLE), processes=2)
    assert one.counts == several.counts and one.records == SHARDS * RECORDS == one.counts.records
    assert (one.shards, one.measured, one.new, one.outdated) == (SHARDS, SHARDS, SHARDS, None)
    assert done[-1] == ("image_captions: shards measured", SHARDS, SHARDS)
    written = {path.name: path.read_bytes() for path in (folder / ".index" / "image_captions").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()} == written
    # A caption of six words, an image, the end of its text, the end of the document.
    assert one.counts.spreads["tokens"].longest >= 9 and one.counts.spreads["images"].counts == {1: SHARDS * RECORDS}


def test_an_experiment_is_indexed_as_far_as_its_steps_reach(folder, words, monkeypatch):
    config = data(words, captions(folder, group_shards=1))
    indexed = index_experiment(config, 7, STEPS)
    assert 0 < len(sized(folder)) < SHARDS and indexed.sources[0].measured >= len(sized(folder))
    assert indexed.sources[0].records == SHARDS * RECORDS and indexed.without_index == ()
    with not_measuring(monkeypatch):
        check_ready(config, 7, STEPS)
        with contextlib.closing(loader.batches(config, 7, (0, 0), 1, 2)) as iterator:
            batches = list(itertools.islice(iterator, STEPS))
        assert batches[-1].state.window < indexed.windows
        with pytest.raises(SourceError, match=r"lacks the sizes of '000\d.tar'.*`xgenmm data index EXPERIMENT`"):
            check_ready(config, 7, 10 * STEPS)


def test_several_hosts_make_no_index(folder, words, monkeypatch):
    """Each host would walk and measure the same shards at the same time."""
    for source in (captions(folder), Mapped(captions(folder), lambda record: record)):
        config = data(words, source)
        with not_measuring(monkeypatch):
            for ready in (check_ready, lambda *given: next(loader.batches(given[0], 7, (0, 0), 0, 2))):
                with pytest.raises(SourceError, match=r"has no index in .*`xgenmm data index EXPERIMENT`"):
                    ready(config, 7, STEPS)
    index_source(captions(folder), None)  # a manifest and no sizes
    with not_measuring(monkeypatch), pytest.raises(SourceError, match="lacks the sizes of .*data index EXPERIMENT"):
        next(loader.batches(data(words, captions(folder)), 7, (0, 0), 0, 2))


def test_a_killed_index_goes_on(folder, words, monkeypatch):
    measure, done = SourceIndex.measure, []

    def killed_at_the_fourth(self, number, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(number)
        return measure(self, number, *rest)

    monkeypatch.setattr(SourceIndex, "measure", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        index_source(captions(folder), Measuring(words, STYLE))
    assert len(sized(folder)) == 3
    monkeypatch.setattr(SourceIndex, "measure", measure)
    before = {path: path.stat().st_mtime_ns for path in folder.glob(".index/*/*.npz")}
    indexed = index_source(captions(folder), Measuring(words, STYLE))
    assert (indexed.new, indexed.measured, indexed.counts.records) == (SHARDS - 3, SHARDS, SHARDS * RECORDS)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_differs_is_told_and_made_again(folder, words, tmp_path):
    measuring = Measuring(words, STYLE)
    index_source(captions(folder), measuring)
    assert index_source(captions(folder), measuring).new == 0
    # Shards that changed, came and went; the sizes of the others stay.
    caption_tar(folder / "0002.tar", RECORDS, seed=99, words=300)
    (folder / "0003.tar").unlink()
    indexed = index_source(captions(folder), measuring)
    assert "0003.tar' is gone" in indexed.outdated and indexed.new == 1 and len(sized(folder)) == SHARDS - 1
    assert indexed.counts.spreads["tokens"].longest > 300
    # Another tokenizer, chat style or reader measures all.
    other = tmp_path / "other.model"
    train_tokenizer(["a red circle"] * 9, other, pieces=380)
    indexed = index_source(captions(folder), Measuring(str(other), STYLE))
    assert indexed.outdated.startswith("tokenizer was") and indexed.new == SHARDS - 1
    json_captions = ShardedSource(Tars(f"{folder}/*.tar"), ImageCaptions(caption="json"))
    indexed = index_source(json_captions, Measuring(str(other), STYLE))
    assert 'reader caption was "txt" and is "json"' in indexed.outdated and indexed.new == SHARDS - 1
    # A torn manifest, none at all, and the wish for another one.
    manifest = folder / ".index" / "image_captions" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:200])
    assert "is no manifest" in index_source(json_captions, Measuring(str(other), STYLE)).outdated
    manifest.unlink()
    assert "no manifest that says" in index_source(json_captions, Measuring(str(other), STYLE)).outdated
    assert index_source(json_captions, Measuring(str(other), STYLE), again=True).new == SHARDS - 1


def test_sizes_outdated_by_a_killed_index_are_not_taken_for_new_ones(folder, words, tmp_path, monkeypatch):
    """Killed right after its manifest was written, an index of another tokenizer left the sizes of the one before."""
    index_source(captions(folder), Measuring(words, STYLE))
    monkeypatch.setattr(SourceIndex, "measure", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        index_source(captions(folder), Measuring(words, ChatStyle("be brief")))
    assert not sized(folder)
    with pytest.raises(SourceError, match="measured by something else"):
        check_ready(data(words, captions(folder)), 7, STEPS)


def test_damaged_sizes_are_measured_again_and_bad_records_counted(folder, words):
    samples = [(f"{n:04}", {"jpg": b"GIF89a" if n % 4 else b"", "txt": b"a red circle"}) for n in range(8)]
    write_tar(folder / "0001.tar", samples)
    first = index_source(captions(folder), Measuring(words, STYLE))
    (folder / ".index" / "image_captions" / "0004.tar.sizes.npz").write_bytes(b"PK")
    again = index_source(captions(folder), Measuring(words, STYLE))
    assert again.new == 1 and again.counts == first.counts and first.counts.bad == {UNREADABLE: 8}
    assert first.counts.examples[UNREADABLE][0] == "0001.tar[0]"


@pytest.mark.parametrize("pattern", ["*.tar", "./*.tar", "../tars/*.tar", "{0000..0002}.tar"])
def test_shards_of_the_current_folder_keep_their_names(folder, monkeypatch, pattern):
    """They lost their first character, so a.tar and b.tar shared their sizes."""
    monkeypatch.chdir(folder)
    index = ShardedSource(Tars(pattern), ImageCaptions()).source_index()
    assert index.names[:3] == ["0000.tar", "0001.tar", "0002.tar"]


def test_windows_are_estimated_from_all_over_the_run():
    """The first windows alone say little where later shards hold longer samples."""
    for rows_of, rows in ((lambda window: 10, 1000), (lambda window: 40 if window < 5 else 10, 1000)):
        windows = windows_needed(rows, rows_of)
        assert rows <= sum(map(rows_of, range(windows))) <= 1.3 * rows
    with pytest.raises(SourceError, match="can be used"):
        windows_needed(10, lambda window: 0)


def test_quantiles_are_those_of_numpy(folder):
    from xgenmm_jax.data.index.counts import Spread

    numbers, spread = np.random.default_rng(0).integers(0, 1000, 501), Spread()
    spread.add(numbers[:200])
    spread.add(numbers[200:])
    for share in (0.0, 0.5, 0.95, 1.0):
        assert spread.quantile(share) == np.quantile(numbers, share, method="inverted_cdf")
    assert spread.longest == numbers.max()


def test_two_sources_that_differ_need_two_indexes(folder, words):
    """They would delete each other's, and each start would ask for the other to be made again."""
    first, second = (
        ShardedSource(Tars(f"{folder}/{numbers}.tar"), ImageCaptions()) for numbers in ("{0000..0001}", "{0002..0003}")
    )
    config = data(words, first)
    config = dataclasses.replace(config, mixture=((first, 1.0), (Mapped(second, lambda record: record), 1.0)))
    for make in (lambda: index_experiment(config, 7, STEPS), lambda: check_ready(config, 7, STEPS)):
        with pytest.raises(ValueError, match=r"two sources that differ have one index.*give each another name"):
            make()
    assert not (folder / ".index").exists()
    held_out = dataclasses.replace(first, held_out_shards=1)
    index_experiment(dataclasses.replace(config, mixture=((first, 1.0), (held_out, 1.0))), 7, 1)  # the same shards
