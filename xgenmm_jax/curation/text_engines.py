"""Engines that read the text in an image: RapidOCR, whose models are in its wheel, and the program tesseract."""

from collections.abc import Callable
from dataclasses import dataclass
import io
import shutil
import subprocess
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import PIL.Image

from xgenmm_jax.curation.extra import import_extra, version_of

TALL = 6
"""Height in widths beyond which an image is thin. At it RapidOCR looks at 736 x 4,416 px."""
LEAST_SIDE_PX = 48
"""Of the shorter side of a wide image as it is read; RapidOCR enlarges sides below 30 px, and rounds to 32."""

Point = tuple[float, float]


class Line(NamedTuple):
    """A line of text. quad: its corners in pixels from the top left clockwise. confidence: 0 to 1."""

    text: str
    quad: tuple[Point, Point, Point, Point]
    confidence: float


ReadText = Callable[[PIL.Image.Image], list[Line]]
"""The lines of an RGB image, in the engine's order."""


@runtime_checkable
class TextEngine(Protocol):
    """A frozen dataclass with plain options."""

    def check(self) -> None:
        """Raises ValueError that says what to install."""
        ...

    def described(self) -> dict[str, Any]:
        """Name, version and options, as JSON."""
        ...

    def open(self) -> ReadText: ...


@dataclass(frozen=True)
class RapidOcr:
    """PaddleOCR's models in ONNX, by the package rapidocr.

    longest_px: a larger image is scaled down to it before text is looked for; recognition takes its lines from there
        too. threads: of onnxruntime; one a process, so that processes do not take each other's cores. Thin images are
        scaled before they get a margin (`with_margin`), of which no box tells.
    """

    longest_px: int = 2000
    threads: int = 1

    def check(self) -> None:
        import_extra("rapidocr")
        import_extra("onnxruntime")

    def described(self) -> dict[str, Any]:
        return {
            "engine": "rapidocr",
            "version": version_of("rapidocr"),
            "onnxruntime": version_of("onnxruntime"),
            "longest_px": self.longest_px,
        }

    def open(self) -> ReadText:
        rapidocr = import_extra("rapidocr")
        read = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.max_side_len": self.longest_px,
                # What is below the maker's threshold is left out there.
                "Global.text_score": 0.0,
                "EngineConfig.onnxruntime.intra_op_num_threads": self.threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

        def lines(pixels: PIL.Image.Image) -> list[Line]:
            scaled = scaled_thin(pixels, self.longest_px)
            # The package reads arrays as OpenCV has them: blue first.
            shown = np.asarray(with_margin(scaled, self.longest_px))
            result = read(np.ascontiguousarray(shown[:, :, ::-1]))
            if result.boxes is None or result.txts is None:
                return []
            # A box ends where the margin begins.
            boxes = np.clip(np.asarray(result.boxes, np.float64), 0, scaled.size)
            boxes = (boxes * (np.asarray(pixels.size) / scaled.size)).tolist()
            entries = zip(boxes, result.txts, result.scores, strict=True)
            return [_line(str(text), quad, float(score)) for quad, text, score in entries]

        return lines


def with_margin(pixels: PIL.Image.Image, longest_px: int) -> PIL.Image.Image:
    """A thin image with its right or lower edge repeated beyond it; others as they are.

    RapidOCR enlarges the shorter side to 736 px, and before that to 30 px: an image of 3 x 900 px became one of
    736 x 220,800 px and took 17 GB. It gives wide images a margin of its own, so that their shorter side need only be
    long enough to stay one when the longer one is scaled to `longest_px`; tall ones become a sixth of their height.
    """
    right, below = _margin(pixels.size, longest_px)
    if not right and not below:
        return pixels
    return PIL.Image.fromarray(np.pad(np.asarray(pixels), ((0, below), (0, right), (0, 0)), mode="edge"))


def scaled_thin(pixels: PIL.Image.Image, longest_px: int) -> PIL.Image.Image:
    """A thin image scaled down to `longest_px`; others as they are, which RapidOCR scales itself.

    The margin is wide where the image is long: of 800 x 60,000 px it would make 10,000 x 60,000 px, 1.8 GB a copy.
    """
    longest = max(pixels.size)
    if longest <= longest_px or not any(_margin(pixels.size, longest_px)):
        return pixels
    width, height = (max(1, round(side * longest_px / longest)) for side in pixels.size)
    return pixels.resize((width, height), PIL.Image.Resampling.BILINEAR)


def _margin(size: tuple[int, int], longest_px: int) -> tuple[int, int]:
    """What an image of this width and height lacks at its right and below it, in pixels; (0, 0): it is not thin."""
    width, height = size
    return max(0, -(-height // TALL) - width), max(0, -(-width * LEAST_SIDE_PX // longest_px) - height)


def _line(text: str, quad: list[list[float]], confidence: float) -> Line:
    one, two, three, four = ((float(x), float(y)) for x, y in quad)
    return Line(text, (one, two, three, four), confidence)


@dataclass(frozen=True)
class Tesseract:
    """The program of that name; its words are joined by lines.

    languages: as its option -l takes them, "eng+deu". layout: its --psm; 11 looks for text anywhere, 3 for columns.
    timeout_s: of one image.
    """

    languages: str = "eng"
    layout: int = 11
    timeout_s: float = 300.0

    def check(self) -> None:
        if shutil.which("tesseract") is None:
            raise ValueError(
                "curate: no program 'tesseract'; install it (Debian: tesseract-ocr and tesseract-ocr-eng), or take "
                "--engine rapidocr."
            )
        listed = _run(["tesseract", "--list-langs"], b"", self.timeout_s).decode("utf-8", "replace").split()
        missing = [name for name in self.languages.split("+") if name not in listed]
        if missing:
            raise ValueError(
                f"curate: tesseract has no language '{missing[0]}'; install it (Debian: tesseract-ocr-{missing[0]})."
            )

    def described(self) -> dict[str, Any]:
        version = _run(["tesseract", "--version"], b"", self.timeout_s).decode("utf-8", "replace").splitlines()[0]
        return {"engine": "tesseract", "version": version, "languages": self.languages, "layout": self.layout}

    def open(self) -> ReadText:
        command = ["tesseract", "stdin", "stdout", "--psm", str(self.layout), "-l", self.languages, "tsv"]

        def lines(pixels: PIL.Image.Image) -> list[Line]:
            buffer = io.BytesIO()
            pixels.save(buffer, "PNG", compress_level=1)
            return lines_of_tsv(_run(command, buffer.getvalue(), self.timeout_s).decode("utf-8", "replace"))

        return lines


def _run(command: list[str], given: bytes, timeout_s: float) -> bytes:
    """What a program prints. Raises ValueError where it fails."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=timeout_s, check=True)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"tesseract took more than {timeout_s:g} s") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.decode("utf-8", "replace").split())[:200]
        raise ValueError(f"tesseract failed ({said})") from error
    return done.stdout


def lines_of_tsv(text: str) -> list[Line]:
    """The lines of tesseract's table of words: joined by a space, in one box, the mean of the words' confidences."""
    words: dict[tuple[str, ...], list[tuple[str, float, tuple[float, float, float, float]]]] = {}
    head, *rows = text.split("\n")
    names = head.split("\t")
    for row in rows:
        values = dict(zip(names, row.split("\t"), strict=False))
        if values.get("level") != "5" or not values.get("text", "").strip():
            continue
        left, top, width, height, confidence = (float(values[n]) for n in ("left", "top", "width", "height", "conf"))
        line_key = tuple(values[name] for name in ("block_num", "par_num", "line_num"))
        box = (left, top, left + width, top + height)
        words.setdefault(line_key, []).append((values["text"].strip(), confidence, box))
    lines = []
    for of_line in words.values():
        texts, confidences, boxes = zip(*of_line, strict=True)
        x1, y1 = min(box[0] for box in boxes), min(box[1] for box in boxes)
        x2, y2 = max(box[2] for box in boxes), max(box[3] for box in boxes)
        mean = sum(confidences) / len(confidences) / 100
        lines.append(Line(" ".join(texts), ((x1, y1), (x2, y1), (x2, y2), (x1, y2)), min(1.0, max(0.0, mean))))
    return lines
