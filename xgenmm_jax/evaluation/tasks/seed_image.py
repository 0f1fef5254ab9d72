"""SEED-IMG: the questions of SEED-Bench about single images, in nine dimensions (Li et al. 2023).

VLMEvalKit reads a letter; lmms-eval compares the first character of the answer, so "The answer is B" is wrong there.
The authors rank the options by likelihood, which is not done here.
"""

from collections.abc import Iterator
from pathlib import Path

from xgenmm_jax import files
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.scorers.lmms_choices import first_letter
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

PROFILES: tuple[Profile, ...] = (*VLMEVALKIT, "lmms")
_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")


def _of_doc(doc: Doc) -> Example | None:
    """A row of the hub's set; those about videos are left out."""
    if doc.fields["data_type"] != "image":
        return None
    fields = {"category": f"type {doc.fields['question_type_id']}"} if "question_type_id" in doc.fields else {}
    options = multiple_choice.lettered([doc.fields[name] for name in _CHOICES])
    return Example(
        doc.index,
        doc.images["image"],
        doc.fields["question"],
        (doc.fields["answer"],),
        options=options,
        fields=fields,
    )


def _of_json(folder: Path) -> Iterator[Example | None]:
    """SEED-Bench.json, with its images in SEED-Bench-image by `data_id`; None for a question about a video."""
    path = folder / "SEED-Bench.json"
    whole = files.read_json(path)
    if not isinstance(whole, dict) or not isinstance(whole.get("questions"), list):
        raise ValueError(f"benchmark: '{path}' has no list of questions; copy it again.")
    kinds = whole.get("question_type")
    names = {number: name for name, number in kinds.items()} if isinstance(kinds, dict) else {}
    for row in originals.rows_of(whole["questions"], path):
        if row.get("data_type") != "image":
            yield None
            continue
        columns = ("question", "answer", "question_id", "data_id", "question_type_id", *_CHOICES)
        question, answer, identity, data, kind, *choices = originals.texts(row, columns, path)
        images, unreadable = originals.image_below(folder / "SEED-Bench-image", data)
        yield Example(
            identity,
            images,
            question,
            (answer,),
            options=multiple_choice.lettered(choices),
            fields={"category": names.get(row["question_type_id"], f"type {kind}")},
            unreadable=unreadable,
        )


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        text = f"{example.question}\n{multiple_choice.option_lines(example)}\n{multiple_choice.LETTER_DIRECTLY}"
        return multiple_choice.images_first(example, text)
    return multiple_choice.choose_vlmevalkit(example, profile)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    if profile == "lmms":
        letter = first_letter(answer)
        return Scored(
            float(letter is not None and letter == multiple_choice.first_answer(example).strip().upper()), letter
        )
    return multiple_choice.score_choice(answer, example, profile)


SEED_IMAGE = Benchmark(
    name="seed_image",
    title="SEED-IMG",
    source="huggingface.co/datasets/AILab-CVC/SEED-Bench, opencompass.openxlab.space/utils/VLMEval/SEEDBench_IMG.tsv",
    published=(
        Tsv("SEEDBench_IMG", multiple_choice.example_of_row),
        Parquet(
            "lmms-lab/SEED-Bench",
            "data/test-*.parquet",
            _of_doc,
            ("question", "answer", "data_type", *_CHOICES),
            profiles=PROFILES,
        ),
        Original(("SEED-Bench.json", "SEED-Bench-image"), _of_json, PROFILES),
    ),
    message=_message,
    score=_score,
    summarize=multiple_choice.summary("seed_image", "seed_all"),
    judging=judging.by_letter(),
    headline={"paper": "Overall", "lmms": "seed_image"},
    answering=lmms_answering(until=("ASSISTANT:",)),
    profiles=PROFILES,
)
