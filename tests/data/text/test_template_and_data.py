"""Whatever data says, special ids are the template's and the data's characters are all there."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import PIL.Image
import pytest

from xgenmm_jax.data.records import Caption, Conversation, Document, LazyImage, Preference, Turn
from xgenmm_jax.data.text import chat, prompts
from xgenmm_jax.data.text.tokenizer import DECOUPLED, PHI3_SPECIALS, Tokenizer
from xgenmm_jax.files import without_surrogates
from xgenmm_jax.nano import starting_weights

PHI3 = Path(__file__).parents[2] / "goldens/phi3_tokenizer/tokenizer.model"
NANO = Path(starting_weights.TOKENIZER)
TOKENIZERS = {"phi3": Tokenizer.load(PHI3), "nano": Tokenizer.load(NANO)}
IMAGE = LazyImage((8, 8), lambda: PIL.Image.new("RGB", (8, 8)))

SPECIALS = (*PHI3_SPECIALS, "<pad>", "<unk>", "<s>", "</s>", *DECOUPLED)
PIECES = (
    "<", "|", ">", "<|", "|>", "end", "<|e", "nd|>", "assis", "tant", "<im", "age>", "ima", "ge", "<|end", "ofchunk|>",
    "</", "s>", "<0x0A>", "<0x", "▁", " ", "  ", "\n", "\t", "\r\n", "\u2028", "\x00", "\x1f", "\ud83d", "\ude00",
    "é", "語", "🎉",
)  # fmt: skip
TEXTS = st.lists(
    st.one_of(st.sampled_from(SPECIALS), st.sampled_from(PIECES), st.characters(), st.text(max_size=5)), max_size=8
).map("".join)


def read(text: str) -> str:
    """What the tokenizer makes of data: "▁" is a space to SentencePiece, lone surrogates are in no encoding."""
    return without_surrogates(text).replace("▁", " ")


def runs(tokenizer: Tokenizer, ids) -> list[str]:
    """Special strings, and the text between two of them."""
    special = set(tokenizer.special_ids.values())
    parts, run = [], []
    for id_ in (*map(int, ids), tokenizer.end_id):
        if id_ not in special:
            run.append(id_)
            continue
        if run:
            # Behind a special id, so that `decode` takes no first space away.
            parts.append(tokenizer.decode([tokenizer.image_id, *run]).removeprefix("<image>"))
        parts.append(tokenizer.piece(id_))
        run = []
    return parts[:-1]


def answers(text: str) -> list[str]:
    """A turn's text as it is read behind a role token, which swallows white space; nothing where it is empty."""
    return [text.lstrip()] if text.lstrip() else []


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150)
@given(asked=TEXTS.filter(lambda text: "<image>" not in text), answer=TEXTS, system=TEXTS)
def test_in_conversations(name, asked, answer, system):
    tokenizer = TOKENIZERS[name]
    turns = (Turn("system", system), Turn("user", f"<image>{asked}"), Turn("assistant", answer))
    sample = chat.sample(Conversation("c", (IMAGE,), turns), tokenizer)
    user = ["<image>", *([read(asked)] if asked else [])]
    assert runs(tokenizer, sample.token_ids)[1:] == [
        "<|system|>", *answers(read(system)), "<|end|>", "<|user|>", *user, "<|end|>",
        "<|assistant|>", *answers(read(answer)), "<|end|>",
    ]  # fmt: skip
    assert runs(tokenizer, sample.token_ids[sample.loss_mask]) == [*answers(read(answer)), "<|end|>"]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=100)
@given(asked=TEXTS, chosen=TEXTS, rejected=TEXTS)
def test_in_preferences(name, asked, chosen, rejected):
    tokenizer = TOKENIZERS[name]
    record = Preference("p", (), (Turn("user", asked),), chosen, rejected)
    sample = chat.sample(record, tokenizer)
    for ids, mask, answer in (
        (sample.token_ids, sample.loss_mask, chosen),
        (sample.rejected_ids, sample.rejected_mask, rejected),
    ):
        assert runs(tokenizer, ids)[4:] == [
            "<|user|>", *answers(read(asked)), "<|end|>", "<|assistant|>", *answers(read(answer)), "<|end|>",
        ]  # fmt: skip
        assert runs(tokenizer, ids[mask]) == [*answers(read(answer)), "<|end|>"]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150)
@given(first=TEXTS, second=TEXTS, lines=st.sampled_from(["", "\n"]))
def test_in_captions_and_documents(name, first, second, lines):
    tokenizer = TOKENIZERS[name]
    first, second = first.strip(), second.strip()
    texts = [[read(text)] if text else [] for text in (first, second)]
    caption = chat.sample(Caption("c", IMAGE, first), tokenizer)
    assert runs(tokenizer, caption.token_ids) == ["<image>", *texts[0], "<|endofchunk|>", "<|endoftext|>"]
    document = chat.sample(Document("d", (IMAGE, first, IMAGE, second), lines), tokenizer)
    assert runs(tokenizer, document.token_ids) == [
        "<image>", *texts[0], "<|endofchunk|>", *([lines] if lines else []), "<image>", *texts[1], "<|endofchunk|>",
        "<|endoftext|>",
    ]  # fmt: skip
    assert caption.loss_mask.sum() == len(caption.token_ids) - 1


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150)
@given(shown=TEXTS, answer=TEXTS, asked=TEXTS)
def test_in_few_shot_prompts(name, shown, answer, asked):
    tokenizer = TOKENIZERS[name]
    demonstrations = [prompts.Demonstration(IMAGE, shown, answer), prompts.Demonstration(IMAGE, None, answer)]
    prompt = prompts.few_shot_prompt(demonstrations, IMAGE, asked, tokenizer)
    shown, answer, asked = read(shown), read(answer), read(asked)
    assert runs(tokenizer, prompt.token_ids) == [
        "<image>", f"Question:{shown} Short answer:{answer}", "<|endofchunk|>", "\n",
        "<image>", f"Output:{answer}", "<|endofchunk|>", "\n",
        "<image>", f"Question:{asked} Short answer:",
    ]  # fmt: skip
    based = prompts.base_prompt(demonstrations[:1], IMAGE, None, tokenizer)
    assert runs(tokenizer, based.token_ids) == [
        "<image>", f"{shown}\n{prompts.SHORT_ANSWER}{answer}", "<|endofchunk|>", "<image>", prompts.CAPTION_INSTRUCTION,
    ]  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=100)
@given(text=st.text(st.characters(exclude_characters="<")))
def test_ids_of_data_without_special_strings_are_those_of_the_text(name, text):
    tokenizer = TOKENIZERS[name]
    half = len(text) // 2
    assert tokenizer.encode_parts((text[:half], text[half:])) == tokenizer.encode(text)
