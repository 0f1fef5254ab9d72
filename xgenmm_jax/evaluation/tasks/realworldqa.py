"""RealWorldQA: 765 questions about what a camera saw, many from vehicles (xAI 2024).

The authors' rows hold their options and the request to choose in the question, and some ask for a word or a number.
VLMEvalKit's table has options in columns, and a row without options can never be right there.
"""


from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published.files import Doc, Parquet, Tsv
from xgenmm_jax.evaluation.scorers.lmms_choices import extract_letter
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored


def _of_doc(doc: Doc) -> Example:
    return Example(doc.index, doc.images["image"], doc.fields["question"], (doc.fields["answer"],))


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        return multiple_choice.images_first(example, example.question.strip())
    return multiple_choice.choose_vlmevalkit(example, profile)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    if profile != "lmms":
        return multiple_choice.score_choice(answer, example, profile)
    gold = multiple_choice.first_answer(example).strip()
    if gold.upper() in tuple("ABCD"):
        letter = extract_letter(answer)
        return Scored(float(letter == gold.upper()), letter)
    text = answer.lower().strip().rstrip(".")
    return Scored(float(text == gold.lower()), text or None)


REALWORLDQA = Benchmark(
    name="realworldqa",
    title="RealWorldQA",
    source="huggingface.co/datasets/xai-org/RealworldQA, opencompass.openxlab.space/utils/VLMEval/RealWorldQA.tsv",
    published=(
        Tsv("RealWorldQA", multiple_choice.example_of_row),
        Parquet("lmms-lab/RealWorldQA", "data/test-*.parquet", _of_doc, profiles=("lmms",)),
        Parquet("xai-org/RealworldQA", "data/test-*.parquet", _of_doc, profiles=("lmms",)),
    ),
    message=_message,
    score=_score,
    summarize=multiple_choice.summary("exact_match"),
    judging=judging.by_letter(),
    headline={"paper": "Overall", "lmms": "exact_match"},
    answering=lmms_answering(16),
    profiles=(*VLMEVALKIT, "lmms"),
)
