"""Tokenizers of tokenizer.json: Phi-3's as by its SentencePiece model, Llama 3's and Qwen2's by their own rules."""

import json
from pathlib import Path
import pickle
import random
import shutil

from hypothesis import HealthCheck, given, settings, strategies
import numpy as np
from other_tokenizers import make_llama3, make_qwen2
import pytest

from xgenmm_jax.data.records import Conversation, Document, Turn
from xgenmm_jax.data.text.chat import CHATML_STYLE, LLAMA3_STYLE, PHI3_STYLE, ChatStyle, check_style, sample
from xgenmm_jax.data.text.prompts import chat_prompt
from xgenmm_jax.data.text.tokenizer import Template, Tokenizer

GOLDENS = Path(__file__).parents[2] / "goldens"
SFT = json.loads((GOLDENS / "sft/sft_goldens.json").read_text())
CASES = SFT["runs"]["slow_nobos"]["cases"]
SPECIAL = ("<|end|>", "<s>", "</s>", "<unk>", "<image>", "▁", "\ud800")
PIECES = ("a", " ", "  ", "\n", "\t", "é", "日", "🎉", "The", "12", *SPECIAL)


@pytest.fixture(scope="module")
def phi3() -> Tokenizer:
    return Tokenizer.load(GOLDENS / "phi3_tokenizer/tokenizer.json")


@pytest.fixture(scope="module")
def by_pieces() -> Tokenizer:
    return Tokenizer.load(GOLDENS / "phi3_tokenizer/tokenizer.model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    make_llama3(folder / "llama3")
    make_qwen2(folder / "qwen2")
    return folder


@pytest.fixture(scope="module")
def llama3(folder) -> Tokenizer:
    return Tokenizer.load(folder / "llama3")


@pytest.fixture(scope="module")
def qwen2(folder) -> Tokenizer:
    return Tokenizer.load(folder / "qwen2/tokenizer.json")


@pytest.mark.parametrize("case", CASES)
def test_phi3s_ids_are_those_of_the_slow_tokenizer(phi3, case):
    roles = {"system": "system", "human": "user", "gpt": "assistant"}
    text = "".join(f"<|{roles[turn['from']]}|>\n{turn['value']}<|end|>\n" for turn in SFT["conversations"][case])
    ids, golden = phi3.encode(text), CASES[case]
    if "input_ids" in golden:
        assert ids == golden["input_ids"]
        assert [phi3.piece(id_) for id_ in ids] == golden["tokens"]
    else:
        assert ids[: len(golden["head"])] == golden["head"]
        assert ids[: golden["n"]][-len(golden["tail"]) :] == golden["tail"]


def test_phi3s_special_ids_are_those_of_its_sentencepiece_model(phi3, by_pieces):
    assert phi3.special_ids == by_pieces.special_ids and len(phi3) == len(by_pieces) == 32015
    names = ("pad_id", "eos_id", "end_id", "image_id", "placeholder_id", "end_of_chunk_id", "vocab_size", "bos_id")
    assert [getattr(phi3, name) for name in names] == [getattr(by_pieces, name) for name in names]


def test_phi3s_ids_are_those_of_its_sentencepiece_model_for_any_text(phi3, by_pieces):
    """Templates and data, special strings and stray spaces in either."""
    random_ = random.Random(0)
    for _ in range(1500):
        text = "".join(random_.choices(PIECES, k=random_.randint(0, 12)))
        cut = random_.randint(0, len(text))
        for parts in ((Template(text),), (text,), (text[:cut], Template(text[cut:]))):
            ids = by_pieces.encode_parts(parts)
            assert phi3.encode_parts(parts) == ids, parts
            assert phi3.decode(ids) == by_pieces.decode(ids)


def test_ids_behind_the_vocabulary_are_ours(llama3, qwen2):
    """Padding that ends something would mask ends: `<pad>` is added then, as the official factory does."""
    for tokenizer, added in ((llama3, 6), (qwen2, 4)):
        first = 340 + added
        assert (tokenizer.pad_id, tokenizer.image_id, tokenizer.placeholder_id) == (first, first + 1, first + 2)
        assert (tokenizer.end_of_chunk_id, len(tokenizer), tokenizer.vocab_size) == (first + 3, first + 4, 384)
    assert llama3.end_of_text == "<|end_of_text|>" and llama3.piece(llama3.end_id) == "<|eot_id|>"
    assert qwen2.end_of_text == "<|endoftext|>" and qwen2.piece(qwen2.end_id) == "<|im_end|>"


def test_padding_of_its_own_is_kept(folder, tmp_path):
    shutil.copytree(folder / "llama3", tmp_path / "own")
    config = json.loads((tmp_path / "own/tokenizer_config.json").read_text())
    config["pad_token"] = {"content": "<|reserved_special_token_0|>"}
    (tmp_path / "own/tokenizer_config.json").write_text(json.dumps(config))
    own = Tokenizer.load(tmp_path / "own")
    assert own.piece(own.pad_id) == "<|reserved_special_token_0|>" and own.image_id == 346


def test_texts_begin_as_the_files_say(llama3, qwen2):
    assert llama3.encode("the red")[0] == llama3.special_ids["<|begin_of_text|>"]
    assert llama3.encode_parts(("the red",), starts=False) == llama3.encode("the red")[1:]
    assert qwen2.bos_id is None and qwen2.encode("") == llama3.encode("") == []


@pytest.mark.parametrize("name", ["llama3", "qwen2", "phi3"])
def test_data_never_give_a_special_id(request, name):
    tokenizer = request.getfixturevalue(name)
    special = set(tokenizer.special_ids.values()) - {tokenizer.bos_id}

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategies.lists(strategies.sampled_from([*tokenizer.special_ids, " ", "\n", "a", "é"]) | strategies.text()))
    def check(parts):
        text = "".join(parts).replace("\x00", "")
        ids = tokenizer.encode_parts((text,))
        assert not special & set(ids)
        if name != "phi3":
            shown = ids[1:] if name == "llama3" and ids else ids
            assert tokenizer.decode(shown) == text.encode("utf-8", "replace").decode().replace("\ud800", "\ufffd")

    check()


def test_markup_that_is_no_special_token_is_text_too(qwen2):
    assert qwen2.special_ids["<tool_call>"] not in qwen2.encode_parts(("<tool_call>",))
    assert qwen2.encode("<tool_call>") == [qwen2.special_ids["<tool_call>"]]


@pytest.mark.parametrize("text", ["a  b", " lead", "trail \n", "日本é 🎉", "\n\nx"])
@pytest.mark.parametrize("name", ["llama3", "qwen2"])
def test_text_survives_there_and_back(request, name, text):
    tokenizer = request.getfixturevalue(name)
    assert tokenizer.decode(tokenizer.encode(text), keep_special=False) == text


@pytest.mark.parametrize("name", ["phi3", "llama3", "qwen2"])
def test_a_text_has_an_id_where_it_is_one_token_within_another(request, name):
    tokenizer = request.getfixturevalue(name)
    assert tokenizer.encode_parts(("a\nb",), starts=False)[-2] == tokenizer.id_of("\n")
    assert tokenizer.id_of("a\nb") is tokenizer.id_of("") is None


def test_decoding_leaves_special_strings_away_and_refuses_other_ids(llama3):
    ids = llama3.encode("<|start_header_id|>user<|end_header_id|>\n\nthe red<|eot_id|>")
    assert llama3.decode(np.array(ids), keep_special=False) == "user\n\nthe red"
    assert llama3.decode(ids).startswith("<|begin_of_text|><|start_header_id|>user")
    with pytest.raises(ValueError, match="id 350 is not one of 350"):
        llama3.decode([350])


@pytest.mark.parametrize("name", ["llama3", "qwen2", "phi3"])
def test_a_saved_and_a_pickled_tokenizer_are_the_same(request, name, tmp_path):
    tokenizer = request.getfixturevalue(name)
    tokenizer.save(tmp_path / "tokenizer.json")
    for other in (Tokenizer.load(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert other.fingerprint == tokenizer.fingerprint and other.special_ids == tokenizer.special_ids
        assert other.encode("the red<|end|> 12") == tokenizer.encode("the red<|end|> 12")


def test_fingerprints_tell_roles_apart_and_leave_templates_out(folder, tmp_path, llama3):
    for name, changes, is_same in (("bos", {"add_bos_token": False}, False), ("chat", {"chat_template": "x"}, True)):
        shutil.copytree(folder / "llama3", tmp_path / name)
        config = json.loads((tmp_path / name / "tokenizer_config.json").read_text()) | changes
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(config))
        assert (Tokenizer.load(tmp_path / name).fingerprint == llama3.fingerprint) == is_same


CONVERSATION = Conversation(
    "one",
    (),
    (Turn("user", " How many? "), Turn("assistant", "Two."), Turn("user", "<|eot_id|>"), Turn("assistant", "a")),
)


@pytest.mark.parametrize(("name", "style"), [("llama3", LLAMA3_STYLE), ("qwen2", CHATML_STYLE), ("phi3", PHI3_STYLE)])
def test_supervised_are_answers_and_what_ends_them(request, name, style):
    tokenizer = request.getfixturevalue(name)
    made = sample(CONVERSATION, tokenizer, style)
    end = tokenizer.piece(tokenizer.end_id)
    assert tokenizer.decode(made.token_ids[made.loss_mask]) == f"Two.{end}a{end}"


def test_turns_are_llama3s(llama3):
    made = sample(CONVERSATION, llama3, LLAMA3_STYLE)
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    user, assistant = header.format("user"), header.format("assistant")
    first = f"<|begin_of_text|>{user}How many?<|eot_id|>{assistant}Two.<|eot_id|>"
    assert llama3.decode(made.token_ids) == f"{first}{user}<|eot_id|><|eot_id|>{assistant}a<|eot_id|>"
    prompt = chat_prompt([Turn("user", "How many?")], (), llama3, LLAMA3_STYLE)
    assert list(prompt.token_ids) == llama3.encode(f"{user}How many?<|eot_id|>{assistant}")


def test_documents_end_with_the_models_end_of_text(llama3):
    made = sample(Document("one", ("the red",)), llama3)
    assert made.token_ids[-1] == llama3.special_ids["<|end_of_text|>"]
    assert made.loss_mask.tolist() == [False] + [True] * (len(made.token_ids) - 1)


def test_styles_of_another_model_are_refused(llama3, qwen2):
    check_style(LLAMA3_STYLE, llama3)
    with pytest.raises(ValueError, match="holds no special string of the tokenizer; choose the model's chat style"):
        check_style(PHI3_STYLE, llama3)
    mixed = ChatStyle(None, CHATML_STYLE.header, "<|endoftext|>")
    with pytest.raises(ValueError, match=r"the tokenizer's turns end with '<\|im_end\|>'"):
        check_style(mixed, qwen2)
    with pytest.raises(ValueError, match="wanted {role} in it"):
        ChatStyle(header="<|user|>")


def test_an_answer_that_runs_into_its_header_is_refused(qwen2):
    conversation = Conversation("two", (), (Turn("user", "a"), Turn("assistant", "\nb")))
    with pytest.raises(ValueError, match=r"two has 1 assistant turns and 0 .* trim turns \(chat.trimmed\)"):
        sample(conversation, qwen2, CHATML_STYLE)


def test_an_index_says_of_phi3s_style_what_it_always_said():
    assert ChatStyle(system="x").described() == {"system": "x"}
    assert LLAMA3_STYLE.described()["footer"] == "<|eot_id|>"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no tokenizer.json"),
        ("[]", "is no tokenizer.json"),
        ('{"model": {"type": "Unigram", "vocab": []}}', "holds a model 'Unigram'; only BPE is read"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}', "no end of text among the added tokens"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}', "tokenizer.json is not one"),
    ],
)
def test_files_that_are_no_tokenizer_are_refused(tmp_path, content, said):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        Tokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="wanted a SentencePiece model, .* or a tokenizer.json"):
        Tokenizer.load(tmp_path / "missing")
