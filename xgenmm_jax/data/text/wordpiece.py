"""BERT's tokenizer, WordPiece, from bert-base-uncased's `vocab.txt` or a `tokenizer.json` of its kind.

The text rows of released BLIP-2 have its ids, and behind them `[DEC]`, which LAVIS adds to the vocabulary. Data give no
special id: "[SEP]" in a caption is read as five characters are.

Source: docs/reference/blip2.md#losses; the library `tokenizers`, whose BertWordPieceTokenizer gives the same ids.
"""

import json
import os
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.data.text.tokenizer_files import CONFIG_FILE
from xgenmm_jax.files import without_surrogates
from xgenmm_jax.paths import Path, user_path

UNKNOWN, OPENING, END, PAD, DECODING = "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[DEC]"
KIND = "WordPiece"


class WordPiece:
    """Text to ids. opening_id, end_id, pad_id: `[CLS]`, `[SEP]`, `[PAD]`. decoding_id: `[DEC]`, the last."""

    def __init__(self, settings: dict[str, Any]):
        """settings: of a tokenizer.json. Raises ValueError where it is none of WordPiece, or lacks a special token."""
        # Imported here: what other tokenizers do not need.
        import tokenizers

        vocabulary = settings["model"]["vocab"]
        added = {token["content"]: int(token["id"]) for token in settings.get("added_tokens") or ()}
        known = {**vocabulary, **added}
        missing = [name for name in (UNKNOWN, OPENING, END, PAD) if name not in known]
        if missing:
            raise ValueError(f"tokenizer: the vocabulary has no {missing[0]}; take bert-base-uncased's vocab.txt.")
        self.opening_id, self.end_id, self.pad_id = (known[name] for name in (OPENING, END, PAD))
        self.decoding_id = known.get(DECODING, 1 + max(known.values()))
        # Without added tokens, so that none is found in a text.
        plain = {**settings, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        try:
            self._pieces = tokenizers.Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))
        except Exception as error:  # noqa: BLE001 - the library raises this class alone
            raise ValueError(f"tokenizer: tokenizer.json is not one ({error}); copy it again.") from error

    @classmethod
    def load(cls, path: str | os.PathLike) -> "WordPiece":
        """That of a vocab.txt, a piece a line, or of a tokenizer.json. Raises ValueError where it is neither."""
        path = user_path(path, "tokenizer")
        try:
            return cls(_of_vocabulary(path) if path.suffix == ".txt" else files.read_json(path))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"tokenizer: '{path}' is no tokenizer.json ({type(error).__name__}: {error}); copy it again."
            ) from error
        except ValueError as error:
            raise ValueError(f"{error} It is '{path}'.") from error

    def encode(self, text: str) -> list[int]:
        """Ids without `[CLS]` and `[SEP]`."""
        return self._pieces.encode(without_surrogates(text), add_special_tokens=False).ids


def is_wordpiece(file: Path) -> bool:
    """Whether a tokenizer's file is a vocab.txt, or a tokenizer.json that holds WordPiece."""
    if file.suffix != ".json":
        return file.suffix == ".txt"
    settings = files.read_json(file)
    model = settings.get("model") if isinstance(settings, dict) else None
    return isinstance(model, dict) and model.get("type") == KIND


def _of_vocabulary(path: Path) -> dict[str, Any]:
    """What a tokenizer.json would say of a vocab.txt, whose cased form the file beside it tells."""
    pieces = [line.removesuffix("\r") for line in files.read_text(path).removesuffix("\n").split("\n")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if len(vocabulary) < len(pieces):
        raise ValueError(f"tokenizer: a vocab.txt has {len(pieces) - len(vocabulary)} pieces twice; copy it again.")
    config = path.with_name(CONFIG_FILE)
    lowers = files.read_json(config).get("do_lower_case", True) if config.is_file() else True
    normalizer = {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": bool(lowers),
    }  # fmt: skip
    model = {
        "type": KIND, "unk_token": UNKNOWN, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": vocabulary,
    }  # fmt: skip
    return {"version": "1.0", "normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}, "model": model}
