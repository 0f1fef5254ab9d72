"""Growing answers as pieces of text."""

import numpy as np

from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.generation.text import streaming


def test_what_later_tokens_can_change_is_held_back():
    assert list(streaming.pieces(["Ah", "Ah ", "Ah r\ufffd", "Ah r\u00e9", "Ah r\u00e9 "])) == ["Ah", " r", "\u00e9"]
    assert list(streaming.pieces(["", " ", " a"])) == ["a"]
    assert list(streaming.pieces(["a", "a\ufffd"])) == ["a", "\ufffd"]
    assert list(streaming.pieces([])) == []


def test_joined_pieces_are_the_answer_for_any_ids(tmp_path):
    """Bytes of broken characters, special strings and spaces among them."""
    words = tokenizer.train_tokenizer(["the red circle"] * 3, tmp_path / "words.model", 400)
    rng = np.random.default_rng(0)
    text = words.encode("日本 é 🎉 the  red\n circle")
    for number in range(300):
        ids = [*rng.integers(0, len(words), 12).tolist(), *text, *rng.integers(0, 3 + 256, 8).tolist()]
        if number % 2:
            rng.shuffle(ids)
        steps = [words.decode(ids[:end], keep_special=False) for end in range(1, len(ids) + 1, 1 + number % 3)]
        answer = words.decode(ids, keep_special=False)
        assert "".join(streaming.pieces([*steps, answer])) == answer.strip()
