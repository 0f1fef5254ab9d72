"""DocVQA: 5,349 questions about scanned pages, scored by edit distance (Mathew et al. 2021).

The answers of the test split are not public: its server scores them.
"""

from collections.abc import Iterator
import functools
from pathlib import Path

from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.scorers.anls import anls
from xgenmm_jax.evaluation.tasks import questions
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

FILE = "val_v1.0_withQT.json"
IMAGES = "spdocvqa_images"
_RELEASES = ((f"spdocvqa_qas/{FILE}", IMAGES), (FILE, IMAGES), ("val/val_v1.0.json", "val/documents"))
"""The authors' questions and the folder of pages, as their server has them and, last, as it had them until 2023.

docs/reference/evaluation.md#docvqa.
"""


def _of_doc(doc: Doc) -> Example:
    page = [str(doc.fields.get(name, "")) for name in ("ucsf_document_id", "ucsf_document_page_no", "docId")]
    fields = {"image": "/".join(page)} if any(page) else {}
    return Example(
        doc.index, doc.images["image"], doc.fields["question"], tuple(doc.fields["answers"]), fields=fields
    )


def _original(folder: Path, file: str, images_folder: str) -> Iterator[Example]:
    path = folder / file
    for row in originals.rows_in(path, "data"):
        index, image, question = originals.texts(row, ("questionId", "image", "question"), path)
        name = Path(image).name
        images, unreadable = originals.image_below(folder / images_folder, name)
        answers = questions.some(originals.text_list(row, "answers", path), index, path)
        yield Example(index, images, question, answers, fields={"image": name}, unreadable=unreadable)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    return Scored(anls(answer, example.answers))


DOCVQA = Benchmark(
    name="docvqa",
    title="DocVQA",
    source="rrc.cvc.uab.es/?ch=17 and opencompass.openxlab.space/utils/VLMEval/DocVQA_VAL.tsv",
    published=(
        Tsv("DocVQA_VAL", questions.example_of_row),
        Parquet("lmms-lab-encoder/DocVQA", "DocVQA/validation-*.parquet", _of_doc, ("question", "answers")),
        *(Original(needs, functools.partial(_original, file=needs[0], images_folder=needs[1])) for needs in _RELEASES),
    ),
    message=questions.briefly,
    score=_score,
    summarize=questions.summary("anls"),
    headline={"paper": "Overall", "lmms": "anls"},
    answering=lmms_answering(32),
    profiles=(*VLMEVALKIT, "lmms"),
)
