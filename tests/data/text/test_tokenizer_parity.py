"""transformers' AutoTokenizer on the same files: the same ids, of texts and of conversations in the files' template.

Needs the extra `parity`: pytest -m parity tests/data/text
"""

from other_tokenizers import TEXTS, make_llama3, make_qwen2
import pytest

from xgenmm_jax.data.records import Turn
from xgenmm_jax.data.text.chat import CHATML_STYLE, LLAMA3_STYLE, render
from xgenmm_jax.data.text.tokenizer import Tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
CASES = {"llama3": (make_llama3, LLAMA3_STYLE), "qwen2": (make_qwen2, CHATML_STYLE)}
CONVERSATIONS = (
    [("user", "How many?"), ("assistant", "Two. It's 12345.")],
    [("system", "Be brief."), ("user", "def f(x):\n\n  return"), ("assistant", "日本é 🎉"), ("user", "a\n")],
    [("user", "x"), ("assistant", "a  b\n\n c"), ("user", "(why)"), ("assistant", "!?\n")],
)


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_transformers(tmp_path, name):
    from transformers import AutoTokenizer

    make, style = CASES[name]
    theirs, ours = AutoTokenizer.from_pretrained(make(tmp_path)), Tokenizer.load(tmp_path)
    for text in (*TEXTS, " lead", "a\n\n\nb 1234567", "It'S", "日本é 🎉\t x ", f"{ours.end_of_text}a"):
        assert ours.encode(text) == theirs(text)["input_ids"], text
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": text} for role, text in turns]
        ids = theirs.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert ours.encode_parts(render([Turn(*turn) for turn in turns], 0, style)) == ids
        asked = theirs.apply_chat_template(messages, tokenize=True, return_dict=False, add_generation_prompt=True)
        parts = [*render([Turn(*turn) for turn in turns], 0, style), style.opening("assistant")]
        assert ours.encode_parts(parts) == asked
    for ids in (ours.encode(text) for text in TEXTS):
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)
