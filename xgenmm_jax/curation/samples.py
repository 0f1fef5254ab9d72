"""The page of samples: rows drawn at random, their boxes on the images. Data is escaped, its size is bounded."""

from collections.abc import Mapping
import itertools
from pathlib import Path
import random
from typing import Any

import PIL.Image
import pyarrow.parquet as pq

from xgenmm_jax import files
from xgenmm_jax.curation.destination import Curated
from xgenmm_jax.curation.images import Unopened, opened_shard, unopened
from xgenmm_jax.curation.makers import Maker
from xgenmm_jax.curation.shards import ShardNote
from xgenmm_jax.data.errors import is_of_a_record
from xgenmm_jax.data.image_files import in_words
from xgenmm_jax.data.images import load_official
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.reporting.data_page import visible
from xgenmm_jax.reporting.images import jpeg_uri
from xgenmm_jax.reporting.page import render_template

SAMPLES_FILE = "samples.html"
SAMPLES, SEED = 20, 0
SHOWN_PX, LEAST_PX = 640, 240
"""Longest sides on the page: larger images are made smaller, tiny ones larger by whole pixels."""
MOST_BOXES, MOST_LABEL, MOST_TEXT, MOST_NAME = 60, 120, 1_200, 160
"""Of a sample; what is beyond them is counted or cut on the page."""
COLORS = 8


def write(folder: Path, curated: Curated, source: ShardedSource, maker: Maker, seed: int = SEED) -> Path:
    """Writes the page. source: gives the images where the rows have none."""
    path = folder / SAMPLES_FILE
    files.write_whole(path, render(folder, curated, source, maker, seed))
    return path


def render(folder: Path, curated: Curated, source: ShardedSource, maker: Maker, seed: int) -> str:
    drawn = draw(curated.notes, seed)
    samples = []
    for note, number in drawn:
        row = _row(folder / note.file, number)
        boxes, texts = maker.drawn(row)
        image, problem = _image(source, note, row)
        samples.append(
            {
                "name": visible(str(row["url"] or row["key"]), MOST_NAME),
                "file": f"{note.file}[{number}]",
                "uri": None if image is None else jpeg_uri(_shown(image)),
                "problem": problem,
                "size_px": (0, 0) if image is None else image.size,
                "boxes": [
                    {"at": box, "label": visible(label, MOST_LABEL), "color": count % COLORS}
                    for count, (box, label) in enumerate(boxes[:MOST_BOXES])
                ],
                "more_boxes": len(boxes[MOST_BOXES:]),
                "texts": [visible(text, MOST_TEXT) for text in texts],
            }
        )
    return render_template(
        "xgenmm_jax.curation",
        "samples.html",
        refresh_s=0,
        command=maker.command,
        rows=curated.rows,
        seed=seed,
        samples=samples,
    )


def draw(notes: tuple[ShardNote, ...], seed: int) -> list[tuple[ShardNote, int]]:
    """SAMPLES rows, each as likely as any other, in their order; fewer where there are fewer."""
    ends = list(itertools.accumulate(note.rows for note in notes))
    count = ends[-1] if ends else 0
    chosen, drawn, shard = sorted(random.Random(seed).sample(range(count), min(SAMPLES, count))), [], 0
    for index in chosen:
        while index >= ends[shard]:
            shard += 1
        drawn.append((notes[shard], index - (ends[shard] - notes[shard].rows)))
    return drawn


def _row(path: Path, number: int) -> dict[str, Any]:
    """One row of a file, by the row group that holds it."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number < rows:
                return file.read_row_group(group).slice(number, 1).to_pylist()[0]
            number -= rows
    raise ValueError(f"curate: '{path}' has fewer rows than its note says; delete it and run the command again.")


def _image(source: ShardedSource, note: ShardNote, row: Mapping[str, Any]) -> tuple[PIL.Image.Image | None, str]:
    """The image of a row, or why there is none."""
    try:
        if row.get("image"):
            return load_official(row["image"]["bytes"], row["image"]["path"]), ""
        index = source.source_index()
        number = index.names.index(note.shard)
        shard, _ = opened_shard(source, index.paths[number])
        try:
            of_shard = unopened(source, shard, note.shard)
            one = next(itertools.islice(of_shard, row["__index_level_0__"], None), None)
            if not isinstance(one, Unopened):
                return None, "the source does not have this image any more"
            return one.lazy.load(), ""
        finally:
            shard.close()
    except Exception as error:
        if not is_of_a_record(error):
            raise
        return None, in_words(error)


def _shown(image: PIL.Image.Image) -> PIL.Image.Image:
    longest = max(image.size)
    if longest <= LEAST_PX // 2:
        factor = LEAST_PX // longest
        return image.resize((image.width * factor, image.height * factor), PIL.Image.Resampling.NEAREST)
    scale = min(1.0, SHOWN_PX / longest)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if scale == 1 else image.resize(size, PIL.Image.Resampling.LANCZOS)
