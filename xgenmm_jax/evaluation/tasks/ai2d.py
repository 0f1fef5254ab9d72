"""AI2D, test: multiple-choice questions about diagrams of school books (Kembhavi et al. 2016).

lmms-eval compares the whole answer but for case and punctuation, unless it begins with a letter and a period.
"""


from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published.files import Doc, Parquet, Tsv
from xgenmm_jax.evaluation.scorers.lmms_choices import unmarked_letter
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

PROFILES: tuple[Profile, ...] = (*VLMEVALKIT, "lmms")


def _of_doc(doc: Doc) -> Example:
    """The hub's answer is the option's number, from 0."""
    options = multiple_choice.lettered(doc.fields["options"])
    number, letters = str(doc.fields["answer"]), list(options)
    if not number.isdecimal() or int(number) >= len(letters):
        raise ValueError(f"ai2d: got the answer {number!r} of row {doc.index}; wanted 0 to {len(letters) - 1}.")
    return Example(doc.index, doc.images["image"], doc.fields["question"], (letters[int(number)],), options=options)


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        text = f"{example.question}\n{multiple_choice.option_lines(example)}\n{multiple_choice.LETTER_DIRECTLY}"
        return multiple_choice.images_first(example, text)
    return multiple_choice.choose_vlmevalkit(example, profile)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    if profile != "lmms":
        return multiple_choice.score_choice(answer, example, profile)
    letter = unmarked_letter(answer).upper()
    is_right = unmarked_letter(answer) == multiple_choice.first_answer(example).lower()
    return Scored(float(is_right), letter if letter in example.options else None)


AI2D = Benchmark(
    name="ai2d",
    title="AI2D",
    source="huggingface.co/datasets/lmms-lab/ai2d, opencompass.openxlab.space/utils/VLMEval/AI2D_TEST.tsv",
    published=(
        Tsv("AI2D_TEST", multiple_choice.example_of_row),
        Parquet(
            "lmms-lab/ai2d",
            "data/test-*.parquet",
            _of_doc,
            ("question", "options", "answer"),
            profiles=PROFILES,
        ),
    ),
    message=_message,
    score=_score,
    summarize=multiple_choice.summary("exact_match"),
    judging=judging.by_letter(),
    headline={"paper": "Overall", "lmms": "exact_match"},
    answering=lmms_answering(16),
    profiles=PROFILES,
)
