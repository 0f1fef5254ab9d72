"""Real photographs and scanned text, read out of the wheels of scikit-image and scikit-learn without importing them."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

from xgenmm_jax.data.images import open_image
from xgenmm_jax.data.records import LazyImage


class Photograph(NamedTuple):
    """about: what a person sees. source: the wheel that holds it."""

    name: str
    about: str
    source: str
    image: LazyImage


_FILES = (
    ("astronaut", "Eileen Collins in an orange flight suit", "skimage", "data/astronaut.png"),
    ("chelsea", "a tabby cat", "skimage", "data/chelsea.png"),
    ("coffee", "a cup of coffee and a spoon", "skimage", "data/coffee.png"),
    ("rocket", "a rocket on its pad at night", "skimage", "data/rocket.jpg"),
    ("china", "a Chinese palace", "sklearn", "datasets/images/china.jpg"),
    ("flower", "a dahlia", "sklearn", "datasets/images/flower.jpg"),
    ("page", "a scanned page of print", "skimage", "data/page.png"),
    ("text", "handwriting on paper", "skimage", "data/text.png"),
)
_WHEELS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def photographs() -> list[Photograph]:
    """Those that are installed; which files a wheel holds differs between its versions."""
    installed = []
    for name, about, module, file in _FILES:
        spec = importlib.util.find_spec(module)
        folder = spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None
        if folder is not None and (path := Path(folder) / file).is_file():
            installed.append(Photograph(name, about, _WHEELS[module], open_image(path)))
    return installed
