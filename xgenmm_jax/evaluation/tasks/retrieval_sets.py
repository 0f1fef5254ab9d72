"""COCO and Flickr30k for retrieval: Karpathy's test splits, 5,000 and 1,000 images with five captions or more each.

Files and folders are those of the sets' own distributions, as for the few-shot tasks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation.published.originals import image_below, texts
from xgenmm_jax.evaluation.tasks.few_shot_sets import objects


@dataclass(frozen=True)
class RetrievalSet:
    """Images with their texts. file: of Karpathy's form, below the user's folder. images: their folder beside it."""

    name: str
    title: str
    file: str
    images: str = ""


SETS = (
    RetrievalSet("coco_retrieval", "COCO, 5k test", "coco/dataset_coco.json"),
    RetrievalSet("flickr30k_retrieval", "Flickr30k, 1k test", "flickr30k/dataset_flickr30k.json", "flickr30k-images"),
)


@dataclass(frozen=True)
class Pairs:
    """The images of a split and their captions. image_of_text: by number."""

    images: tuple[LazyImage, ...]
    texts: tuple[str, ...]
    image_of_text: tuple[int, ...]


def read(one: RetrievalSet, folder: Path, split: str = "test") -> Pairs:
    """Raises ValueError where files are missing or damaged, or an image cannot be read: recall is over all of them."""
    path = folder / one.file
    if not path.is_file():
        raise ValueError(f"{one.name}: no file '{path}'; copy Karpathy's splits (dataset_*.json) there.")
    images: list[LazyImage] = []
    captions: list[str] = []
    owners: list[int] = []
    for image, sentences in _entries(one, path, split):
        owners += [len(images)] * len(sentences)
        captions += sentences
        images.append(image)
    if not images:
        raise ValueError(f"{one.name}: '{path}' has no image of split '{split}'; copy it again.")
    return Pairs(tuple(images), tuple(captions), tuple(owners))


def _entries(one: RetrievalSet, path: Path, split: str) -> Iterator[tuple[LazyImage, list[str]]]:
    for row in objects(path, "images"):
        name, row_split = texts(row, ("filename", "split"), path)
        if row_split != split:
            continue
        sentences = [texts(sentence, ("raw",), path)[0] for sentence in row.get("sentences", ())]
        if not sentences:
            raise ValueError(f"{one.name}: '{path}' has no caption of {name}; copy it again.")
        below = "/".join(filter(None, (str(row.get("filepath", one.images)), name)))
        images, unreadable = image_below(path.parent, below)
        if unreadable:
            raise ValueError(f"{one.name}: {unreadable}; copy the image: recall is over all of them.")
        yield images[0], sentences
