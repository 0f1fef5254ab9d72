"""A set of prompts and pictures of them, in the form of BLIP3o-60k: tars of KEY.jpg and KEY.txt, a few a category.

    DST/CATEGORY_1.tar ...    pictures and prompts, in the prompts' order
    DST/README.md             the data card
    DST/left_out.jsonl        each prompt without a picture, and why
    DST/.curation/            what the set is made of; pictures of tars that are not whole yet; a note for each that is

Pictures come from a teacher, a function that the user names. Each is kept as soon as it is there, so that a killed
command asks for none of them again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
import io
import json
from pathlib import Path
import re
import tarfile
from typing import Any, NamedTuple

import PIL.Image

from xgenmm_jax import files
from xgenmm_jax.curation.destination import LEFT_OUT_FILE, alone
from xgenmm_jax.curation.shards import NOTES

FROM_FILE = "tuning_set.json"
VERSION = 1
QUALITY = 95
"""Of the JPEG files."""
REFUSED = "the teacher gave no picture"
CATEGORY = re.compile(r"[A-Za-z0-9_-]+")
"""Its name begins those of files."""
Teacher = Callable[[Sequence[str]], Sequence[PIL.Image.Image | None]]
"""Prompts to their pictures, in their order; None where it gives none of a prompt."""


class Options(NamedTuple):
    """batch: prompts that the teacher is given at once. samples: prompts of a tar at most."""

    batch: int = 16
    samples: int = 1000


class Note(NamedTuple):
    """What became of the prompts of a tar. sides: longer side of a picture, in pixels -> how many."""

    category: str
    file: str
    prompts: int
    images: int
    bytes: int
    left_out: tuple[str, ...]
    sides: dict[str, int]


class _Tar(NamedTuple):
    """Prompts that make one file. first: number of the first in its category."""

    category: str
    number: int
    first: int
    prompts: Sequence[str]

    @property
    def name(self) -> str:
        return f"{self.category}_{self.number}"

    def key(self, index: int) -> str:
        return f"{self.category}_{self.first + index:06}"


def make(
    folder: Path,
    prompts: Mapping[str, Sequence[str]],
    teacher: Teacher,
    described: Mapping[str, Any],
    options: Options,
    show: Callable[[str], None],
) -> list[Note]:
    """The set in a folder, new or gone on with; notes of its tars in order.

    prompts: by category, whose names are those of files. described: what else the pictures depend on, as JSON. show: is
    told of each tar.

    Raises:
        ValueError: the folder holds something else or is written to by another process; there is no prompt; or the
            teacher failed, or gave something that is no picture.
    """
    if not any(prompts.values()):
        raise ValueError("tuning-set: there is no prompt; give templates, or files of captions.")
    for category in prompts:
        if not CATEGORY.fullmatch(category):
            raise ValueError(f"tuning-set: got the category '{category}', wanted letters, digits, '_' and '-' alone.")
    tars = list(_tars(prompts, options.samples))
    what = {"version": VERSION, "samples": options.samples, "prompts": _digest(prompts), **described}
    _check_folder(folder, what)
    (folder / NOTES).mkdir(parents=True, exist_ok=True)
    with alone(folder):
        files.write_whole(folder / NOTES / FROM_FILE, json.dumps(what, indent=1) + "\n")
        notes = []
        for tar in tars:
            note = _noted(folder, tar)
            if note is None:
                note = _make_tar(folder, tar, teacher, options.batch)
                show(f"{note.file}: {note.images:,} pictures of {note.prompts:,} prompts")
            notes.append(note)
        _write_left_out(folder, notes)
        files.delete_unfinished(folder)
    return notes


def _tars(prompts: Mapping[str, Sequence[str]], samples: int) -> Iterator[_Tar]:
    for category, of_category in prompts.items():
        for number, first in enumerate(range(0, len(of_category), samples), 1):
            yield _Tar(category, number, first, of_category[first : first + samples])


def _digest(prompts: Mapping[str, Sequence[str]]) -> str:
    return hashlib.sha256(json.dumps({name: list(texts) for name, texts in prompts.items()}).encode()).hexdigest()


def _check_folder(folder: Path, what: Mapping[str, Any]) -> None:
    """Raises ValueError where the folder holds something else than this set."""
    from_file = folder / NOTES / FROM_FILE
    if from_file.is_file():
        was = files.read_json(from_file, "delete the folder and start again")
        now = json.loads(json.dumps(what))
        if was != now:
            other = next(name for name in (*now, *was) if not isinstance(was, dict) or was.get(name) != now.get(name))
            raise ValueError(
                f"tuning-set: '{folder}' was made with other {other}; give what it was made with, or a new folder."
            )
    elif folder.is_dir() and (strays := sorted({path.name for path in folder.iterdir()} - {NOTES})):
        raise ValueError(f"tuning-set: '{folder}' holds '{strays[0]}', which is none of such a set; give a new folder.")


def _noted(folder: Path, tar: _Tar) -> Note | None:
    """What became of a tar, where it is whole."""
    try:
        value = files.read_json(folder / NOTES / f"{tar.name}.json")
        note = Note(**{**value, "left_out": tuple(value["left_out"])})
        is_whole = (folder / note.file).stat().st_size == note.bytes
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if is_whole else None


def _make_tar(folder: Path, tar: _Tar, teacher: Teacher, batch: int) -> Note:
    """Asks for what is not there yet, then puts all into one file; its note is written last."""
    unpacked = folder / NOTES / tar.name
    unpacked.mkdir(exist_ok=True)
    files.delete_unfinished(unpacked)
    missing = [
        index
        for index in range(len(tar.prompts))
        if not any(path.is_file() for path in _image_files(unpacked, tar, index))
    ]
    for start in range(0, len(missing), batch):
        asked = missing[start : start + batch]
        for index, image in zip(asked, _asked(teacher, [tar.prompts[index] for index in asked]), strict=True):
            image_file, refused = _image_files(unpacked, tar, index)
            files.write_whole(*((refused, b"") if image is None else (image_file, _jpeg(image))))
    # In the prompts' order, without a date: the same pictures are the same bytes.
    images, left_out, sides = 0, [], {}
    path = folder / f"{tar.name}.tar"

    def write(beside: Path) -> None:
        nonlocal images
        with tarfile.open(beside, "w:") as archive:
            for index, prompt in enumerate(tar.prompts):
                image_file, refused = _image_files(unpacked, tar, index)
                if refused.is_file():
                    left_out.append(prompt)
                    continue
                data = image_file.read_bytes()
                with PIL.Image.open(io.BytesIO(data)) as image:
                    side = str(max(image.size))
                sides[side] = sides.get(side, 0) + 1
                images += 1
                _add(archive, f"{tar.key(index)}.jpg", data)
                _add(archive, f"{tar.key(index)}.txt", files.without_surrogates(prompt).encode())

    files.write_whole(path, write)
    note = Note(tar.category, path.name, len(tar.prompts), images, path.stat().st_size, tuple(left_out), sides)
    files.write_whole(folder / NOTES / f"{tar.name}.json", json.dumps(note._asdict(), ensure_ascii=False) + "\n")
    files.delete_tree(unpacked)
    return note


def _image_files(unpacked: Path, tar: _Tar, index: int) -> tuple[Path, Path]:
    """Where a prompt's picture lies until its tar is whole, and what lies there where it has none."""
    return unpacked / f"{tar.key(index)}.jpg", unpacked / f"{tar.key(index)}.refused"


def _asked(teacher: Teacher, prompts: list[str]) -> list[PIL.Image.Image | None]:
    """The teacher's pictures. Raises ValueError where it fails, or gives something else."""
    try:
        images = list(teacher(prompts))
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"--teacher: failed at {len(prompts)} prompts from '{prompts[0][:80]}' on ({said[:300]}); what it has "
            "given is kept: run the same command again to go on."
        ) from error
    if len(images) != len(prompts):
        raise ValueError(
            f"--teacher: gave {len(images)} pictures for {len(prompts)} prompts; wanted one each, or None."
        )
    for image in images:
        if image is not None and (not isinstance(image, PIL.Image.Image) or not all(image.size)):
            raise ValueError(f"--teacher: gave a {type(image).__name__}; wanted a PIL.Image.Image, or None.")
    return images


def _jpeg(image: PIL.Image.Image) -> bytes:
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=QUALITY, subsampling=0)
    return data.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _write_left_out(folder: Path, notes: Sequence[Note]) -> None:
    lines = [
        json.dumps({"category": note.category, "prompt": prompt, "reason": REFUSED}, ensure_ascii=False)
        for note in notes
        for prompt in note.left_out
    ]
    files.write_whole(folder / LEFT_OUT_FILE, "".join(f"{line}\n" for line in lines))
