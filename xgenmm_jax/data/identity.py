"""What tells data apart from what they were: numbers of records, and the bytes of the files that sources read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import glob
import hashlib
from pathlib import Path
from typing import Any

from xgenmm_jax.data import places
from xgenmm_jax.data.sources import InWords, LlavaJson, RecordFiles, SourceConfig, Squashed

WHOLE_BYTES = 8 * 2**20
"""A file up to this size is read whole for its fingerprint."""
PIECES, PIECE_BYTES = 16, 128 * 2**10
"""Of a larger one so many pieces at equal distances, the first at its beginning, the last at its end: a change between
two of them that leaves the file's size as it was is not seen."""

PLACES = {LlavaJson: ("path", "folder"), RecordFiles: ("pattern",)}
"""Fields of sources that say where their files lie. Pictures of `folder` are not looked at."""


def identity(mixture: Sequence[tuple[SourceConfig, float]]) -> list[dict[str, Any]]:
    """For each source of a mixture {"source": name, "records": number, "files": fingerprints in the order of reading}.

    Raises ValueError where a source does not open.
    """
    return [_identity(source) for source, _ in mixture]


def _identity(source: SourceConfig) -> dict[str, Any]:
    opened = source.open()
    with ThreadPoolExecutor(16) as pool:
        return {"source": opened.name, "records": len(opened), "files": list(pool.map(fingerprint, files_of(source)))}


def files_of(source: SourceConfig) -> list[Path]:
    """The files that hold a source's records; none of what is drawn when asked for."""
    match source:
        case LlavaJson(path=path):
            return [places.at_home(path)]
        case RecordFiles(pattern=pattern):
            return [Path(path) for path in sorted(glob.glob(places.literal_first(pattern)))]
        case Squashed(source=inner) | InWords(source=inner):
            return files_of(inner)
    return []


def fingerprint(path: Path) -> dict[str, Any]:
    """{"name", "bytes", "of": "whole" or "pieces", "sha256"} of a file, without its place and its times."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
        else:
            for number in range(PIECES):
                file.seek((size - PIECE_BYTES) * number // (PIECES - 1))
                digest.update(file.read(PIECE_BYTES))
    kind = "whole" if size <= WHOLE_BYTES else "pieces"
    return {"name": path.name, "bytes": size, "of": kind, "sha256": digest.hexdigest()}
