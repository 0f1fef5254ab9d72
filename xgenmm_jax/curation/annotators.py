"""Annotators: what finds the objects of an image; GroundingDINO and RAM by the packages of their own.

Source: docs/reference/data.md#annotation-engines
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import PIL.Image

from xgenmm_jax.curation.extra import import_extra, version_of
from xgenmm_jax.curation.images import SourceImage
from xgenmm_jax.data.captions.cells import FractionBox

TRANSFORMERS = "`pip install torch transformers -c requirements-curation.txt` installs what runs GroundingDINO"
RAM_PACKAGE = "`pip install git+https://github.com/xinyu1205/recognize-anything.git` installs RAM, with torch"


class Detection(NamedTuple):
    """An object. box: fractions of the image, beyond 0 and 1 where the detector does not clip. confidence: 0 to 1."""

    tag: str
    box: FractionBox
    confidence: float


Annotate = Callable[[SourceImage], list[Detection]]


@runtime_checkable
class Annotator(Protocol):
    """A frozen dataclass with plain options."""

    def check(self) -> None:
        """Raises ValueError that says what to install, or what is missing."""
        ...

    def described(self) -> dict[str, Any]:
        """Names, versions and options, as JSON."""
        ...

    def open(self) -> Annotate:
        """Loads models."""
        ...


@runtime_checkable
class Tagger(Protocol):
    """What names the objects of an image that are then looked for; a frozen dataclass with plain options."""

    def check(self) -> None: ...

    def described(self) -> dict[str, Any]: ...

    def open(self) -> Callable[[PIL.Image.Image], list[str]]: ...


@dataclass(frozen=True)
class FixedTags:
    """The same tags for each image: a list of the user's own."""

    tags: tuple[str, ...]

    def check(self) -> None:
        if not self.tags or any(not tag.strip() or "." in tag for tag in self.tags):
            raise ValueError("--tags: give one or more, without '.', as --tags cat dog 'traffic light'.")

    def described(self) -> dict[str, Any]:
        return {"tagger": "list", "tags": ", ".join(self.tags)}

    def open(self) -> Callable[[PIL.Image.Image], list[str]]:
        return lambda pixels: list(self.tags)


@dataclass(frozen=True)
class Ram:
    """Recognize Anything, by its own package.

    checkpoint: its file, ram_swin_large_14m.pth, which the package unpickles: give one that you trust. kind: "ram", or
        "ram_plus" with that model's file.
    """

    checkpoint: str
    kind: Literal["ram", "ram_plus"] = "ram"
    side_px: int = 384

    def check(self) -> None:
        import_extra("torch", RAM_PACKAGE)
        import_extra("ram", RAM_PACKAGE)
        if not Path(self.checkpoint).is_file():
            raise ValueError(
                f"--ram-checkpoint: no file '{self.checkpoint}'; download {self.kind}_swin_large_14m.pth from the "
                "model's page and name it."
            )

    def described(self) -> dict[str, Any]:
        size = Path(self.checkpoint).stat().st_size
        return {"tagger": self.kind, "tagger file": Path(self.checkpoint).name, "tagger bytes": size}

    def open(self) -> Callable[[PIL.Image.Image], list[str]]:
        torch, ram = import_extra("torch", RAM_PACKAGE), import_extra("ram", RAM_PACKAGE)
        build = getattr(import_extra("ram.models", RAM_PACKAGE), self.kind)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = build(pretrained=self.checkpoint, image_size=self.side_px, vit="swin_l").eval().to(device)
        transform = ram.get_transform(image_size=self.side_px)

        def tags(pixels: PIL.Image.Image) -> list[str]:
            return tags_of(ram.inference_ram(transform(pixels).unsqueeze(0).to(device), model)[0])

        return tags


def tags_of(text: str) -> list[str]:
    """RAM's answer "armchair | blanket | lamp" as tags, each once."""
    return list(dict.fromkeys(tag.strip() for tag in text.split("|") if tag.strip()))


@dataclass(frozen=True)
class GroundingDino:
    """GroundingDINO through transformers: the tags of an image as one text, "a. b. c.", and a box for each phrase.

    model: a folder with config, processor and safetensors, or the hub's name of one. box_threshold, text_threshold: of
        a box's best word, and of the words that make its phrase, which may join several tags. overlap: of two boxes
        with a larger intersection over union the less certain one is left out.
    """

    tagger: Tagger
    model: str = "IDEA-Research/grounding-dino-base"
    box_threshold: float = 0.25
    text_threshold: float = 0.2
    overlap: float = 0.5

    def check(self) -> None:
        for name in ("box_threshold", "text_threshold", "overlap"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"--{name.replace('_', '-')}: got {value:g}; give 0 to 1.")
        self.tagger.check()
        import_extra("torch", TRANSFORMERS)
        transformers = import_extra("transformers", TRANSFORMERS)
        with self._loading():
            transformers.AutoConfig.from_pretrained(self.model)

    def described(self) -> dict[str, Any]:
        # A folder's own name, not where it lies.
        model = Path(self.model).name if Path(self.model).is_dir() else self.model
        options = {name: getattr(self, name) for name in ("box_threshold", "text_threshold", "overlap")}
        versions = {name: version_of(name) for name in ("transformers", "torch")}
        return {"annotator": "groundingdino", "model": model, **options, **versions, **self.tagger.described()}

    def open(self) -> Annotate:
        torch, transformers = import_extra("torch", TRANSFORMERS), import_extra("transformers", TRANSFORMERS)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with self._loading():
            processor = transformers.AutoProcessor.from_pretrained(self.model)
            # Not the checkpoints that are pickled.
            model = transformers.GroundingDinoForObjectDetection.from_pretrained(self.model, use_safetensors=True)
        model = model.eval().to(device)
        tag, special = self.tagger.open(), frozenset(processor.tokenizer.all_special_tokens)

        def detect(pixels: PIL.Image.Image, tags: Sequence[str]) -> list[Detection]:
            inputs = processor(images=pixels, text=". ".join(one.lower() for one in tags) + ".", return_tensors="pt")
            with torch.no_grad():
                outputs = model(**inputs.to(device))
            result = processor.post_process_grounded_object_detection(
                outputs, inputs["input_ids"], threshold=self.box_threshold, text_threshold=self.text_threshold
            )[0]
            phrases = [phrase_of(label, special) for label in result["text_labels"]]
            named = zip(phrases, result["boxes"].tolist(), result["scores"].tolist(), strict=True)
            return [Detection(phrase, (x1, y1, x2, y2), score) for phrase, (x1, y1, x2, y2), score in named if phrase]

        def length(tags: Sequence[str]) -> int:
            return len(processor.tokenizer(". ".join(tags) + ".")["input_ids"])

        def annotate(image: SourceImage) -> list[Detection]:
            detections = []
            for group in groups_of(tag(image.pixels), length, model.config.max_text_len):
                detections += detect(image.pixels, group)
            return without_overlaps(detections, self.overlap)

        return annotate

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # transformers': not there, or no network
            said = " ".join(str(error).split())[:200]
            raise ValueError(f"--model: '{self.model}' cannot be loaded ({said}); name its folder.") from error


def phrase_of(label: str, special: frozenset[str]) -> str:
    """A box's phrase without the dots between tags and the tokenizer's marks: "cat. dog [SEP]" is "cat dog"."""
    return " ".join(word for word in label.replace(".", " ").split() if word not in special)


def groups_of(tags: Sequence[str], length: Callable[[Sequence[str]], int], most: int) -> list[list[str]]:
    """The tags in groups whose text has at most so many tokens. Raises ValueError where a tag alone has more."""
    groups: list[list[str]] = []
    for tag in tags:
        if length([tag]) > most:
            raise ValueError(f"the tag '{tag[:40]}...' has {length([tag])} tokens, more than {most}; shorten it.")
        if groups and length([*groups[-1], tag]) <= most:
            groups[-1].append(tag)
        else:
            groups.append([tag])
    return groups


def without_overlaps(detections: Sequence[Detection], most: float) -> list[Detection]:
    """The most certain of boxes that overlap more than `most` (intersection over union), the most certain first."""
    kept_boxes: list[Detection] = []
    for one in sorted(detections, key=lambda detection: -detection.confidence):
        if all(intersection_over_union(one.box, other.box) <= most for other in kept_boxes):
            kept_boxes.append(one)
    return kept_boxes


def intersection_over_union(one: FractionBox, other: FractionBox) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)
