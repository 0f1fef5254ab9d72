"""A caption as a row of tokens."""

from collections.abc import Callable
from dataclasses import dataclass
import os

from xgenmm_jax import hub
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.data.text.wordpiece import WordPiece, is_wordpiece

OWN_IDS = 2
"""`[CLS]` and `[DEC]`, behind the ids of a tokenizer that has none, in the Q-Former's own table."""


@dataclass(frozen=True)
class CaptionTokens:
    """How a caption becomes a row. opening: the id that stands before it, None: none. end, pad: ids.

    ids: of the tokenizer. rows: of the table of a Q-Former that reads such rows, `[CLS]` and `[DEC]` counted.
    """

    encode: Callable[[str], list[int]]
    opening: int | None
    end: int
    pad: int
    ids: int
    rows: int

    def row(self, text: str, most: int) -> tuple[list[int], bool]:
        """At most so many ids, the end token last, and whether the caption had more.

        Behind an opening id the end token stays where it is cut, as BERT's tokenizer cuts.
        """
        tokens = self.encode(text)
        if self.opening is None:
            return [*tokens, self.end][:most], len(tokens) >= most
        return [self.opening, *tokens[: most - 2], self.end], len(tokens) > most - 2


def plain(tokenizer: Tokenizer) -> CaptionTokens:
    """Without an opening id."""
    ids, encode = len(tokenizer), lambda text: tokenizer.encode_parts((text,))
    return CaptionTokens(encode, None, tokenizer.eos_id, tokenizer.pad_id, ids, ids)


def for_queries(path: str | os.PathLike) -> CaptionTokens:
    """As the Q-Former's text: BERT's own where the file is BERT's, else a tokenizer's with `[CLS]` behind its ids.

    Raises ValueError where there is no tokenizer, see `Tokenizer.load`.
    """
    file = tokenizer_files.chosen(hub.local_folder(path, "tokenizer", "tokenizer", is_kept=True))
    if is_wordpiece(file):
        pieces = WordPiece.load(file)
        rows = pieces.decoding_id + 1
        return CaptionTokens(pieces.encode, pieces.opening_id, pieces.end_id, pieces.pad_id, pieces.decoding_id, rows)
    tokenizer = Tokenizer.load(file)
    ids = len(tokenizer)
    encode = plain(tokenizer).encode
    return CaptionTokens(encode, ids, tokenizer.eos_id, tokenizer.pad_id, ids, ids + OWN_IDS)
