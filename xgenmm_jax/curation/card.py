"""The data card: a README.md with the hub's front matter and charts, from the notes of the shards alone.

Nothing in it depends on when or how often the command ran: the same rows have the same card.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
import platform
import re
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.curation.charts import bar_chart, ordered
from xgenmm_jax.curation.destination import LEFT_OUT_FILE, Curated
from xgenmm_jax.curation.duplicates import DISTANCE
from xgenmm_jax.curation.extra import version_of
from xgenmm_jax.curation.makers import Maker
from xgenmm_jax.curation.samples import SAMPLES_FILE
from xgenmm_jax.curation.shards import DATA, NOT_SAID, Options, schema_of
from xgenmm_jax.reporting.markdown import one_line, table, yaml_lines

CARD_FILE, CHARTS = "README.md", "card"
TITLES = {
    "ocr": "Text in images, in the schema of BLIP3-OCR-200M",
    "ocr-hd": "Text in large images, in the schema of BLIP3-OCR-200M",
    "grounding": "Objects in images, in the schema of BLIP3-GROUNDING-50M",
    "noised": "Pairs of answers, the worse one about a noised image",
}
ABOUT = {
    "ocr": (
        "Each row is an image with its text as an engine read it: `metadata` has the lines with corners and "
        "confidences, `captions` twelve captions, six granularities without and with the image's alt text."
    ),
    "grounding": (
        "Each row is an image with the objects that a detector found for its tags: `captions` is a Python literal of "
        "captions at three granularities, without and with the image's alt text; `objects` has tags, boxes and "
        "confidences as JSON."
    ),
    "noised": (
        "Each row is a question about an image with two answers: `chosen` is the source's, `rejected` what the run "
        "answered greedily about the image with noise on it. `image` is the image without noise."
    ),
}
LIMITS = {
    "ocr": (
        "Engines misread: text that is small, turned, written by hand or in a script that the engine does not know is "
        "wrong or missing, and textures are read as text. Boxes of RapidOCR are wider than the letters."
    ),
    "grounding": (
        "A detector finds objects that are not there and misses others; a tag that stands in a caption twice has its "
        "box at the first place."
    ),
    "noised": "Where the run knows the answer without the image, the rejected answer may be right.",
}
LOADED_WITH = {
    "ocr": "Ocr(image=(\"image\",))",
    "grounding": "Grounding(image=(\"image\",), granularity=2)",
    "noised": "Preferences(image=(\"image\",), image_name=\"\")",
}
CHART_TITLES = {
    "languages": "Languages of the text in an image (und: fewer than 20 letters)",
    "confidences": "Confidences, in bins of 0.05",
    "licences": "Licences, as the source says them",
    "tags": "Tags of the objects",
    "answer_words": "Words of the worse answers (40: and more)",
    "places": "Where the objects are",
}
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
"""The hub's names of sizes, each ten times the one before."""
LICENCES = frozenset(
    "apache-2.0 mit bsd cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 gfdl gpl-2.0 gpl-3.0 odc-by odbl pddl unlicense".split()
)
"""The hub's names of licences that images have; another one is "other" there, with a name of its own."""


def write(folder: Path, curated: Curated, maker: Maker, options: Options, command: str) -> Path:
    """Writes the card and its charts. command: as it was typed, without folders: a card is published.

    Raises ValueError where matplotlib is missing.
    """
    charts = {name: bars for name, bars in sorted(curated.figures().items()) if bars}
    (folder / CHARTS).mkdir(exist_ok=True)
    for name, bars in charts.items():
        files.write_whole(folder / CHARTS / f"{name}.png", bar_chart(CHART_TITLES.get(name, name), bars))
    path = folder / CARD_FILE
    files.write_whole(path, markdown(curated, maker, options, command, charts))
    return path


def markdown(
    curated: Curated, maker: Maker, options: Options, command: str, charts: Mapping[str, Mapping[str, int]]
) -> str:
    """The card. charts: those that lie beside it, with their bars."""
    kind = "ocr" if maker.command == "ocr-hd" else maker.command
    sections = [
        ("Contents", _contents(curated)),
        ("Columns", _columns(maker, options)),
        ("Charts", "\n\n".join(_chart(name, bars) for name, bars in charts.items())),
        ("How it was made", _made(maker, options, command)),
        ("What was left out", _left_out(curated, options)),
        ("Reading it", _reading(kind, options)),
        ("Limits", LIMITS[kind]),
    ]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections if text)
    front = "\n".join(yaml_lines(_front_matter(curated, charts)))
    return f"---\n{front}\n---\n\n# {TITLES[maker.command]}\n\n{ABOUT[kind]}\n\n{body}\n"


def _front_matter(curated: Curated, charts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    languages = [name for name, _ in ordered(charts.get("languages", {})) if len(name) == 2]
    front: dict[str, Any] = {
        **_licence(list(charts.get("licences", {}))),
        "size_categories": [size_name(curated.rows)],
        "tags": ["xgenmm_jax", "image-text"],
    }
    front |= {"language": languages} if languages else {}
    # The hub's viewer takes nothing else for data.
    return front | {"configs": [{"config_name": "default", "data_files": f"{DATA}/*.parquet"}]}


def _licence(said: Sequence[str]) -> dict[str, str]:
    """The front matter's licence. said: as the rows say them."""
    if len(said) != 1:
        return {"license": "other", "license_name": "several"} if said else {"license": "unknown"}
    name = said[0].strip().lower()
    if name == NOT_SAID:
        return {"license": "unknown"}
    if name in LICENCES:
        return {"license": name}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name).strip("-")[:80] or "own"}


def size_name(rows: int) -> str:
    """The hub's name of so many rows: 0 to 999 "n<1K", 1,000 "1K<n<10K"."""
    return next((name for power, name in enumerate(SIZES, 3) if rows < 10**power), SIZES[-1])


def _contents(curated: Curated) -> str:
    images = sum(note.images for note in curated.notes)
    rows = [
        ("rows", f"{curated.rows:,}"),
        ("images looked at", f"{images:,}"),
        ("files", f"{len(curated.notes):,}, one for each shard of the source"),
        ("bytes", f"{sum(note.bytes for note in curated.notes):,}"),
    ]
    if curated.failed:
        names = ", ".join(f"`{failed.shard}`" for failed in curated.failed[:5])
        more = f" and {len(curated.failed) - 5:,} more" if len(curated.failed) > 5 else ""
        rows.append(("shards of the source that failed", f"{len(curated.failed):,}: {names}{more}"))
    return table(("what", "how much"), rows)


def _columns(maker: Maker, options: Options) -> str:
    return table(("column", "type"), [(f"`{field.name}`", f"{field.type}") for field in schema_of(maker, options)])


def _chart(name: str, bars: Mapping[str, int]) -> str:
    shown = ", ".join(f"{one_line(bar)} {count:,}" for bar, count in ordered(bars) if count)
    return f"{CHART_TITLES.get(name, name)}: {shown}.\n\n![{name}]({CHARTS}/{name}.png)"


def _made(maker: Maker, options: Options, command: str) -> str:
    options_rows = [(name.replace("_", " "), _said(value)) for name, value in maker.described().items()]
    rows = [
        *options_rows,
        ("duplicates left out", f"yes: at most {DISTANCE} bits of 256 differ" if options.deduplicate else "no"),
        ("boxes of faces", {"source": "the source's", "cascade": "found by a cascade", "none": "none"}[options.faces]),
        ("licences", f"the source's column `{options.license_field}`"),
        ("versions", ", ".join(_versions())),
    ]
    return f"    {command}\n\n{table(('option or version', 'value'), rows)}"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _versions() -> Sequence[str]:
    named = [f"Python {platform.python_version()}"]
    for name in ("xgenmm_jax", "apache-beam", "pillow", "pyarrow", "py3langid"):
        if version := version_of(name):
            named.append(f"{name} {version}")
    return named


def _left_out(curated: Curated, options: Options) -> str:
    left_out = curated.left_out()
    if not left_out:
        return "Nothing: each image has a row."
    rows = [(reason, f"{count:,}", first) for reason, (count, first) in sorted(left_out.items())]
    return f"{table(('reason', 'images', 'the first'), rows)}\n\nEach of them is a line of `{LEFT_OUT_FILE}`."


def _reading(kind: str, options: Options) -> str:
    reader = LOADED_WITH[kind] if options.images else LOADED_WITH[kind].replace('image=("image",)', 'image_name="url"')
    storage = f'Parquet("{DATA}/*.parquet"{"" if options.images else ", images=FOLDER"})'
    return (
        f"With xgenmm_jax: `ShardedSource({storage}, {reader})`. Twenty rows drawn at random are in [{SAMPLES_FILE}]"
        f"({SAMPLES_FILE}), their boxes on the images."
    )
