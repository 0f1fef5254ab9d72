"""What lmms-eval finds under the entry point `lmms_eval.models`: the model's name and the path of its class."""

from typing import Any

MODEL = "xgenmm_jax"
"""As in `python -m lmms_eval --model xgenmm_jax`."""


def manifest() -> Any:
    """lmms-eval's `ModelManifest`. Raises ImportError where lmms-eval is not installed, or has no manifests."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL, chat_class_path="xgenmm_jax.integrations.lmms_eval.XGenMM")
