"""BLIP-2's zero-shot tasks: questions of VQAv2, OK-VQA and GQA, captions of COCO and NoCaps, by its own prompts.

A base model is asked behind the image alone, without a chat template and without demonstrations, and answers by beam
search. The language model that the prompt was written for is OPT.

Source: docs/reference/blip2.md#zero-shot-tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xgenmm_jax.data.readers.blip_captions import question_of
from xgenmm_jax.data.text.chat import IMAGE, ChatStyle
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Template, Tokenizer
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published.files import Original
from xgenmm_jax.evaluation.published.originals import texts
from xgenmm_jax.evaluation.scorers import vqa
from xgenmm_jax.evaluation.tasks import multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Answering, Benchmark, Choice, Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.few_shot_sets import (
    FEW_SHOT,
    accuracy,
    example_of,
    keyed_objects,
    nocaps,
    stemmed_accuracy,
    stemmed_answer,
)
from xgenmm_jax.evaluation.tasks.task import Scored, Task
from xgenmm_jax.generation.text.decoding import Decoding

GQA_FILE = "gqa/testdev_balanced_questions.json"
NOCAPS_FILE = "nocaps/nocaps_val_4500_captions.json"
QUESTION = "Question: {} Answer:"
BEAMS = 5
END = ("\n",)
"""An end token of the language model to BLIP-2."""

_SETS = {one.name: one for one in FEW_SHOT}


@dataclass(frozen=True)
class ZeroShotPrompt:
    """An image, then the prompt's words with the cleaned question for "{}"; of a caption the image alone."""

    words: str

    def __call__(self, example: Example, tokenizer: Tokenizer) -> Prompt:
        before, _, after = self.words.partition("{}")
        asked = (Template(before), question_of(example.question), Template(after)) if self.words else ()
        return Prompt(tuple(tokenizer.encode_parts((IMAGE, *asked))), (example.images[0],))


@dataclass(frozen=True)
class ZeroShot(Benchmark):
    """A benchmark that is asked behind the image alone. words: of the prompt, "" for captions."""

    words: str = QUESTION

    @property
    def asked_as(self) -> str:
        """The prompt."""
        return f" zero-shot, {self.words!r}"

    def task(self, examples: Sequence[Example], choice: Choice, style: ChatStyle = ChatStyle()) -> Task:  # noqa: B008
        """style: not used, as base models have none."""
        return replace(super().task(examples, choice, style), prompt=ZeroShotPrompt(self.words))


def _message(example: Example, profile: Profile) -> Message:
    """What a page shows."""
    return multiple_choice.images_first(example, question_of(example.question))


def _short_answer(profile: Profile) -> Answering:
    """At most 10 tokens, short ones preferred, as the paper says; the public code prefers none with OPT (penalty 0)."""
    return Answering(Decoding(10, BEAMS, length_penalty=-1.0), until=END, stops=END)


def _caption_of_coco(profile: Profile) -> Answering:
    return Answering(Decoding(30, BEAMS, min_new_tokens=8), until=END, stops=END)


def _caption_of_nocaps(profile: Profile) -> Answering:
    return Answering(Decoding(80, BEAMS, min_new_tokens=10), until=END, stops=END)


def _score_answer(answer: str, example: Example, profile: Profile) -> Scored:
    text = answer.strip()
    return Scored(vqa.vqa_accuracy(text, example.answers, profile), text or None)


def _score_exactly(answer: str, example: Example, profile: Profile) -> Scored:
    """GQA's equality, of an answer that is normalised as VQA's and a reference that is not, as BLIP-2 compares them."""
    text = vqa.normalize_answer(answer.strip(), profile)
    return Scored(float(text == example.answers[0]), text or None)


def _score_caption(answer: str, example: Example, profile: Profile) -> Scored:
    """Whether there is a caption; CIDEr needs all of them at once."""
    text = answer.strip()
    return Scored(float(bool(text)), text or None)


def _score_stemmed(answer: str, example: Example, profile: Profile) -> Scored:
    """OK-VQA's references are stems; BLIP-2 reduces answers to lemmas by spaCy's English model."""
    text = answer.strip()
    return Scored(vqa.vqa_accuracy(stemmed_answer(text, example), example.answers, profile), text or None)


def _stemmed(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    return stemmed_accuracy(predictions, profile, "BLIP-2 takes spaCy's lemmas", "lower than BLIP-2 counts")


def _gqa(folder: Path) -> Iterator[Example | None]:
    """The balanced questions of test-dev by their ids; others, which accuracy leaves out, are left out."""
    path = folder / GQA_FILE
    for id_, row in keyed_objects(path):
        image_id, question, answer = texts(row, ("imageId", "question", "answer"), path)
        if not row.get("isBalanced", True):
            yield None
            continue
        example = example_of(id_, f"gqa {image_id}", folder / "gqa/images", f"{image_id}.jpg", question, (answer,))
        assert example is not None, "it has an answer"
        types = row.get("types")
        structure = types.get("structural", "") if isinstance(types, dict) else ""
        kind = {"kind": "open" if structure == "query" else "binary"} if structure else {}
        yield replace(example, fields={**example.fields, **kind})


def _gqa_table(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """Accuracy, and that of questions whose answer is open or one of two, as GQA's own script splits them."""
    table = accuracy(predictions, profile)
    for kind in sorted({kind for prediction in predictions if (kind := prediction.example.fields.get("kind"))}):
        some = [one for one in predictions if one.example.fields.get("kind") == kind]
        table[kind] = accuracy(some, profile)["accuracy"]
    return table


def _questions(name: str) -> ZeroShot:
    of = _SETS[name]
    return ZeroShot(
        name=f"{name}_blip2", title=f"{of.title}, zero-shot as BLIP-2", source=of.source, published=of.published,
        message=_message, score=_score_answer, summarize=of.summarize, headline="accuracy", answering=_short_answer,
        profiles=("official",),
    )  # fmt: skip


VQAV2_BLIP2 = _questions("vqav2")
OKVQA_BLIP2 = replace(_questions("okvqa"), score=_score_stemmed, summarize=_stemmed)
GQA_BLIP2 = replace(
    VQAV2_BLIP2, name="gqa_blip2", title="GQA, zero-shot as BLIP-2", source="cs.stanford.edu/people/dorarad/gqa",
    published=(Original((GQA_FILE,), _gqa),), score=_score_exactly, summarize=_gqa_table,
)  # fmt: skip
COCO_BLIP2 = replace(
    _questions("coco"), score=_score_caption, headline="CIDEr", answering=_caption_of_coco, words="",
)  # fmt: skip
NOCAPS_BLIP2 = replace(
    COCO_BLIP2, name="nocaps_blip2", title="NoCaps, zero-shot as BLIP-2", source=_SETS["nocaps"].source,
    published=(Original((NOCAPS_FILE,), nocaps),), answering=_caption_of_nocaps,
)  # fmt: skip

ZERO_SHOT: tuple[ZeroShot, ...] = (VQAV2_BLIP2, OKVQA_BLIP2, GQA_BLIP2, NOCAPS_BLIP2, COCO_BLIP2)
"""In the order of BLIP-2's tables."""
