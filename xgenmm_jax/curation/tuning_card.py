"""The data card of a set of prompts and pictures, from the notes of its tars alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from xgenmm_jax import files
from xgenmm_jax.curation.card import CARD_FILE, size_name
from xgenmm_jax.curation.destination import LEFT_OUT_FILE
from xgenmm_jax.curation.tuning_set import REFUSED, Note
from xgenmm_jax.reporting.markdown import table, yaml_lines


def write(folder: Path, notes: Sequence[Note], options: Mapping[str, str], kept_out: Mapping[str, int]) -> Path:
    """Writes the card.

    options: those that the set was made with, by name. kept_out: prompts of tests that templates gave, by category.
    """
    images = sum(note.images for note in notes)
    front = {
        "license": "unknown",
        "task_categories": ["text-to-image"],
        "size_categories": [size_name(images)],
        "tags": ["xgenmm_jax", "webdataset"],
    }
    categories = dict.fromkeys(note.category for note in notes)
    rows = [_of([note for note in notes if note.category == name], name, kept_out.get(name, 0)) for name in categories]
    rows.append(_of(notes, "all", sum(kept_out.values())))
    head = ("category", "files", "prompts", "pictures", "without one", "kept out for tests")
    sides: Counter[str] = Counter()
    for note in notes:
        sides.update(note.sides)
    shown = ", ".join(f"{side} px {count:,}" for side, count in sorted(sides.items(), key=lambda one: int(one[0]))[:20])
    left_out = sum(len(note.left_out) for note in notes)
    sections = (
        ("Contents", f"{table(head, rows)}\n\nLonger sides: {shown or 'none'}{', ...' if len(sides) > 20 else ''}."),
        ("How it was made", table(("option", "value"), list(options.items()))),
        ("What was left out", f"{left_out:,} prompts: {REFUSED}. Each is a line of `{LEFT_OUT_FILE}`."),
        ("Reading it", 'With xgenmm_jax: `ShardedSource(Tars("*.tar"), ToDraw(ImageCaptions()))`.'),
        (
            "Limits",
            "Pictures are the teacher's: its terms are their licence, and what it draws wrongly is wrong here. Prompts "
            "from templates are of few forms. Only prompts that equal one of a test (but for case, white space and a "
            "full stop) were kept out; those that resemble one were not.",
        ),
    )
    about = "Prompts and a teacher's pictures of them, `KEY.txt` and `KEY.jpg` in tars, in the form of BLIP3o-60k."
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    path = folder / CARD_FILE
    files.write_whole(path, "\n".join(["---", *yaml_lines(front), "---"]) + f"\n\n# {TITLE}\n\n{about}\n\n{body}\n")
    return path


TITLE = "Prompts with pictures, for tuning a model that draws"


def _of(notes: Sequence[Note], name: str, kept_out: int) -> tuple[str, ...]:
    counts = (
        len(notes), sum(note.prompts for note in notes), sum(note.images for note in notes),
        sum(len(note.left_out) for note in notes), kept_out,
    )  # fmt: skip
    return name, *(f"{count:,}" for count in counts)
