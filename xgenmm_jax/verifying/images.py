"""Three images drawn by code, and how the model's views of them must be to the bit.

`python -m xgenmm_jax.verifying.images` prints image_hashes.json: SHA-256 of the views as this code makes them with
the Pillow of requirements.txt, for sides of views and lists of grids that are in use.
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import PIL.Image

from xgenmm_jax import files
from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import GRIDS_12, GRIDS_RELEASED, AnyRes
from xgenmm_jax.verifying.section import Section

SIZES_PX = ((1000, 700), (300, 900), (97, 61))
"""Width and height: one that the lists of grids cut differently, a tall one, and one smaller than a view."""
SIDES_PX = (28, 32, 64, 224, 336, 378, 384, 448)
LISTS = {"released": GRIDS_RELEASED, "12 crops": GRIDS_12, "one view": ()}
HASHES = pathlib.Path(__file__).with_name("image_hashes.json")


@functools.cache
def images() -> tuple[PIL.Image.Image, ...]:
    """Slopes, edges and noise in whole numbers: the same bytes on every machine."""
    return tuple(_draw(width, height, number) for number, (width, height) in enumerate(SIZES_PX))


def _draw(width: int, height: int, number: int) -> PIL.Image.Image:
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    red = 255 * x // width
    green = 255 * y // height
    # A noise without a generator whose numbers a later version could change.
    blue = (x * 7919 + y * 104729 + x * y * (31 + number)) % 251
    disc = (x - width // 2) ** 2 + (y - height // 3) ** 2 < (min(width, height) // 4) ** 2
    squares = ((x // 16 + y // 16) % 2 == 0) & (y > 2 * height // 3)
    pixels = np.stack([red, green, blue], -1).astype(np.uint8)
    pixels[disc] = ((250, 40, 30), (30, 60, 240), (20, 200, 60))[number]
    pixels[squares] = 255
    return PIL.Image.fromarray(pixels)


def hashes(config: AnyRes) -> list[str]:
    """SHA-256 of each image's views and their grid."""
    return [
        hashlib.sha256(
            repr(anyres.layout(image.size, config)[:2]).encode() + anyres.crops(image, config).tobytes()
        ).hexdigest()
        for image in images()
    ]


def list_name(grids: Sequence[tuple[int, int]]) -> str | None:
    """Of a list of grids that models were trained with."""
    return next((name for name, known in LISTS.items() if tuple(grids) == known), None)


def check(config: AnyRes, files_grids: Mapping[str, Any], reference: Sequence[str] | None) -> Section:
    """Whether grids are a known list, the files agree on them, and views are as kept here and in a reference.

    files_grids: name of a file to the grids that it has, in pixels. reference: hashes of the model's reference file.
    """
    faults, notes, side = [], [], config.view_px
    now, name = hashes(config), list_name(config.grids)
    for file, grids in files_grids.items():
        odd = [grid for grid in grids or () if any(int(px) % side or int(px) < side for px in grid)]
        if odd:
            faults.append(f"{file}: grid {odd[0]} is no multiple of views of {side} px; copy the model's own again.")
    said = [json.dumps(grids) for grids in files_grids.values() if grids]
    if len(set(said)) > 1:
        faults.append(f"{' and '.join(files_grids)} have different grids, {said[0]} and {said[1]}; copy both again.")
    key = f"{side}/{name}"
    stored = files.read_json(HASHES)
    expected = stored.get(key) if config.global_view == "squash" and not config.single_view_up_to_px else None
    if reference is not None:
        differ = [number for number, pair in enumerate(zip(now, reference, strict=True)) if pair[0] != pair[1]]
        if differ:
            faults.append(
                f"views: {len(differ)} of {len(now)} images are cut otherwise than by the model that wrote the "
                f"reference (grids here {list(config.grids)}); put its config.json and preprocessor_config.json back."
            )
    elif name is None:
        faults.append(
            f"views: grids {list(config.grids)} are none that a published model has; put the model's own config.json "
            "and preprocessor_config.json back, or, for a model of your own, give its --reference."
        )
    if expected is not None and expected != now:
        faults.append(
            f"views: pixels differ from those kept for {key}: this Pillow resizes otherwise; install the version of "
            "requirements.txt."
        )
    if expected is None and name is not None:
        notes.append(f"No hashes are kept for views of {side} px of this kind: a reference alone tells of them.")
    if reference is None and name is not None:
        notes.append(f"The grids are those of '{name}'; that the model was trained with them a reference alone tells.")
    head = ("image", "grid", "views", "SHA-256")
    rows = []
    for image, digest in zip(images(), now, strict=True):
        layout = anyres.layout(image.size, config)
        columns, lines = layout.grid
        rows.append((f"{image.width} x {image.height}", f"{columns} x {lines}", str(layout.crops), digest[:16]))
    return Section("Views of three images", head, tuple(rows), tuple(faults), tuple(notes))


if __name__ == "__main__":
    hashes_by_key = {
        f"{side}/{name}": hashes(AnyRes(grids=grids, view_px=side, view_cells=max(side // 14, 1)))
        for side in SIDES_PX
        for name, grids in LISTS.items()
    }
    print(json.dumps(hashes_by_key, indent=1))
