"""`xgenmm curate grounding SRC DST`: objects of images, with boxes."""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import tyro

from xgenmm_jax.cli.curate_options import CurateOptions, of_file, run, source_of, split_beam_options
from xgenmm_jax.cli.data_sources import parse_with_reader
from xgenmm_jax.cli.experiment_files import naming_the_line
from xgenmm_jax.cli.options import LocalPath
from xgenmm_jax.curation.annotators import Annotator, FixedTags, GroundingDino, Ram, Tagger
from xgenmm_jax.curation.grounding import GroundingRows

GROUNDING_DINO = "groundingdino"
OF_GROUNDING_DINO = ("model", "tagger", "ram_checkpoint", "tags", "box_threshold", "text_threshold", "overlap")
"""Options that another annotator has not."""


@dataclass(frozen=True)
class Arguments(CurateOptions):
    """Finds the objects of images and writes them in the schema of BLIP3-GROUNDING-50M: captions with places.

    SOURCE as for `xgenmm curate ocr`. A tagger names what is in an image, an annotator finds the boxes. Both are models
    that you download, neither is part of the extra `curation`; or an annotator of your own does both.
    """

    source: tyro.conf.Positional[str]
    """Such as 'tars:data/{0000..0999}.tar' or 'folder:images/**/*.jpg'."""
    folder: tyro.conf.Positional[str]
    """DST, a new folder, on a disk that all workers share."""
    annotator: str = field(default=GROUNDING_DINO, kw_only=True)
    """What finds boxes: groundingdino, through transformers, or FILE.py:NAME, an annotator of your own."""
    model: str = field(default=GroundingDino.model, kw_only=True)
    """Its weights: a folder, or the hub's name."""
    tagger: Literal["ram", "ram_plus", "list"] = field(default="ram", kw_only=True)
    """What names objects: RAM or RAM++ by the package recognize-anything, or the same --tags for each image."""
    ram_checkpoint: LocalPath | None = field(default=None, kw_only=True)
    """RAM's file, ram_swin_large_14m.pth; its package unpickles it, so give one that you trust."""
    tags: tuple[str, ...] = field(default=(), kw_only=True)
    """--tagger list: as cat dog 'traffic light'."""
    box_threshold: float = field(default=GroundingDino.box_threshold, kw_only=True)
    """Boxes below it are not looked at."""
    text_threshold: float = field(default=GroundingDino.text_threshold, kw_only=True)
    """Words of the tags below it are not in a box's phrase."""
    overlap: float = field(default=GroundingDino.overlap, kw_only=True)
    """Of two boxes with a larger intersection over union the less certain one is left out."""
    most_area: float = field(default=1.0, kw_only=True)
    """Boxes of a larger share of the image are left out."""
    boxes: Literal["clip", "keep"] = field(default="clip", kw_only=True)
    """End boxes at the image's edges, or keep them as the detector gives them, which the released set does."""
    caption_field: str = field(default="cogvlm_caption", kw_only=True)
    """The source's column of a longer caption, in which tags are looked for; without it the text of the reader is."""
    template: str | None = field(default=None, kw_only=True)
    """A further column of captions, as '{object} [{x1:.2f}, {y1:.2f}, {x2:.2f}, {y2:.2f}]'."""


def main(argv: Sequence[str]) -> int:
    """Prints what was made; gives the exit code."""
    rest, beam_options = split_beam_options(argv)
    arguments, reader = parse_with_reader(Arguments, rest, "xgenmm curate grounding")
    maker = GroundingRows(
        _annotator(arguments), arguments.caption_field, 0.0, arguments.most_area, arguments.boxes, arguments.template
    )
    return run(maker, source_of(arguments.source, arguments, reader), arguments.folder, arguments, beam_options, argv)


def _annotator(arguments: Arguments) -> Annotator:
    """Raises ValueError where options do not fit each other, or the user's file has no annotator."""
    if arguments.annotator == GROUNDING_DINO:
        return GroundingDino(
            _tagger(arguments), arguments.model, arguments.box_threshold, arguments.text_threshold, arguments.overlap
        )
    if ".py" not in arguments.annotator:
        raise ValueError(f"--annotator: got '{arguments.annotator}', wanted {GROUNDING_DINO} or FILE.py:NAME.")
    defaults = {field.name: field.default for field in dataclasses.fields(Arguments)}
    for name in OF_GROUNDING_DINO:
        if getattr(arguments, name) != defaults[name]:
            raise ValueError(f"--{name.replace('_', '-')}: of --annotator {GROUNDING_DINO} alone; leave it away.")
    annotator, path = of_file(arguments.annotator, "--annotator")
    if callable(annotator):
        with naming_the_line(path, "--annotator"):
            annotator = annotator()
    if not dataclasses.is_dataclass(annotator) or not isinstance(annotator, Annotator):
        got = f"'{arguments.annotator}' is a {type(annotator).__name__}"
        raise ValueError(
            f"--annotator: {got}, wanted a frozen dataclass with check, described and open, or a function of one."
        )
    return annotator


def _tagger(arguments: Arguments) -> Tagger:
    """Raises ValueError where options do not fit each other."""
    if arguments.tagger == "list":
        return FixedTags(arguments.tags)
    if arguments.tags:
        raise ValueError(f"--tags: those of --tagger list; got --tagger {arguments.tagger} beside them.")
    if arguments.ram_checkpoint is None:
        raise ValueError(
            "--ram-checkpoint: give RAM's file, ram_swin_large_14m.pth from the model's page; or name the objects, "
            "--tagger list --tags cat dog."
        )
    return Ram(str(arguments.ram_checkpoint), arguments.tagger)
