"""Whether data are the same as before: numbers of records, and the bytes of the files that sources read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import hashlib
from typing import Any

from xgenmm_jax.data.source import Source
from xgenmm_jax.paths import Path

WHOLE_BYTES = 8 * 2**20
"""A file up to this size is read whole for its fingerprint."""
PIECES, PIECE_BYTES = 16, 128 * 2**10
"""Of a larger one so many pieces at equal distances, the first at its beginning, the last at its end: a change between
two of them that leaves the file's size as it was is not seen."""


def identity(mixture: Sequence[tuple[Source, float]]) -> list[dict[str, Any]]:
    """For each source of a mixture {"source": name, "records": number, "files": fingerprints in the order of reading}.

    Of a source with an index the manifest's `identity` stands for its files.

    Raises ValueError where a source does not open.
    """
    return [_identity(source) for source, _ in mixture]


def _identity(source: Source) -> dict[str, Any]:
    opened = source.open()
    if hasattr(opened, "identity"):
        manifest = {"name": "manifest.json", "of": "manifest", "sha256": opened.identity}
        return {"source": opened.name, "records": len(opened), "files": [manifest]}
    with ThreadPoolExecutor(16) as pool:
        return {"source": opened.name, "records": len(opened), "files": list(pool.map(fingerprint, source.files()))}


def fingerprint(path: Path) -> dict[str, Any]:
    """{"name", "bytes", "of": "whole" or "pieces", "sha256"} of a file, without its folder and its times."""
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
