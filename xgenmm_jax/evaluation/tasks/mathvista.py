"""MathVista, testmini: 1,000 mathematical problems about figures, charts and photographs (Lu et al. 2024).

Published scores come from a judge that reads an answer out of the model's text. Without one VLMEvalKit counts what its
rules cannot read as wrong, so its score here is a lower bound; "rule/..." are scores by a rule of our own, of no
toolkit. The authors' script guesses an option where nothing is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import VLMEVALKIT, Profile
from xgenmm_jax.evaluation.published import originals
from xgenmm_jax.evaluation.published.files import Doc, Original, Parquet, Tsv
from xgenmm_jax.evaluation.published.literals import literal_of
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers import estimates, mathvista
from xgenmm_jax.evaluation.scorers.mathvista import Problem
from xgenmm_jax.evaluation.tasks import multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.judging import Judging
from xgenmm_jax.evaluation.tasks.task import Scored

PROFILES: tuple[Profile, ...] = (*VLMEVALKIT, "official")
JUDGE_NOTE = "without a judge: what the rules cannot read is wrong; not comparable with published scores"
PROMPT = """\
Read the final answer to a mathematical problem out of somebody's response. The hint says which form it has. Take what
the response says, right or wrong, and compute nothing yourself. Write the answer alone: no unit, no sentence.

Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.
Question: How many of the boxes are open?
Response: Four boxes stand in front and three of these are open, so it is three.
Answer: 3

Hint: Please answer the question requiring a floating-point number with one decimal place and provide the final value, \
e.g., 1.2, 1.3, 1.4, at the end.
Question: How much heavier is the blue weight? (Unit: kg)
Response: 4.1 - 2.6 = 1.5 kg
Answer: 1.5

Hint: Please answer the question requiring a floating-point number with two decimal places and provide the final \
value, e.g., 1.23, 1.34, 1.45, at the end.
Question: What share of the circle is green?
Response: The green part is a quarter, which is about 0.25 of it.
Answer: 0.25

Hint: Please answer the question requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], \
[1.2, 1.3, 1.4], at the end.
Question: In which years did the line fall?
Response: It fell in 2011 and again in 2014.
Answer: [2011, 2014]

Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.
Question: Which bar is the shortest?
Choices:
(A) north
(B) east
(C) south
Response: The shortest of them is the one in the middle, east.
Answer: B

{question}
Response: {prediction}
Answer:"""
RULE_NOTE = "by a rule of our own, without a judge; of no toolkit"

_COLUMNS = ("question_type", "answer_type", "answer_option", "choices", "precision", "task", "skills")
_META = ("language", "source", "category", "task", "context", "grade")
_HINTS = {
    "text": "and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    "float1": "requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, "
    "1.4, at the end.",
    "float2": "requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, "
    "1.34, 1.45, at the end.",
    "list": "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], at "
    "the end.",
}


def _of_row(row: Row) -> Example:
    fields = {name: row.cells[name] for name in _COLUMNS if name in row.cells}
    if row.reading == "as_published":
        fields["unread"] = "nan"
    answer = row.cells.get("answer")
    return Example(
        row.index, row.images, row.cells.get("question", ""), () if answer is None else (answer,), fields=fields
    )


def _of_doc(doc: Doc) -> Example | None:
    """A row of the hub's set, whose "query" is asked."""
    fields = doc.fields
    if (fields.get("metadata") or {}).get("split", "testmini") != "testmini":
        return None
    return _example(fields, str(fields["pid"]), doc.images["decoded_image"], str(fields["query"]))


def _of_json(folder: Path) -> Iterator[Example]:
    """testmini.json and its images; the query is built as the authors do."""
    path = folder / "MathVista" / "testmini.json"
    whole = files.read_json(path)
    if not isinstance(whole, dict):
        raise ValueError(f"benchmark: '{path}' is no object of problems by number; copy it again.")
    for number, problem in zip(whole, originals.rows_of(whole.values(), path), strict=True):
        name, *_ = originals.texts(problem, ("image", "question", "question_type", "answer_type", "answer"), path)
        images, unreadable = originals.image_below(path.parent, name)
        example = _example(problem, number, images, query_of(problem))
        yield replace(example, unreadable=unreadable)


def _example(problem: Mapping[str, Any], number: str, images: tuple, query: str) -> Example:
    choices = [str(choice) for choice in problem.get("choices") or ()]
    answer = str(problem["answer"])
    meta = problem.get("metadata") or {}
    fields = {
        "question_type": str(problem["question_type"]),
        "answer_type": str(problem["answer_type"]),
        "choices": repr(choices),
        "skills": repr(list(meta.get("skills") or ())),
        **{name: str(meta[name]) for name in _META if name in meta},
    }
    if problem.get("precision") is not None:
        fields["precision"] = str(problem["precision"])
    if answer in choices:
        fields["answer_option"] = chr(ord("A") + choices.index(answer))
    return Example(number, images, query, (answer,), fields=fields)


def query_of(problem: Mapping[str, Any]) -> str:
    """The authors' text of a problem: hint, question with its unit, choices."""
    kind = str(problem["answer_type"])
    if kind == "float":
        kind = f"float{int(float(problem.get('precision') or 1))}"
    if kind not in _HINTS:
        raise ValueError(
            f"mathvista: got the answer type {kind!r}; wanted text, integer, float of 1 or 2 places, list."
        )
    unit = f" (Unit: {problem['unit']})" if problem.get("unit") else ""
    text = f"Hint: Please answer the question {_HINTS[kind]}\nQuestion: {problem['question']}{unit}"
    choices = multiple_choice.lettered([str(choice) for choice in problem.get("choices") or ()])
    lines = [f"\n({letter}) {choice}" for letter, choice in choices.items()]
    return (text + ("\nChoices:" + "".join(lines) if lines else "")).strip()


def _problem(example: Example) -> Problem:
    fields = example.fields
    choices = literal_of(fields.get("choices", "")) or ()
    try:
        precision = int(float(fields["precision"]))
    except (KeyError, ValueError, OverflowError):
        precision = None
    return Problem(
        fields.get("question_type", ""),
        fields.get("answer_type", ""),
        multiple_choice.first_answer(example),
        fields.get("answer_option", ""),
        tuple(map(str, choices)) if isinstance(choices, list | tuple) else (),
        precision,
    )


def _message(example: Example, profile: Profile) -> Message:
    return multiple_choice.images_first(example, example.question)


def _score(answer: str, example: Example, profile: Profile) -> Scored:
    problem = _problem(example)
    if profile == "official":
        extraction = mathvista.extract_official(answer, problem)
        return Scored(float(mathvista.normalize_official(extraction, problem) == problem.answer), extraction or None)
    read = mathvista.prefetch(answer, problem, profile)
    # The toolkit's spreadsheet turns an extraction that failed into "nan", which may stand in for an option's text.
    extraction = example.fields.get("unread", "") if read is None else read
    return Scored(float(mathvista.is_extraction_right(extraction, problem, profile)), read)


def _summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    """By task and skill; each with the share of answers that needed no judge, and the score by our own rule."""
    table: Estimates = {}
    for name, part in _parts(predictions, profile).items():
        parsed = [float(one.extracted is not None) for one in part]
        table[name] = replace(multiple_choice.accuracy(part), note=JUDGE_NOTE)
        table[f"{name}/prefetch_rate"] = estimates.mean(parsed, [one.example.id for one in part])
    readings = [_by_rule(one) for one in predictions]
    unparsed = sum(score is None for score in readings)
    rule = estimates.mean([score or 0.0 for score in readings], [one.example.id for one in predictions], unparsed)
    return table | {"rule/Overall": replace(rule, note=RULE_NOTE)}


def _read_extraction(reply: str, example: Example, profile: Profile) -> Scored | None:
    """The first reply that is not blank, as both toolkits take it; one that is in no form is wrong, and unparsed."""
    extraction, problem = reply.strip(), _problem(example)
    if not extraction:
        return None
    if profile == "official":
        form = mathvista.normalize_official(extraction, problem)
        return Scored(float(form == problem.answer), None if form is None else extraction)
    is_right = mathvista.is_extraction_right(extraction, problem, profile)
    return Scored(float(is_right), extraction if mathvista.has_form(extraction, problem, profile) else None)


def _summarize_judged(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
    return {name: multiple_choice.accuracy(part) for name, part in _parts(predictions, profile).items()}


def _by_rule(prediction: Prediction) -> float | None:
    problem = _problem(prediction.example)
    reading = mathvista.read_by_rule(prediction.text, problem, "latest")
    return None if reading is None else float(mathvista.is_reading_right(reading, problem))


def _parts(predictions: Sequence[Prediction], profile: Profile) -> dict[str, list[Prediction]]:
    """Predictions by line of the table: "Overall" and VLMEvalKit's names, or the authors' "task/geometry ..."."""
    parts: dict[str, list[Prediction]] = {"Overall" if profile != "official" else "average": list(predictions)}
    names = ("task",) if profile != "official" else ("question_type", "answer_type", *_META)
    for prediction in predictions:
        fields = prediction.example.fields
        lines = [(name, fields[name]) for name in names if name in fields]
        skills = literal_of(fields.get("skills", ""))
        lines += [("skills", str(one)) for one in (skills if isinstance(skills, list) else [fields.get("skills", "")])]
        for name, value in lines:
            parts.setdefault(f"{name}/{value}" if profile == "official" else value, []).append(prediction)
    return parts


MATHVISTA = Benchmark(
    name="mathvista",
    title="MathVista",
    source="huggingface.co/datasets/AI4Math/MathVista, opencompass.openxlab.space/utils/VLMEval/MathVista_MINI.tsv",
    published=(
        Tsv("MathVista_MINI", _of_row, ("question", "answer", "question_type", "answer_type", "choices")),
        Parquet(
            "AI4Math/MathVista",
            "data/testmini-*.parquet",
            _of_doc,
            ("pid", "query", "answer", "question_type", "answer_type", "choices", "precision", "metadata"),
            ("decoded_image",),
            profiles=PROFILES,
        ),
        Original(("MathVista/testmini.json", "MathVista/images"), _of_json, PROFILES),
    ),
    message=_message,
    score=_score,
    summarize=_summarize,
    headline={"paper": "Overall", "official": "average"},
    profiles=PROFILES,
    judging=Judging(
        PROMPT, (0.0, 0.5, 1.0, 1.5, 2.0), _read_extraction, summarize=_summarize_judged, profiles=PROFILES
    ),
)
