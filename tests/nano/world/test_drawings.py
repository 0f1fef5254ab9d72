"""The sheet of drawings and the handwritten digits."""

import difflib
import importlib.resources
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from xgenmm_jax.nano.world import drawings

EMBEDDED = importlib.resources.files("xgenmm_jax.nano.world") / "embedded"
NAMES = drawings.OBJECTS + tuple(danger.name for danger in drawings.DANGERS)


@pytest.fixture(scope="module")
def facts() -> dict:
    return json.loads((EMBEDDED / "sprites.json").read_text())


def test_constants_are_those_of_the_sheet(facts):
    sprites = facts["sprites"]
    assert [(s["name"], s["style"]) for s in sprites] == list(itertools.product(NAMES, drawings.STYLES))
    categories = {s["name"]: s["category"] for s in sprites}
    assert tuple(name for name, category in categories.items() if category is None) == drawings.OBJECTS
    assert tuple((n, c) for n, c in categories.items() if c is not None) == drawings.DANGERS
    assert tuple(facts["packages"]) == drawings.STYLES
    assert drawings.HELD_OUT_STYLE in drawings.STYLES


def test_names_are_single_words_none_within_another():
    assert all(name.isalpha() and name.islower() for name in NAMES)
    assert [(a, b) for a, b in itertools.permutations(NAMES, 2) if a in b] == []


def test_boxes_tile_the_sheet_without_overlap(facts):
    boxes = [tuple(s["box"]) for s in facts["sprites"]]
    assert len(set(boxes)) == len(boxes)
    side = 48
    assert all(r - left == b - t == side and left % side == t % side == 0 for left, t, r, b in boxes)


def test_every_sprite_fills_its_cell_along_one_side():
    for name, style in itertools.product(NAMES, drawings.STYLES):
        image = drawings.sprite(name, style)
        assert image.mode == "RGBA" and image.size == (48, 48)
        left, top, right, bottom = image.getbbox()
        assert max(right - left, bottom - top) >= 46, (name, style)
        # half a pixel of rounding at most on either side
        assert abs(left + right - 48) <= 3 and abs(top + bottom - 48) <= 3, (name, style)


def test_no_two_sprites_are_alike():
    pixels = {drawings.sprite(name, style).tobytes() for name in NAMES for style in drawings.STYLES}
    assert len(pixels) == len(NAMES) * len(drawings.STYLES)


def test_a_sprite_is_the_callers_own():
    before = drawings.sprite("cat", "noto")
    drawings.sprite("cat", "noto").paste((255, 0, 0, 255), (0, 0, 48, 48))
    assert drawings.sprite("cat", "noto").tobytes() == before.tobytes()


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'elephant'"):
        drawings.sprite("elefant", "noto")
    with pytest.raises(ValueError, match="did you mean 'twemoji'"):
        drawings.sprite("cat", "twimoji")


def test_digits_are_those_of_sklearn():
    from sklearn.datasets import load_digits

    known = load_digits()
    splits = {
        split: [drawings.digit(split, index) for index in range(drawings.digit_count(split))]
        for split in ("train", "held_out")
    }
    assert (len(splits["train"]), len(splits["held_out"])) == (1157, 640)
    for split, rows in (("train", range(1157)), ("held_out", range(1157, 1797))):
        for (image, value), row in zip(splits[split], rows, strict=True):
            assert image.mode == "L" and image.size == (8, 8)
            np.testing.assert_array_equal(np.asarray(image), np.minimum(known.images[row] * 16, 255))
            assert value == known.target[row]
    values = [value for digits in splits.values() for _, value in digits]
    assert np.bincount(values).tolist() == np.bincount(known.target).tolist()
    for digits in splits.values():
        assert min(np.bincount([value for _, value in digits], minlength=10)) > 50


def test_a_form_is_in_one_split_and_holds_what_every_form_holds():
    """Every third row was held out, and its neighbors are of the same hand. A start that is off by one cuts a form."""
    values = "".join(str(value) for split in ("train", "held_out") for value in _values(split))
    assert len(drawings.FORM_STARTS) == 14 and drawings.HELD_OUT_FORMS == tuple(range(9, 14))  # the file's own order
    ends = (*drawings.FORM_STARTS[1:], len(values))
    for start, end in zip(drawings.FORM_STARTS, ends, strict=True):
        form = values[start:end]
        assert form[:10] in ("0123456789", "1234567890") and 122 <= len(form) <= 130
        assert difflib.SequenceMatcher(None, values[:130], form, autojunk=False).ratio() > 0.96
    assert drawings.FORM_STARTS[drawings.HELD_OUT_FORMS[0]] == drawings.digit_count("train")


def _values(split) -> list[int]:
    return [drawings.digit(split, index)[1] for index in range(drawings.digit_count(split))]


def test_a_digit_out_of_range_tells_the_range():
    for index in (-1, 640):
        with pytest.raises(ValueError, match=r"wanted 0 \.\. 639"):
            drawings.digit("held_out", index)


def test_digits_do_not_import_sklearn():
    code = "from xgenmm_jax.nano.world.drawings import digit; digit('train', 0); import sys; "
    code += "print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_style_is_licensed_and_the_sheet_is_small():
    licenses = (EMBEDDED / "LICENSES.md").read_text()
    assert all(f"`{style}`" in licenses for style in drawings.STYLES)
    assert len((EMBEDDED / "sprites.png").read_bytes()) < 1_500_000
