"""One output shard for each input shard: what is done stays, what fails is named, nothing is mixed."""

import io
import json
from pathlib import Path
import socket
import sys

import curated
import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg, write_tar

from xgenmm_jax import files
from xgenmm_jax.curation import destination, shards
from xgenmm_jax.curation.duplicates import difference_hash
from xgenmm_jax.curation.images import Images
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.folder import Folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files.tree(folder)}


def test_pictures_that_cannot_be_read_are_counted_and_listed(tmp_path):
    result = curated.made(curated.images(tmp_path / "tars"), tmp_path / "made")
    assert (result.shards, result.new, result.rows, result.failed) == (3, 3, 9, ())
    count, first = result.left_out()["unreadable image"]
    assert count == 3 and first.startswith("00000.tar/000000001: image: ")
    lines = [json.loads(line) for line in (tmp_path / "made" / "left_out.jsonl").read_text().splitlines()]
    assert [line["shard"] for line in lines] == ["00000.tar", "00001.tar", "00002.tar"]


def test_what_the_storage_refuses_is_counted_too(tmp_path):
    """The card said that fewer images were looked at than had a row or were left out."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg((64, 48), 3))
    (tmp_path / "images" / "b.svg").write_text("<svg/>")
    (tmp_path / "images" / "c.png").write_bytes(b"")
    (tmp_path / "images" / "d.png").symlink_to("nowhere")
    result = curated.made(ShardedSource(Folder(f"{tmp_path}/images/*"), Images()), tmp_path / "made")
    (note,) = result.notes
    assert (note.images, note.rows) == (4, 1)
    assert [image for image, _, _ in note.left_out] == ["b.svg", "d.png", "c.png"]


def test_a_broken_run_goes_on_where_it_was_and_ends_with_the_same_bytes(tmp_path):
    source, done = curated.images(tmp_path / "tars"), []

    def killed(work, numbers):
        work.run(numbers[0])
        raise KeyboardInterrupt

    def counting(work, numbers):
        done.extend(numbers)
        curated.in_turn(work, numbers)

    with pytest.raises(KeyboardInterrupt):
        curated.made(source, tmp_path / "made", run_tasks=killed)
    leftover = tmp_path / "made" / "data" / f"000001.parquet.{socket.gethostname()}-999999-1.partial"
    leftover.write_bytes(b"half")
    again = curated.made(source, tmp_path / "made", run_tasks=counting)
    assert done == [1, 2] and again.new == 2 and again.rows == 9 and not leftover.exists()
    curated.made(source, tmp_path / "unbroken")
    assert contents(tmp_path / "made") == contents(tmp_path / "unbroken")
    assert curated.made(source, tmp_path / "made", run_tasks=counting).new == 0 and done == [1, 2]


def test_a_pipeline_that_fails_is_one_sentence_and_is_gone_on_with(tmp_path):
    """Beam raises RuntimeError of several lines where one of its workers ends by itself."""
    source = curated.images(tmp_path / "tars")

    def failing(work, numbers):
        work.run(numbers[0])
        raise RuntimeError("Traceback ...\nworker 1 is gone")

    with pytest.raises(ValueError, match=r"the pipeline failed .RuntimeError: worker 1 is gone.; perhaps .* goes on"):
        curated.made(source, tmp_path / "made", run_tasks=failing)
    assert curated.made(source, tmp_path / "made").new == 2


def test_a_damaged_output_file_is_made_again(tmp_path):
    source = curated.images(tmp_path / "tars")
    curated.made(source, tmp_path / "made")
    (tmp_path / "made" / "data" / "000001.parquet").write_bytes(b"cut")
    assert curated.made(source, tmp_path / "made").new == 1
    curated.made(source, tmp_path / "unbroken")
    assert contents(tmp_path / "made") == contents(tmp_path / "unbroken")


def test_a_shard_that_fails_whole_is_tried_three_times_and_left_out(tmp_path, caplog):
    source = curated.images(tmp_path / "tars")
    cut = tmp_path / "tars" / "00001.tar"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:3000])
    result = curated.made(source, tmp_path / "made")
    assert [failed.shard for failed in result.failed] == ["00001.tar"] and "no whole tar" in result.failed[0].error
    assert sum("failed in try" in line for line in caplog.messages) == shards.TRIES
    assert sorted(path.name for path in (tmp_path / "made" / "data").iterdir()) == ["000000.parquet", "000002.parquet"]
    again = curated.made(source, tmp_path / "made")
    assert again.new == 1 and [failed.shard for failed in again.failed] == ["00001.tar"]


@pytest.mark.parametrize("deduplicate", [False, True])
def test_a_shard_that_was_put_right_is_made_and_the_others_stay(tmp_path, deduplicate):
    """Its bytes are others than at first: a thousand shards had to be made again for the one that was cut off."""
    source = curated.images(tmp_path / "tars")
    cut = tmp_path / "tars" / "00001.tar"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:3000])
    assert len(curated.made(source, tmp_path / "made", deduplicate=deduplicate).failed) == 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "made" / "data").iterdir()}
    cut.write_bytes(whole)
    again = curated.made(source, tmp_path / "made", deduplicate=deduplicate)
    assert (again.new, again.rows, again.failed) == (1, 9, ())
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    curated.made(source, tmp_path / "unbroken", deduplicate=deduplicate)
    assert contents(tmp_path / "made") == contents(tmp_path / "unbroken")


def test_a_done_shard_that_became_another_file_is_told(tmp_path):
    source = curated.images(tmp_path / "tars")
    curated.made(source, tmp_path / "made")
    (tmp_path / "tars" / "00002.tar").write_bytes((tmp_path / "tars" / "00002.tar").read_bytes() + bytes(512))
    with pytest.raises(ValueError, match=r"something else: '00002.tar' had [\d,]+ bytes and has [\d,]+; give"):
        curated.made(source, tmp_path / "made")


def test_an_engine_that_fails_at_a_picture_costs_the_picture_and_at_all_the_shard(tmp_path):
    reds = [int(np.asarray(PIL.Image.open(io.BytesIO(jpeg((64, 48), n))))[0, 0, 0]) for n in (0, 2)]
    source = curated.images(tmp_path / "tars")
    result = curated.made(source, tmp_path / "one", curated.rows_of(engine=curated.Recorded(reds[0])))
    count, first = result.left_out()["the engine failed"]
    assert count == 1 and "RuntimeError: the model broke" in first and result.rows == 8
    alone = [("000000000", {"jpg": jpeg((64, 48), 0), "txt": b"x"})]
    write_tar(tmp_path / "few" / "00000.tar", alone)
    few = curated.images(tmp_path / "few", shards=0)
    result = curated.made(few, tmp_path / "all", curated.rows_of(engine=curated.Recorded(reds[0])))
    assert "the engine failed at all 1 images" in result.failed[0].error


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"command": "ocr-hd"}, 'command was "ocr" and is "ocr-hd"'),
        ({"least_confidence": 0.6}, "maker least_confidence was 0.5 and is 0.6"),
        ({"engine": curated.Recorded(300)}, "maker fails_at was -1 and is 300"),
    ],
)
def test_a_folder_of_another_command_or_option_is_refused(tmp_path, change, sentence):
    source = curated.images(tmp_path / "tars")
    curated.made(source, tmp_path / "made")
    before = contents(tmp_path / "made")
    with pytest.raises(ValueError, match=sentence):
        curated.made(source, tmp_path / "made", curated.rows_of(**change))
    assert contents(tmp_path / "made") == before


def test_a_folder_of_another_version_source_or_of_anything_else_is_refused(tmp_path, monkeypatch):
    source = curated.images(tmp_path / "tars")
    curated.made(source, tmp_path / "made")
    with pytest.raises(ValueError, match="options images was true and is false"):
        curated.made(source, tmp_path / "made", images=False)
    with pytest.raises(ValueError, match="other shards"):
        curated.made(curated.images(tmp_path / "tars", shards=4), tmp_path / "made")
    with pytest.raises(ValueError, match="holds the source"):
        curated.made(source, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'mine.txt', which no `xgenmm curate` wrote"):
        curated.made(source, tmp_path / "other")
    monkeypatch.setattr(destination, "VERSION", destination.VERSION + 1)
    with pytest.raises(ValueError, match="version was 2 and is 3"):
        curated.made(curated.images(tmp_path / "tars"), tmp_path / "made")


def test_of_pictures_that_look_alike_the_first_stays(tmp_path):
    """Copies in another size and format, in another shard too; one that cannot be read is none."""
    image = PIL.Image.open(io.BytesIO(jpeg((64, 48), 5))).convert("RGB")
    image = image.resize((16, 12), PIL.Image.Resampling.BOX).resize((320, 240), PIL.Image.Resampling.BICUBIC)
    copies = []
    for size, kind in (((320, 240), "PNG"), ((160, 120), "PNG"), ((320, 240), "JPEG")):
        file = io.BytesIO()
        image.resize(size).save(file, kind)
        copies.append(file.getvalue())
    first = [("a", {"jpg": b"no image"}), ("b", {"png": copies[0]}), ("c", {"jpg": jpeg((64, 48), 9)})]
    write_tar(tmp_path / "tars" / "0.tar", first)
    write_tar(tmp_path / "tars" / "1.tar", [("d", {"png": copies[1]}), ("e", {"jpg": copies[2]})])
    source = curated.images(tmp_path / "tars", shards=0)
    result = curated.made(source, tmp_path / "made", deduplicate=True)
    count, first = result.left_out()["a duplicate"]
    assert (count, result.rows) == (2, 2) and first == "1.tar/d: it looks like 0.tar/b"
    assert curated.made(source, tmp_path / "all").rows == 4


def test_a_large_copy_of_an_image_that_is_too_small_is_no_duplicate(tmp_path):
    """ocr-hd left out both: the first for its size, the second since it looks like the first."""
    image, copies = PIL.Image.open(io.BytesIO(jpeg((64, 48), 5))).convert("RGB").resize((8, 6)), []
    for size in ((320, 240), (640, 480), (800, 600)):
        file = io.BytesIO()
        image.resize(size, PIL.Image.Resampling.BICUBIC).save(file, "PNG")
        copies.append(file.getvalue())
    write_tar(tmp_path / "tars" / "0.tar", [(name, {"png": data}) for name, data in zip("abc", copies, strict=True)])
    maker = curated.rows_of(command="ocr-hd", above_px=400)
    result = curated.made(curated.images(tmp_path / "tars", shards=0), tmp_path / "made", maker, deduplicate=True)
    assert result.rows == 1 and {reason: first for reason, (_, first) in result.left_out().items()} == {
        "sides too short": "0.tar/a: 320 x 240 px, wanted more than 400 each",
        "a duplicate": "0.tar/c: it looks like 0.tar/b",
    }


def test_a_difference_hash_tells_where_a_picture_grows_brighter():
    ramp = np.broadcast_to(np.arange(0, 170, 10, dtype=np.uint8), (16, 17))
    assert difference_hash(PIL.Image.fromarray(ramp.copy())).tolist() == [255] * 32
    assert difference_hash(PIL.Image.fromarray(ramp[:, ::-1].copy())).tolist() == [0] * 32


def test_a_cascade_without_its_library_is_told_before_anything_is_made(tmp_path, monkeypatch):
    """Each shard was tried three times, and failed."""
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ValueError, match="skimage is missing; `pip install scikit-image"):
        curated.made(curated.images(tmp_path / "tars"), tmp_path / "made", faces="cascade")
    assert not (tmp_path / "made").exists()


def test_faces_are_the_sources_or_those_of_a_cascade(tmp_path):
    data = pytest.importorskip("skimage.data", reason="scikit-image holds the cascade and a portrait")
    file = io.BytesIO()
    PIL.Image.fromarray(data.astronaut()).save(file, "JPEG")
    write_tar(tmp_path / "tars" / "0.tar", [("a", {"jpg": file.getvalue()}), ("b", {"jpg": jpeg((64, 48), 1)})])
    source = curated.images(tmp_path / "tars", shards=0)
    curated.made(source, tmp_path / "made", faces="cascade")
    astronaut, noise = pq.read_table(tmp_path / "made" / "data" / "000000.parquet").column("face_bboxes").to_pylist()
    assert noise == [] and any(
        0.3 < (x1 + x2) / 2 < 0.55 and 0.1 < (y1 + y2) / 2 < 0.4 for x1, y1, x2, y2 in astronaut
    )
