"""MM-Vet: what a row counts for, and a score without its judge that is not comparable with published ones.

Source: VLMEvalKit vlmeval/dataset/utils/mmvet.py. docs/reference/evaluation.md, MM-Vet.
"""

import re

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


def combination_of(category: str) -> str:
    """The row's line in the table of combinations, whose order is the published one: "math,ocr" gives "math_ocr"."""
    return category.replace(",", "_")


def times_counted(line: str, category: str) -> int:
    """How often a row counts in a line of VLMEvalKit's tables: a capability's or a combination's.

    A row of one capability alone counts twice in its line, as both have one counter there: `times_counted("rec",
    "rec")` is 2, so that "rec" is no plain mean over its rows.
    """
    return (line in CAPABILITIES and line in category) + (line == combination_of(category))


def mmvet_rule(answer: str, gold: str) -> float:
    """A score in [0, 1] without a judge, our own: the share of the gold answer's elements that the answer contains.

    gold: elements between <AND>; of alternatives between <OR> the best one counts. An element is contained where its
    words stand in the answer, whatever their case and the white space between them: "5" is not in "15".
    """
    said = _words(answer)
    return max(_share(alternative, said) for alternative in gold.split("<OR>"))


def _share(alternative: str, said: str) -> float:
    elements = [element for part in alternative.split("<AND>") if (element := _words(part))]
    if not elements:
        return 0.0
    return sum(re.search(rf"(?<!\w){re.escape(element)}(?!\w)", said) is not None for element in elements) / len(
        elements
    )


def _words(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
