"""An answer that grows, as pieces of text that need not be taken back."""

from collections.abc import Iterable, Iterator
import re

# Bytes of a character that is not whole yet decode to U+FFFD; spaces at the end are no part of an answer.
_UNCERTAIN = re.compile(r"[\s\ufffd]+\Z")


def pieces(texts: Iterable[str]) -> Iterator[str]:
    """New text of each longer decoding of an answer; joined, they are the last one without spaces around.

    What the next tokens can change is held back: an unfinished character, and spaces.
    Example: "The", "The ", "The r\ufffd", "The r\u00e9" -> "The", " r", "\u00e9".
    """
    said, text = "", ""
    for text in texts:
        certain = _UNCERTAIN.sub("", text).lstrip()
        if len(certain) > len(said):
            yield certain[len(said) :]
            said = certain
    if rest := text.strip()[len(said) :]:
        yield rest
