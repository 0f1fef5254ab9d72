"""Questions, options and dialogues of another form are errors of their record, and are never guessed at."""

import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers import vqa_sets
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.dialogues import Cauldron, VLGuard
from xgenmm_jax.data.readers.multiple_choice import MultipleChoice, ProVision
from xgenmm_jax.data.readers.questions import ImageQuestions, QuestionLists
from xgenmm_jax.data.readers.turns import conversation, filled
from xgenmm_jax.data.records import Conversation
from xgenmm_jax.data.storage.base import Raw

IMAGE = jpeg((40, 30), 1)
QUESTION = {"image": {"bytes": IMAGE, "path": None}, "question": "What?", "answers": ["a"]}
LISTS = {"image": IMAGE, "questions": ["What?", "Why?"], "answers": ["a", "b"]}
CHOICE = {"image": IMAGE, "question": "Which?", "options": ["red", "blue"], "answer": 1}
PROVISION = {"data_path": ["a.jpg"], "question": "Which?", "answer": "blue", "options": ["red", "blue"]}
TALK = {"images": [IMAGE], "texts": [{"user": "Hi", "assistant": "Hello", "source": "x"}]}
GUARD = {"image": "a.jpg", "instr-resp": [{"instruction": "Hi", "response": "Hello"}]}
NAMED = ImageQuestions(image="", image_file="coco/{image_id:012}.jpg", answers="answers")


def read(reader: Reader, fields: dict, choice: int = 0) -> Conversation:
    def image(name: str):
        if name not in ("a.jpg", "coco/000000000042.jpg"):
            raise ValueError(f"image: no file '{name}'")
        return image_from_bytes(IMAGE, name, official=True)

    return reader.read(Raw("0.json[7]", fields, image), choice)


def texts(reader: Reader, fields: dict, choice: int = 0) -> list[str]:
    return [turn.text for turn in read(reader, fields, choice).turns]


@pytest.mark.parametrize(
    ("reader", "fields", "said"),
    [
        (ImageQuestions(), QUESTION | {"question": ["a", "b"]}, "'question' has 2 texts, wanted one"),
        (ImageQuestions(), QUESTION | {"question": " "}, "'question' is empty"),
        (ImageQuestions(), QUESTION | {"answers": ["", None]}, "'answers' is empty"),
        (ImageQuestions(), QUESTION | {"image": None}, "has NoneType in place of bytes"),
        (ImageQuestions(), {"question": "a", "answers": "b"}, "no 'image'; it has 'question', 'answers'"),
        (ImageQuestions(), QUESTION | {"question": "<image> or <image>?"}, "2 <image> in its user turns and 1 images"),
        (NAMED, QUESTION | {"image_id": 43}, "no file 'coco/000000000043.jpg'"),
        (NAMED, QUESTION | {"image_id": None}, "'image_id' is 'None', which names no image"),
        (NAMED, QUESTION | {"image_id": "x1"}, "'image_id' is 'x1', which names no image"),
        (NAMED, QUESTION | {"image_id": True}, "'image_id' is 'True', which names no image"),
        (NAMED, QUESTION, "no 'image_id'; it has 'image'"),
        (vqa_sets.GQA, {"imageId": " ", "question": "a", "answer": "b"}, "'imageId' is ' ', which names no image"),
        (vqa_sets.AOKVQA_DIRECT, QUESTION | {"direct_answers": "['a"}, "'direct_answers' is no Python literal"),
        (vqa_sets.AOKVQA_DIRECT, QUESTION | {"direct_answers": "print(1)"}, "is no Python literal"),
        (vqa_sets.AOKVQA_DIRECT, QUESTION | {"direct_answers": "[1]"}, "'direct_answers' holds int, wanted texts"),
        (vqa_sets.AOKVQA_DIRECT, QUESTION | {"direct_answers": "[]"}, "'direct_answers' is empty"),
        (vqa_sets.AOKVQA_DIRECT, QUESTION | {"direct_answers": "[" * 200_000}, "no Python literal .200,000 characters"),
        (vqa_sets.AOKVQA_DIRECT, QUESTION | {"direct_answers": "[" * 9_000}, "no Python literal"),
        (QuestionLists(), LISTS | {"answers": ["a"]}, "2 'questions' and 1 'answers'; wanted one answer each"),
        (QuestionLists(), LISTS | {"answers": ["a", ""]}, "'answers' has an empty text"),
        (QuestionLists(), LISTS | {"answers": ["a", None]}, "'answers' holds NoneType, wanted texts"),
        (QuestionLists(), LISTS | {"questions": "What?"}, "'questions' is str, wanted a list of texts"),
        (QuestionLists(turns="one"), {"image": IMAGE, "questions": [], "answers": []}, "it has no question"),
        (QuestionLists(), LISTS | {"questions": ["<image>", "<image>"]}, "2 <image> in its user turns and 1 images"),
        (MultipleChoice(), CHOICE | {"answer": 2}, "'answer' is '2', which is the index of none of the 2 options"),
        (MultipleChoice(), CHOICE | {"answer": -1}, "'answer' is '-1', which is the index of none"),
        (MultipleChoice(), CHOICE | {"answer": "B"}, "'answer' is 'B', which is the index of none"),
        (MultipleChoice(), CHOICE | {"answer": None}, "'answer' is 'None', which is the index of none"),
        (MultipleChoice(), CHOICE | {"answer": True}, "'answer' is 'True', which is the index of none"),
        (MultipleChoice(), CHOICE | {"answer": 1.0}, "'answer' is '1.0', which is the index of none"),
        (MultipleChoice(), CHOICE | {"options": []}, "the index of none of the 0 options"),
        (MultipleChoice(), CHOICE | {"options": ["red", " "]}, "'options' has an empty text"),
        (MultipleChoice(), CHOICE | {"options": [str(n) for n in range(27)]}, "27 options; wanted at most 26"),
        (MultipleChoice(), CHOICE | {"options": ["<image>", "<image>"]}, "2 <image> .* and 1 images"),
        (MultipleChoice(), CHOICE | {"image": None}, "has NoneType in place of bytes"),
        (MultipleChoice(answer_is="letter"), CHOICE | {"answer": "C"}, "'answer' is 'C', which is the letter of none"),
        (MultipleChoice(answer_is="letter"), CHOICE | {"answer": ""}, "'answer' is '', which is the letter of none"),
        (MultipleChoice(answer_is="letter"), CHOICE | {"answer": "AB"}, "'AB', which is the letter of none"),
        (MultipleChoice(answer_is="text"), CHOICE | {"answer": "green"}, "'green', which is the text of none of"),
        (MultipleChoice(answer_is="text"), CHOICE | {"answer": "a", "options": ["a", "a"]}, "is the text of none of"),
        (MultipleChoice(needs_image=False), CHOICE | {"image": None, "question": "<image>?"}, "1 <image>.* 0 images"),
        (ProVision(), PROVISION | {"data_path": []}, "0 images; wanted 1 to 4"),
        (ProVision(), PROVISION | {"data_path": ["../x.jpg"]}, "no file '../x.jpg'"),
        (ProVision(), PROVISION | {"question": "<image>\nWhich?"}, "'question' has <image> of its own"),
        (ProVision(), PROVISION | {"answer": "green"}, "'answer' is 'green', which is the text of none"),
        (Cauldron(), TALK | {"texts": []}, "it has no question"),
        (Cauldron(), TALK | {"texts": None}, "'texts' is NoneType, wanted a list of objects"),
        (Cauldron(), TALK | {"texts": [{"user": "a", "assistant": ""}]}, "no text in 'assistant': it has str"),
        (Cauldron(), TALK | {"texts": [{"user": "a", "answer": "b"}]}, "'assistant': it has 'user', 'answer'; wanted"),
        (Cauldron(), TALK | {"texts": [{"user": "<image> <image>", "assistant": "b"}]}, "2 <image>.* and 1 images"),
        (Cauldron(), TALK | {"images": "a.jpg"}, "'images' is str, wanted a list"),
        (Cauldron(), TALK | {"images": [None]}, "has NoneType in place of bytes"),
        (VLGuard(), GUARD | {"instr-resp": [{"response": "x"}]}, "'instr-resp' has none of instruction, safe_inst"),
        (VLGuard(), GUARD | {"instr-resp": [{"instruction": "x"}]}, "no text in 'response': it has 'instruction'"),
        (
            VLGuard(),
            GUARD | {"instr-resp": [{"instruction": "x", "safe_instruction": "y", "response": "z"}]},
            "has 'instruction' and 'safe_instruction' of",
        ),
        (VLGuard(), GUARD | {"image": "b.jpg"}, "no file 'b.jpg'"),
    ],
)
def test_records_of_another_form_are_errors_of_their_own(reader, fields, said):
    assert reader.choices(Raw("0.json[7]", fields)) >= 1
    with pytest.raises(ValueError, match=said):
        read(reader, fields)


@pytest.mark.parametrize(
    ("reader", "fields", "answer"),
    [
        (MultipleChoice(), CHOICE, "B"),
        (MultipleChoice(), CHOICE | {"answer": "0"}, "A"),
        (MultipleChoice(answer_is="letter"), CHOICE | {"answer": "A"}, "A"),
        (MultipleChoice(answer_is="text"), CHOICE | {"answer": " blue"}, "B"),
        (MultipleChoice(answer_by="text"), CHOICE, "blue"),
        # big_vision's columns.
        (vqa_sets.AI2D_TFDS, CHOICE | {"possible_answers": ["1", "4"], "answer": "4", "abc_label": False}, "B"),
        (
            vqa_sets.AOKVQA_TFDS,
            CHOICE | {"multiple_choice_possible_answers": ["a", "b"], "multiple_choice_correct_idx": 0},
            "A",
        ),
        (MultipleChoice(reasons=("why",)), CHOICE | {"why": "It is the sky."}, "It is the sky.\nThe answer is B."),
        (MultipleChoice(reasons=("why", "how")), CHOICE | {"why": "", "how": ["x"]}, "x\nThe answer is B."),
        (MultipleChoice(reasons=("why",)), CHOICE | {"why": None}, "B"),
    ],
)
def test_the_right_option_is_given_and_said_in_several_ways(reader, fields, answer):
    assert texts(reader, fields)[1] == answer


def test_each_explanation_can_be_drawn():
    reader = MultipleChoice(reasons=("first", "rationales"))
    fields = CHOICE | {"first": "Look.", "rationales": ["One.", "Two.", "Three."]}
    assert reader.choices(Raw("1", fields)) == 3
    said = [texts(reader, fields, choice)[1] for choice in range(3)]
    assert said == [f"Look.\n{one}\nThe answer is B." for one in fields["rationales"]]


def test_a_marker_in_the_question_says_where_its_image_stands():
    assert texts(ImageQuestions(), QUESTION | {"question": "In <image>, what?"})[0] == "In <image>, what?"
    assert texts(QuestionLists(), LISTS | {"questions": ["What?", "And in <image>?"]})[0] == "What?"
    raw, image = Raw("1", {}), image_from_bytes(IMAGE, "a", official=True)
    with pytest.raises(RecordError, match="0 <image> in its user turns and 2 images"):
        conversation(raw, [image, image], [("Which?", "a")])


def test_numbers_in_names_of_images_are_padded():
    assert texts(NAMED, QUESTION | {"image_id": 42}) == texts(NAMED, QUESTION | {"image_id": "42"})
    assert len(read(NAMED, QUESTION | {"image_id": 42}).images) == 1


def test_texts_with_placeholders_of_a_prompt_stay_as_they_are():
    prompt = "{question}\n{options} {x}"
    assert filled(prompt, question="{options}?", options="{question}") == "{options}?\n{question} {x}"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: ImageQuestions(image_file="{id}.jpg"), "wanted the one"),
        (lambda: ImageQuestions(image=""), "wanted the one"),
        (lambda: ImageQuestions(image="", image_file="a.jpg"), "names no field"),
        (lambda: ImageQuestions(image="", image_file="{a.__class__}"), r"has \{a.__class__\}; wanted a field"),
        (lambda: ImageQuestions(image="", image_file="{a[0]}"), "wanted a field"),
        (lambda: ImageQuestions(image="", image_file="{a!r}"), "wanted a field"),
        (lambda: ImageQuestions(image="", image_file="{}.jpg"), "wanted a field"),
        (lambda: ImageQuestions(image="", image_file="{a"), "is no name with fields in braces"),
        (lambda: QuestionLists(turns="some"), "wanted 'all' or 'one'|Literal"),
        (lambda: QuestionLists(next_prompt="Next"), "write it once"),
        (lambda: MultipleChoice(prompt="{question}"), "'{options}' 0 times; write it once"),
        (lambda: MultipleChoice(image=""), "wanted the one"),
        (lambda: ProVision(prompt="{options}"), "'{question}' 0 times"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(made, said):
    with pytest.raises(Exception, match=said):
        made()
