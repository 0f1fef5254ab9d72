"""Empty modules in place of libraries that a toolkit imports for models and data sets which are not used.

VLMEvalKit imports all of its models and data sets at once. Where a library is installed it is taken; where it is not,
every name of its stand-in is a class without a body, so that imports and base classes work and whatever computes fails.
"""

from collections.abc import Sequence
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

IMPORTED_BY_VLMEVALKIT = (
    "torchvision", "timm", "lpips", "clip", "qwen_vl_utils", "torchmetrics", "openai", "cairosvg", "decord", "av",
    "transformers", "accelerate", "datasets", "huggingface_hub", "imageio", "skimage", "scipy", "cv2", "pycocoevalcap",
    "pycocotools", "sentence_transformers", "bert_score", "evaluate", "rouge_score", "moviepy", "pyiqa", "open_clip",
    "gradio", "gdown", "google", "dashscope", "zhipuai", "anthropic", "volcenginesdkarkruntime", "ipdb", "orjson",
    "colormath", "svgpathtools", "playwright", "bs4", "pdf2image", "fitz", "easydict", "shapely", "lxml",
)  # fmt: skip
"""Libraries that one or another of its versions imports at the top of a module."""


def install(more: Sequence[str] = ()) -> tuple[str, ...]:
    """Lets these libraries be imported where they are not installed; gives the names of those that are not.

    more: names beside IMPORTED_BY_VLMEVALKIT.
    """
    missing = tuple(name for name in (*IMPORTED_BY_VLMEVALKIT, *more) if importlib.util.find_spec(name) is None)
    sys.meta_path.append(_Finder(missing))
    return missing


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stand-ins of some libraries and of all modules in them. Comes last: what is installed is found."""

    def __init__(self, names: Sequence[str]):
        self._names = frozenset(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self._names:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


class _StandIn(types.ModuleType):
    __version__ = "0.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module '{self.__name__}' is a stand-in; it has no '{name}'")
        made = _Missing(name, (), {"__module__": self.__name__, "__init__": _refuse(self.__name__, name)})
        setattr(self, name, made)
        return made


class _Missing(type):
    """A class of a library that is not installed; its attributes are such classes too."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(name, (), {"__module__": cls.__module__, "__init__": _refuse(cls.__module__, name)})


def _refuse(module: str, name: str) -> Any:
    def refuse(self, *arguments: Any, **named: Any) -> None:
        raise ImportError(f"'{module}.{name}' is a stand-in; install {module.partition('.')[0]} to use it.")

    return refuse
