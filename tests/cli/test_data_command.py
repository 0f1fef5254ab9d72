"""`xgenmm data check`, `index` and `pack` as typed, on tars, tables and JSON."""

import json
from pathlib import Path
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sharded_data
from tar_files import caption_tar, jpeg, write_tar

from xgenmm_jax.cli import main as cli

EXPERIMENT = """
import real_rows, sharded_data
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.tars import Tars
from xgenmm_jax.training.config import TrainConfig

mine = ShardedSource(Tars("tars/*.tar"), ImageCaptions(), "mine", group_shards=1)

def config() -> TrainConfig:
    return real_rows.config("run", sharded_data.data("small.model", mine), 4)

def two() -> TrainConfig:
    import dataclasses
    other = dataclasses.replace(mine, name="other")
    return real_rows.config("two", sharded_data.data("small.model", mine, other, batch_rows=8), 4)

def number() -> int:
    return 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setenv("COLUMNS", "200")
    for shard in range(6):
        caption_tar(tmp_path / "tars" / f"{shard:04}.tar", 12, seed=shard)
    sharded_data.small_tokenizer(tmp_path)
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    return tmp_path


def run(capsys, *words: str, code: int = 0) -> str:
    """What the command prints, its spaces as one; with `code` 1, the error."""
    assert cli.main(["data", *words]) == code
    printed = capsys.readouterr()
    assert code == 0 or printed.err.count("\n") == 1
    return re.sub(r"[ │┃]+", " ", printed.err if code else printed.out)


def table(path: Path, rows: int) -> None:
    images = [{"bytes": jpeg((20 + n, 30), n), "path": None} for n in range(rows)]
    pq.write_table(pa.table({"image": images, "caption": [f"a red circle {n}" for n in range(rows)]}), path)


def test_check_shows_fields_and_readers_and_writes_nothing(folder, capsys):
    before = sorted(folder.rglob("*"))
    printed = run(capsys, "check", "tars:tars/{0000..0005}.tar", "--records", "20")
    assert "records 24 in the first 2 shards" in printed and "read 20" in printed
    assert "jpg 20 JPEG" in printed and "txt 20 text" in printed
    assert "0000.tar/000000009" in printed and "000000010" not in printed
    assert "--reader image_captions reads 10 of 10" in printed and "tfds_captions" not in printed
    assert sorted(folder.rglob("*")) == before


def test_check_counts_bad_records_by_what_is_wrong(folder, capsys):
    samples = [(f"{n:04}", {"jpg": jpeg(seed=n), "txt": b"a red circle"}) for n in range(12)]
    samples[3][1]["txt"] = samples[4][1]["txt"] = b" "
    samples[5][1]["jpg"] = jpeg(seed=5)[:900]  # its header is whole
    write_tar(folder / "bad" / "0.tar", samples)
    printed = run(capsys, "check", "tars:bad/*.tar", "--reader", "image_captions", "--tokenizer", "small.model")
    assert "read 12: 9 Caption" in printed and "bad 3" in printed
    assert "unreadable record 2 'txt' is empty 0.tar/0003" in printed
    assert re.search(r"unreadable image 1 image: it is truncated or damaged .* 0.tar/0005", printed)
    assert re.search(r"tokens a record \(an image is one\) median \d+", printed) and "index none yet" in printed


def test_check_reads_tables_and_json(folder, capsys):
    table(folder / "t.parquet", 15)
    printed = run(capsys, "check", "parquet:t.parquet")
    assert "caption 15 text" in printed and "image 15 object" in printed and "bytes: JPEG 20 x 30" in printed
    words = ("--reader", "image_captions", "--reader.caption", "caption", "--reader.image", "image.bytes")
    assert "read 15: 15 Caption" in run(capsys, "check", "parquet:t.parquet", *words)
    (folder / "j.json").write_text(json.dumps([{"id": n, "image": "a.jpg", "turns": ["x", "y"]} for n in range(4)]))
    printed = run(capsys, "check", "json:j.json", "--images", "tars")
    assert "id 4 whole number" in printed and "turns 4 list of text" in printed and "No reader reads them" in printed


def test_files_of_a_folder_are_checked_and_indexed(folder, capsys):
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        (pictures / f"{number}.jpg").write_bytes(jpeg(seed=number))
        (pictures / f"{number}.txt").write_text("a red circle")
    printed = run(capsys, "check", "folder:pictures")
    assert "records 6" in printed and "path 6 text" in printed and "data 6 JPEG (3), text (3)" in printed
    reader = ("--reader", "image_captions", "--reader.image", "data")
    printed = run(capsys, "index", "folder:pictures/*.jpg", "--beside", "txt", *reader, "--tokenizer", "small.model")
    assert "records 3" in printed and "bad 0" in printed
    assert "leave --beside away" in run(capsys, "check", "tars:tars/*.tar", "--beside", "txt", code=1)


def test_index_of_a_source_and_again_of_another_option(folder, capsys):
    words = ("index", "tars:tars/*.tar", "--reader", "image_captions", "--processes", "1", "--chat.system", "None")
    assert "manifests alone are made" in run(capsys, *words)
    printed = run(capsys, *words, "--tokenizer", "small.model")
    assert "records 72" in printed and "measured now 6 shards" in printed and "images a record median 1" in printed
    assert "measured now 0 shards" in run(capsys, *words, "--tokenizer", "small.model")
    printed = run(capsys, *words, "--tokenizer", "small.model", "--reader.caption", "json")
    assert 'made again: reader caption was "txt" and is "json"' in printed and "measured now 6 shards" in printed
    table(folder / "t.parquet", 15)
    options = ("--reader.caption", "caption", "--reader.image", "image.bytes", "--tokenizer", "small.model")
    printed = run(capsys, "index", "parquet:t.parquet", "--reader", "image_captions", *options, "--processes", "2")
    assert "records 15" in printed and "bad 0" in printed
    (folder / "j.jsonl").write_text('{"text": "a red circle"}\n{"text": 3}\n')
    words = ("--reader", "plain_text", "--tokenizer", "small.model", "--processes", "1")
    printed = run(capsys, "index", "json:j.jsonl", *words)
    assert "records 2" in printed and "bad: unreadable record 1, first j.jsonl[1]" in printed


def test_index_of_an_experiment_and_of_its_source(folder, capsys):
    printed = run(capsys, "index", "mine.py", "--steps", "2", "--processes", "1")
    assert "2 steps read 8 rows" in printed and "positions a record" in printed and "mine" in printed
    some = len(list(folder.glob("tars/.index/mine/*.sizes.npz")))
    assert 0 < some < 6
    run(capsys, "index", "mine.py:mine", "--tokenizer", "small.model", "--chat.system", "None", "--processes", "1")
    assert len(list(folder.glob("tars/.index/mine/*.sizes.npz"))) == 6
    assert "6 of 6 shards measured" in run(capsys, "check", "mine.py:mine")
    assert "as was asked for" in run(capsys, "index", "mine.py:config", "--again", "--processes=1")


def test_index_of_a_run_that_goes_on_with_other_weights(capsys, monkeypatch):
    """From window 0 on the new weights would reach other shards than the run does, and its start would refuse them."""
    from xgenmm_jax.data.index import indexing

    assert cli.main(["train", "mine.py:two", "--steps", "3", "--workdir", "w"]) == 0
    phases = []

    def noted(data, *rest):
        phases.append(data.phases)
        return indexing.index_experiment(data, *rest)

    monkeypatch.setattr("xgenmm_jax.cli.data_index.index_experiment", noted)
    words = ("index", "mine.py:two", "--data.mixture.0.1", "5", "--steps", "6", "--processes", "1")
    run(capsys, *words, "--workdir", "w")
    run(capsys, *words)
    [[before, now], none] = phases
    assert before == (0, (1.0, 1.0)) and now[0] > 0 and now[1] == (5.0, 1.0) and none == ()


def test_pack_writes_shards_that_are_checked_and_indexed(folder, capsys):
    words = ("--tokenizer", "small.model", "--processes", "1")
    words += ("--reader", "image_captions", "--shard-records", "7")
    printed = run(capsys, "pack", "tars:tars/*.tar", "new", *words)
    assert "shards of the source 6, 6 of them packed now" in printed and "shards written 12" in printed
    assert "left out 0" in printed and "measured 12 shards with 72 records" in printed
    assert "read 72: 72 Caption" in run(capsys, "check", "records:new/*.array_record", "--reader", "records")
    assert "--reader records reads 10 of 10" in run(capsys, "check", "records:new/*.array_record")
    write_tar(folder / "bad" / "0.tar", [("a", {"jpg": b"x", "txt": b"x"}), ("b", {"jpg": jpeg(), "txt": b"x"})])
    printed = run(capsys, "pack", "tars:bad/*.tar", "other", "--reader", "image_captions", "--processes", "1")
    assert "left out: unreadable record 1, first 0.tar[0]: image:" in printed and "'other/bad.jsonl'" in printed
    run(capsys, "pack", "mine.py:mine", "third", "--processes", "1")
    assert len(list((folder / "third").glob("*.array_record"))) == 6 and not (folder / "tars" / ".index").exists()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["pack", "mine.py:mine", "gs://bucket/new"], "'gs://bucket/new' is a URL; give a folder"),
        (["pack", "mine.py:mine", "tars"], "'tars' holds the source; give another folder"),
        (["pack", "mine.py:mine", "new", "--tokenizer", "none.model"], "none.model"),
        (["pack", "mine.py:mine", "new", "--shard-records", "0"], "--shard-records: got 0"),
        (["pack", "mine.py", "new"], "'mine.py' is an experiment; name a source of it"),
        (["check", "tar:tars/*.tar"], "'tar:tars/*.tar' is no source; did you mean tars; wanted KIND:PATTERN"),
        (["check", "gs://bucket/a.tar"], "is no source; wanted KIND:PATTERN with KIND one of tars,"),
        (["check", "tars:none/*.tar"], "no file matches 'none/*.tar'"),
        (["check", "tars:tars/*.tar", "--reader", "image_caption"], "no reader 'image_caption'; did you mean image_"),
        (["check", "tars:tars/*.tar", "--reader.caption", "json"], "--reader.caption: of which reader?"),
        (["check", "tars:tars/*.tar", "--images", "tars"], "--images: records of tars bring their images"),
        (["check", "tars:tars/*.tar", "--records", "0"], "--records: got 0; give 1 or more"),
        (["check", "mine.py"], "'mine.py' is an experiment; name a source of it"),
        (["check", "mine.py:number"], "'number' of 'mine.py' is a int; wanted a ShardedSource"),
        (["check", "none.py:x"], "no file 'none.py'"),
        (["index", "tars:tars/*.tar"], "needs a reader; give --reader NAME, one of image_captions,"),
        (["index", "mine.py:mine", "--reader", "image_captions"], "--reader: 'mine.py:mine' says its own"),
        (["index", "mine.py", "--processes", "none"], "--processes: got 'none'; give 1 or more"),
        (["index"], "got no source"),
        (["index", "mine.py:mine", "mine.py"], "'mine.py' is an experiment; give it first and alone"),
    ],
)
def test_what_is_mistyped_is_one_sentence(capsys, words, sentence):
    assert sentence in run(capsys, *words, code=1)


def test_unknown_options_and_commands_are_code_two(capsys):
    assert cli.main(["data", "chek"]) == 2 and "did you mean check" in capsys.readouterr().err
    for words, sentence in (
        (["check", "tars:t.tar", "--record", "3"], "no option --record; did you mean --records"),
        (["index", "tars:t.tar", "--reader", "image_captions", "--reader.captin", "x"], "did you mean --reader.capt"),
        (["index", "mine.py", "--stps", "3"], "no option --stps; did you mean --steps"),
    ):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["data", *words])
        assert exit_.value.code == 2 and sentence in capsys.readouterr().err
