"""One sentence for mistyped names."""

from collections.abc import Iterable
import difflib

MOST = 3
"""Names that are suggested."""


def nearest(name: str, known: Iterable[str]) -> str:
    """"did you mean a or b", or the whole list where nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=MOST, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}"
    return f"wanted one of {', '.join(known)}"


def nearest_option(name: str, options: Iterable[str]) -> str:
    """The options near a name, "did you mean --a or --b; "; "" where none is: an experiment has well over 100.

    Near is what is spelled alike, whole or behind the last dot, or shares a word or its initials there: "--lr" and
    "--learning-rate" are near "--optimizer.peak-lr".
    """
    options, last, words = list(options), _last(name), _words(name)
    equal = [option for option in options if _last(option) == last]
    alike = difflib.get_close_matches(name, options, n=MOST, cutoff=0.8)
    sharing = sorted((option for option in options if words & _words(option)), key=lambda o: -len(words & _words(o)))
    by_last = {_last(option): option for option in options}
    alike_last = [by_last[match] for match in difflib.get_close_matches(last, by_last, n=MOST, cutoff=0.7)]
    near = list(dict.fromkeys([*equal, *alike, *sharing, *alike_last]))[:MOST]
    return f"did you mean {' or '.join(near)}; " if near else ""


def _last(option: str) -> str:
    return option.rsplit(".", 1)[-1].lstrip("-").replace("_", "-")


def _words(option: str) -> set[str]:
    """Of an option's last part, and the initials of several: "--weight-decay" gives weight, decay and wd."""
    words = _last(option).split("-")
    return {*words, *(["".join(word[:1] for word in words)] if len(words) > 1 else [])}
