"""BLIP-3 (xGen-MM) in JAX.

    import xgenmm_jax
    lmm = xgenmm_jax.load("runs/demo/sft_multi")      # or a released folder

Public are the names of `xgenmm_jax.api`: `load`, `LMM`, `Output`, `Processor`, `Crops`, `Decoding`. They
are imported when they are first used, so that `import xgenmm_jax` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xgenmm_jax.api import LMM, Crops, Decoding, Output, Processor, load

__all__ = ["LMM", "Crops", "Decoding", "Output", "Processor", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'xgenmm_jax' has no attribute '{name}'; public are {', '.join(__all__)}")
    from xgenmm_jax import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
