"""Readers of published fine-tuning sets of single images, by name; docs/data.md says which storage holds each.

Instructions behind a question are LLaVA's where its mixture has the set or the question has options, and otherwise
none: xGen-MM's own are not published.

Source: docs/reference/data.md#fine-tuning-records, docs/reference/data.md#questions-as-they-are-asked
"""

from dataclasses import replace

from xgenmm_jax.data.readers.multiple_choice import MultipleChoice
from xgenmm_jax.data.readers.questions import ImageQuestions, QuestionLists
from xgenmm_jax.data.text.prompts import SHORT_ANSWER

SHORT = f"{{question}}\n{SHORT_ANSWER}"

CHARTQA = ImageQuestions(answers="answer")
"""The hub's form, and tensorflow-datasets'."""
CHARTQA_JSON = ImageQuestions(image="", image_file="{imgname}", question="query", answers="label")
"""The authors' `train_human.json` and `train_augmented.json`, images in `png/`."""

DOCVQA = ImageQuestions()
"""The hub's forms with the image in the table, and tensorflow-datasets'."""
DOCVQA_JSON = ImageQuestions(image="", image_file="{image}")
"""The authors' file, records in its "data", images in `documents/`."""

TEXTVQA = ImageQuestions(prompt=SHORT)
"""The hub's form, and tensorflow-datasets'."""
TEXTVQA_JSON = ImageQuestions(image="", image_file="{image_id}.jpg", prompt=SHORT)
"""The authors' file, records in its "data", images in `train_images/`."""

GQA = ImageQuestions(image="", image_file="{imageId}.jpg", answers="answer", prompt=SHORT)
"""Answered in a word; `answers="fullAnswer"` and no instruction answers in a sentence."""

OCR_VQA = QuestionLists(image="", image_file="{key}.jpg", prompt=SHORT)
"""Books by key, all images under the key as .jpg, as LLaVA has them."""

DVQA = ImageQuestions(image="", image_file="{image}", answers="answer")

CLEVR = QuestionLists(questions="question_answer/question", answers="question_answer/answer")
"""tensorflow-datasets' form: all questions of a scene."""
CLEVR_JSON = ImageQuestions(image="", image_file="{image_filename}", answers="answer")
"""The authors' file, records in its "questions", a question each."""

AI2D = MultipleChoice()
"""The hub's form, whose answer is an index in digits."""
AI2D_TFDS = MultipleChoice(options="possible_answers", answer_is="text")
"""big_vision's."""

SCIENCE_QA = MultipleChoice(options="choices", context="hint", needs_image=False)
"""`reasons=("lecture", "solution")` explains before it answers."""

SCIENCE_QA_JSON = replace(SCIENCE_QA, image="", image_file="{split}/{key}/{image}")
"""The authors' `problems.json`, problems by key, images in `images/`."""

AOKVQA = MultipleChoice(options="choices", answer="correct_choice_idx")
"""The hub's form; `reasons=("rationales",)` explains before it answers."""
AOKVQA_JSON = replace(AOKVQA, image="", image_file="{image_id:012}.jpg")
"""The authors' `aokvqa_v1p0_train.json`, images of COCO 2017."""
AOKVQA_TFDS = MultipleChoice(options="multiple_choice_possible_answers", answer="multiple_choice_correct_idx")
"""big_vision's."""
AOKVQA_DIRECT = ImageQuestions(answers="direct_answers", prompt=SHORT, is_literal=True)
"""The hub's form, answered without options."""
AOKVQA_DIRECT_JSON = replace(AOKVQA_DIRECT, image="", image_file="{image_id:012}.jpg", is_literal=False)
"""The authors' form, answered without options."""
