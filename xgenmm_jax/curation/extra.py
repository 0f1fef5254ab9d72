"""Libraries of the extra `curation`, imported where they are first used."""

import importlib
import importlib.metadata
from types import ModuleType

HOW = "`pip install -e .[curation] -c requirements-curation.txt` installs it"


def import_extra(name: str, how: str = HOW) -> ModuleType:
    """The module. how: what installs it. Raises ValueError that says so where its library is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        library = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != library:
            raise
        raise ValueError(f"curate: {library} is missing; {how}.") from error


def version_of(distribution: str) -> str:
    """Of an installed distribution; "" where it is not."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
