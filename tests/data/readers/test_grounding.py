"""Rows of BLIP3-GROUNDING-50M: captions with places in a Python literal, which is read and never run."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import jpeg, write_tar

from xgenmm_jax.data.captions import grounding
from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers.grounding import MOST_CHARACTERS, Grounding, released
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.tars import Tars

IMAGE = jpeg((40, 30), 1)
# One box leaves the image, as the detector's do.
LEVELS = (
    'A player (to the left of the center) in a "red" jersey (in the center). It\'s late.',
    'A player (starts at [-0.012, 0.203] and extends upto [0.4, 0.98]) in a "red" jersey (starts at [0.3, 0.4] and '
    "extends upto [0.7, 1.004]). It's late.",
    'A <object>player</object><bbox>[-0.012, 0.203][0.4, 0.98]</bbox> in a "red" <object>jersey</object>'
    "<bbox>[0.3, 0.4][0.7, 1.004]</bbox>. It's late.",
)
ALT = "Été \\ finale 🏈\n"
CAPTIONS = [[text, level, False] for level, text in enumerate(LEVELS)]
CAPTIONS += [[f"{ALT}. {text}", level, True] for level, text in enumerate(LEVELS)]
ROW = {"url": "http://example.org/a.jpg", "cogvlm_caption": "A player in a jersey.", "captions": str(CAPTIONS)}


def read(reader: Grounding, captions: object = ROW["captions"]) -> str:
    record = reader.read(Raw("0.parquet[3]", ROW | {"captions": captions, "jpg": IMAGE}), 0)
    assert record.id == "0.parquet[3]" and record.image.size_px == (40, 30)
    return record.text


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_caption_is_chosen_by_granularity_and_raw_caption(level):
    assert read(Grounding(granularity=level)) == LEVELS[level]
    assert read(Grounding(granularity=level, raw=True)) == f"{ALT}. {LEVELS[level]}"


def test_boxes_stay_as_released_or_end_at_the_edges():
    one, two = read(Grounding(1, boxes="clip")), read(Grounding(2, boxes="clip"))
    assert one == LEVELS[1].replace("-0.012", "0.0").replace("1.004", "1.0")
    assert two == LEVELS[2].replace("-0.012", "0.0").replace("1.004", "1.0")
    assert read(Grounding(2), str([["<bbox>[1, 2]</bbox>", 2, False]])) == "<bbox>[1, 2]</bbox>"


def test_a_template_of_the_users_own_writes_objects_and_boxes():
    reader = Grounding(2, template="{object} {{{x1:.2f} {y1:.2f} {x2:.2f} {y2}}}", boxes="clip")
    assert read(reader) == 'A player {0.00 0.20 0.40 0.98} in a "red" jersey {0.30 0.40 0.70 1.0}. It\'s late.'
    assert read(Grounding(2, template="{object} at {x1}")).startswith("A player at -0.012 in")
    assert read(Grounding(2, template="[{object}]"), str([["No {object} here.", 2, False]])) == "No {object} here."
    braces = "<object>{x1}</object><bbox>[0.1, 0.2][0.3, 0.4]</bbox>"
    assert read(Grounding(2, template="({object})"), str([[braces, 2, False]])) == "({x1})"


@pytest.mark.parametrize(
    "template",
    [
        "{object.__class__}", "{object[0]}", "{object!r}", "{object:>99999999}", "{object:{x1}}", "{x1:999999999}",
        "{x1:.2e}", "{}", "{0}", "{object", "}", "{noun}", "no object", "{x1}",
    ],
)  # fmt: skip
def test_a_template_names_nothing_but_object_and_corners(template):
    with pytest.raises(ValueError, match="data: the template .*wanted {object}, {x1}") as error:
        Grounding(2, template=template)
    assert "\n" not in str(error.value)


def test_places_that_were_written_are_found_again():
    box, corners = (0.1, 0.2, 0.3, 0.4), "[0.1, 0.2][0.3, 0.4]"
    text = grounding.grounded("a ", "cat", box, corners, 2)
    assert grounding.rewritten(text, "{object} {x1} {y1} {x2} {y2}") == "a cat 0.1 0.2 0.3 0.4"
    assert grounding.clipped(text, 2) == text
    assert grounding.clipped(grounding.grounded("a ", "cat", box, corners, 1), 1).endswith("upto [0.3, 0.4])")


@pytest.mark.parametrize(
    "text",
    [
        "<object>a</object><bbox>[0.1, 0.2]</bbox>",
        "<object>a</object><bbox>[0.1, 0.2][0.3, nan]</bbox>",
        "<object>a<object>b</object><bbox>[0.1, 0.2][0.3, 0.4]</bbox>",
        "<object>a</object> b</object><bbox>[0.1, 0.2][0.3, 0.4]</bbox>",
        "a <bbox>[0.1, 0.2][0.3, 0.4]</bbox>",
        "<object>" * 20_000,
    ],
)
def test_a_box_of_another_form_is_no_box_that_is_left_unclipped(text):
    for reader in (Grounding(2, boxes="clip"), Grounding(2, template="{object}")):
        with pytest.raises(RecordError, match=r"3\]: \d boxes of the form of level 2 and \d+ times '.*'; they differ"):
            read(reader, str([[text, 2, False]]))
    with pytest.raises(RecordError, match="0 boxes of the form of level 1 and 1 times"):
        read(Grounding(1, boxes="clip"), str([["a (starts at [0.1, 0.2] and extends up to [0.3, 0.4])", 1, False]]))


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (None, "'captions' is NoneType, wanted text"),
        ("", "'captions' is no Python literal"),
        ("[]", "none of granularity 0 without the raw caption"),
        (str(CAPTIONS[1:]), "none of granularity 0 without the raw caption"),
        (str([["a", 0, True]]), "none of granularity 0 without the raw caption"),
        (str([[" ", 0, False]]), "the caption of granularity 0 is empty"),
        ("'a'", "is str, wanted a list"),
        ("['a']", "has a, wanted [caption"),
        ("[['a', 0]]", "has ['a', 0], wanted [caption"),
        ("[['a', 0, 1]]", "has ['a', 0, 1], wanted [caption"),
        ("[['a', True, False]]", "has ['a', True, False], wanted [caption"),
        ("[['a', 0, False], 3]", "has 3, wanted [caption"),
        ('[["a", 0, false]]', "has 'false]]' at character 10"),
        ("[('a', 0, False)]", "at character 1; wanted a list of"),
        ("[['a' 0, False]]", "is no Python literal"),
        ("[[,'a', 0, False]]", "is no Python literal"),
        ("[['a', 007, False]]", "is no Python literal"),
        ("[['a', 0, False]", "is no Python literal"),
        ("[['a', 0, False]]]", "is nested otherwise than a list of lists"),
        ("[['a', [0], False]]", "is nested otherwise"),
        ("[['a", "at character 2"),
        ("[['''a''', 0, False]]", "at character 2"),
        ("[[''' ' ''' [[[[ ' ', 0, False]]", "at character 2"),
        (r"[['\d', 0, False]]", "at character 2"),
        (r"[['\N{DIGIT ONE}', 0, False]]", "at character 2"),
        ("[['a\n', 0, False]]", "at character 2"),
        ("[[f'{1}', 0, False]]", "at character 2"),
        ("[[b'a', 0, False]]", "at character 2"),
        ("[['a'.upper(), 0, False]]", "at character 5"),
        ("[['a' * 99999999, 0, False]]", "at character 6"),
        ("[['a', -0, False]]", "at character 7"),
        ("__import__('os').abort()", "at character 0"),
        ("[['a', 0, False]] # why", "at character 18"),
        ("[" * 100_000, "is nested otherwise"),
        ("[['a', " + "-" * 100_000 + "1, False]]", "at character 7"),
        ("(" * 100_000, "at character 0"),
        ("[[" + "'a' " * 9 + ", 0, False]" + "," * 9 + "]", "is no Python literal"),
        (str([["a" * MOST_CHARACTERS, 0, False]]), "has 262,160 characters, more than 262,144"),
    ],
)
def test_a_literal_of_another_form_is_an_error_of_its_record(captions, said):
    with pytest.raises(RecordError) as error:
        read(Grounding(), captions)
    assert said in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_mutated_literal_is_read_or_refused_and_nothing_else():
    """Whatever stands there, no error but ValueError leaves the reader, and what is read has the released form."""
    rng = random.Random(0)
    read_ones = 0
    for _ in range(3000):
        text = list(str(CAPTIONS[3:5]))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(text))
            text[place : place + rng.choice((0, 1, 2))] = rng.choice(
                ["[", "]", "'", '"', "\\", ",", "0", "(", "\0", "é", "-"]
            )
        try:
            captions = released("".join(text))
        except ValueError as error:
            assert type(error) is ValueError
            continue
        read_ones += 1
        assert all(list(map(type, one)) == [str, int, bool] for one in captions)
    assert 100 < read_ones < 2900


def test_halves_of_characters_do_not_reach_the_tokenizer():
    [(text, _, _)] = released(r"[['a\ud83d b\ud83d\ude00', 0, False]]")
    assert text.encode() == "a\ufffd b😀".encode()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"granularity": 0, "boxes": "clip"}, "granularity 0 has no boxes to clip"),
        ({"granularity": 1, "template": "{object}"}, "a template is filled from granularity 2, got 1"),
        ({"image": ()}, "Grounding reads no field with an image"),
    ],
)
def test_options_that_do_not_fit_are_refused_where_they_are_written(options, said):
    with pytest.raises(ValueError, match=said):
        Grounding(**options)


def test_rows_are_read_from_tables_and_tars(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(IMAGE)
    pq.write_table(pa.Table.from_pylist([ROW | {"url": "a.jpg"}]), tmp_path / "0.parquet")
    members = {"jpg": IMAGE, "json": json.dumps(ROW | {"key": "000000000", "status": "success"}).encode()}
    tar = write_tar(tmp_path / "00000.tar", [("000000000", members)])
    beside = Grounding(image=(), image_name="url")
    for storage, reader in (
        (Parquet(str(tmp_path / "0.parquet"), images=str(tmp_path / "images")), beside),
        (Tars(str(tar)), Grounding()),
    ):
        [shard] = storage.shards()
        raw = storage.open(shard, storage.locate(shard), reader.fields, reader.optional).read(0)
        record = reader.read(raw, 0)
        assert record.text == LEVELS[0] and record.image.load().size == (40, 30)
    pq.write_table(pa.Table.from_pylist([{"url": "a.jpg", "caption": "x"}]), tmp_path / "1.parquet")
    storage = Parquet(str(tmp_path / "1.parquet"))
    with pytest.raises(SourceError, match="has no column 'captions'; the columns found: 'url', 'caption'"):
        storage.open(storage.shards()[0], storage.locate(storage.shards()[0]), beside.fields)
