"""MMStar: 1,500 multiple-choice questions that cannot be answered without their picture (Chen et al. 2024).

VLMEvalKit prints the mean over all questions. lmms-eval prints the mean over the 18 second-level categories' means, and
each core category likewise: another number, unless all categories are equally large.
"""

from collections.abc import Sequence

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published.files import Doc, Parquet, Tsv
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.lmms_choices import extract_letter
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

_LETTERS = "ABCD"


def _of_doc(doc: Doc) -> Example:
    """The hub's question holds its options: "What is written?\\nOptions: A: EXIT, B: STOP"."""
    fields = {"category": doc.fields["category"], "l2-category": doc.fields["l2_category"]}
    return Example(doc.index, doc.images["image"], doc.fields["question"], (doc.fields["answer"],), fields=fields)


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        question = example.question.strip().replace(" Please answer yes or no.", "")
        text = f"{question}\nAnswer with the option's letter from the given choices directly"
        return multiple_choice.images_first(example, text)
    return multiple_choice.images_first(example, multiple_choice.question_text(example))


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    if profile == "lmms":
        letter = extract_letter(answer, _LETTERS)
        return Scored(float(letter == multiple_choice.first_answer(example).strip().upper()), letter)
    return multiple_choice.score_choice(answer, example, profile)


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    if profile != "lmms":
        return multiple_choice.accuracy_table(predictions)
    by_core: dict[str, dict[str, list[Prediction]]] = {}
    for prediction in predictions:
        fields = prediction.example.fields
        by_core.setdefault(fields["category"], {}).setdefault(fields["l2-category"], []).append(prediction)
    means = {
        core: [multiple_choice.accuracy(of_l2) for of_l2 in by_l2.values()] for core, by_l2 in sorted(by_core.items())
    }
    table = {core: estimates.average(of_core) for core, of_core in means.items()}
    return {"average": estimates.average([mean for of_core in means.values() for mean in of_core]), **table}


MMSTAR = Benchmark(
    name="mmstar",
    title="MMStar",
    source="huggingface.co/datasets/Lin-Chen/MMStar and opencompass.openxlab.space/utils/VLMEval/MMStar.tsv",
    published=(
        Tsv("MMStar", multiple_choice.example_of_row),
        Parquet("Lin-Chen/MMStar", "mmstar.parquet", _of_doc, ("question", "answer", "category", "l2_category")),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_letter(),
    headline={"paper": "Overall", "lmms": "average"},
    answering=lmms_answering(),
    profiles=(*VLMEVALKIT, "lmms"),
)
