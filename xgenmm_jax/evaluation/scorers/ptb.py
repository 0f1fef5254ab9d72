"""Penn Treebank tokens of captions, without Java: what COCO's tools feed to CIDEr.

The tokens are those of Stanford CoreNLP 3.4.1's `PTBTokenizer -preserveLines -lowerCase`, of whose output COCO's tools
drop the punctuation. The lexer decides on the text as written and lower-cases last ("AT&T" stays whole, "at&t" does
not). Java looks past a line's end: there a caption's last "c." loses its period where the next caption begins with
"The", and "no." keeps it where that begins with a number. Here a caption stands alone.
"""

from collections.abc import Sequence
import re

from xgenmm_jax.evaluation.scorers.ptb_characters import shape
from xgenmm_jax.evaluation.scorers.ptb_rules import RULES, Rule

_DROPPED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_BREAKS = re.compile("[\n\r\x0b\x0c\x85\u2028\u2029]")
# A shortcut for most words of a caption: the rules, but for those of two words in one, all agree on these.
_COMMON_WORD = re.compile("(?!(?:cannot|gonna|gotta|wanna|gimme|lemme)[ \n])[a-z]+(?=[ \n])")


def tokenize(caption: str) -> list[str]:
    """`"A man's (red) hat."` gives `["a", "man", "'s", "-lrb-", "red", "-rrb-", "hat"]`: lower case, no punctuation.

    A telephone number or a tag, one token to Java, comes in its parts, which is what CIDEr counts.
    """
    return without_punctuation(raw_tokens(caption))


def tokenize_all(captions: Sequence[str]) -> list[list[str]]:
    """`tokenize` of each."""
    return [tokenize(caption) for caption in captions]


def without_punctuation(tokens: Sequence[str]) -> list[str]:
    """The tokens that COCO's tools count."""
    return [part for token in tokens if token not in _DROPPED for part in token.split()]


def one_line(caption: str) -> str:
    """With spaces for line breaks of any kind."""
    return _BREAKS.sub(" ", caption)


def raw_tokens(caption: str) -> list[str]:
    """All tokens in lower case, punctuation among them; every double quote becomes `''`."""
    text = one_line(caption)
    seen = shape(text) + "\n"
    tokens: list[str] = []
    position = 0
    while position < len(text):
        if seen[position] == " ":
            position += 1
        elif word := _COMMON_WORD.match(seen, position):
            tokens.append(word.group())
            position = word.end()
        elif longest := _longest(seen, position):
            rule, end = longest
            token = text[position:end]
            tokens.append((rule.written(token) if rule.written else token).lower())
            position = end
        else:
            position += 1  # no token begins here
    return [token for token in tokens if token]


def _longest(seen: str, position: int) -> tuple[Rule, int] | None:
    """The rule that reads farthest from here, and where its token ends."""
    longest, farthest = None, position
    for rule in RULES:
        match = rule.pattern.match(seen, position)
        if match and match.end() > farthest:
            longest, farthest = (rule, match.end("token")), match.end()
    return longest
