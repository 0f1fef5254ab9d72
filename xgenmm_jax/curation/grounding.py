"""Rows in the schema of BLIP3-GROUNDING-50M out of images, their captions and an annotator.

Source: docs/reference/data.md#blip3-grounding-50m, docs/reference/data.md#grounding-captions
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
import math
import re
from typing import Any, Literal, get_args

import pyarrow as pa

from xgenmm_jax.curation.annotators import Annotator, Detection
from xgenmm_jax.curation.images import SourceImage
from xgenmm_jax.curation.makers import DrawnBox, LeftOutImage, MakeRows, RowOrReason, confidence_bin
from xgenmm_jax.data.captions import grounding
from xgenmm_jax.data.captions.cells import FractionBox, cell, corner
from xgenmm_jax.data.readers.grounding import released

NO_OBJECT = "no object"
REFUSED = "captions that the reader refuses"


def grounded_caption(caption: str, objects: Sequence[Detection], level: grounding.Level) -> str:
    """A caption with the places of its objects.

    Where a tag stands in the caption as whole words, its place follows: a tag that stands there n times has its first n
    boxes, in the order of `objects`. Longer tags are looked for first, and no two share a word. All boxes of tags that
    stand nowhere are appended: "... The image contains lamp (in the center), rug (below the center)".

    Example: "A man on a horse." with a box of "horse" is, at level 0, "A man on a horse (in the center).".
    """
    boxes: dict[str, list[FractionBox]] = {}
    for one in objects:
        boxes.setdefault(one.tag, []).append(one.box)
    matches: list[tuple[int, int, FractionBox]] = []
    appended: set[str] = set()
    for tag in sorted(boxes, key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(tag)}(?!\w)", re.IGNORECASE)
        spans = [match.span() for match in pattern.finditer(caption)]
        free = [span for span in spans if all(span[1] <= start or end <= span[0] for start, end, _ in matches)]
        matches += [(start, end, box) for (start, end), box in zip(free, boxes[tag], strict=False)]
        if not free:
            appended.add(tag)
    text, last = "", 0
    for start, end, box in sorted(matches):
        text += caption[last:start] + _with_place(caption[start:end], box, level)
        last = end
    text = (text + caption[last:]).rstrip()
    if not appended:
        return text
    listed = ", ".join(_with_place(one.tag, one.box, level) for one in objects if one.tag in appended)
    lead = "" if not text else f"{text} " if text[-1] in ".!?" else f"{text}. "
    return f"{lead}The image contains {listed}"


def _with_place(noun: str, box: FractionBox, level: grounding.Level) -> str:
    x1, y1, x2, y2 = box
    return grounding.grounded("", noun, box, corner(x1, y1, 3) + corner(x2, y2, 3), level)


def captions_of(caption: str, alt_text: str, objects: Sequence[Detection]) -> str:
    """The column `captions`: a Python literal of three levels, and the same behind the alt text where there is one."""
    texts = [(grounded_caption(caption, objects, level), level) for level in get_args(grounding.Level)]
    lead = f"{alt_text}. " if alt_text else ""
    return repr([[text, level, False] for text, level in texts] + [[lead + text, level, True] for text, level in texts])


@dataclass(frozen=True)
class GroundingRows:
    """The maker of `xgenmm curate grounding`.

    caption_field: the source's column of a longer caption, in which tags are looked for; the reader's own text is then
        the alt text. Where it is not there the reader's text is the caption, and there is no alt text.
    least_confidence: boxes below it are left out. most_area: as a share of the image, boxes above it too. boxes: "clip"
        ends them at the image's edges, "keep" leaves them as the detector says. template: of
        `data.captions.grounding.check_template`, a further column `template_caption`.
    """

    annotator: Annotator
    caption_field: str = "cogvlm_caption"
    least_confidence: float = 0.0
    most_area: float = 1.0
    boxes: Literal["clip", "keep"] = "clip"
    template: str | None = None

    @property
    def command(self) -> str:
        return "grounding"

    @property
    def batch(self) -> int:
        return 1

    @property
    def columns(self) -> tuple[tuple[str, pa.DataType], ...]:
        names = ("cogvlm_caption", "captions", "objects", *(("template_caption",) if self.template is not None else ()))
        return (*((name, pa.string()) for name in names), ("width", pa.int64()), ("height", pa.int64()))

    @property
    def source_columns(self) -> tuple[str, ...]:
        return (self.caption_field,)

    def refusal(self, size_px: tuple[int, int]) -> LeftOutImage | None:
        return None

    def check(self) -> None:
        for name in ("least_confidence", "most_area"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"--{name.replace('_', '-')}: got {value:g}; give 0 to 1.")
        if self.template is not None:
            grounding.check_template(self.template)
        self.annotator.check()

    def described(self) -> dict[str, Any]:
        names = ("caption_field", "least_confidence", "most_area", "boxes")
        options = {name: getattr(self, name) for name in names}
        return {**self.annotator.described(), **options, **({"template": self.template} if self.template else {})}

    def open(self) -> MakeRows:
        annotate = self.annotator.open()

        def row_of(image: SourceImage) -> RowOrReason:
            detections = annotate(image)
            objects = [one for one in map(self._taken, detections) if one is not None]
            if not objects:
                return LeftOutImage(NO_OBJECT, f"none of {len(detections)} boxes passes the thresholds")
            caption, alt_text = self._texts(image)
            literal = captions_of(caption, alt_text, objects)
            try:
                released(literal)
                text = grounded_caption(caption, objects, 2)
                templated = None if self.template is None else grounding.rewritten(text, self.template)
            except ValueError as error:  # longer than any released one, or with tags of level 2 in the source's text
                return LeftOutImage(REFUSED, str(error))
            listed = [{"tag": one.tag, "box": list(one.box), "confidence": one.confidence} for one in objects]
            width, height = image.pixels.size
            row = {"cogvlm_caption": caption, "captions": literal, "objects": json.dumps(listed, ensure_ascii=False)}
            row |= {} if templated is None else {"template_caption": templated}
            return row | {"width": width, "height": height}

        return lambda images: [row_of(image) for image in images]

    def _taken(self, one: Detection) -> Detection | None:
        """The object as a row has it; None where it has no name or no place, or a threshold leaves it out."""
        # A tag may not look like the tags of level 2.
        tag = re.sub(r"[<>\[\]]", "", " ".join(one.tag.split())).strip()
        if not tag or not all(map(math.isfinite, (*one.box, one.confidence))):
            return None
        x1, y1, x2, y2 = (min(1.0, max(0.0, side)) for side in one.box)
        area = max(0.0, x2 - x1) * max(0.0, y2 - y1)
        if one.confidence < self.least_confidence or area > self.most_area or not area:
            return None
        return Detection(tag, (x1, y1, x2, y2) if self.boxes == "clip" else one.box, one.confidence)

    def _texts(self, image: SourceImage) -> tuple[str, str]:
        """Caption and alt text."""
        longer = image.columns.get(self.caption_field)
        if isinstance(longer, str) and longer.strip():
            return longer.strip(), image.alt_text
        return image.alt_text, ""

    def figures(self, row: Mapping[str, Any]) -> dict[str, Sequence[str]]:
        objects = json.loads(row["objects"])
        return {
            "tags": [one["tag"] for one in objects],
            "places": [cell(tuple(one["box"])) for one in objects],
            "confidences": [confidence_bin(one["confidence"]) for one in objects],
        }

    def drawn(self, row: Mapping[str, Any]) -> tuple[list[DrawnBox], list[str]]:
        boxes = [
            DrawnBox(tuple(one["box"]), f"{one['tag']} ({one['confidence']:.2f})") for one in json.loads(row["objects"])
        ]
        texts = {(level, has_alt_text): text for text, level, has_alt_text in released(row["captions"])}
        return boxes, [texts[0, False], texts[2, True]]
