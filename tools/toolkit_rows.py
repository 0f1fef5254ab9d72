"""Drawn questions in the words of POPE and MuirBench: benchmark rows as published, and conversations to learn from.

`tools/try_toolkits.py` asks the rows in the toolkits and by `xgenmm evaluate`. Rows show held-out scenes of the drawn
world, conversations those of its training split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import io
import json
from pathlib import Path

import PIL.Image

from xgenmm_jax.nano.world import draw, multi_image, questions, scenes
from xgenmm_jax.nano.world.splits import Split
from xgenmm_jax.nano.world.world import KeyedRandom, Scene

LETTERS = "ABCDE"
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
PICTURES = ("picture 1", "picture 2", "picture 3")
OFTEN = ("star", "heart", "circle", "square")
"""Shapes that conversations mostly affirm; the others they mostly deny."""
NOTHING = "None"
"""An option that VLMEvalKit's reader of tables loses."""


@dataclass(frozen=True)
class PopeRow:
    """index: unique. picture: PNG. image_of: the row whose picture is the same, or None. answer: "Yes" or "No"."""

    index: int
    picture: bytes
    image_of: int | None
    question: str
    answer: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class MuirRow:
    """question: with an `<image>` for each of the first pictures. answer: a letter."""

    index: int
    pictures: tuple[bytes, ...]
    question: str
    options: tuple[str, ...]
    answer: str
    task: str


def pope_rows(pictures: int, split: Split = "held_out") -> list[PopeRow]:
    """Two rows a picture: a shape that is there and one that is not."""
    rows: list[PopeRow] = []
    for number in range(pictures):
        rng = KeyedRandom(5, "toolkits", "pope", split, number)
        # Mostly of a single shape: a small model sees early whether it is the one.
        scene = scenes.shapes(rng, split) if number % 4 == 3 else scenes.one_shape(rng, split)
        picture, first = png(scene), len(rows)
        for is_there in rng.shuffle((True, False)):
            thing = scene.things[0]
            color, name = questions.present(rng, thing) if is_there else questions.absent(rng, scene, thing)
            what = f"{color} {name}".strip()
            same = first if len(rows) > first else None
            # As published: a row stands for one line of each category that it is in.
            categories = ("random", "popular", "adversarial")[: 1 + (number + is_there) % 3]
            question = f"Is there {'an' if what[0] in 'aeiou' else 'a'} {what} in the image?"
            rows.append(PopeRow(len(rows), picture, same, question, "Yes" if is_there else "No", categories))
    return rows


def muir_rows(count: int, split: Split = "held_out") -> list[MuirRow]:
    """Which of two or three pictures shows something; every third row has its pictures inside the question, every
    fourth an option "None"."""
    rows = []
    for number in range(count):
        rng = KeyedRandom(5, "toolkits", "muirbench", split, number)
        question, answer, shown = _which(rng, split)
        options = list(rng.shuffle(PICTURES[: len(shown)]))
        if number % 4 == 1:
            options.append(NOTHING)
        markers = "<image>" * len(shown)
        asked = f"Here are {markers} to compare. {question}" if number % 3 == 2 else f"{markers}\n{question}"
        letter = LETTERS[options.index(answer)]
        task = ("Visual Retrieval", "Counting", "Ordering")[number % 3]
        rows.append(MuirRow(number, tuple(map(png, shown)), asked, tuple(options), letter, task))
    return rows


def _which(rng: KeyedRandom, split: Split) -> tuple[str, str, Sequence[Scene]]:
    """A question whose answer is one of the pictures."""
    while True:
        shown = multi_image.image_set(rng, split)
        for question, answer in shown.ordered:
            if answer in PICTURES:
                return question, answer, shown.scenes


def conversations(folder: Path, count: int) -> Path:
    """Writes as many pairs of a yes/no and a letter question in LLaVA's form, and their pictures; gives the file."""
    (folder / "images").mkdir(parents=True)
    entries: list[dict[str, object]] = []

    def add(pictures: Sequence[bytes], asked: str, answer: str) -> None:
        names = [f"images/{len(entries)}_{number}.png" for number in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            (folder / name).write_bytes(picture)
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
        entries.append({"id": str(len(entries)), "image": names, "conversations": turns})

    # Both toolkits' wordings: with and without a last line that says how to answer, pictures in front and inside.
    for row in pope_rows(count, "train"):
        # Some things are there more often than not, others seldom, as in photographs: a model too small to compare a
        # word with a picture learns that, and says both yes and no.
        is_often = any(shape in row.question for shape in OFTEN)
        if (row.answer == "Yes") != is_often and row.index % 6 > 1:
            continue
        add([row.picture], f"<image> {row.question}{SHORT if row.index % 4 < 2 else ''}", row.answer)
    for muir in muir_rows(2 * count, "train"):
        inside = muir.index % 2
        shown = muir.question if inside else muir.question.replace("<image>", "").strip()
        spaced = shown.replace("<image>", "<image> ") if inside else "<image> " * len(muir.pictures) + shown
        add(muir.pictures, f"{spaced}\n{option_lines(muir.options)}{LETTER}", muir.answer)
    path = folder / "conversations.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def option_lines(options: Sequence[str]) -> str:
    """"A. picture 2\\nB. picture 1"."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def png(scene: Scene) -> bytes:
    """The scene's pixels in a file."""
    buffer = io.BytesIO()
    _pixels(scene).save(buffer, "PNG")
    return buffer.getvalue()


def _pixels(scene: Scene) -> PIL.Image.Image:
    return draw.lazy_image(scene).load()


def pope_docs(rows: Sequence[PopeRow]) -> Iterator[tuple[PopeRow, str]]:
    """A row for each of its categories, in the hub's order: adversarial, popular, random."""
    for category in ("adversarial", "popular", "random"):
        for row in rows:
            if category in row.categories:
                yield row, category
