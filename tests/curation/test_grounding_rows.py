"""Rows of grounding: captions with places, read back by the reader of the published set, boxes of the drawn world."""

from dataclasses import dataclass
import io
import json
import re

import curated
import numpy as np
import pyarrow.parquet as pq
import pytest
from tar_files import write_tar

from xgenmm_jax.curation import annotators
from xgenmm_jax.curation.annotators import Detection, FixedTags, GroundingDino, Ram
from xgenmm_jax.curation.grounding import GroundingRows, captions_of, grounded_caption
from xgenmm_jax.data.captions.cells import cell
from xgenmm_jax.data.readers.grounding import Grounding, released
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.nano.world import draw, families, language

HORSE, MAN = Detection("horse", (0.1, 0.2, 0.5, 0.9), 0.8), Detection("man", (0.4, 0.1234, 0.6, 0.5), 0.9)
LAMP = Detection("lamp", (0.9, 0.0, 1.0, 0.1), 0.5)


def test_a_tag_that_stands_in_the_caption_is_followed_by_its_place():
    caption = "A man on a horse; the Man waves, no woman does."
    objects = [MAN, HORSE, MAN._replace(box=(0.0, 0.7, 0.2, 1.0), confidence=0.4)]
    assert grounded_caption(caption, objects, 0) == (
        "A man (above the center) on a horse (to the left of the center); the Man (at the bottom left corner) waves, "
        "no woman does."
    )
    assert grounded_caption("A man.", [MAN], 1) == "A man (starts at [0.4, 0.123] and extends upto [0.6, 0.5])."
    assert grounded_caption("A man.", [MAN], 2) == "A <object>man</object><bbox>[0.4, 0.123][0.6, 0.5]</bbox>."


def test_tags_that_stand_nowhere_are_appended_with_all_their_boxes():
    objects = [MAN, LAMP, LAMP._replace(box=(0.0, 0.0, 0.1, 0.1))]
    assert grounded_caption("A man", objects, 0) == (
        "A man (above the center). The image contains lamp (at the top right corner), lamp (at the top left corner)"
    )
    assert grounded_caption("", [LAMP, HORSE], 0) == (
        "The image contains lamp (at the top right corner), horse (to the left of the center)"
    )


def test_longer_tags_take_their_words_first():
    shirt, tee = Detection("shirt", (0.0, 0.0, 0.1, 0.1), 0.9), Detection("t shirt", (0.4, 0.4, 0.6, 0.6), 0.5)
    assert grounded_caption("A t shirt.", [shirt, tee], 0) == (
        "A t shirt (in the center). The image contains shirt (at the top left corner)"
    )


@pytest.mark.parametrize("alt", ["", "It's \"40\\\" wide\"\u2028🏈", "'''", '"'])
def test_the_literal_is_read_by_the_reader_whatever_the_text(alt):
    read = released(captions_of(f"A man's {alt} horse", alt, [HORSE]))
    assert [(level, raw) for _, level, raw in read] == [(level, raw) for raw in (False, True) for level in (0, 1, 2)]
    assert read[3][0] == (f"{alt}. " if alt else "") + read[0][0]


@dataclass(frozen=True)
class DrawnWorld:
    """The exact boxes of drawn scenes, found again by the file of their image."""

    seed: int = 5

    def check(self) -> None:
        """Nothing is needed."""

    def described(self) -> dict:
        return {"annotator": "drawn world", "seed": self.seed}

    def open(self):
        known = {png(scene): scene for scene in scenes(self.seed)}

        def annotate(image) -> list[Detection]:
            width, height = known[image.data].size_px
            return [
                Detection(language.noun(thing), (x1 / width, y1 / height, x2 / width, y2 / height), 1.0)
                for thing in known[image.data].things
                for x1, y1, x2, y2 in [thing.box]
            ]

        return annotate


def scenes(seed: int) -> list:
    records = [families.record("grounding", index, seed=seed, split="train") for index in range(6)]
    return [draw.scene_of(record.image) for record in records]


def png(scene) -> bytes:
    file = io.BytesIO()
    draw.draw(scene).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def world(tmp_path) -> ShardedSource:
    samples = [
        (f"{number:09}", {"png": png(scene), "txt": language.short_caption(scene).encode()})
        for number, scene in enumerate(scenes(5))
    ]
    write_tar(tmp_path / "tars" / "0.tar", samples[:3])
    write_tar(tmp_path / "tars" / "1.tar", samples[3:])
    return curated.images(tmp_path / "tars", shards=0)


def test_boxes_of_drawn_images_come_back_exactly(world, tmp_path):
    result = curated.made(world, tmp_path / "made", GroundingRows(DrawnWorld()))
    assert (result.rows, result.left_out()) == (6, {})
    storage = Parquet(f"{tmp_path}/made/data/*.parquet")
    for level in (0, 1, 2):
        source = ShardedSource(storage, Grounding(level, image=("image",)), index=str(tmp_path / f"index {level}"))
        records = source.open()
        for number, scene in enumerate(scenes(5)):
            record = records.record(number, np.random.default_rng(0))
            width, height = scene.size_px
            assert record.image.load().tobytes() == draw.draw(scene).convert("RGB").tobytes()
            for thing in scene.things:
                noun, (left, top, right, bottom) = language.noun(thing), thing.box
                box = (left / width, top / height, right / width, bottom / height)
                (x1, y1), (x2, y2) = ((round(x, 3), round(y, 3)) for x, y in (box[:2], box[2:]))
                written = {
                    0: f"{noun} ({cell(box)})",
                    1: f"{noun} (starts at [{x1}, {y1}] and extends upto [{x2}, {y2}])",
                    2: f"<object>{noun}</object><bbox>[{x1}, {y1}][{x2}, {y2}]</bbox>",
                }
                assert written[level] in record.text


def test_a_longer_caption_of_the_source_is_grounded_and_the_text_is_the_alt_text(tmp_path, world):
    columns = {"cogvlm_caption": "A thing of the drawn world.", "uid": "f" * 32}
    first = {"png": png(scenes(5)[0]), "txt": b"Alt text", "json": json.dumps(columns).encode()}
    write_tar(tmp_path / "one" / "0.tar", [("a", first)])
    source = curated.images(tmp_path / "one", shards=0)
    maker = GroundingRows(DrawnWorld(), template="{object} [{x1:.2f}, {y1:.2f}]")
    curated.made(source, tmp_path / "made", maker)
    (row,) = pq.read_table(tmp_path / "made" / "data" / "000000.parquet").to_pylist()
    texts = {(level, raw): text for text, level, raw in released(row["captions"])}
    assert row["cogvlm_caption"] == "A thing of the drawn world." and row["uid"] == "f" * 32
    assert texts[0, False].startswith("A thing of the drawn world. The image contains")
    assert texts[2, True] == f"Alt text. {texts[2, False]}"
    assert re.search(r"world\. The image contains .*\[\d\.\d\d, \d\.\d\d\]", row["template_caption"])
    boxes, _ = maker.drawn(row)
    assert len(boxes) == len(scenes(5)[0].things) and set(maker.figures(row)) == {"tags", "places", "confidences"}


def test_boxes_are_clipped_or_kept_and_thresholds_leave_out():
    outside = Detection("wall", (-0.2, 0.1, 1.3, 0.9), 0.7)
    maker = GroundingRows(DrawnWorld())
    assert maker._taken(outside).box == (0.0, 0.1, 1.0, 0.9)
    assert GroundingRows(DrawnWorld(), boxes="keep")._taken(outside).box == outside.box
    assert GroundingRows(DrawnWorld(), most_area=0.7)._taken(outside) is None
    assert GroundingRows(DrawnWorld(), least_confidence=0.8)._taken(outside) is None
    assert maker._taken(outside._replace(box=(1.1, 0.1, 1.3, 0.9))) is None
    assert maker._taken(outside._replace(tag="<object>[a]")).tag == "objecta"
    for nothing in (outside._replace(tag="<>"), outside._replace(confidence=float("nan"))):
        assert maker._taken(nothing) is None
    for nan in ((float("nan"), 0.1, 0.5, 0.9), (0.1, 0.1, float("inf"), 0.9)):
        assert GroundingRows(DrawnWorld(), boxes="keep")._taken(outside._replace(box=nan)) is None


@pytest.mark.parametrize(
    ("maker", "sentence"),
    [
        (GroundingRows(DrawnWorld(), most_area=1.5), "--most-area: got 1.5; give 0 to 1"),
        (GroundingRows(DrawnWorld(), template="{what}"), "the template '{what}' has '{what}'"),
        (GroundingRows(GroundingDino(FixedTags(("a",)), box_threshold=2.0)), "--box-threshold: got 2"),
    ],
)
def test_options_that_mean_nothing_are_told(maker, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        maker.check()


def test_missing_packages_and_files_are_named(monkeypatch, tmp_path):
    for name in ("torch", "transformers", "ram"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ValueError, match="torch is missing; `pip install torch transformers -c req"):
        GroundingDino(FixedTags(("cat",))).check()
    with pytest.raises(ValueError, match="torch is missing; `pip install git.https://github.com/xinyu1205/recognize"):
        Ram("ram.pth").check()
    monkeypatch.setattr(annotators, "import_extra", lambda name, how: None)
    with pytest.raises(ValueError, match="no file 'ram.pth'; download ram_swin_large_14m.pth"):
        Ram("ram.pth").check()
    with pytest.raises(ValueError, match="--tags: give one or more, without '.'"):
        FixedTags(("cat. dog",)).check()


def test_recorded_answers_of_ram_become_tags():
    assert annotators.tags_of("armchair | blanket | lamp | blanket |") == ["armchair", "blanket", "lamp"]


def test_tags_are_grouped_by_tokens_and_overlapping_boxes_go():
    words = lambda tags: sum(len(tag.split()) for tag in tags)  # noqa: E731
    assert annotators.groups_of(["a b", "c", "h"], words, 3) == [["a b", "c"], ["h"]]
    with pytest.raises(ValueError, match="the tag 'd e f g...' has 4 tokens, more than 3"):
        annotators.groups_of(["a b", "d e f g"], words, 3)
    near = HORSE._replace(box=(0.1, 0.2, 0.5, 0.85), confidence=0.7)
    assert annotators.without_overlaps([near, HORSE, LAMP], 0.5) == [HORSE, LAMP]
    assert annotators.intersection_over_union(HORSE.box, HORSE.box) == pytest.approx(1)
