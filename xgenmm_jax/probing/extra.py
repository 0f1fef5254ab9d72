"""Libraries of the extra `probing`, imported where they are first used."""

import importlib
from types import ModuleType


def import_extra(name: str) -> ModuleType:
    """The module. Raises ValueError that names the extra where its library is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        library = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != library:
            raise
        raise ValueError(f"probing: {library} is missing; `pip install xgenmm_jax[probing]` installs it.") from error
