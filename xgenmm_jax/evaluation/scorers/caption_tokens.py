"""Which program cuts captions into tokens: our own lexer, or the Java one that COCO's tools run.

Ours needs no Java and gives the same tokens but for rare oddities (`ptb`); for a number in print Java can be asked:
XGENMM_PTB_JAR names stanford-corenlp-3.4.1.jar, which the package pycocoevalcap 1.2 contains.
"""

from collections.abc import Callable, Sequence
import os
from pathlib import Path
import subprocess
import tempfile
from typing import NamedTuple

from xgenmm_jax.evaluation.scorers import ptb

JAR_VARIABLE = "XGENMM_PTB_JAR"
TIMEOUT_S = 600

TokenizeAll = Callable[[Sequence[str]], list[list[str]]]
"""Captions -> the tokens of each, without punctuation."""


class CaptionTokenizer(NamedTuple):
    """name: for the report of a score that was made with it."""

    name: str
    tokenize_all: TokenizeAll


def chosen() -> CaptionTokenizer:
    """Java's where XGENMM_PTB_JAR names its jar, else ours. Raises ValueError where there is no such file."""
    jar = os.environ.get(JAR_VARIABLE, "")
    if not jar:
        return CaptionTokenizer("PTB tokens by ptb.py", ptb.tokenize_all)
    if not Path(jar).is_file():
        raise ValueError(f"{JAR_VARIABLE}: no file '{jar}'; give stanford-corenlp-3.4.1.jar, or unset it.")
    return CaptionTokenizer("PTB tokens by CoreNLP's Java", lambda captions: java_tokens(captions, Path(jar)))


def java_tokens(captions: Sequence[str], jar: Path) -> list[list[str]]:
    """What COCO's tools make of captions in this order: Java looks past a caption's end into the next.

    Other line breaks than "\\n", which shift all later captions in COCO's tools, are spaces here.

    Raises: ValueError where Java is missing, fails, or gives another number of lines than captions.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captions.txt"
        file.write_text("\n".join(ptb.one_line(caption) for caption in captions), encoding="utf-8", errors="replace")
        command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
        try:
            done = subprocess.run(
                [*command, "-preserveLines", "-lowerCase", str(file)], capture_output=True, timeout=TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"{JAR_VARIABLE}: java does not run ({error}); install it, or unset the name.") from error
    lines = done.stdout.decode("utf-8", "replace").split("\n")[: len(captions)]
    if done.returncode or len(lines) != len(captions):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise ValueError(
            f"{JAR_VARIABLE}: Java gave {len(lines)} of {len(captions)} captions and code {done.returncode} "
            f"({' '.join(said)}); give the jar of pycocoevalcap 1.2, or unset it."
        )
    return [ptb.without_punctuation(line.split(" ")) for line in lines]
