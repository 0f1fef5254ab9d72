"""MMMU, validation: 900 questions of college courses, some open, with images inside of question and options (Yue 2024).

Three ways of asking and scoring, which differ by points: VLMEvalKit turns an open question into one of two options when
it scores; the authors and lmms-eval parse choices and open answers by rules, and lmms-eval loses parts of the text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
import math
import re

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published.files import Doc, Parquet, Tsv
from xgenmm_jax.evaluation.published.literals import literal_of, texts_of
from xgenmm_jax.evaluation.scorers import mmmu
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.tasks import judging, multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message, lmms_answering
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
MOST_IMAGES = 7
_COLUMNS = tuple(f"image_{number}" for number in range(1, MOST_IMAGES + 1))
_TAG = re.compile(r"<image ([1-7])>")
_OPEN, _SHORT = "open", "Answer the question using a single word or phrase."
_SUBJECT = re.compile(r"[^_]*_(.+?)_\d+")


def _of_doc(doc: Doc) -> Example | None:
    """A row of the hub's set; those of dev and test, where they are in the files, are left out."""
    identity = doc.fields["id"]
    subject = _SUBJECT.fullmatch(identity)
    if not identity.startswith("validation_") or subject is None:
        return None
    images = tuple(image for column in _COLUMNS for image in doc.images[column])
    options = texts_of(doc.fields["options"], f"mmmu: the options of {identity}")
    fields = {"category": subject[1], "split": "validation", "question_type": doc.fields["question_type"]}
    return Example(
        identity,
        images,
        doc.fields["question"],
        (doc.fields["answer"],),
        options={} if fields["question_type"] == _OPEN else multiple_choice.lettered(options),
        fields=fields,
    )


def _is_open(example: Example) -> bool:
    return example.fields.get("question_type", _OPEN if "A" not in example.options else "") == _OPEN


def _message(example: Example, profile: Profile) -> Message:
    if profile == "lmms":
        return _message_lmms(example)
    text = multiple_choice.question_text(example) if profile in VLMEVALKIT else _official_text(example)
    pieces = list(_pieces(text, len(example.images)))
    return multiple_choice.images_first(example, text) if len(pieces) == 1 else tuple(pieces)


def _pieces(text: str, images: int) -> Iterator[str | int]:
    """The text in front of the first tag, the image of the tag, the text up to the next one, ...; texts may be empty.

    A tag without an image stays text.
    """
    end = 0
    for tag in _TAG.finditer(text):
        if int(tag[1]) <= images:
            yield text[end : tag.start()]
            yield int(tag[1]) - 1
            end = tag.end()
    yield text[end:]


def _official_text(example: Example) -> str:
    """The authors' prompt for LLaVA 1.5, which is shown one image; here each image stands at its tag."""
    if _is_open(example):
        return f"{example.question}\n{_SHORT}"
    options = "".join(f"({letter}) {text}\n" for letter, text in example.options.items())
    return f"{example.question}\n{options}\n{multiple_choice.LETTER_DIRECTLY}"


def _message_lmms(example: Example) -> Message:
    """The images of the distinct tags by number; text i stands before image i, and behind all only the last text."""
    lines = f"{multiple_choice.option_lines(example)}\n\n{multiple_choice.LETTER_DIRECTLY}"
    text = f"{example.question}\n\n{_SHORT}" if _is_open(example) else f"{example.question}\n{lines}"
    shown = sorted({int(number) - 1 for number in _TAG.findall(text) if int(number) <= len(example.images)})
    # A literal "<image>" of the text cuts it as well.
    texts = [piece.strip() for piece in _TAG.sub("<image>", text).split("<image>")]
    parts: list[str | int] = []
    for number, image in enumerate(shown):
        if number < len(texts) - 1 and texts[number]:
            parts.append(texts[number])
        parts.append(image)
    return (*parts, texts[-1])


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    if profile in VLMEVALKIT:
        return multiple_choice.score_choice(answer, _closed(example), profile)
    gold = multiple_choice.first_answer(example)
    if _is_open(example):
        read = mmmu.read_open(answer)
        golds = _listed(gold) if profile == "official" else [gold]
        return Scored(float(mmmu.is_open_answer_right(read, golds)), str(read[0]).strip() or None)
    letter = mmmu.read_choice(answer, example.options, profile)
    return Scored(float(letter is not None and letter == gold), letter)


def _closed(example: Example) -> Example:
    """An open question as VLMEvalKit scores it: A is the right text, B "Other Answers".

    So is a question whose option A is lost in reading, though its answer is a letter, which then stays the right one.
    """
    if "A" in example.options:
        return example
    answer = multiple_choice.first_answer(example)
    options = {**({"A": answer} if answer else {}), **example.options, "B": "Other Answers"}
    is_letter = len(answer) == 1 and "A" <= answer <= "Z"
    return replace(example, options=dict(sorted(options.items())), answers=(answer if is_letter else "A",))


def _listed(gold: str) -> list[str]:
    """The right answers of a cell that may be a list's literal."""
    value = literal_of(gold) if gold.lstrip().startswith("[") else None
    return [str(one) for one in value] if isinstance(value, list) else [gold]


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    if profile in VLMEVALKIT:
        table = multiple_choice.accuracy_table(predictions)
        nothing = Estimate(math.nan, note="no question of the validation split was asked")
        return table if "validation/Overall" in table else {**table, "validation/Overall": nothing}
    # Only VLMEvalKit's table has the dev split, which nobody else counts.
    predictions = [p for p in predictions if p.example.fields.get("split", "validation") == "validation"]
    by_subject: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_subject.setdefault(prediction.example.fields.get("category", ""), []).append(prediction)
    table = {"mmmu_acc" if profile == "lmms" else "Overall": multiple_choice.accuracy(predictions)}
    for domain, subjects in DOMAINS.items():
        present = [subject for subject in subjects if subject in by_subject]
        of_domain = [prediction for subject in present for prediction in by_subject[subject]]
        if of_domain:
            table[f"Overall-{domain}"] = multiple_choice.accuracy(of_domain)
        table |= {subject: multiple_choice.accuracy(by_subject[subject]) for subject in present}
    return {name: rounded(score) for name, score in table.items()} if profile == "lmms" else table


def rounded(score: Estimate) -> Estimate:
    """As lmms-eval prints it: the share to 5 decimals."""
    return replace(score, value=100 * round(score.value / 100, 5))


MMMU = Benchmark(
    name="mmmu",
    title="MMMU val",
    source="huggingface.co/datasets/MMMU/MMMU and opencompass.openxlab.space/utils/VLMEval/MMMU_DEV_VAL.tsv",
    published=(
        Tsv("MMMU_DEV_VAL", multiple_choice.example_of_split("validation"), profiles=VLMEVALKIT),
        Parquet(
            "lmms-lab/MMMU",
            "data/validation-*.parquet",
            _of_doc,
            ("id", "question", "options", "answer", "question_type"),
            _COLUMNS,
            profiles=(*VLMEVALKIT, "lmms", "official"),
        ),
        Parquet(
            "MMMU/MMMU",
            "*/validation-*.parquet",
            _of_doc,
            ("id", "question", "options", "answer", "question_type"),
            _COLUMNS,
            profiles=(*VLMEVALKIT, "lmms", "official"),
            folders=30,
        ),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    judging=judging.by_letter(_closed),
    headline={"paper": "validation/Overall", "lmms": "mmmu_acc", "official": "Overall"},
    answering=lmms_answering(128),
)
