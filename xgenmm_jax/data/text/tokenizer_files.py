"""Which files a tokenizer is of: SentencePiece's model, or tokenizer.json with tokenizer_config.json beside it.

Or BERT's vocab.txt, which only the text rows of a Q-Former are read with (`wordpiece.py`).
"""

from xgenmm_jax import hub
from xgenmm_jax.paths import Path

MODEL_FILE = "tokenizer.model"
JSON_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
VOCABULARY_FILE = "vocab.txt"


def chosen(path: Path) -> Path:
    """The file of a tokenizer that a user named by it or by its folder, where a tokenizer.json goes first, and BERT's
    vocab.txt last.

    Raises ValueError where there is none.
    """
    file = path
    if path.is_dir():
        file = beside(path) or path / JSON_FILE
    if not file.is_file():
        raise ValueError(
            f"tokenizer: no file '{file}'; wanted a SentencePiece model, as Phi-3's tokenizer.model, or a "
            f"tokenizer.json, for the first stage of BLIP-2 also BERT's vocab.txt{hub.hint(file)}."
        )
    return file


def beside(folder: Path, first: str = JSON_FILE) -> Path | None:
    """The tokenizer's file in a folder of weights or of a run, None where it has none.

    first: of tokenizer.json and tokenizer.model; BERT's vocab.txt is taken where neither is there.
    """
    names = (first, MODEL_FILE if first == JSON_FILE else JSON_FILE, VOCABULARY_FILE)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def copies(file: Path) -> dict[str, Path]:
    """Names in a run folder of the files that a tokenizer is read from."""
    name = {".json": JSON_FILE, ".txt": VOCABULARY_FILE}.get(file.suffix)
    if name is None:
        return {MODEL_FILE: file}
    config = file.with_name(CONFIG_FILE)
    return {name: file} | ({CONFIG_FILE: config} if config.is_file() else {})
