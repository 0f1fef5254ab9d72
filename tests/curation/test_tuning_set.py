"""Tuning sets: form, resumption, what is kept out, and the reader that pre-training uses."""

import json
from pathlib import Path
import tarfile

import numpy as np
import PIL.Image
import pytest

from experiments.nano import draw as nano_draw
from xgenmm_jax.cli import curate
from xgenmm_jax.curation import tuning_prompts, tuning_set
from xgenmm_jax.curation.tuning_prompts import CATEGORIES, chosen, from_templates, plain
from xgenmm_jax.curation.tuning_set import Options
from xgenmm_jax.data.readers import caption_sets
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.tars import Tars
from xgenmm_jax.data.to_draw import INSTRUCTION, ToDraw

PROMPTS = {"text": ["a sign", "a cup", "no", "a wall"], "object": ["a red star"]}


def painted(prompts):
    """Pictures as large as the prompt is long; refuses "no"."""
    return [None if one == "no" else PIL.Image.new("RGBA", (8 + len(one), 8), (len(one), 90, 90)) for one in prompts]


def made(folder: Path, teacher=painted, samples: int = 3):
    return tuning_set.make(folder, PROMPTS, teacher, {"teacher": "painted"}, Options(2, samples), lambda line: None)


def names(folder: Path) -> dict[str, list[str]]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            found[path.name] = archive.getnames()
    return found


def test_a_set_has_the_published_form_and_pre_trainings_reader_reads_it(tmp_path):
    notes = made(tmp_path / "set")
    assert names(tmp_path / "set") == {
        "object_1.tar": ["object_000000.jpg", "object_000000.txt"],
        "text_1.tar": ["text_000000.jpg", "text_000000.txt", "text_000001.jpg", "text_000001.txt"],
        "text_2.tar": ["text_000003.jpg", "text_000003.txt"],
    }
    assert [(note.file, note.prompts, note.images, note.left_out) for note in notes][0] == ("text_1.tar", 3, 2, ("no",))
    left_out = [
        json.loads(line) for line in (tmp_path / "set" / "left_out.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert left_out == [{"category": "text", "prompt": "no", "reason": "the teacher gave no picture"}]
    records = ShardedSource(Tars(f"{tmp_path}/set/*.tar"), ToDraw(caption_sets.BLIP3O)).open()
    read = [records.record(index, np.random.default_rng(0)) for index in range(len(records))]
    assert [one.prompt for one in read] == [INSTRUCTION.replace("{caption}", text) for text in
                                            ("a red star", "a sign", "a cup", "a wall")]  # fmt: skip
    assert np.abs(np.asarray(read[1].image.load())[0, 0].astype(int) - (6, 90, 90)).max() <= 2


def test_a_killed_command_asks_for_no_picture_twice_and_writes_the_same_bytes(tmp_path):
    asked = []

    def dies(prompts):
        asked.extend(prompts)
        if "a wall" in prompts:
            raise ConnectionError("the endpoint hung up")
        return painted(prompts)

    with pytest.raises(ValueError, match="--teacher: failed at 1 prompts from 'a wall' on .ConnectionError: the end"):
        made(tmp_path / "set", dies)
    assert asked == ["a sign", "a cup", "no", "a wall"]
    asked.clear()

    def lives(prompts):
        asked.extend(prompts)
        return painted(prompts)

    # Within a tar too: one that is not whole has its pictures beside it.
    (tmp_path / "set" / "text_1.tar").unlink()
    made(tmp_path / "set", lives)
    assert asked == ["a sign", "a cup", "no", "a wall", "a red star"]
    made(tmp_path / "whole")
    for path in (tmp_path / "whole").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "set" / path.name).read_bytes()


def test_pictures_of_a_tar_that_is_not_whole_are_kept(tmp_path):
    calls = []

    def dies_later(prompts):
        calls.append(list(prompts))
        if len(calls) == 2:
            raise MemoryError
        return painted(prompts)

    with pytest.raises(ValueError, match="run the same command again"):
        made(tmp_path, dies_later, samples=10)
    assert not list(tmp_path.glob("*.tar"))
    made(tmp_path, dies_later, samples=10)
    assert calls == [["a sign", "a cup"], ["no", "a wall"], ["no", "a wall"], ["a red star"]]


@pytest.mark.parametrize(
    "teacher, message",
    [
        (lambda prompts: [], "gave 0 pictures for 2 prompts"),
        (lambda prompts: ["x.jpg"] * len(prompts), "gave a str; wanted a PIL.Image.Image"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, teacher, message):
    with pytest.raises(ValueError, match=message):
        made(tmp_path, teacher)


def test_a_folder_of_something_else_is_refused(tmp_path):
    made(tmp_path / "set")
    with pytest.raises(ValueError, match="was made with other samples"):
        made(tmp_path / "set", samples=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(ValueError, match="holds 'mine.txt'"):
        made(tmp_path / "other")
    with pytest.raises(ValueError, match="got the category '../x'"):
        tuning_set.make(tmp_path / "new", {"../x": ["a"]}, painted, {}, Options(), print)


@pytest.mark.parametrize("category", CATEGORIES)
def test_templates_give_different_prompts_and_none_of_a_test(category):
    first = from_templates(category, 300, seed=0)
    assert len(first.prompts) == len({plain(one) for one in first.prompts}) == 300
    assert first == from_templates(category, 300, seed=0) != from_templates(category, 300, seed=1)
    held_out = {plain(one) for one in first.prompts[::2]}
    second = from_templates(category, 300, 0, held_out)
    assert len(second.prompts) == 300 and held_out.isdisjoint(map(plain, second.prompts)) and second.kept_out == 150


def test_a_category_ends_where_its_templates_give_nothing_new():
    assert chosen(iter(["A  cup.", "a cup", "a key"] * 500), 10, {"a key"}) == tuning_prompts.Excluded(["A cup."], 1)


def test_command_keeps_a_tests_prompts_out_and_its_card_counts(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "import PIL.Image\ndef paint(prompts):\n    return [PIL.Image.new('RGB', (16, 8)) for _ in prompts]\n",
        encoding="utf-8",
    )
    prompts = from_templates("landmark", 5, 0).prompts
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": prompts[0].upper()}) + "\n", encoding="utf-8")
    (tmp_path / "own.txt").write_text("a dog that reads\n\na dog that reads\na cat that sings\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    command = ["tuning-set", "set", "--teacher", "mine.py:paint", "--categories", "landmark", "--count", "5"]
    command += ["--captions", "own=own.txt", "--kept-out", "test.jsonl"]
    assert curate.main(command) == 0
    assert "landmark_1.tar: 5 pictures of 5 prompts" in capsys.readouterr().out
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "| landmark | 1 | 5 | 5 | 0 | 1 |" in card and "| own | 1 | 2 | 2 | 0 | 0 |" in card
    assert "| teacher | mine.py:paint |" in card and "16 px 7" in card and "| all | 2 | 7 | 7 | 0 | 1 |" in card
    with pytest.raises(ValueError, match="--teacher: none is named"):
        curate.main(["tuning-set", "other"])
    with pytest.raises(ValueError, match="'mine.py' has no 'nothing'; wanted one of PIL, paint"):
        curate.main(["tuning-set", "other", "--teacher", "mine.py:nothing"])
    assert not (tmp_path / "other").exists()


def test_the_drawn_set_is_what_tune_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert curate.main(["tuning-set", "runs/tuning_set", "--prompts", "drawn", "--count", "20"]) == 0
    ((source, _),) = nano_draw.tune().data.mixture
    records = source.open()
    assert len(records) == 60
    record = records.record(0, np.random.default_rng(0))
    assert record.prompt.startswith("draw ") and record.queries == nano_draw.QUERIES
    assert record.image.load().size == (64, 64)
