"""MMC4's lines, whole, with the images that were fetched beside them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import FEW_IMAGES, LeftOut, RecordError, SourceError
from xgenmm_jax.data.readers.mmc4 import Mmc4
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.text import chat
from xgenmm_jax.data.text.tokenizer import train_tokenizer

SIZES = {"http://x.org/a": (40, 30), "http://x.org/b": (16, 24), "http://x.org/c": (20, 20)}
NAMES = {size: url[-1].upper() for url, size in SIZES.items()}
SENTENCES = ["Zero.", "One.", "Two.", "Three."]


def info(name: str, sentence: int, similarity: float) -> dict:
    return {
        "image_name": f"{name}.jpg",
        "raw_url": f"http://x.org/{name}",
        "matched_text_index": sentence,
        "matched_sim": similarity,
        "face_detections": None,
    }


def row(*infos: dict, **change) -> dict:
    return {
        "text_list": SENTENCES,
        "url": "http://x.org/page",
        "image_info": list(infos),
        "similarity_matrix": [[0.1] * len(SENTENCES)] * len(infos),
        "could_have_url_duplicate": 0,
    } | change


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for url, size in SIZES.items():
        (folder / f"{hashlib.sha256(url.encode()).hexdigest()}.jpg").write_bytes(jpeg(size))
    return folder


def read(images: Path, row: dict, **options) -> Document:
    path = images.parent / "docs_shard_0_v2.jsonl"
    path.write_text(json.dumps(row) + "\n")
    source = ShardedSource(JsonFiles(str(path), str(images)), Mmc4(**options), index=str(images.parent / "index"))
    record = source.open().record(0, np.random.default_rng(0))
    assert isinstance(record, Document)
    return record


def shown(record: Document) -> list[str]:
    return [NAMES[part.size_px] if isinstance(part, LazyImage) else part for part in record.parts]


def test_images_stand_before_their_sentences(images):
    of_row = row(info("b", 3, 0.3), info("a", 1, 0.31), info("c", 1, 0.24))
    assert shown(read(images, of_row)) == ["Zero.", "A", "C", "One.", "Two.", "B", "Three."]


def test_images_may_stand_behind_their_sentences(images):
    of_row = row(info("b", 3, 0.3), info("a", 0, 0.31))
    assert shown(read(images, of_row, side="after")) == ["Zero.", "A", "One.", "Two.", "Three.", "B"]


def test_images_unlike_their_sentence_are_left_out_and_counted(images):
    of_row = row(info("a", 1, 0.31), info("b", 2, 0.2399), info("gone", 3, 0.9))
    record = read(images, of_row)
    assert (shown(record), record.dropped) == (["Zero.", "A", "One.", "Two.", "Three."], 2)


def test_none_is_like_its_sentence(images):
    with pytest.raises(LeftOut, match="0 of its 1 images are left") as error:
        read(images, row(info("a", 1, 0.31)), least_similarity=0.4)
    assert error.value.reason == FEW_IMAGES


def test_the_text_is_open_flamingos(images, tmp_path):
    """docs/reference/tokens.md#pre-training-text."""
    tokenizer = train_tokenizer([" ".join(SENTENCES)] * 9, tmp_path / "small.model", pieces=400)
    record = read(images, row(info("a", 1, 0.31), info("b", 3, 0.3)))
    wanted = "Zero.<image>One. Two.<|endofchunk|><image>Three.<|endofchunk|><|endoftext|>"
    ids = chat.sample(record, tokenizer).token_ids.tolist()
    assert tokenizer.decode(ids) == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_info": []}, "names no image"),
        ({"image_info": [info("a", 4, 0.3)]}, "image 0 has the 'matched_text_index' 4, and there are 4 sentences"),
        ({"image_info": [info("a", 1, 0.3) | {"matched_text_index": None}]}, "'matched_text_index' None"),
        ({"image_info": [info("a", 1, 0.3) | {"matched_sim": "0.3"}]}, "'matched_sim' 0.3, wanted a number"),
        ({"image_info": [{"image_name": "a.jpg"}]}, "image 0 has no 'raw_url'; it has 'image_name'"),
        ({"image_info": ["a.jpg"]}, "'image_info' has str at 0"),
        ({"image_info": None}, "'image_info' is NoneType, wanted a list"),
        ({"text_list": "Zero."}, "'text_list' is str, wanted a list"),
        ({"text_list": ["Zero.", None]}, "'text_list' holds NoneType, wanted texts"),
    ],
)
def test_rows_of_another_form_are_errors_of_their_record(change, said):
    with pytest.raises(RecordError, match=r"jsonl\[3\]") as error:
        Mmc4().read(Raw("docs.jsonl[3]", row(info("a", 1, 0.3)) | change), 0)
    assert said in str(error.value)


def test_lines_with_other_fields_are_refused_with_those_they_have(images):
    renamed = {"texts" if name == "text_list" else name: value for name, value in row(info("a", 1, 0.3)).items()}
    with pytest.raises(SourceError, match=r"no record of .* has 'text_list'; the fields found: 'texts', 'url'"):
        read(images, renamed)


def test_an_unknown_side_is_refused(unchecked_signatures):
    with pytest.raises(ValueError, match="wanted 'before' or 'after'"):
        Mmc4(side="under")
