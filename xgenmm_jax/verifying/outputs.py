"""What the model computes for the three images, and how far that is from a reference file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import io
import zipfile

import numpy as np

from xgenmm_jax import files
from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.processor import IdsOnly
from xgenmm_jax.paths import Path
from xgenmm_jax.verifying import images, tokens
from xgenmm_jax.verifying.section import Section, some
from xgenmm_jax.verifying.tensors import HEAD, Stats

REFERENCE_FILE = "verify_reference.npz"
"""Looked for in the folder, where no other is given."""
FORMAT = 1
KINDS = ("vision_features", "vision_tokens", "logits")
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Of the largest absolute value, by the dtype of computation: float32 on two kinds of devices differs by up to 2e-4,
bfloat16 by 4e-2 (docs/design.md, Precision)."""
STATS_TOLERANCE = 8e-3
"""Of a tensor's spread: rounding to bfloat16 moves a number by 2^-9 of itself."""
EVERY_PATCH, LAST = 9, 8
"""Of features every ninth patch of all views is kept, of logits the last positions: a reference of the 4B has some
40 MB in place of 300."""
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Reference:
    """arrays: of KINDS for each image, "logits/0". views: hashes. ids: of tokens.PROMPT, None without a tokenizer.
    rows: ids of the row of each image. first, spread: of tensors by name: first numbers, (mean, std)."""

    dtype: str
    arrays: dict[str, np.ndarray]
    views: tuple[str, ...]
    ids: tuple[int, ...] | None
    rows: tuple[tuple[int, ...], ...]
    first: dict[str, np.ndarray]
    spread: dict[str, np.ndarray]


def token_rows(model: LMM) -> list[list[int]]:
    """The row of each image: `<image>`, then the prompt; ids by their number where there is no tokenizer."""
    tokenizer = model.tokenizer
    is_text = not isinstance(tokenizer, IdsOnly)
    text = tokenizer.encode(tokens.PROMPT) if is_text else list(range(3, min(11, tokenizer.eos_id)))
    return [[tokenizer.image_id, *text] for _ in images.images()]


def compute(model: LMM, rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """KINDS of each image in a row of its own, "logits/0": float32. One compilation for each number of views."""
    arrays = {}
    for number, (row, image) in enumerate(zip(rows, images.images(), strict=True)):
        output = model.forward([list(row)], [[image]])
        stored = (output.vision_features[:, ::EVERY_PATCH], output.vision_tokens, output.logits[0, -LAST:])
        for kind, array in zip(KINDS, stored, strict=True):
            arrays[f"{kind}/{number}"] = np.asarray(array, np.float32)
    return arrays


def check(
    arrays: Mapping[str, np.ndarray], reference: Reference | None, dtype: str, measured: Sequence[Stats]
) -> Section:
    """Finite everywhere, and as the reference has it: outputs and, where names are the same, every tensor."""
    faults, rows = [], []
    limit = max(TOLERANCE[dtype], TOLERANCE["float32" if reference is None else reference.dtype])
    for name, array in arrays.items():
        largest = float(np.abs(array).max()) if array.size else 0.0
        bad = int(np.sum(~np.isfinite(array)))
        if bad:
            faults.append(f"{name}: {bad:,} of {array.size:,} numbers are not finite; see the tensors above.")
        error = ""
        if reference is not None:
            expected = reference.arrays[name]
            if expected.shape != array.shape:
                faults.append(
                    f"{name}: got {array.shape}, the reference has {expected.shape}: other grids, vision tokens or "
                    "ids; put the model's own config files back."
                )
            else:
                scale = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
                off = float(np.abs(array - expected).max(initial=0.0)) / scale
                error = f"{off:.2g}"
                if not off <= limit:
                    faults.append(
                        f"{name}: differs by {off:.2g} of the largest value from the reference, wanted {limit:g} or "
                        "less; the weights or the code are others: copy the model again."
                    )
        shape = " x ".join(map(str, array.shape))
        rows.append((name, shape, f"{largest:.4g}", f"{float(array.std()):.4g}" if array.size else "", error))
    notes = []
    if reference is None:
        notes.append(
            "Without a reference nothing tells layers that were swapped, or weights of another model of the same size, "
            "from good ones; write one from a model that you trust: --write-reference FILE."
        )
    else:
        tensor_faults, tensor_notes = _tensors(measured, reference)
        faults, notes = tensor_faults + faults, tensor_notes
    head = ("output/image", "shape", "largest", "std", "error")
    return Section("Features, vision tokens and logits", head, tuple(rows), tuple(faults), tuple(notes))


def _tensors(measured: Sequence[Stats], reference: Reference) -> tuple[list[str], list[str]]:
    """Tensors that differ from those of the reference, and of which they have the numbers instead."""
    here = {one.name: one for one in measured}
    common = [name for name in here if name in reference.first]
    if len(common) < len(here):
        return [], ["The reference is of another layout (a run's or a released one): tensors are not compared by name."]
    moved, others = {}, []
    for name in common:
        one = here[name]
        if _same(one, reference, name):
            continue
        whose = [other for other in common if here[other].shape == one.shape and _same(one, reference, other)]
        if len(whose) == 1:
            moved[name] = whose[0]
        else:
            others.append(name)
    faults = []
    if moved:
        pairs = [f"{name} has those of {other}" for name, other in moved.items()]
        faults.append(f"tensors with the numbers of others in the reference: {some(pairs)}; copy or convert again.")
    if others:
        faults.append(f"tensors with other numbers than in the reference: {some(others)}; copy the model again.")
    return faults, []


def _same(one: Stats, reference: Reference, name: str) -> bool:
    mean, std = map(float, reference.spread[name])
    room = STATS_TOLERANCE * (abs(mean) + std)
    first = np.zeros(HEAD)
    first[: len(one.first)] = one.first
    near = np.abs(first - reference.first[name]) <= STATS_TOLERANCE * np.abs(first) + 1e-3 * room
    return abs(one.mean - mean) <= room and abs(one.std - std) <= room and bool(near.all())


def write_reference(
    path: Path, arrays: Mapping[str, np.ndarray], model: LMM, rows: Sequence[Sequence[int]], measured: Sequence[Stats]
) -> None:
    """An .npz of plain arrays, whole or not there."""
    first = np.zeros((len(measured), HEAD))
    for number, one in enumerate(measured):
        first[number, : len(one.first)] = one.first
    is_text = not isinstance(model.tokenizer, IdsOnly)
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        format=np.int64(FORMAT),
        dtype=np.str_(model.config.dtype),
        views=np.array(images.hashes(model.processor.anyres)),
        ids=np.array(model.tokenizer.encode(tokens.PROMPT) if is_text else [-1], np.int64),
        rows=np.array(rows, np.int64),
        tensors=np.array([one.name for one in measured]),
        first=first,
        spread=np.array([(one.mean, one.std) for one in measured]),
        **arrays,
    )
    files.write_whole(path, stream.getvalue())


def read_reference(path: Path) -> Reference:
    """Raises ValueError where the file is none that `--write-reference` wrote; no pickle is opened."""
    try:
        with zipfile.ZipFile(path) as members:
            if sum(info.file_size for info in members.infolist()) > MOST_BYTES:
                raise ValueError(f"it holds more than {MOST_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as stored:
            value = {name: stored[name] for name in stored.files}
        if int(value["format"]) != FORMAT:
            raise ValueError(f"it has format {int(value['format'])}, wanted {FORMAT}")
        names = [str(name) for name in value["tensors"]]
        ids = tuple(map(int, value["ids"]))
        count = len(images.SIZES_PX)
        return Reference(
            dtype=str(value["dtype"]),
            arrays={f"{kind}/{number}": value[f"{kind}/{number}"] for number in range(count) for kind in KINDS},
            views=tuple(map(str, value["views"])),
            ids=None if ids == (-1,) else ids,
            rows=tuple(tuple(map(int, row)) for row in value["rows"]),
            first=dict(zip(names, value["first"], strict=True)),
            spread=dict(zip(names, value["spread"], strict=True)),
        )
    except FileNotFoundError as error:
        raise ValueError(f"--reference: no file '{path}'; give one that --write-reference wrote.") from error
    except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"--reference: '{path}' is none of ours ({error}); write one anew: xgenmm verify GOOD --write-reference "
            "FILE."
        ) from error
