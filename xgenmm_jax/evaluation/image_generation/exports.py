"""Drawn pictures in the folders that the benchmarks' own scorers read (docs/reference/blip3o.md#folders-of-pictures).

A prompt that is there whole is skipped, so a broken run goes on: draw what `remaining` gives and write it. FOLDER.json
beside a folder says what drew its pictures; in it, it would be a picture to some scorers.
"""

from collections.abc import Iterable, Mapping, Sequence
import io
import json
from typing import Any

import PIL.Image

from xgenmm_jax import files
from xgenmm_jax.evaluation.image_generation.prompts import IMAGES_PER_PROMPT, Benchmark, BenchmarkPrompt
from xgenmm_jax.evaluation.model_names import without_folder
from xgenmm_jax.paths import Path

Drawn = Iterable[tuple[BenchmarkPrompt, Sequence[PIL.Image.Image]]]


def begin_or_continue(folder: Path, made_by: Mapping[str, Any]) -> None:
    """Keeps what draws a folder's pictures; nothing where it is kept already.

    made_by: plain values by name; "model" with the run folder's name, which is not compared.

    Raises:
        ValueError: the folder has pictures of something else, or that nothing is known of.
    """
    path = folder.parent / f"{folder.name}.json"
    remedy = "give another folder (--output), or delete it"
    if path.is_file():
        known = files.read_json(path, remedy)
        known = known if isinstance(known, dict) else {}
        differing = [f"{name} {known.get(name)!r}, now {value!r}" for name, value in made_by.items()
                     if _compared(name, known.get(name)) != _compared(name, value)]  # fmt: skip
        if differing:
            raise ValueError(f"'{folder}' holds pictures of {'; '.join(differing)}; {remedy} and '{path}'.")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"'{folder}' is not empty, and no '{path}' says what drew its pictures; {remedy}.")
    files.make_folder(folder.parent)
    files.write_whole(path, json.dumps(dict(made_by), indent=1) + "\n")


def _compared(name: str, value: Any) -> Any:
    return without_folder(value) if name == "model" and isinstance(value, str) else value


def write(benchmark: Benchmark, folder: Path, drawn: Drawn, images_per_prompt: int | None = None) -> int:
    """Writes pictures as PNG in a benchmark's layout; gives the number of prompts written.

    geneval: ID/metadata.jsonl and ID/samples/0000.png. dpg: ID.png, four pictures as one of two rows. wise: ID.png.
    mjhq: CATEGORY/ID.png.

    images_per_prompt: None as published.

    Raises:
        ValueError: another number of pictures, of DPG other than 1 or 4 or of unlike size; a GenEval folder of another
            prompt.
    """
    count = IMAGES_PER_PROMPT[benchmark] if images_per_prompt is None else images_per_prompt
    written = 0
    for prompt, images in drawn:
        if len(images) != count:
            raise ValueError(f"{benchmark}: got {len(images)} pictures of '{prompt.id}', wanted {count}.")
        if _is_whole(benchmark, folder, prompt, count):
            continue
        if benchmark == "geneval":
            _write_geneval(folder / prompt.id, prompt, images)
        else:
            image = _tiled(prompt, images) if benchmark == "dpg" else images[0]
            _write_png(_path(folder, prompt), image)
        written += 1
    return written


def remaining(
    benchmark: Benchmark, folder: Path, prompts: Sequence[BenchmarkPrompt], images_per_prompt: int | None = None
) -> list[BenchmarkPrompt]:
    """The prompts that are not whole in a folder.

    Raises:
        ValueError: a GenEval folder of another prompt.
    """
    count = IMAGES_PER_PROMPT[benchmark] if images_per_prompt is None else images_per_prompt
    if count < 1 or (benchmark == "dpg" and count not in (1, 4)) or (benchmark[:4] in ("wise", "mjhq") and count != 1):
        raise ValueError(f"{benchmark}: got {count} pictures a prompt; its layout has {IMAGES_PER_PROMPT[benchmark]}.")
    return [prompt for prompt in prompts if not _is_whole(benchmark, folder, prompt, count)]


def _path(folder: Path, prompt: BenchmarkPrompt) -> Path:
    return folder / prompt.folder / f"{prompt.id}.png" if prompt.folder else folder / f"{prompt.id}.png"


def _samples(folder: Path, count: int) -> list[Path]:
    return [folder / "samples" / f"{number:04d}.png" for number in range(count)]


def _is_whole(benchmark: Benchmark, folder: Path, prompt: BenchmarkPrompt, count: int) -> bool:
    if benchmark != "geneval":
        return _path(folder, prompt).is_file()
    metadata = folder / prompt.id / "metadata.jsonl"
    if metadata.is_file() and files.parse_json(metadata.read_bytes()) != prompt.metadata:
        raise ValueError(f"geneval: '{metadata}' is of another prompt than '{prompt.text}'; give another folder.")
    return metadata.is_file() and all(path.is_file() for path in _samples(folder / prompt.id, count))


def _write_geneval(folder: Path, prompt: BenchmarkPrompt, images: Sequence[PIL.Image.Image]) -> None:
    files.make_folder(folder / "samples")
    files.write_whole(folder / "metadata.jsonl", json.dumps(dict(prompt.metadata)))
    for path, image in zip(_samples(folder, len(images)), images, strict=True):
        _write_png(path, image)


def _tiled(prompt: BenchmarkPrompt, images: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    """One picture, or four as two rows of two."""
    if len(images) == 1:
        return images[0]
    width, height = images[0].size
    if len(images) != 4 or any(image.size != (width, height) for image in images):
        raise ValueError(f"dpg: got {len(images)} pictures of '{prompt.id}' of unlike size, wanted four of one size.")
    tiled = PIL.Image.new("RGB", (2 * width, 2 * height))
    for number, image in enumerate(images):
        tiled.paste(image, (number % 2 * width, number // 2 * height))
    return tiled


def _write_png(path: Path, image: PIL.Image.Image) -> None:
    files.make_folder(path.parent)
    data = io.BytesIO()
    image.convert("RGB").save(data, format="PNG")
    files.write_whole(path, data.getvalue())
