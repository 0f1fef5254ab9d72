"""Trains a SentencePiece model as the one that nano and micro share: `python tools/make_tokenizer.py FILE`.

The same texts give the same file, and every change of the synthetic families changes the texts: the shipped one
(`weights.json` has its checksum) is older than most of them and is not made again by this version. Starting weights are
bound to its ids: who replaces it trains them anew.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from xgenmm_jax.data.text.chat import SYSTEM_PROMPT
from xgenmm_jax.data.text.tokenizer import train_tokenizer
from xgenmm_jax.nano.world import families

RECORDS = 60_000
PIECES = 1264


def texts() -> Iterator[str]:
    """The synthetic families' texts, and the words of the templates often enough to become pieces."""
    yield from families.corpus(seed=0, count=RECORDS)
    for _ in range(RECORDS // 100):
        yield SYSTEM_PROMPT
        yield "Output: a"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the model goes; a file that is there is not replaced")
    path = parser.parse_args().file
    if path.exists():
        parser.error(f"'{path}' is there already, and weights are bound to its ids; give another name")
    tokenizer = train_tokenizer(texts(), path, PIECES)
    system = len(tokenizer.encode(SYSTEM_PROMPT))
    print(f"{path.name}: {len(tokenizer)} ids, {tokenizer.vocab_size} rows, {system} of the system prompt")
