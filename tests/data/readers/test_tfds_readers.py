"""Captions and questions of folders that tensorflow-datasets prepared, as records of the project."""

from pathlib import Path

import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.readers.questions import ImageQuestions, most_common
from xgenmm_jax.data.records import Turn
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.storage.tfds import Tfds

FOLDERS = Path(__file__).parents[2] / "fixtures" / "tfds"
COCO = ImageCaptions(image=("image",), caption="captions/text")


def raws(name: str, reader: Reader) -> list[Raw]:
    storage, found = Tfds(str(FOLDERS / name)), []
    for path in storage.shards():
        shard = storage.open(path, storage.locate(path), reader.fields, reader.optional)
        found += [shard.read(index) for index in range(len(shard))]
    return found


def test_each_caption_of_an_image_can_be_drawn():
    reader = COCO
    records = [
        [reader.read(raw, choice) for choice in range(reader.choices(raw))]
        for raw in raws("coco_captions/2014", reader)
    ]
    assert sorted(len(texts) for texts in records) == [1, 2, 3, 4, 5]
    longest = max(records, key=len)
    assert [record.text for record in longest][::3] == ["A red field.", "un café red"]
    assert len({record.id for record in longest}) == 1
    assert longest[0].image.load().size == longest[0].image.size_px == (28, 16)


def test_blank_captions_do_not_count():
    """A draw of one would leave out an image that has others."""
    raw = Raw("7", {"image": jpeg(), "texts": ["", "a dog", " ", "a cat"]})
    reader = ImageCaptions(image=("image",), caption="texts")
    assert [reader.read(raw, choice).text for choice in range(reader.choices(raw))] == ["a dog", "a cat"]
    assert reader.choices(Raw("8", {"image": jpeg(), "texts": "one alone"})) == 1


def test_a_question_is_asked_with_its_image_and_answered():
    reader = ImageQuestions(answers="answer")
    records = [reader.read(raw, 0) for raw in raws("chartqa/human", reader)]
    assert {record.turns[1].text for record in records} == {"red", "green", "blue", "gray"}
    assert {record.turns[0] for record in records} == {Turn("user", "<image>\nWhat color is the bar?")}
    assert len(records[0].images) == 1 and records[0].images[0].load().size[0] == 20


def test_the_most_common_of_ten_answers_is_learned():
    reader = ImageQuestions(prompt="{question}\nAnswer {briefly}.")
    answers, empty = [], []
    for raw in raws("textvqa", reader):
        try:
            record = reader.read(raw, 0)
        except RecordError as error:
            empty.append(str(error))
            continue
        answers.append(record.turns[1].text)
        assert record.turns[0].text == "<image>\nwhat does it say?\nAnswer {briefly}."
    assert sorted(answers) == ["five", "nokia", "stop"]
    assert len(empty) == 1 and "'answers' is empty" in empty[0]


@pytest.mark.parametrize(
    ("answers", "most"),
    [
        (["1 May 1998", "May 1"], "1 May 1998"),
        (["5", "five", "Five", "FIVE", "5"], "five"),
        (["b", "a", "a", "b"], "b"),
        ([" Yes", "yes"], " Yes"),
    ],
)
def test_spellings_count_as_one_answer_and_the_first_is_taken(answers, most):
    assert most_common(answers) == most


@pytest.mark.parametrize("prompt", ["", "Answer:", "{question} {question}"])
def test_a_prompt_without_its_question_is_refused(prompt):
    with pytest.raises(ValueError, match="write it once"):
        ImageQuestions(prompt=prompt)


@pytest.mark.parametrize("reader", [ImageCaptions(image=("image",), caption="answers"), ImageQuestions()])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"answers": []}, "'answers' is empty"),
        ({"answers": [" "]}, "'answers' is empty"),
        ({"answers": 3}, "'answers' is int, wanted text"),
        ({"answers": ["x", b"\xff"]}, "'answers' holds bytes, wanted texts"),
        ({"image": b"x"}, "not an image"),
        ({"image": "a.jpg"}, "is str, wanted bytes|has str in place of bytes"),
    ],
)
def test_a_record_of_another_form_is_an_error_of_its_own(reader, changed, said):
    raw = Raw("7", {"image": jpeg(), "question": "What?", "answers": ["a"]} | changed)
    assert reader.choices(raw) == 1
    with pytest.raises(ValueError, match=said):
        reader.read(raw, 0)


def test_a_missing_field_is_an_error_of_its_record():
    for reader in (COCO, ImageQuestions()):
        with pytest.raises(RecordError, match="no '.*'; it has 'image'"):
            reader.read(Raw("7", {"image": jpeg()}), 0)
