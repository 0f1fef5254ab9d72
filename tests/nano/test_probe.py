"""What linear probes read of the drawn world."""

import nano_runs
import numpy as np
import pytest

import xgenmm_jax
from xgenmm_jax.nano import probe
from xgenmm_jax.nano.connector_start import pooling_start
from xgenmm_jax.probing import linear


@pytest.fixture(scope="module")
def lmm(tmp_path_factory):
    return xgenmm_jax.load(nano_runs.start(tmp_path_factory.mktemp("runs") / "pooling", pooling_start))


def test_the_tower_knows_shape_and_place_better_than_pixels(lmm):
    train, test = probe.one_shape_images(160), probe.one_shape_images(64, seed=1)
    probes = probe.property_probes(lmm, train, test)
    names = probes["color"].layers
    assert names[0] == "pixels" and names.index("tower end") < names.index("resampler 1") < names.index("decoder 1")
    for name in probe.PROPERTIES:
        accuracy = dict(zip(names, probes[name].accuracy, strict=True))
        assert accuracy["tower end"] > max(0.3, probes[name].baseline)
    assert probes["shape"].accuracy[names.index("tower end")] > probes["shape"].accuracy[0]
    shown = linear.probes_shown(probe.by_property({"before": probes, "after": probes}))
    assert len(np.unique(np.asarray(shown.convert("L")))) > 10
