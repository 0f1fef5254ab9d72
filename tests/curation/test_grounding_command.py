"""`xgenmm curate grounding` as a command: an annotator of a user's file, and GroundingDINO through Beam."""

import json
from pathlib import Path

from curated import in_turn, needs, started
import numpy as np
import pytest
from tar_files import write_tar
import tiny_dino

from xgenmm_jax.cli import curate_options
from xgenmm_jax.cli import main as cli
from xgenmm_jax.data.captions import grounding
from xgenmm_jax.data.images import encoded
from xgenmm_jax.data.readers.grounding import Grounding
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.nano.world import draw, families, language

ANNOTATOR = '''
from dataclasses import dataclass
import json
from pathlib import Path

from xgenmm_jax.curation.annotators import Detection


@dataclass(frozen=True)
class Recorded:
    """Boxes that were found before, by the digest of an image's file."""

    file: str = str(Path(__file__).with_name("boxes.json"))

    def check(self):
        if not Path(self.file).is_file():
            raise ValueError("no boxes.json")

    def described(self):
        return {"annotator": "recorded"}

    def open(self):
        boxes = json.loads(Path(self.file).read_text())
        return lambda image: [Detection(tag, tuple(box), sure) for tag, box, sure in boxes[image.digest]]


recorded = Recorded()
what = 3


def local():
    @dataclass(frozen=True)
    class Local(Recorded):
        pass

    return Local()
'''

SOURCE = '''
from dataclasses import dataclass

from xgenmm_jax.curation.images import Images
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.tars import Tars


@dataclass(frozen=True)
class Own(Images):
    pass


src = ShardedSource(Tars("tars/*.tar"), Own())
'''


@pytest.fixture
def world(tmp_path, monkeypatch) -> list:
    """Scenes of the drawn world in two tars, and beside them an annotator that knows their exact boxes."""
    monkeypatch.chdir(tmp_path)
    records = [families.record("grounding", index, seed=5, split="train") for index in range(6)]
    scenes = [draw.scene_of(record.image) for record in records]
    samples, boxes = [], {}
    for number, (record, scene) in enumerate(zip(records, scenes, strict=True)):
        data = encoded(record.image)
        samples.append((f"{number:09}", {"png": data, "txt": language.short_caption(scene).encode()}))
        width, height = scene.size_px
        boxes[digest(data)] = [
            (language.noun(thing), (x1 / width, y1 / height, x2 / width, y2 / height), 0.9)
            for thing in scene.things
            for x1, y1, x2, y2 in [thing.box]
        ]
    write_tar(tmp_path / "tars" / "0.tar", samples[:3])
    write_tar(tmp_path / "tars" / "1.tar", samples[3:])
    Path("mine.py").write_text(ANNOTATOR, encoding="utf-8")
    Path("boxes.json").write_text(json.dumps(boxes))
    return scenes


def digest(data: bytes) -> str:
    import hashlib

    return hashlib.blake2b(data, digest_size=16).hexdigest()


def without_beam(monkeypatch) -> None:
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(curate_options.pipeline, "check_beam", lambda *_: None)
    monkeypatch.setattr(curate_options.pipeline, "with_beam", lambda *_: in_turn)


def check_boxes(folder: Path, scenes: list) -> None:
    """The reader of the published set reads each thing's exact box."""
    source = ShardedSource(Parquet(f"{folder}/data/*.parquet"), Grounding(2, image=("image",)))
    records = source.open()
    assert len(records) == len(scenes)
    for number, scene in enumerate(scenes):
        text, (width, height) = records.record(number, np.random.default_rng(0)).text, scene.size_px
        for thing in scene.things:
            left, top, right, bottom = thing.box
            x1, y1, x2, y2 = (round(side, 3) for side in (left / width, top / height, right / width, bottom / height))
            assert f"<object>{language.noun(thing)}</object><bbox>[{x1}, {y1}][{x2}, {y2}]</bbox>" in text


def test_an_annotator_of_a_users_file_makes_rows(world, monkeypatch, capsys):
    without_beam(monkeypatch)
    words = ["curate", "grounding", "tars:tars/*.tar", "made", "--annotator", "mine.py:recorded"]
    assert cli.main(words) == 0, capsys.readouterr().err
    check_boxes(Path("made"), world)
    card = Path("made/README.md").read_text(encoding="utf-8")
    assert "| annotator | recorded |" in card and "--annotator mine.py:recorded" in card
    # Rows of another file do not mix with these.
    Path("mine.py").write_text(ANNOTATOR + "\n# changed\n", encoding="utf-8")
    assert cli.main(words) == 1 and "was made from something else: files was [[\"mine.py\"" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dino"], "--annotator: got 'dino', wanted groundingdino or FILE.py:NAME."),
        (["mine.py"], "--annotator: got 'mine.py', wanted FILE.py:NAME."),
        (["mine.py:recoded"], "--annotator: 'mine.py' has no 'recoded'; did you mean recorded"),
        (["mine.py:what"], "--annotator: 'mine.py:what' is a int, wanted a frozen dataclass with check, described"),
        (["mine.py:Detection"], "--annotator: 'mine.py': TypeError: Detection.__new__() missing 3 required positional"),
        (["my.py:recorded"], "--annotator: no file 'my.py'; did you mean mine.py"),
        (["mine.py:recorded", "--tagger", "list"], "--tagger: of --annotator groundingdino alone; leave it away."),
    ],
)
def test_what_is_no_annotator_is_one_sentence(world, words, sentence, monkeypatch, capsys):
    without_beam(monkeypatch)
    assert cli.main(["curate", "grounding", "tars:tars/*.tar", "made", "--annotator", *words]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and sentence in told and not Path("made").exists()


def test_what_no_worker_can_be_sent_is_told_from_a_source(world, monkeypatch, capsys):
    without_beam(monkeypatch)
    Path("a.py").write_text(SOURCE.replace("src =", "Own.__qualname__ = 'Other'\nsrc ="), encoding="utf-8")
    for source, annotator, what in (
        ("tars:tars/*.tar", "mine.py:local", "annotator or engine"),
        ("a.py:src", "mine.py:recorded", "source"),
    ):
        assert cli.main(["curate", "grounding", source, what, "--annotator", annotator]) == 1
        assert f"curate: the {what} cannot be sent to a worker (Can't" in capsys.readouterr().err


def test_a_source_and_an_annotator_stand_in_two_files_of_one_name(world, monkeypatch, capsys):
    """The second of them took the place of the first one's module, whose classes then were sent to no worker."""
    without_beam(monkeypatch)
    Path("a").mkdir()
    Path("a/mine.py").write_text(SOURCE, encoding="utf-8")
    words = ["curate", "grounding", "a/mine.py:src", "made", "--annotator", "mine.py:recorded"]
    assert cli.main(words) == 0, capsys.readouterr().err
    check_boxes(Path("made"), world)
    # One file may hold both.
    Path("both.py").write_text(SOURCE + ANNOTATOR, encoding="utf-8")
    words = ["curate", "grounding", "both.py:src", "both", "--annotator", "both.py:recorded"]
    assert cli.main(words) == 0, capsys.readouterr().err
    check_boxes(Path("both"), world)


@needs("apache_beam")
@pytest.mark.slow
def test_two_workers_of_beam_load_the_users_file_again(world, tmp_path):
    words = (f"tars:{tmp_path}/tars/*.tar", tmp_path / "made", "--annotator", f"{tmp_path}/mine.py:recorded")
    process = started("grounding", *words, "--processes", 2)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, (out, err)
    check_boxes(tmp_path / "made", world)


@needs("apache_beam", "torch", "transformers")
@pytest.mark.slow
def test_groundingdino_through_beam_makes_rows_that_are_read_back(world, tmp_path):
    """A tiny model with random weights in transformers' format, beside Beam in one environment."""
    model = tmp_path / "dino"
    model.mkdir()
    words = ["--annotator", "groundingdino", "--model", tiny_dino.write(model), "--tagger", "list"]
    words += ["--tags", *tiny_dino.TAGS, "--box-threshold", 0, "--text-threshold", 0]
    process = started("grounding", f"tars:{tmp_path}/tars/*.tar", tmp_path / "made", *words, "--processes", 1)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, (out, err)
    source = ShardedSource(Parquet(f"{tmp_path}/made/data/*.parquet"), Grounding(2, image=("image",)))
    records = source.open()
    texts = [records.record(number, np.random.default_rng(0)).text for number in range(len(records))]
    assert len(texts) == len(world) and all("<object>" in grounding.clipped(text, 2) for text in texts)
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "| annotator | groundingdino |" in card and "| model | dino |" in card and "| tagger | list |" in card
