"""`xgenmm curate noised RUN SRC DST`: preference pairs with a run's own answers about noised images."""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass, field
import hashlib
from pathlib import Path
from typing import Any

import tyro

from xgenmm_jax import files
from xgenmm_jax.cli.curate_options import CurateOptions, run, source_of, split_beam_options
from xgenmm_jax.cli.data_sources import is_python, parse_with_reader
from xgenmm_jax.cli.options import LocalRunPath
from xgenmm_jax.curation.noised import AnswerQuestions, NoisedPairs
from xgenmm_jax.generation.text.decoding import Decoding

WEIGHTS = (".safetensors", ".npz", ".json")


@dataclass(frozen=True)
class Arguments(CurateOptions):
    """Asks a run the questions of a source about their images with noise on them, and keeps the answers as worse ones.

    The source's own answers are the better ones. What is written is read by the reader `preferences`:
    Parquet(FILES), Preferences(image=("image",), image_name="").
    """

    run: tyro.conf.Positional[LocalRunPath]
    """A folder that `xgenmm train` wrote, or a released xGen-MM v1.5 folder."""
    source: tyro.conf.Positional[str]
    """As for `xgenmm data`: KIND:PATTERN with --reader (of conversations or preferences), or FILE.py:NAME."""
    folder: tyro.conf.Positional[str]
    """DST, a new folder, on a disk that all workers share."""
    noise_step: int = field(default=NoisedPairs.step, kw_only=True)
    """Of 1000 steps of diffusion: at 500 shapes are still there, at 999 hardly any."""
    noise_seed: int = field(default=NoisedPairs.seed, kw_only=True)
    """Of the noise; an image has the same noise each time."""
    max_new_tokens: int = field(default=256, kw_only=True)
    """The longest answer, in tokens."""
    batch: int = field(default=NoisedPairs.batch, kw_only=True)
    """Questions that are answered together."""
    processes: int = field(default=1, kw_only=True)
    """As for the other commands; each process loads the run."""


@dataclass(frozen=True)
class RunAnswers:
    """A run's greedy answers. run: its folder. max_new_tokens: of an answer."""

    run: str
    max_new_tokens: int

    def check(self) -> None:
        """Raises ValueError where there is nothing to load, or the length means nothing."""
        Decoding(max_new_tokens=self.max_new_tokens)
        if not Path(self.run).is_dir():
            raise ValueError(f"run folder: no folder '{self.run}'; give that of a run or of released weights.")

    def described(self) -> dict[str, Any]:
        """By its files: names and sizes of weights and checkpoints, and the bytes of its configs."""
        digest = hashlib.sha256()
        for name, size in sorted(files.tree(Path(self.run)).items()):
            if name.endswith(WEIGHTS) or "checkpoints/" in name:
                digest.update(f"{name} {size}\n".encode())
            if name == "config.json":
                digest.update((Path(self.run) / name).read_bytes())
        return {
            "run": Path(self.run).resolve().name,
            "files of the run": digest.hexdigest()[:16],
            "max_new_tokens": self.max_new_tokens,
        }

    def open(self) -> AnswerQuestions:
        from xgenmm_jax import api

        lmm = api.load(self.run, official_images=True)
        generator, decoding = lmm.generator(), Decoding(max_new_tokens=self.max_new_tokens)

        def answers(asked) -> list[str]:
            prompts = [lmm.prompt(question, [image]) for question, image in asked]
            return generator.generate(prompts, decoding)

        return answers


def main(argv: Sequence[str]) -> int:
    """Prints what was made; gives the exit code."""
    rest, beam_options = split_beam_options(argv)
    arguments, reader = parse_with_reader(Arguments, rest, "xgenmm curate noised")
    if reader is None and not is_python(arguments.source) and not arguments.source.startswith("records:"):
        raise ValueError("--reader: name what reads questions and answers, as --reader llava or --reader preferences.")
    answering = RunAnswers(str(arguments.run), arguments.max_new_tokens)
    maker = NoisedPairs(answering, arguments.noise_step, arguments.noise_seed, arguments.batch)
    options = dataclasses.replace(arguments, faces="none") if arguments.faces == "source" else arguments
    return run(maker, source_of(arguments.source, arguments, reader), arguments.folder, options, beam_options, argv)
