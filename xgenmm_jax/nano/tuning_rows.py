"""Rows of a question that no stage of nano asks, in LLaVA's form, for trying `experiments/finetune.py`.

`What is left of the star?` `red ring`: every word of it, and each of its steps (where the star is, what is at a
position), was trained on; the question was not. `xgenmm evaluate RUN --kinds beside` asks held-out ones, whose answers
are combinations of color and shape that no picture here shows.
"""

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.nano.world import draw, evaluation_items
from xgenmm_jax.nano.world.questions import Answered
from xgenmm_jax.nano.world.world import KeyedRandom, Scene

ROWS_FILE, IMAGES = "rows.json", "pictures"


def rows(count: int, seed: int) -> Iterator[tuple[Scene, Answered]]:
    """`count` different scenes of 64 x 64 pixels, each with its question; the same for the same arguments."""
    seen: set[Scene] = set()
    index = 0
    while len(seen) < count:
        scene, answered = evaluation_items.beside(KeyedRandom(seed, "tuning", index), "train")
        index += 1
        if scene not in seen:
            seen.add(scene)
            yield scene, answered


def write(folder: Path, count: int = 500, seed: int = 0) -> None:
    """Writes `folder`/rows.json, LLaVA's list, and the pictures that it names into `folder`/pictures."""
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for number, (scene, (question, answer)) in enumerate(rows(count, seed)):
        name = f"{number:05d}.png"
        draw.draw(scene).save(folder / IMAGES / name)
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        entries.append({"id": str(number), "image": name, "conversations": turns})
    files.write_whole(folder / ROWS_FILE, json.dumps(entries, indent=0))
