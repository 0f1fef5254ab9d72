"""A caption as a row of tokens."""

from xgenmm_jax.data.text.tokenizer import Tokenizer


def caption_tokens(text: str, tokenizer: Tokenizer, opening: int | None, most: int) -> tuple[list[int], bool]:
    """At most so many ids, the end token last, and whether the caption had more.

    opening: an id that stands before it; then the end token stays where it is cut, as BERT's tokenizer cuts.
    """
    tokens = tokenizer.encode_parts((text,))
    if opening is None:
        return [*tokens, tokenizer.eos_id][:most], len(tokens) >= most
    return [opening, *tokens[: most - 2], tokenizer.eos_id], len(tokens) > most - 2
