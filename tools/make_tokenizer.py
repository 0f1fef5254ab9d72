"""Trains the SentencePiece model that nano and micro share: `python tools/make_tokenizer.py`.

The same texts give the same file. Starting weights are bound to it: train them again when it changes.
"""

from collections.abc import Iterator
from pathlib import Path

from xgenmm_jax.data.chat import SYSTEM_PROMPT
from xgenmm_jax.data.synthetic import families
from xgenmm_jax.data.tokenizer import train_tokenizer

RECORDS = 60_000
PIECES = 1264
PATH = Path(__file__).parent.parent / "xgenmm_jax" / "weights" / "nano_tokenizer.model"


def texts() -> Iterator[str]:
    """The synthetic families' texts, and the words of the templates often enough to become pieces."""
    yield from families.corpus(seed=0, count=RECORDS)
    for _ in range(RECORDS // 100):
        yield SYSTEM_PROMPT
        yield "Output: a"


if __name__ == "__main__":
    tokenizer = train_tokenizer(texts(), PATH, PIECES)
    system = len(tokenizer.encode(SYSTEM_PROMPT))
    print(f"{PATH.name}: {len(tokenizer)} ids, {tokenizer.vocab_rows} rows, {system} of the system prompt")
