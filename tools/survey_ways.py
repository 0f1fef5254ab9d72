"""Ways that a reader follows through the code, of which `tools/survey.py` counts jumps and files."""

import ast
from pathlib import Path
import re

from tools.citations import PACKAGE

_TRAINING, _DATA = f"{PACKAGE}/training", f"{PACKAGE}/data"
_OBJECTIVES = f"{_TRAINING}/objectives"
_LOG_PROBS = (
    f"{_OBJECTIVES}/packed_rows.py:batch_log_probs",
    f"{_OBJECTIVES}/packed_rows.py:_log_probs",
    f"{_OBJECTIVES}/losses.py:token_log_probs",
)
_ROWS = (
    f"{_DATA}/records.py:Caption",
    f"{_DATA}/text/chat.py:sample",
    f"{_DATA}/rows/loading.py:fitted_sample",
    f"{_DATA}/rows/loading.py:RowBuilder",
    f"{_DATA}/rows/loader.py:_Builders",
    f"{_DATA}/rows/loader.py:batches",
    f"{_OBJECTIVES}/packed_rows.py:PackedRows",
)
_STEP = (f"{_TRAINING}/setup.py:assemble", f"{_TRAINING}/step.py:make_step", f"{_TRAINING}/step.py:gradient")
WAYS = {
    "from experiments/stage1.py to the loss": (
        "experiments/stage1.py:config",
        f"{_OBJECTIVES}/next_token.py:NextToken",
        *_LOG_PROBS,
    ),
    "from the loop to the loss": (
        f"{_TRAINING}/loop.py:train",
        f"{_TRAINING}/loop.py:_train",
        *_STEP,
        f"{_OBJECTIVES}/next_token.py:NextToken.loss",
        *_LOG_PROBS,
    ),
    "from a record to the loss": (*_ROWS, f"{_OBJECTIVES}/next_token.py:NextToken", *_LOG_PROBS),
    "from a record to the loss, through loop and step": (
        *_ROWS,
        f"{_OBJECTIVES}/packed_rows.py:PackedRows.batches",
        f"{_TRAINING}/loop.py:_open",
        f"{_TRAINING}/loop.py:_train",
        *_STEP,
        f"{_OBJECTIVES}/next_token.py:NextToken.loss",
        *_LOG_PROBS,
    ),
}
"""What a reader follows: definitions "file:name"; of two neighbours one mentions the other, or the class that it is
a method of. The way of a record exists twice, as the objective alone makes batches and takes them."""

_OLD = f"{_TRAINING}/next_token.py"
_OLD_LOG_PROBS = (
    f"{_OLD}:_loss",
    f"{_OLD}:batch_log_probs",
    f"{_OLD}:_log_probs",
    f"{_TRAINING}/losses.py:token_log_probs",
)
_OLD_ROWS = (
    f"{_DATA}/records.py:Caption",
    f"{_DATA}/chat.py:sample",
    f"{_DATA}/pipeline.py:_sample",
    f"{_DATA}/pipeline.py:plan",
    f"{_DATA}/pipeline.py:_BatchSource",
    f"{_DATA}/packing.py:build_rows",
    f"{_DATA}/pipeline.py:_BatchSource",
    f"{_DATA}/pipeline.py:batches",
    f"{_OLD}:row_batches",
    f"{_OLD}:NextToken.objective",
)
_OLD_STEP = (
    f"{_TRAINING}/step.py:make_step",
    f"{_TRAINING}/step.py:gradient",
    f"{_TRAINING}/objective.py:Objective",  # a Callable field: who fills it?
    f"{_TRAINING}/config.py:TrainConfig.objective",
    f"{_TRAINING}/config.py:Loss",  # a Protocol: who has its method?
    f"{_OLD}:NextToken",
    f"{_OLD}:NextToken.objective",
)
WAYS_D833A01 = {
    "from experiments/stage1.py to the loss": (
        "experiments/stage1.py:config",
        f"{_OLD}:NextToken",
        f"{_OLD}:NextToken.objective",
        *_OLD_LOG_PROBS,
    ),
    "from the loop to the loss": (
        f"{_TRAINING}/loop.py:train",
        f"{_TRAINING}/loop.py:_train",
        *_OLD_STEP,
        *_OLD_LOG_PROBS,
    ),
    "from a record to the loss": (*_OLD_ROWS, *_OLD_LOG_PROBS),
    "from a record to the loss, through loop and step": (
        *_OLD_ROWS,
        f"{_TRAINING}/objective.py:Objective",
        f"{_TRAINING}/loop.py:_open",
        f"{_TRAINING}/loop.py:_train",
        *_OLD_STEP,
        *_OLD_LOG_PROBS,
    ),
}
"""The same at commit d833a01, where an objective was a dataclass of closures."""


def ways_of(root: Path) -> dict[str, tuple[str, ...]]:
    """The ways of a checkout, by the files that it has."""
    if not (root / _OBJECTIVES).is_dir():
        return WAYS_D833A01
    return WAYS


def walk(root: Path, steps: tuple[str, ...]) -> tuple[int, int]:
    """Jumps and files of a way. Raises ValueError where one is gone, or neighbours are not related."""
    for step in steps:
        definition(root, step)
    for here, there in zip(steps, steps[1:], strict=False):
        is_method = here.startswith(f"{there}.") or there.startswith(f"{here}.")
        if not (is_method or _mentions(root, here, there) or _mentions(root, there, here)):
            raise ValueError(f"survey: neither of {here} and {there} mentions the other; mend WAYS.")
    return len(steps) - 1, len({step.split(":")[0] for step in steps})


def _mentions(root: Path, here: str, there: str) -> bool:
    name = there.split(":")[1].split(".")[-1]
    body = definition(root, here).removeprefix("def ").removeprefix("class ")
    return re.search(rf"\b{re.escape(name)}\b", body) is not None


def definition(root: Path, step: str) -> str:
    """The source of "file:Class.method". Raises ValueError where there is none."""
    file, name = step.split(":")
    path = root / file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        inner = [child for child in ast.walk(node) if getattr(child, "name", None) == part]
        if not inner:
            raise ValueError(f"survey: {file} defines no {name}; mend WAYS.")
        node = inner[0]
    return ast.get_source_segment(text, node) or ""
