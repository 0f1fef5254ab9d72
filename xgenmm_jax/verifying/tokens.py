"""Whether a tokenizer is the model's: round trips, its count of ids, its special ids."""

from collections.abc import Mapping, Sequence
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.convert.file_formats import special_ids
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.paths import Path
from xgenmm_jax.verifying.section import Section

TEXTS = (
    "What is shown in this image?",
    "  two spaces, a tab\tand\na line break",
    "3.14159 + 2,718 = 1e-9; {\"a\": [1, 2]}",
    "naïve café, 東京タワー, привет, 🦜",
)
"""Byte fallback gives any of them back, in Phi-3's model as in our small ones."""
PROMPT = "Describe the image."
BESIDE = ("added_tokens.json", "tokenizer_config.json")


def check(
    tokenizer: Tokenizer | None, decoder: Phi3Config, folder: Path, reference: Sequence[int] | None = None
) -> Section:
    """Of a model's tokenizer.model, and of what the JSON files in its folder say of ids.

    reference: ids of PROMPT by the tokenizer of the model that wrote the reference.
    """
    title = "Tokenizer"
    if tokenizer is None:
        note = "There is no tokenizer.model: fixed ids are used below, and no text was looked at."
        return Section(title, notes=(note,))
    faults, rows = [], []
    remedy = "put the model's own tokenizer.model beside its weights, or give --tokenizer"
    have, expected = tokenizer.num_text_tokens, decoder.num_text_tokens
    rows.append(("ids", f"{have:,}", f"{expected:,} rows of the embedding"))
    if have != expected:
        faults.append(f"tokenizer: got {have:,} ids, the embedding has {expected:,}; {remedy}.")
    for name, id_ in zip(("<|endoftext|>", "<|end|>", "<pad>"), special_ids(decoder), strict=True):
        rows.append((name, str(tokenizer.special_ids[name]), str(id_)))
        if tokenizer.special_ids[name] != id_ and have == expected:
            faults.append(f"tokenizer: {name} is {tokenizer.special_ids[name]}, the model's is {id_}; {remedy}.")
    for name, id_ in _ids_beside(folder).items():
        if name in tokenizer.special_ids and tokenizer.special_ids[name] != id_:
            got = tokenizer.special_ids[name]
            faults.append(f"tokenizer: {name} is {got}, {' or '.join(BESIDE)} says {id_}; {remedy}.")
    for text in TEXTS:
        back = tokenizer.decode(tokenizer.encode(text))
        rows.append((repr(text), f"{len(tokenizer.encode(text))} ids", "same" if back == text else repr(back)))
        if back != text:
            faults.append(f"tokenizer: {text!r} comes back as {back!r}; {remedy}.")
    ids = tokenizer.encode(PROMPT)
    if reference is not None and list(reference) != ids:
        faults.append(f"tokenizer: {PROMPT!r} has ids {ids[:6]}, in the reference {list(reference)[:6]}; {remedy}.")
    notes = () if reference is not None else (
        "Another tokenizer with as many ids and the same special ones is seen by a reference alone.",
    )  # fmt: skip
    return Section(title, ("what", "tokenizer", "wanted"), tuple(rows), tuple(faults), notes)


def _ids_beside(folder: Path) -> dict[str, int]:
    """Special strings and their ids in the tokenizer's JSON files, {} without them."""
    ids: dict[str, int] = {}
    for name in BESIDE:
        file = folder / name
        value: Any = files.read_json(file) if file.is_file() else {}
        if not isinstance(value, Mapping):
            raise ValueError(f"tokenizer: '{file}' holds no JSON object; copy it again.")
        if name == "added_tokens.json":
            ids |= {text: id_ for text, id_ in value.items() if isinstance(id_, int)}
            continue
        for id_, entry in value.get("added_tokens_decoder", {}).items():
            if isinstance(entry, Mapping) and id_.isdigit():
                ids[str(entry.get("content"))] = int(id_)
    return ids
