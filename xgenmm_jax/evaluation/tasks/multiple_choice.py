"""What multiple-choice benchmarks share: VLMEvalKit's prompt, score and table."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
import functools

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.choices import infer_choice
from xgenmm_jax.evaluation.scorers.estimates import Term
from xgenmm_jax.evaluation.tasks.benchmark import Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

GroupOf = Callable[[Prediction], Hashable]

LETTER_DIRECTLY = "Answer with the option's letter from the given choices directly."
"""The request to choose of LLaVA, which lmms-eval and the multi-image benchmarks took over."""

ABBREVIATIONS = {
    "coarse_perception": "CP", "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C", "logic_reasoning": "LR", "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}  # fmt: skip
"""MMBench's second-level categories, as VLMEvalKit's tables call them."""


def example_of_row(row: Row) -> Example:
    """A row of VLMEvalKit's multiple-choice tables; `fields` has the columns that are neither question nor option."""
    known = {"question", "answer", "image_path"}
    fields = {name: text for name, text in row.cells.items() if name not in known and name not in row.options()}
    answer = row.cells.get("answer")
    return Example(
        row.index,
        row.images,
        row.cells.get("question", ""),
        () if answer is None else (answer,),
        options=row.options(),
        fields=fields,
    )


def example_of_split(split: str) -> Callable[[Row], Example]:
    """`example_of_row` for a table that is all of one split where it does not say so."""
    return functools.partial(_of_split, split)


def _of_split(split: str, row: Row) -> Example:
    example = example_of_row(row)
    return replace(example, fields={"split": split, **example.fields})


def question_text(example: Example) -> str:
    """VLMEvalKit's prompt: hint, question, options and the request to choose."""
    hint = example.fields.get("hint")
    text = "" if hint is None else f"Hint: {hint}\n"
    text += f"Question: {example.question}\n"
    if example.options:
        text += "Options:\n" + "".join(f"{letter}. {option}\n" for letter, option in example.options.items())
        text += "Please select the correct answer from the options above. \n"
    return text


def images_first(example: Example, text: str) -> Message:
    """All images, then one text."""
    return (*range(len(example.images)), text)


def score_choice(answer: str, example: Example, profile: Profile) -> Scored:
    """Whether VLMEvalKit's rules without a judge read the right letter."""
    letter = infer_choice(answer, example.options, profile)
    return Scored(float(letter is not None and letter == first_answer(example)), letter)


def first_answer(example: Example) -> str:
    """The usual reference answer, "" where the published row has none."""
    return example.answers[0] if example.answers else ""


def accuracy_table(predictions: Sequence[Prediction], group: GroupOf = lambda p: p.example.id) -> Estimates:
    """VLMEvalKit's table, in percent: overall, then by second-level category and by category.

    Where the benchmark has splits, each name begins with its split: "dev/Overall", "dev/CP". group: examples that are
    not independent, by default none.
    """
    splits = sorted({prediction.example.fields.get("split", "") for prediction in predictions})
    table: Estimates = {}
    for split in splits:
        there = [prediction for prediction in predictions if prediction.example.fields.get("split", "") == split]
        prefix = f"{split}/" if split else ""
        table[f"{prefix}Overall"] = accuracy(there, group)
        for column in ("l2-category", "category"):
            for name in sorted({value for p in there if (value := p.example.fields.get(column)) is not None}):
                of_name = [prediction for prediction in there if prediction.example.fields.get(column) == name]
                table[prefix + ABBREVIATIONS.get(name, name)] = accuracy(of_name, group)
    return table


def accuracy(predictions: Sequence[Prediction], group: GroupOf = lambda p: p.example.id) -> estimates.Estimate:
    """The mean score in percent, with its standard error over groups and the number of unparsed answers."""
    return estimates.ratio(
        Term(group(prediction), prediction.score, 1.0, prediction.extracted is None) for prediction in predictions
    )


def summary(*lmms_names: str) -> Callable[[Sequence[Prediction], Profile], Estimates]:
    """VLMEvalKit's table, or lmms-eval's one accuracy under its names; errors over questions about the same images."""

    def summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
        if profile != "lmms":
            return accuracy_table(predictions, same_images)
        return dict.fromkeys(lmms_names, accuracy(predictions, same_images))

    return summarize


def same_images(prediction: Prediction) -> Hashable:
    """A group of examples about the same images: those of equal "image", which answers in a file keep too."""
    example = prediction.example
    return example.fields.get("image") or tuple(map(id, example.images)) or example.id


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Options in order by letter: A, B, ..."""
    return {chr(ord("A") + number): option for number, option in enumerate(options)}


def option_lines(example: Example) -> str:
    """A line for each: "A. red", "B. blue"."""
    return "\n".join(f"{letter}. {option}" for letter, option in example.options.items())


def choose_vlmevalkit(example: Example, profile: Profile) -> Message:
    """VLMEvalKit's message of most sets: images, then question and options."""
    return images_first(example, question_text(example))
