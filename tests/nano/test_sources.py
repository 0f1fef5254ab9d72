"""Sources of the drawn world."""

import importlib.util

import pytest

from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.nano.world import draw_text, drawings


@pytest.mark.parametrize(
    "library, message",
    [("matplotlib", "fonts: their wheel, matplotlib"), ("sklearn", "handwritten digits: their wheel, scikit-learn")],
)
def test_a_missing_library_is_named_when_the_source_is_opened(library, message, monkeypatch):
    """Record by record it would be quarantined, until none of many could be read."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find_spec(name))
    for cached in (draw_text.font_folder, drawings._digits, drawings._digit_rows):
        cached.cache_clear()
    with pytest.raises(ValueError, match=rf"{message}, is missing; `pip install xgenmm_jax\[demo\]`"):
        Synthetic("caption").open()
