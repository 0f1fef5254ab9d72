"""Tokenizers of other models, from `tokenizer.json`: Llama 3's, Qwen's, and Phi-3's once more.

Ids: the vocabulary of the file, `<pad>` where it has no padding of its own, then `<image>`, `<image placeholder>` and
`<|endofchunk|>`. For Llama 3: 128256 ids, `<pad>` 128256, `<image>` 128257, `<|endofchunk|>` 128259.

Source: docs/reference/tokens.md#tokenizer-json.
"""

import hashlib
import json
import os
from typing import Any, ClassVar

from xgenmm_jax import files
from xgenmm_jax.data.text.tokenizer import DECOUPLED, SPACE, Tokenizer
from xgenmm_jax.data.text.tokenizer_files import CONFIG_FILE, JSON_FILE
from xgenmm_jax.paths import Path, user_path

ENDS_OF_TEXT = ("<|end_of_text|>", "<|endoftext|>", "<eos>", "</s>")
"""Llama 3, Phi-3 and Qwen, Gemma, Llama 2: the first that is there ends a document, else the config's eos_token."""
ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>")
"""Llama 3, Qwen, Phi-3, Gemma: the first that is there ends a turn, else the config's eos_token."""
PAD = "<pad>"
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


class JsonTokenizer(Tokenizer):
    """Text to ids as `tokenizer.json` says, with this package's rule that data never give a special id.

    Special are all added tokens of the file but those of white space alone (Gemma's line breaks). A model of
    SentencePiece's pieces begins a text with a space and nothing else, as the slow tokenizer with `legacy=False`.
    """

    FILE: ClassVar[str] = JSON_FILE

    def __init__(self, text: str, config: str = "{}"):
        """text: of tokenizer.json. config: of tokenizer_config.json, of which roles and modes are used and no template.

        Raises ValueError where the file is none, or no BPE, or tells no end of text.
        """
        # Imported here: what Phi-3's tokenizer does not need.
        import tokenizers

        self._text, self._config = text, config
        settings, self._roles = json.loads(text), _roles(json.loads(config))
        if settings.get("model", {}).get("type") != "BPE":
            raise ValueError(
                f"tokenizer: tokenizer.json holds a model {settings.get('model', {}).get('type')!r}; only BPE is read."
            )
        added = [token for token in settings.get("added_tokens") or () if token["content"].strip(f" \n\t{SPACE}")]
        vocabulary = settings["model"]["vocab"]
        plain, self._first_space = _plain(settings, added, self._roles.get("legacy"))
        try:
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))
        except Exception as error:  # noqa: BLE001 - the library raises this class alone
            raise ValueError(f"tokenizer: tokenizer.json is not one ({error}); copy it again.") from error
        # Special strings: the file's, then ours.
        ids = {token["content"]: int(token["id"]) for token in added}
        taken = [name for name in DECOUPLED if name in ids]
        if taken:
            raise ValueError(f"tokenizer: the vocabulary has {taken[0]} already; take the model's own tokenizer.json.")
        eos, end, pad = _ends(ids, self._roles)
        count = 1 + max(*vocabulary.values(), *(int(token["id"]) for token in settings.get("added_tokens") or ()))
        for name in (*(() if pad in ids else (pad,)), *DECOUPLED):
            ids[name] = count
            count += 1
        self.special_ids = ids
        drops_space = frozenset((*filter(None, map(self._roles.get, ROLES)), *self._roles["more"], pad, *DECOUPLED))
        self._set_rules(
            frozenset(token["content"] for token in added if token.get("rstrip")),
            frozenset(token["content"] for token in added if token.get("lstrip")),
            drops_space, eos, end, pad, _bos(settings, ids, self._roles), self._first_space,
        )  # fmt: skip
        decoder = settings.get("decoder") or {}
        self._is_of_bytes = any(step.get("type") == "ByteLevel" for step in decoder.get("decoders", [decoder]))
        self._space_id = self._plain.token_to_id(SPACE)
        self._guard_id = self._plain.token_to_id("a")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "JsonTokenizer":
        """That of a tokenizer.json, with the tokenizer_config.json beside it where there is one."""
        path = user_path(path, "tokenizer")
        config = path.with_name(CONFIG_FILE)
        try:
            return cls(files.read_text(path), files.read_text(config) if config.is_file() else "{}")
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"tokenizer: '{path}' is no tokenizer.json ({type(error).__name__}: {error}); copy it again."
            ) from error
        except ValueError as error:
            raise ValueError(f"{error} It is '{path}'.") from error

    def save(self, path: str | os.PathLike) -> None:
        """Writes tokenizer.json here, and tokenizer_config.json beside it."""
        path: Path = user_path(path, "tokenizer")
        files.write_whole(path, self._text)
        files.write_whole(path.with_name(CONFIG_FILE), self._config)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of tokenizer.json and of what is used of tokenizer_config.json."""
        used = json.dumps(self._roles, sort_keys=True)
        return hashlib.sha256(f"{self._text}\0{used}".encode()).hexdigest()

    def __reduce__(self):
        return JsonTokenizer, (self._text, self._config)

    def _encode_plain(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def _decode_plain(self, ids: list[int]) -> str:
        # Decoders of SentencePiece's pieces eat a leading space; a piece that is text before it keeps the space.
        return self._plain.decode([self._guard_id, *ids], skip_special_tokens=False)[1:] if ids else ""

    def _is_piece(self, id_: int) -> bool:
        return self._plain.id_to_token(id_) is not None

    def piece(self, id_: int) -> str:
        """The piece of an id with its space visible, or its special string; "" of an id that is not used."""
        if id_ in self._special_names:
            return self._special_names[id_]
        if not self._is_piece(id_):
            return ""
        return self._decode_plain([id_]).replace(" ", SPACE) if self._is_of_bytes else self._plain.id_to_token(id_)


def _roles(config: dict[str, Any]) -> dict[str, Any]:
    """What is used of tokenizer_config.json."""

    def name(token: Any) -> str | None:
        return token["content"] if isinstance(token, dict) else token

    used = {role: name(config.get(role)) for role in ROLES}
    more = config.get("additional_special_tokens") or ()
    modes = {mode: config.get(mode) for mode in ("add_bos_token", "legacy")}
    return {**used, "more": [name(token) for token in more], **modes}


def _ends(ids: dict[str, int], roles: dict[str, Any]) -> tuple[str, str, str]:
    """Strings of the end of a text, of the end of a turn, of padding. Padding ends nothing, else ends were masked."""
    from_config = roles["eos_token"] if roles["eos_token"] in ids else None
    eos, end = (next((name for name in names if name in ids), from_config) for names in (ENDS_OF_TEXT, ENDS_OF_TURN))
    if eos is None:
        raise ValueError(
            "tokenizer: no end of text among the added tokens; put the tokenizer_config.json with its eos_token beside "
            "tokenizer.json."
        )
    end = eos if end is None else end
    pad = roles["pad_token"]
    is_own = pad in ids and pad not in (eos, end, from_config, roles["bos_token"], roles["unk_token"])
    return eos, end, pad if is_own else PAD


def _bos(settings: dict[str, Any], ids: dict[str, int], roles: dict[str, Any]) -> str | None:
    """What begins every text: as tokenizer_config.json says, else where tokenizer.json's template puts one."""
    processor = settings.get("post_processor") or {}
    steps = processor.get("processors", [processor])
    first = next((step["single"][0] for step in steps if step.get("type") == "TemplateProcessing"), {})
    put = first.get("SpecialToken", {}).get("id")
    if roles["add_bos_token"] is False:
        return None
    if roles["add_bos_token"] and roles["bos_token"] in ids:
        return roles["bos_token"]
    return put if put in ids else None


def _plain(settings: dict[str, Any], added: list[dict[str, Any]], legacy: bool | None) -> tuple[dict[str, Any], bool]:
    """A tokenizer.json that gives no special id, whatever the text, and whether a text begins with a space.

    The space that SentencePiece's form puts before a text is taken out where `encode_parts` puts it.
    """
    model = dict(settings["model"], dropout=None)
    special = {token["content"] for token in added} - {model.get("unk_token")}
    model["vocab"] = {piece: id_ for piece, id_ in model["vocab"].items() if piece not in special}
    merged = ((pair, pair.replace(" ", "") if isinstance(pair, str) else "".join(pair)) for pair in model["merges"])
    model["merges"] = [pair for pair, piece in merged if piece not in special]
    names = {token["content"] for token in added}
    plain = {
        **settings,
        "added_tokens": [token for token in settings.get("added_tokens") or () if token["content"] not in names],
        "model": model,
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    normalizer, begins = _without_prepend(settings.get("normalizer"))
    if begins and legacy is False:
        return {**plain, "normalizer": normalizer}, True
    pre_tokenizer = settings.get("pre_tokenizer") or {}
    if pre_tokenizer.get("type") == "Metaspace" and pre_tokenizer.get("prepend_scheme") == "first":
        return {**plain, "pre_tokenizer": {**pre_tokenizer, "prepend_scheme": "never"}}, True
    return plain, False


def _without_prepend(normalizer: dict[str, Any] | None) -> tuple[dict[str, Any] | None, bool]:
    """A normalizer without the step that puts SentencePiece's space first, and whether it had one."""
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    steps_left = [step for step in steps if step != {"type": "Prepend", "prepend": SPACE}]
    return ({"type": "Sequence", "normalizers": steps_left} if steps_left else None), len(steps_left) < len(steps)
