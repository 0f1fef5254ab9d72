"""BERT's tokenizer: the ids of the library's own, `[DEC]` behind them, rows as LAVIS cuts them."""

import json

from other_tokenizers import BERT, put_vocabulary
import pytest
from tokenizers import BertWordPieceTokenizer

from xgenmm_jax.data.text import caption_tokens
from xgenmm_jax.data.text.tokenizer import train_tokenizer
from xgenmm_jax.data.text.wordpiece import WordPiece, is_wordpiece

TEXTS = (
    "A red dog", "the dogs, unaffable!", "Café  DOG\tred\nthe", "日本 dog", "a-b.c?", "", "zzzzz" * 30, "\u0000a\ufffd",
    "🎉 dog", "naïve",
)  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return put_vocabulary(tmp_path_factory.mktemp("bert"), 90)


@pytest.fixture(scope="module")
def library(vocabulary) -> BertWordPieceTokenizer:
    return BertWordPieceTokenizer(str(vocabulary), lowercase=True)


def test_ids_are_the_librarys_from_either_file(vocabulary, library, tmp_path):
    library.save(str(tmp_path / "tokenizer.json"))
    for path in (vocabulary, tmp_path / "tokenizer.json"):
        ours = WordPiece.load(path)
        assert is_wordpiece(path) and ours.decoding_id == 90
        for text in TEXTS:
            theirs = library.encode(text).ids
            assert [ours.opening_id, *ours.encode(text), ours.end_id] == theirs, text


def test_rows_are_cut_as_lavis_cuts_them(vocabulary, library):
    library.enable_truncation(8)
    words = caption_tokens.for_queries(vocabulary)
    assert (words.pad, words.rows, words.ids) == (0, 91, 90)
    for text in (*TEXTS, "a red dog the red dog the"):
        row, is_cut = words.row(text, 8)
        assert row == library.encode(text).ids and is_cut == (len(words.encode(text)) > 6)
    library.no_truncation()


def test_a_caption_gives_no_special_id(vocabulary):
    """The library's own reads "[SEP]" as the end."""
    ours = WordPiece.load(vocabulary)
    assert set(ours.encode("[SEP] [CLS] [PAD] [DEC]")) & {ours.end_id, ours.opening_id, ours.pad_id, 90} == set()
    assert ours.encode("[a]") == [BERT.index("["), BERT.index("a"), BERT.index("]")]
    assert ours.encode("a\ud800") == ours.encode("a\ufffd")


def test_a_file_with_dec_added_has_its_id_and_no_further_row(vocabulary, library, tmp_path):
    """As LAVIS' tokenizer is saved: `[DEC]` as bos."""
    path = tmp_path / "tokenizer.json"
    library.save(str(path))
    settings = json.loads(path.read_text())
    settings["added_tokens"].append({**settings["added_tokens"][0], "id": 90, "content": "[DEC]"})
    path.write_text(json.dumps(settings))
    assert caption_tokens.for_queries(tmp_path).rows == 91 and WordPiece.load(path).encode("a") == [5]


def test_a_cased_vocabulary_says_so_beside_it(vocabulary, tmp_path):
    (tmp_path / "vocab.txt").write_text(vocabulary.read_text() + "Dog\n")
    assert WordPiece.load(tmp_path / "vocab.txt").encode("Dog") == [BERT.index("dog")]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert WordPiece.load(tmp_path / "vocab.txt").encode("Dog") == [90]


def test_other_tokenizers_open_captions_with_a_row_of_their_own(tmp_path):
    tokenizer = train_tokenizer(["a red dog"] * 9, tmp_path / "tokenizer.model", pieces=400)
    words = caption_tokens.for_queries(tmp_path)
    assert (words.opening, words.rows) == (len(tokenizer), len(tokenizer) + 2)
    assert words.row("a dog", 9)[0] == [len(tokenizer), *tokenizer.encode_parts(("a dog",)), tokenizer.eos_id]
    assert caption_tokens.plain(tokenizer).row("a dog", 9)[0] == words.row("a dog", 9)[0][1:]


def test_what_is_no_vocabulary_says_so(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"has no \[UNK\]; take bert-base-uncased's vocab.txt. It is '.*vocab.txt'"):
        WordPiece.load(path)
    path.write_text("\n".join((*BERT, "a")))
    with pytest.raises(ValueError, match="has 1 pieces twice"):
        WordPiece.load(path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(ValueError, match="is no tokenizer.json"):
        WordPiece.load(tmp_path / "tokenizer.json")
