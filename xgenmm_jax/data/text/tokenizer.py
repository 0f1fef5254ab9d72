"""Phi-3's tokenizer, and our small one by the same rules; other models' are in `tokenizer_json.py`.

Ids: the SentencePiece pieces, Phi-3's eleven special strings, `<pad>`, then the three decoupled rows `<image>`,
`<image placeholder>` and `<|endofchunk|>`. For Phi-3: 32000 pieces, `<|endoftext|>` 32000, `<pad>` 32011,
`num_text_tokens` 32012, `<image>` 32012, `<|endofchunk|>` 32014.
"""

from collections.abc import Iterable, Iterator
import hashlib
import io
import os
import re
import string
from typing import ClassVar

from jaxtyping import Integer
import numpy as np
import sentencepiece

from xgenmm_jax import files, hub
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.files import without_surrogates
from xgenmm_jax.paths import user_path

SPACE = "▁"  # SentencePiece's visible space
PHI3_SPECIALS = (
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
    "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>",
)  # fmt: skip
DECOUPLED = ("<image>", "<image placeholder>", "<|endofchunk|>")
# Whitespace after these vanishes: they carry `rstrip` in Phi-3's tokenizer_config.json.
STRIPS_RIGHT = frozenset((*PHI3_SPECIALS[1:], "</s>"))
# The stray space before these at the start of a text is dropped: Hugging Face's `all_special_tokens`.
DROPS_SPACE = frozenset(("<unk>", "<s>", "<|endoftext|>", "<pad>", *DECOUPLED))
# Protobuf messages merge when joined: this sets ModelProto.normalizer_spec.add_dummy_prefix = false.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
ROWS_MULTIPLE = 64  # 32012 -> 32064, the rows of Phi-3's tables


class Template(str):
    """Text that a template wrote, for `Tokenizer.encode_parts`: special strings in it become their ids."""


class Tokenizer:
    """Text to ids as Hugging Face's slow LlamaTokenizer with `legacy=False` and no BOS.

    Source: docs/reference/tokens.md#tokenizer-modes.

    Example with Phi-3's model: "<|user|>\\nHi<|end|>\\n" -> [29871, 32010, 18567, 32007]: a text starts with a
    space, role tokens swallow the whitespace after them, and text behind a special string gets no space of its own.
    """

    FILE: ClassVar[str] = tokenizer_files.MODEL_FILE
    """Its name in a folder of weights or of a run."""

    def __init__(self, model: bytes):
        self._model = model
        # legacy=False: the space before a text is added by `encode`, once, not by SentencePiece at each segment.
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model + _NO_DUMMY_PREFIX)
        count = self._pieces.vocab_size()
        self.special_ids: dict[str, int] = {name: self._pieces.piece_to_id(name) for name in ("<unk>", "<s>", "</s>")}
        for offset, name in enumerate((*PHI3_SPECIALS, "<pad>", *DECOUPLED)):
            self.special_ids[name] = count + offset
        self._set_rules(STRIPS_RIGHT, frozenset(), DROPS_SPACE, "<|endoftext|>", "<|end|>")
        self._space_id = self._pieces.piece_to_id(SPACE)
        self._guard_id = self._pieces.piece_to_id("a")
        self._unk_length = len(self._pieces.encode("<unk>"))
        self.system_id = self.special_ids["<|system|>"]
        self.user_id = self.special_ids["<|user|>"]
        self.assistant_id = self.special_ids["<|assistant|>"]

    def _set_rules(
        self, strips_right: frozenset[str], strips_left: frozenset[str], drops_space: frozenset[str],
        eos: str, end: str, pad: str = "<pad>", bos: str | None = None, first_space: bool = True,
    ) -> None:  # fmt: skip
        """Sets all that follows from `special_ids`.

        strips_right, strips_left: special strings that swallow the white space behind or before them. drops_space:
        those before which the space that begins a text is dropped. eos, end, pad: strings of the end of a document, of
        a turn, of padding. bos: what begins every text. first_space: whether a text begins with SentencePiece's space.
        """
        self._special_names = {id_: name for name, id_ in self.special_ids.items()}
        # The longest first: one may begin with another.
        names = sorted(self.special_ids, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, names)) + ")")
        self._strips_right, self._strips_left, self._drops_space = strips_right, strips_left, drops_space
        self._first_space, self._markers = first_space, {}
        self.end_of_text = Template(eos)
        self.pad_id, self.eos_id, self.end_id = (self.special_ids[name] for name in (pad, eos, end))
        self.bos_id = None if bos is None else self.special_ids[bos]
        self.image_id, self.placeholder_id, self.end_of_chunk_id = (self.special_ids[name] for name in DECOUPLED)
        self.num_text_tokens = self.image_id
        self.vocab_size = -(-self.num_text_tokens // ROWS_MULTIPLE) * ROWS_MULTIPLE

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """The tokenizer of a file: a SentencePiece `tokenizer.model`, or a `tokenizer.json`, which a folder may hold.

        path: a string may be "hf://org/model@revision", a model of the hub that has one (`hub.py`).

        Raises ValueError where there is neither, or BERT's vocab.txt alone, or its text cannot be read so.
        """
        path = tokenizer_files.chosen(hub.local_folder(path, "tokenizer", "tokenizer", is_kept=True))
        if path.suffix == ".json":
            # Imported here: what Phi-3's tokenizer does not need.
            from xgenmm_jax.data.text.tokenizer_json import JsonTokenizer

            return JsonTokenizer.load(path)
        if path.suffix == ".txt":
            raise ValueError(
                f"tokenizer: '{path}' is BERT's vocabulary, which serves the first stage of BLIP-2 alone; give the "
                f"language model's {tokenizer_files.MODEL_FILE} or {tokenizer_files.JSON_FILE}."
            )
        try:
            return cls(path.read_bytes())
        except RuntimeError as error:
            raise ValueError(f"tokenizer: '{path}' is not a SentencePiece model ({error}); copy it again.") from error

    def save(self, path: str | os.PathLike) -> None:
        files.write_whole(user_path(path, "tokenizer"), self._model)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model: tokenizers that are equal have the same."""
        return hashlib.sha256(self._model).hexdigest()

    def __reduce__(self):
        return Tokenizer, (self._model,)

    def __len__(self) -> int:
        """Ids in use: pieces, special strings, `<pad>` and the decoupled rows."""
        return self.num_text_tokens + len(DECOUPLED)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that is trusted: special strings in it become their single ids, as in Hugging Face's tokenizer.

        Text of data goes through `encode_parts`.
        """
        return self.encode_parts((Template(text),))

    def encode_parts(self, parts: Iterable[str], starts: bool = True) -> list[int]:
        """Ids of a text whose parts are a template's (`Template`) or data (any other `str`).

        Data never gives a special id: `<|end|>` in it is five characters and two words, read as such. Every character
        is kept but for what Phi-3's tokenizer does not know: "▁" is a space to it, and role tokens swallow the white
        space behind them. Lone surrogates, which UTF-8 cannot hold, are read as U+FFFD. A template's words and the data
        beside them share pieces, so ids are those of the joined text where data holds no special string.

        Example: (Template("<|user|>\\n"), "<s>Hi", Template("<|end|>\\n")) -> ["▁", "<|user|>", "<", "s", ">", "Hi",
        "<|end|>"].

        starts: False where another text goes on: without the id that begins one (`bos_id`).
        """
        segments = [""]  # plain text, special string, plain text, ...
        for part in parts:
            first, *rest = self._split.split(part) if isinstance(part, Template) else (part,)
            segments[-1] += first
            segments += rest
        if not any(segments):
            return []
        segments = [without_surrogates(segment) for segment in segments]
        if self._first_space:
            # sentencepiece's own space begins the text, as in Llama's tokenizer.
            segments = [segment.replace(SPACE, " ") for segment in segments]
            segments[0] = SPACE + segments[0]
        ids: list[int] = []
        strip = False
        for number, segment in enumerate(segments):
            if number % 2:
                # Hugging Face drops the stray space only before its own special tokens, so role tokens keep it.
                if ids == [self._space_id] and number == 1 and segment in self._drops_space:
                    ids = []
                ids.append(self.special_ids[segment])
                strip = segment in self._strips_right
                continue
            segment = segment.lstrip() if strip else segment
            if number + 1 < len(segments) and segments[number + 1] in self._strips_left:
                segment = segment.rstrip()
            ids.extend(self._encode_plain(segment))
        return [self.bos_id, *ids] if starts and self.bos_id is not None else ids

    def marker(self, template: str, option: str = "data.chat") -> tuple[int, ...]:
        """Ids of a template's text from its first special id on: "<|assistant|>\\n" -> (32001,) with Phi-3's.

        Raises ValueError where none of its strings is special: data could forge it. option: what gives the template.
        """
        if template not in self._markers:
            ids, specials = self.encode_parts((Template(template),), starts=False), set(self.special_ids.values())
            first = next((index for index, id_ in enumerate(ids) if id_ in specials), None)
            if first is None:
                raise ValueError(
                    f"chat: {template!r} holds no special string of the tokenizer; choose the model's chat style "
                    f"({option})."
                )
            self._markers[template] = tuple(ids[first:])
        return self._markers[template]

    def id_of(self, text: str) -> int | None:
        """The id that a text is by itself within another: of "\\n" 13 with Phi-3's; None where it is none or several.

        Data, as in `encode_parts`: no special string.
        """
        ids = self._encode_plain(text)
        return ids[0] if len(ids) == 1 and self._decode_plain(ids) == text else None

    def _encode_plain(self, text: str) -> list[int]:
        if not text.startswith((SPACE, " ")):
            return self._pieces.encode(text)
        # As the slow tokenizer: behind "<unk>" a leading space stays what it is.
        return self._pieces.encode("<unk>" + text)[self._unk_length :]

    def decode(self, ids: Iterable[int] | Integer[np.ndarray, " n"], keep_special: bool = True) -> str:
        """Text of ids, without the space that `encode` puts first; unused ids above the vocabulary are an error.

        keep_special: write special strings out; False leaves them away, as answers are shown.
        """
        parts: list[str] = []
        run: list[int] = []
        for id_ in map(int, ids):
            name = self._special_names.get(id_)
            if name is None and not self._is_piece(id_):
                raise ValueError(f"tokenizer: id {id_} is not one of {len(self)}; is it another model's?")
            if name is None:
                run.append(id_)
                continue
            parts.append(self._decode_plain(run))
            run = []
            if keep_special:
                parts.append(name)
        parts.append(self._decode_plain(run))
        text = "".join(parts)
        return text.removeprefix(" ") if self._first_space else text

    def _is_piece(self, id_: int) -> bool:
        return 0 <= id_ < self._pieces.vocab_size()

    def _decode_plain(self, ids: list[int]) -> str:
        # `decode` of SentencePiece eats a leading space; a piece that is text before it keeps the space.
        return self._pieces.decode([self._guard_id, *ids])[1:] if ids else ""

    def piece(self, id_: int) -> str:
        """The piece or special string of an id, for tables and tests."""
        return self._special_names.get(id_) or self._pieces.id_to_piece(id_)


def train_tokenizer(texts: Iterable[str], path: str | os.PathLike, pieces: int = 2000) -> Tokenizer:
    """Trains and writes a small BPE model with byte fallback; gives the tokenizer that it makes.

    Digits and capital letters are pieces of their own always: what is read from an image is spelled letter by
    letter, and no string of training data becomes one token. Text is not normalised; line breaks become bytes, as
    in Llama's model. A line's first word has no space before it, as behind a role token or `<image>`: an answer `red`
    is a word too. The same texts give the same file.

    pieces: at most this many, 3 control pieces, 256 bytes and all printable ASCII included.
    """
    fewest = 3 + 256 + len(string.printable.strip()) + 2
    if pieces < fewest:
        raise ValueError(f"tokenizer: {pieces} pieces are fewer than {fewest}, the bytes and ASCII; ask for more.")
    # One thread and no sampling: the same texts give the same file.
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_training_lines(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=pieces,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        required_chars=string.ascii_letters + string.digits + string.punctuation,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pretokenization_delimiter=_BOUNDARY,
        max_sentence_length=100_000,
        num_threads=1,
        minloglevel=2,
    )
    files.write_whole(user_path(path, "tokenizer"), model.getvalue())
    return Tokenizer(model.getvalue())


_BOUNDARY = "\x1f"  # no merge crosses it
_ANY_SPECIAL = re.compile("|".join(map(re.escape, (*PHI3_SPECIALS, "<pad>", *DECOUPLED))))


def _training_lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        # Not `splitlines`, which also cuts at U+2028, U+0085 and others, that data hold as characters.
        for line in _ANY_SPECIAL.sub("\n", text).split("\n"):
            line = line.removesuffix("\r")
            if line.strip():
                yield _BOUNDARY + re.sub("([A-Z])", rf"{_BOUNDARY}\1{_BOUNDARY}", line)
