"""Finds what is held out in descriptions of training records: `python tests/data/held_out_scan.py SEEDS RECORDS`.

Prints a line for each record that shows or tells something held out, of all families. A process of its own, because
signatures that are checked at run time make the tests' own one ten times slower.
"""

from collections.abc import Iterator
import re
import sys

from xgenmm_jax.data.captions import cells
from xgenmm_jax.data.records import Caption, Conversation, Document, Picture, Preference, Record
from xgenmm_jax.nano.world import draw, drawings, families, questions, splits
from xgenmm_jax.nano.world.symbolic_images import cell_words
from xgenmm_jax.nano.world.world import ALPHABET, BASE_PX, Scene, Thing

DANGERS = dict(drawings.DANGERS)
_FRAMES = {(250, 205, 0): "yellow", (245, 140, 20): "orange", (20, 20, 20): "black", (215, 40, 40): "red"}

_COLOR, _SHAPE, _OBJECT = ("|".join(names) for names in (splits.COLORS, splits.SHAPES, drawings.OBJECTS))
_PLACE = "|".join(sorted(splits.PLACES, key=len, reverse=True))  # "top left" before "top"
_COMBINATION = re.compile(rf"\b({_COLOR}) ({_SHAPE})")
_ALL_OF_A_COLOR = re.compile(rf"\b({_SHAPE})(?:e?s)?\. All are ({_COLOR})\.")
_BOX = re.compile(r"\[[^\]]*\]")
_STRING = re.compile(rf"\b[{ALPHABET}]{{2,4}}\b")
_QUOTED = re.compile(r'"([^"\n]*)"')
_PLACED = re.compile(rf"\b({_OBJECT}) (?:(?:at|in) the )?({_PLACE})\b")
_CELL_PLACES = dict(zip(cells.CELLS, splits.PLACES, strict=True))
_IN_CELL = re.compile(rf"\b({_OBJECT}) \(({'|'.join(cells.CELLS)})\)")
_UNTRAINED_DANGER = re.compile(rf"\b({'|'.join(splits.dangers('held_out'))})")
_FEW_SHOT = re.compile(r"Question:(.*?) Short answer:(.*?)(?= Question:|$)")
_READS = re.compile(r"(Read the text\.|say\?|on line \w+\?|value of the \w+ bar\?|as one word\.)$")


def pictures_of(record: Record) -> tuple[Picture, ...]:
    if isinstance(record, Caption):
        return (record.picture,)
    if isinstance(record, Document):
        return tuple(part for part in record.parts if isinstance(part, Picture))
    return record.pictures


def shown(scene: Scene) -> set[str]:
    """What in a scene is held out, in words."""
    return {note for thing in scene.things for note in held_out_in(thing, scene)}


def held_out_in(thing: Thing, scene: Scene) -> list[str]:
    """What of a thing in a scene is held out."""
    notes = []
    if thing.kind == "shape" and splits.combination_split(thing.color, thing.name) == "held_out":
        notes.append(f"combination {thing.color} {thing.name}")
    if thing.kind in ("text", "bar") and splits.word_split(thing.name) == "held_out":
        notes.append(f"word {thing.name}")
    if thing.kind == "text" and splits.font_split(thing.look) == "held_out":
        notes.append(f"font {thing.look}")
    if thing.kind == "digit" and thing.look.startswith("held_out"):
        notes.append(f"handwriting {thing.look}")
    if thing.kind == "object":
        if splits.style_split(thing.look) == "held_out":
            notes.append(f"style {thing.look}")
        if thing.name in DANGERS and splits.danger_split(DANGERS[thing.name]) == "held_out":
            notes.append(f"danger {thing.name}")
        if thing.name not in DANGERS and splits.object_place_split(thing.name, thing.place) == "held_out":
            notes.append(f"place {thing.name} {thing.place}")
        if scene.frame and splits.object_frame_split(thing.name, frame_of(scene)) == "held_out":
            notes.append(f"frame {thing.name} {frame_of(scene)}")
    return notes


def frame_of(scene: Scene) -> str:
    """"hazard", or the color of a plain frame."""
    return _FRAMES[scene.frame_ink] if scene.frame == "plain" else scene.frame


def told_in(record: Record) -> set[str]:
    """What a record's texts name that is held out, in words; an answer is read beside its question."""
    notes = told("\n".join(families.texts(record)))
    pairs: list[tuple[str, str]] = []
    if isinstance(record, Document):
        pairs = [pair for text in families.texts(record) for pair in _FEW_SHOT.findall(text)]
    if isinstance(record, Conversation | Preference):
        turns = [turn.text for turn in record.turns]
        if isinstance(record, Preference):
            pairs = [(turns[-1], record.chosen), (turns[-1], record.rejected)]
        else:
            pairs = list(zip(turns[::2], turns[1::2], strict=True))
    return notes.union(*(told_by_answer(*pair) for pair in pairs))


def told(text: str) -> set[str]:
    """What a text names that is held out."""
    text = _BOX.sub("", text)
    pairs = _COMBINATION.findall(text) + [pair[::-1] for pair in _ALL_OF_A_COLOR.findall(text)]
    notes = {f"combination {c} {s}" for c, s in pairs if splits.combination_split(c, s) == "held_out"}
    strings = _STRING.findall(text) + _QUOTED.findall(text)
    notes |= {f"string {string}" for string in strings if splits.word_split(string) == "held_out"}
    places = _PLACED.findall(text) + [(name, _CELL_PLACES[cell]) for name, cell in _IN_CELL.findall(text)]
    notes |= {f"{name} at {place}" for name, place in places if splits.object_place_split(name, place) == "held_out"}
    return notes | {f"danger {name}" for name in _UNTRAINED_DANGER.findall(text)}


def told_by_answer(question: str, answer: str) -> set[str]:
    """What an answer says of what its question names: `What color is the cross?` `blue`."""
    verdict = questions.verdict(answer)
    if asked := re.search(rf"What color (?:is|are) the ({_SHAPE})(?:e?s)?\?$", question):
        return told(f"{verdict} {asked[1]}")
    if asked := re.search(rf"What shape is ({_COLOR})\?$", question):
        return told(f"{asked[1]} {verdict}")
    if asked := re.search(rf"Where is the ({_OBJECT})\?$", question):
        return told(f"{asked[1]} {verdict}")
    if asked := re.search(rf"What object is (?:at|in) the ({_PLACE})\?$", question):
        return told(f"{verdict} {asked[1]}")
    return told(f'"{verdict}"') if _READS.search(question) else set()


def found(family: families.Family, seed: int, records: int) -> Iterator[str]:
    """A line for each of a family's first training records of a seed that shows or tells something held out.

    Pictures are read as they are drawn and as they are put in words.
    """
    for index in range(records):
        record = families.record(family, index, seed=seed)
        scenes = [draw.scene_of(picture) for picture in pictures_of(record)]
        notes = told_in(record).union(*map(shown, scenes))
        words = [cell for scene in scenes if scene.size_px == (BASE_PX, BASE_PX) for cell in cell_words(scene)]
        notes |= told("\n".join(map(" ".join, words)))
        if notes:
            yield f"{record.id}: {', '.join(sorted(notes))}"


if __name__ == "__main__":
    seeds, records = (int(argument) for argument in sys.argv[1:])
    for name in families.FAMILIES:
        for seed in range(seeds):
            for line in found(name, seed, records):
                print(line)
