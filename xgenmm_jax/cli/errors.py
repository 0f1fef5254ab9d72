"""One sentence for mistyped names."""

from collections.abc import Iterable
import difflib


def nearest(name: str, known: Iterable[str]) -> str:
    """"did you mean a or b", or the whole list where nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}"
    return f"wanted one of {', '.join(known)}"
