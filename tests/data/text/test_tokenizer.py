"""Phi-3's ids by our class, and the small model by the same rules."""

import json
from pathlib import Path
import pickle
import random

from other_tokenizers import put_vocabulary
import pytest

from xgenmm_jax.data.text.tokenizer import STRIPS_RIGHT, Template, Tokenizer, train_tokenizer

GOLDENS = Path(__file__).parents[2] / "goldens"
SFT = json.loads((GOLDENS / "sft/sft_goldens.json").read_text())
CASES = SFT["runs"]["slow_nobos"]["cases"]


@pytest.fixture(scope="module")
def phi3() -> Tokenizer:
    return Tokenizer.load(GOLDENS / "phi3_tokenizer/tokenizer.model")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Tokenizer:
    return train_tokenizer(texts(), tmp_path_factory.mktemp("tokenizer") / "small.model", pieces=450)


def texts():
    rng = random.Random(0)
    words = "the red circle is left of a blue square above three images show small large text".split()
    for _ in range(500):
        code = "".join(rng.choices("ABCDEFGH0123456789", k=4))
        yield f'{" ".join(rng.choices(words, k=9)).capitalize()} says "{code}".<|end|>\n<image>The red one: Red 12'


def test_vocabulary_is_phi3s(phi3):
    assert (phi3.num_text_tokens, phi3.vocab_size, len(phi3)) == (32012, 32064, 32015)
    assert (phi3.eos_id, phi3.end_id, phi3.pad_id) == (32000, 32007, 32011)
    assert (phi3.image_id, phi3.placeholder_id, phi3.end_of_chunk_id) == (32012, 32013, 32014)
    assert (phi3.system_id, phi3.user_id, phi3.assistant_id) == (32006, 32010, 32001)


def test_special_strings_are_those_of_phi3s_files(phi3):
    """Ids, and which of them swallow the whitespace behind them."""
    folder = GOLDENS / "phi3_tokenizer"
    decoder = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    listed = {token["content"]: int(id_) for id_, token in decoder.items()}
    added = json.loads((folder / "added_tokens.json").read_text())
    ours = {name: id_ for name, id_ in phi3.special_ids.items() if id_ < phi3.num_text_tokens}
    assert ours == listed | added
    assert {token["content"] for token in decoder.values() if token["rstrip"]} == STRIPS_RIGHT


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_the_slow_tokenizer(phi3, case):
    roles = {"system": "system", "human": "user", "gpt": "assistant"}
    turns = SFT["conversations"][case]
    text = "".join(f"<|{roles[turn['from']]}|>\n{turn['value']}<|end|>\n" for turn in turns)
    ids, golden = phi3.encode(text), CASES[case]
    if "input_ids" in golden:
        assert ids == golden["input_ids"]
        assert [phi3.piece(id_) for id_ in ids] == golden["tokens"]
    else:
        assert ids[: len(golden["head"])] == golden["head"]
        assert ids[: golden["n"]][-len(golden["tail"]) :] == golden["tail"]


def test_stray_space_stays_before_role_tokens_alone(phi3):
    assert phi3.encode("<|user|>\nHi")[0] == 29871
    assert phi3.encode("<image>Hi")[0] == phi3.image_id
    assert phi3.encode("") == []


@pytest.mark.parametrize("text", ["a  b", " lead", "trail \n", "x<image>y", "<image> z", "日本é 🎉 </s>", "<|end|>a\n"])
@pytest.mark.parametrize("name", ["phi3", "small"])
def test_text_survives_there_and_back(request, name, text):
    tokenizer = request.getfixturevalue(name)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode(text)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


def test_a_text_has_an_id_where_it_is_one_token_within_another(phi3, small):
    """A text by itself begins with a space."""
    assert phi3.id_of("\n") == 13 and phi3.encode("\n") != [13]
    assert small.decode([small.id_of("\n")]) == "\n"
    assert phi3.id_of("\n\n") is phi3.id_of("<|end|>") is phi3.id_of("") is None


def test_role_tokens_swallow_whitespace_behind_them(phi3):
    assert phi3.decode(phi3.encode("<|user|>\n Hi<|end|>\n")) == "<|user|>Hi<|end|>"
    assert phi3.decode(phi3.encode("<|user|>\nHi<|end|>"), keep_special=False) == "Hi"


def test_digits_and_capitals_are_single_pieces(small):
    """A string that training saw often becomes one token, and reading it becomes guessing it."""
    pieces = [small.piece(id_) for id_ in range(3 + 256, small.num_text_tokens - 12)]
    assert any(len(piece) > 4 for piece in pieces)
    assert not [piece for piece in pieces if len(piece) > 1 and any(c.isupper() or c.isdigit() for c in piece)]
    assert [small.piece(id_) for id_ in small.encode("<|assistant|>\nAB12")][2:] == ["A", "B", "1", "2"]


def test_small_model_follows_the_same_layout(small, tmp_path):
    assert (
        small.num_text_tokens <= 450 + 12 and small.vocab_size % 64 == 0 and small.vocab_size >= small.num_text_tokens
    )
    assert small.image_id == small.num_text_tokens and len(small) == small.num_text_tokens + 3
    again = train_tokenizer(texts(), tmp_path / "again.model", pieces=450)
    small.save(tmp_path / "saved.model")
    assert (tmp_path / "saved.model").read_bytes() == (tmp_path / "again.model").read_bytes()
    text = "<|user|>\nThe red circle: Ü"
    assert again.encode(text) == small.encode(text) == pickle.loads(pickle.dumps(small)).encode(text)


def test_only_newlines_end_a_line_of_training_text(tmp_path):
    """U+2028, U+0085 and form feeds were cut out of the text, so that no tokenizer learned them."""
    separators = ("\u2028", "\u0085", "\f", "\x1d")
    words = [f"red{separator}ring" for separator in separators] + ["red\r\nring"]
    tokenizer = train_tokenizer(words * 9, tmp_path / "lines.model", pieces=400)
    pieces = {tokenizer.piece(id_) for id_ in range(3 + 256, tokenizer.num_text_tokens - 12)}
    assert set(separators) <= {character for piece in pieces for character in piece}
    assert not any("\r" in piece or "\n" in piece for piece in pieces)


def test_errors_name_the_remedy(tmp_path, phi3):
    with pytest.raises(ValueError, match="no file"):
        Tokenizer.load(tmp_path / "none.model")
    (tmp_path / "bad.model").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        Tokenizer.load(tmp_path / "bad.model")
    # It was said to be no SentencePiece model, to be copied again.
    put_vocabulary(tmp_path / "bert", 90)
    with pytest.raises(ValueError, match="is BERT's vocabulary, which serves .*; give the .* tokenizer.json"):
        Tokenizer.load(tmp_path / "bert")
    with pytest.raises(ValueError, match="no file '.*empty/tokenizer.json'; wanted .* also BERT's vocab.txt"):
        (tmp_path / "empty").mkdir()
        Tokenizer.load(tmp_path / "empty")
    with pytest.raises(ValueError, match="id 40000 is not one of 32015;"):
        phi3.decode([40000])
    with pytest.raises(ValueError, match="pieces are fewer"):
        train_tokenizer(["a"], tmp_path / "x.model", pieces=100)


def test_parts_of_data_give_no_special_id_and_share_pieces_with_the_template(phi3):
    asked = (Template("<image>Question:"), "how<s> many</s>?", Template(" Short answer:"))
    parts = [*asked, "2", Template("<|endofchunk|>")]
    ids = phi3.encode_parts(parts)
    assert [id_ for id_ in ids if id_ >= 32000 or id_ < 3] == [phi3.image_id, phi3.end_of_chunk_id]
    assert phi3.decode(ids) == "".join(parts)
    plain = ["Question:how many?", " Short answer:", "2"]
    assert phi3.encode_parts(plain) == phi3.encode("".join(plain))
    assert phi3.encode_parts(("<|us", "er|>")) == phi3.encode_parts(("<|user|>",)) != phi3.encode("<|user|>")
    assert phi3.encode_parts(()) == phi3.encode_parts(("", "")) == []


def test_lone_surrogates_are_read_as_replacement_characters(phi3):
    """JSON's escapes can hold what UTF-8 cannot; SentencePiece ended the run."""
    assert phi3.decode(phi3.encode_parts(["caf\u00e9 \ud83d end"])) == "caf\u00e9 \ufffd end"
    assert phi3.encode("\ud83d\ude00") == phi3.encode("😀")
