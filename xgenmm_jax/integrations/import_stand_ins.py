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
    "transformers", "accelerate", "datasets", "huggingface_hub", "imageio", "cv2", "pycocoevalcap", "pycocotools",
    "sentence_transformers", "bert_score", "evaluate", "rouge_score", "moviepy", "pyiqa", "open_clip", "gradio",
    "gdown", "dashscope", "zhipuai", "anthropic", "volcenginesdkarkruntime", "ipdb", "orjson", "colormath",
    "svgpathtools", "playwright", "pdf2image", "fitz", "easydict", "shapely",
)  # fmt: skip
"""Libraries that one or another of its versions imports at the top of a module."""


def install(more: Sequence[str] = (), importer: str = "vlmeval") -> tuple[str, ...]:
    """Lets a package import these libraries where they are not installed; gives the names of those that are not.

    more: names beside IMPORTED_BY_VLMEVALKIT. importer: the package; another library that asks whether it has one of
    them, as openpyxl asks for lxml, is still told that it is missing.
    """
    missing = tuple(name for name in (*IMPORTED_BY_VLMEVALKIT, *more) if importlib.util.find_spec(name) is None)
    sys.meta_path.append(_Finder(missing, importer))
    return missing


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stand-ins of some libraries and of all modules in them. Comes last: what is installed is found."""

    def __init__(self, names: Sequence[str], importer: str):
        self._names, self._importer = frozenset(names), importer

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        library, _, module = fullname.partition(".")
        if library not in self._names:
            return None
        # Whoever has met a stand-in looks for modules in it; a library as a whole is there for the importer alone.
        if not (module and isinstance(sys.modules.get(library), _StandIn)) and not _is_for(self._importer):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


def _is_for(importer: str) -> bool:
    """Whether the import under way stands in a module of this package."""
    frame, is_passed = sys._getframe(), False
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        is_import = name.partition(".")[0] in ("importlib", "_frozen_importlib")
        # Below Python's own frames stands who imports, above them this finder.
        if is_passed and not is_import:
            return name == importer or name.startswith(f"{importer}.")
        is_passed = is_passed or is_import
        frame = frame.f_back
    return False


class _StandIn(types.ModuleType):
    __version__ = "0.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module '{self.__name__}' is a stand-in; it has no '{name}'")
        created = _Missing(name, (), {"__module__": self.__name__, "__init__": _refuse(self.__name__, name)})
        setattr(self, name, created)
        return created


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
