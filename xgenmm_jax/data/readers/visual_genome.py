"""Visual Genome: phrases of regions as captions of whole images.

Source: docs/reference/data.md#small-caption-sets
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError, is_of_a_record, shown
from xgenmm_jax.data.readers.base import list_in
from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class VisualGenome:
    """A `Caption` of an entry of region_descriptions.json: the whole image, and the phrase of one of its regions.

    `ShardedSource(JsonFiles("region_descriptions.json", images=folder), VisualGenome())`. Which region, the order
    draws. The paper names the set and not how it is used: a phrase of a part as the caption of the whole, without the
    part's box, is our reading.

    names: names that an image may have in the storage's folder, {id} is its number; the first that is there is read.
        The published images lie in two folders.
    """

    names: tuple[str, ...] = ("VG_100K/{id}.jpg", "VG_100K_2/{id}.jpg")

    label: ClassVar[str] = "visual_genome"

    def __post_init__(self):
        wrong = next((name for name in self.names if name.count("{id}") != 1), None)
        if not self.names or wrong is not None:
            raise ValueError(
                f"data: VisualGenome(names={self.names!r}); wanted names with {{id}} in each, 'vg/{{id}}.jpg'."
            )

    @property
    def fields(self) -> tuple[str, ...]:
        return ("id", "regions")

    @property
    def optional(self) -> tuple[str, ...]:
        return ()

    def choices(self, raw: Raw) -> int:
        """Phrases of the image, empty ones left out. Raises RecordError as `read`."""
        return len(_phrases(raw))

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where the entry is of another form, has no phrase, or its image is missing or damaged."""
        text = _phrases(raw)[choice]
        number = raw.fields.get("id")
        if type(number) is not int or number < 0:
            raise RecordError(raw.key, f"'id' is {shown(number)!r}, wanted the number of an image")
        return Caption(raw.key, self._image(raw, number), text)

    def _image(self, raw: Raw, number: int) -> LazyImage:
        errors: list[Exception] = []
        for name in self.names:
            try:
                return raw.image(name.replace("{id}", str(number)))
            except (ValueError, OSError) as error:
                # A file system that does not answer is no image that is missing.
                if not is_of_a_record(error):
                    raise
                errors.append(error)
        raise RecordError(raw.key, " ".join(map(str, errors))) from errors[0]


def _phrases(raw: Raw) -> list[str]:
    phrases = []
    for number, region in enumerate(list_in(raw, "regions")):
        phrase = region.get("phrase") if isinstance(region, dict) else None
        if not isinstance(phrase, str):
            raise RecordError(raw.key, f"region {number} is {shown(region)}; wanted its 'phrase'")
        if phrase.strip():
            phrases.append(phrase)
    if not phrases:
        raise RecordError(raw.key, "no region has a phrase")
    return phrases
