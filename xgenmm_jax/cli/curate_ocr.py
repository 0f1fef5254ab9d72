"""`xgenmm curate ocr SRC DST` and `xgenmm curate ocr-hd SRC DST`: the text in images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import tyro

from xgenmm_jax.cli.curate_options import CurateOptions, run, source_of, split_beam_options
from xgenmm_jax.cli.data_sources import parse_with_reader
from xgenmm_jax.curation.ocr import HD_ABOVE_PX, OcrRows
from xgenmm_jax.curation.text_engines import RapidOcr, Tesseract, TextEngine

HD_MOST_PX = 4096
"""Longest side of images of ocr-hd by default: at 16 million pixels RapidOCR takes 2.7 GiB."""


@dataclass(frozen=True)
class Arguments(CurateOptions):
    """Reads the text in images and writes it in the schema of BLIP3-OCR-200M: twelve captions an image, metadata.

    SOURCE is KIND:PATTERN (KIND: tars, parquet, json, folder, records, tfds) or FILE.py:NAME, as for `xgenmm data`;
    without --reader each record's image is taken, and its alt text where it has one. Each shard of the source becomes
    a file of DST. A killed command goes on where it was.
    """

    source: tyro.conf.Positional[str]
    """Such as 'tars:data/{0000..0999}.tar' or 'folder:images/**/*.jpg'."""
    folder: tyro.conf.Positional[str]
    """DST, a new folder, on a disk that all workers share."""
    engine: Literal["rapidocr", "tesseract"] = field(default="rapidocr", kw_only=True)
    """What reads: PaddleOCR's models in a package, or the program of that name."""
    tesseract_languages: str = field(default="eng", kw_only=True)
    """tesseract: as its option -l, eng+deu."""
    least_confidence: float = field(default=0.5, kw_only=True)
    """Lines below it are left out."""
    least_lines: int = field(default=1, kw_only=True)
    """Images with fewer lines are left out."""
    no_languages: tyro.conf.FlagCreatePairsOff[bool] = field(default=False, kw_only=True)
    """Do not say which language the text is in."""


@dataclass(frozen=True)
class HdArguments(Arguments):
    """Reads the text in images whose both sides exceed 512 px, at full size; else as `xgenmm curate ocr`.

    Rows have `width` and `height` too.
    """

    longest_px: int = field(default=HD_MOST_PX, kw_only=True)
    """Images with a longer side are left out: the engine's memory grows with the pixels."""


def main(argv: Sequence[str]) -> int:
    """Prints what was made; gives the exit code."""
    rest, beam_options = split_beam_options(argv)
    arguments, reader = parse_with_reader(Arguments, rest, "xgenmm curate ocr")
    maker = _maker(arguments, "ocr", _engine(arguments), 0, 0)
    return run(maker, source_of(arguments.source, arguments, reader), arguments.folder, arguments, beam_options, argv)


def main_hd(argv: Sequence[str]) -> int:
    """Prints what was made; gives the exit code."""
    rest, beam_options = split_beam_options(argv)
    arguments, reader = parse_with_reader(HdArguments, rest, "xgenmm curate ocr-hd")
    if arguments.longest_px <= HD_ABOVE_PX:
        raise ValueError(f"--longest-px: got {arguments.longest_px}; give more than {HD_ABOVE_PX}.")
    maker = _maker(arguments, "ocr-hd", _engine(arguments, arguments.longest_px), HD_ABOVE_PX, arguments.longest_px)
    return run(maker, source_of(arguments.source, arguments, reader), arguments.folder, arguments, beam_options, argv)


def _engine(arguments: Arguments, longest_px: int = RapidOcr.longest_px) -> TextEngine:
    return RapidOcr(longest_px) if arguments.engine == "rapidocr" else Tesseract(arguments.tesseract_languages)


def _maker(
    arguments: Arguments, command: Literal["ocr", "ocr-hd"], engine: TextEngine, above_px: int, most_px: int
) -> OcrRows:
    languages = not arguments.no_languages
    return OcrRows(
        engine, command, arguments.least_confidence, arguments.least_lines, languages, above_px, most_px
    )
