"""`xgenmm curate`: what it refuses in one sentence, and Beam's direct runner as a user runs it."""

import json
import os
from pathlib import Path
import re
import signal
import sys
import time

from curated import needs, started
import numpy as np
import pytest

from xgenmm_jax import files
from xgenmm_jax.cli import curate_options
from xgenmm_jax.cli import main as cli
from xgenmm_jax.data.readers.ocr import Ocr
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.parquet import Parquet


def pages(folder: Path, shards: int, each: int = 2) -> str:
    """Tars of small pages with a line of text; the source as it is typed."""
    from matplotlib import get_data_path
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont
    from tar_files import write_tar

    font = PIL.ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 20)
    for shard in range(shards):
        samples = []
        for number in range(each):
            image = PIL.Image.new("RGB", (260, 60), "white")
            PIL.ImageDraw.Draw(image).text((12, 14), f"Page {number} of part {shard}", "black", font)
            file = __import__("io").BytesIO()
            image.save(file, "PNG")
            samples.append((f"{shard:05}{number:04}", {"png": file.getvalue(), "txt": b"a page"}))
        write_tar(folder / f"{shard:05}.tar", samples)
    return f"tars:{folder}/*.tar"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ocr", "images", "made"], "data: 'images' is no source; wanted KIND:PATTERN"),
        (["ocr", "folder:nowhere/*.png", "made"], "data: no file matches 'nowhere/*.png'; check the path"),
        (["ocr", "folder:nowhere/*.png", "s3://made"], "curate: 's3://made' is a URL; give a folder"),
        (["ocr", "folder:x/*.png", "made", "--processes", "0"], "--processes: got 0; give 1 or more."),
        (["ocr-hd", "folder:x/*.png", "made", "--longest-px", "512"], "--longest-px: got 512; give more than 512."),
        (["ocr", "experiments/nano/stage1.py", "made"], "'experiments/nano/stage1.py' is an experiment"),
    ],
)
def test_what_means_nothing_is_one_sentence(words, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(curate_options.pipeline, "check_beam", lambda *_: None)
    assert cli.main(["curate", *(str(tmp_path / "made") if word == "made" else word for word in words)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and sentence in told and not (tmp_path / "made").exists()


def test_an_unknown_command_is_told_with_the_nearest(capsys):
    assert cli.main(["curate", "ocr_hd"]) == 2 and "did you mean ocr-hd" in capsys.readouterr().err
    assert cli.main(["curate"]) == 0 and "ocr-hd" in capsys.readouterr().out


def test_without_beam_the_extra_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert cli.main(["curate", "ocr", f"tars:{tmp_path}/*.tar", str(tmp_path / "made")]) == 1
    assert "apache_beam is missing; `pip install -e .[curation]" in capsys.readouterr().err


@needs("apache_beam", "rapidocr", "py3langid")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--", "--direct_num_worker_s=3"], "Beam has no option '--direct_num_worker_s' for DirectRunner"),
        (["--runner", "NoRunner"], "Unexpected pipeline runner: NoRunner"),
        (["--runner", "no.such.Runner"], "--runner: 'no.such.Runner' cannot be loaded (No module named 'no')"),
    ],
)
def test_what_beam_does_not_know_is_told_before_anything_is_made(words, sentence, capsys, tmp_path):
    """Beam passes over options that it does not know: a mistyped one had no effect, unseen."""
    (tmp_path / "a.png").write_bytes(b"")
    assert cli.main(["curate", "ocr", f"folder:{tmp_path}/*.png", str(tmp_path / "made"), *words]) == 1
    assert sentence in capsys.readouterr().err and not (tmp_path / "made").exists()


def test_without_what_draws_charts_nothing_is_made(capsys, monkeypatch, tmp_path):
    """It was told after the last shard, hours later."""
    monkeypatch.setattr(curate_options.pipeline, "check_beam", lambda *_: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / "a.png").write_bytes(b"")
    assert cli.main(["curate", "ocr", f"folder:{tmp_path}/*.png", str(tmp_path / "made")]) == 1
    assert "matplotlib is missing; `pip install matplotlib`" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_a_card_keeps_no_folder_of_the_command():
    argv = ["tars:/home/me/tars/{0..9}.tar", "../made/ocr", "--engine=tesseract", "--index=/home/me/i", "--", "--x=1"]
    assert curate_options.typed("ocr", argv) == (
        "xgenmm curate ocr 'tars:{0..9}.tar' ocr --engine=tesseract --index=i -- --x=1"
    )


@needs("apache_beam", "rapidocr", "py3langid")
@pytest.mark.slow
def test_a_shard_that_fails_ends_the_command_with_code_three(tmp_path):
    source = pages(tmp_path / "tars", 3)
    cut = tmp_path / "tars" / "00001.tar"
    cut.write_bytes(cut.read_bytes()[:1500])
    process = started("ocr", source, tmp_path / "made", "--processes", 1)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 3, err
    assert "failed" in out and "00001.tar: SourceError" in out and "tried 3 times" in " ".join(out.split())
    records = ShardedSource(Parquet(f"{tmp_path}/made/data/*.parquet"), Ocr(image=("image",))).open()
    texts = [records.record(number, np.random.default_rng(0)).text for number in range(len(records))]
    # RapidOCR takes wide gaps for the ends of lines.
    words = [re.sub(r"\W+", " ", text).strip() for text in texts]
    assert words == [f"Page {number} of part {shard}" for shard in (0, 2) for number in range(2)]
    again = started("ocr", source, tmp_path / "made", "--engine", "rapidocr", "--least-confidence", "0.9")
    _, err = again.communicate(timeout=600)
    assert again.returncode == 1 and "was made from something else: maker least_confidence was 0.5" in err


@needs("apache_beam", "rapidocr", "py3langid")
@pytest.mark.slow
def test_a_killed_run_is_gone_on_with_and_ends_with_the_same_bytes(tmp_path):
    """Two workers, killed half-way: of the shards that were done none is made again, one a worker is begun anew."""
    source = pages(tmp_path / "tars", 12)
    words = ("ocr", source, tmp_path / "made", "--processes", 2)
    process = started(*words)
    notes, until = tmp_path / "made" / ".curation", time.monotonic() + 300
    while len(done := sorted(notes.glob("0*.json"))) < 4 and time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(8)  # Beam's workers end some seconds after their main process
    done = {path: path.stat().st_mtime_ns for path in sorted(notes.glob("0*.json"))}
    assert 4 <= len(done) < 12
    out, err = started(*words).communicate(timeout=600)
    made_now = next(line for line in out.splitlines() if "of them made now" in line)
    assert f"12, {12 - len(done)} of them made now" in made_now, (out, err)
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())
    # The card says how the command was typed: the same words.
    os.rename(tmp_path / "made", tmp_path / "broken")
    out, err = started(*words).communicate(timeout=600)
    for name in files.tree(tmp_path / "made"):
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name
    assert files.tree(tmp_path / "made") == files.tree(tmp_path / "broken")
    lines = (tmp_path / "made" / "left_out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [] and not list((tmp_path / "broken").rglob("*.partial"))
