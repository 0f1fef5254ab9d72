"""Which language a text is in, by py3langid, whose model is in its wheel."""

from collections.abc import Callable
import functools

from xgenmm_jax.curation.extra import import_extra

LEAST_LETTERS = 20
"""Of a text whose language is named: shorter ones are named at random."""
NOT_KNOWN = "und"
"""ISO 639's code of a language that is not determined."""

Identify = Callable[[str], str]


@functools.cache
def identifier() -> Identify:
    """What gives a text's ISO 639-1 code, `NOT_KNOWN` of a short one.

    Raises ValueError where the library is missing.
    """
    py3langid = import_extra("py3langid")

    def language(text: str) -> str:
        letters = sum(map(str.isalpha, text))
        return py3langid.classify(text)[0] if letters >= LEAST_LETTERS else NOT_KNOWN

    return language
