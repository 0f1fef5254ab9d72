"""What is held out, notion by notion."""

from xgenmm_jax.nano.world import drawings, splits
from xgenmm_jax.nano.world.splits import COLORS, FONTS, POSITIONS, SHAPES


def test_combinations_hold_out_a_fifth_and_leave_each_color_and_shape_in_training():
    train, held_out = splits.combinations("train"), splits.combinations("held_out")
    assert len(held_out) == 12 and len(train) == 52 and not set(train) & set(held_out)
    for side, values in ((0, COLORS), (1, SHAPES)):
        assert {pair[side] for pair in train} == {pair[side] for pair in held_out} == set(values)


def test_fonts_and_styles_hold_out_one_and_keep_the_rest():
    assert len(splits.fonts("held_out")) == 1 and len(splits.fonts("train")) == len(FONTS) - 1
    assert splits.styles("held_out") == (drawings.HELD_OUT_STYLE,)
    assert set(splits.styles("train")) | set(splits.styles("held_out")) == set(drawings.STYLES)


def test_a_fifth_of_words_is_held_out_the_same_everywhere():
    words = [f"{a}{b}{c}" for a in "ABCDEFGHJK" for b in "LMNPQRSTUV" for c in "WXYZ234679"]
    held_out = sum(splits.word_split(word) == "held_out" for word in words)
    assert 0.17 < held_out / len(words) < 0.23
    assert [splits.word_split(word) for word in ("A", "K7Q", "NY")] == ["train", "held_out", "train"]


def test_objects_keep_most_places_in_training():
    """A pair may be held out, an object never is."""
    for name in drawings.OBJECTS:
        positions = [position for position in POSITIONS if splits.object_position_split(name, position) == "train"]
        assert len(positions) >= 4 and "center" in positions
    share = len(splits.object_positions("held_out")) / (len(drawings.OBJECTS) * len(POSITIONS))
    assert 0.1 < share < 0.25


def test_a_third_of_the_categories_of_danger_is_held_out():
    categories = {category for _, category in drawings.DANGERS}
    held_out = {category for category in categories if splits.danger_split(category) == "held_out"}
    assert len(held_out) == round(len(categories) / 3)
    assert set(splits.dangers("train")) | set(splits.dangers("held_out")) == {name for name, _ in drawings.DANGERS}
    assert not set(splits.dangers("train")) & set(splits.dangers("held_out"))


def test_frames_leave_every_thing_some_and_every_frame_most_things():
    """A thing in no trained frame, or a frame around no trained thing, would be held out whole."""
    names = (*drawings.OBJECTS, *splits.dangers("train"))
    frames = ("hazard", "yellow", "orange", "black", "red")
    pairs = {(name, frame): splits.object_frame_split(name, frame) for name in names for frame in frames}
    assert 0.1 < list(pairs.values()).count("held_out") / len(pairs) < 0.25
    assert all("train" in [pairs[name, frame] for frame in frames[1:]] for name in names)
    for frame in frames:
        assert [pairs[name, frame] for name in names].count("train") > len(names) / 2
    for group in (drawings.OBJECTS, splits.dangers("train")):
        held_out = {frame == "hazard" for name in group for frame in frames if pairs[name, frame] == "held_out"}
        assert held_out == {True, False}
