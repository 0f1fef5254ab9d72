"""What the probes say of a model whose parts are known: a trained tower, a resampler that pools cell by cell."""

import numpy as np
import pytest

import xgenmm_jax
from xgenmm_jax.nano.connector_start import cell_of_patch
from xgenmm_jax.nano.world import families
from xgenmm_jax.probing import attention_maps, logit_lens, model_diff


@pytest.fixture(scope="module")
def scene():
    return families.record("caption", 11, seed=5).image


@pytest.fixture(scope="module")
def page():
    return families.record("pages", 4, seed=5).image


def test_queries_that_pool_look_at_their_cells(lmm, scene):
    heat = attention_maps.query_heat(lmm, scene, layer=0)
    assert heat.queries.shape == (16, 8, 8) and heat.squashed
    is_pooled = cell_of_patch(8, 16).reshape(8, 8)[None] == np.arange(16)[:, None, None]
    to_cell = (heat.queries * is_pooled).sum((1, 2))
    assert to_cell.mean() > 0.5 and to_cell.min() > 2 / 16, "of one image; an even look gives each cell 1 / 16"


def test_crops_of_a_page_lie_side_by_side(lmm, page):
    assert attention_maps.has_crops(lmm, page)
    heat = attention_maps.query_heat(lmm, page, crops=True)
    columns, rows = heat.queries.shape[2] // 8, heat.queries.shape[1] // 8
    assert len(heat.queries) == 16 * columns * rows and not heat.squashed
    assert not heat.queries[:16, 8:].any() and not heat.queries[:16, :, 8:].any(), "the first crop's queries"


def test_a_small_image_has_no_crops(lmm, scene):
    assert not attention_maps.has_crops(lmm, scene)
    with pytest.raises(ValueError, match="has no crops here"):
        attention_maps.query_heat(lmm, scene, crops=True)


def test_nearest_words_are_words(lmm, scene):
    near = logit_lens.nearest_words(lmm, scene, 3)
    assert len(near) == 16 and all(len(one.words) == 3 for one in near)
    assert all(one.cosines == sorted(one.cosines, reverse=True) for one in near)


def test_the_last_row_of_the_lens_is_the_models_answer(lmm, scene):
    prompt = lmm.processor.prompt("What is this?", [scene])
    ids = lmm.generate_ids([prompt], max_new_tokens=6)[0]
    lens = logit_lens.logit_lens(lmm, prompt, most=6)
    assert lens.probability.shape == (lmm.config.decoder.layers + 1, len(lens.answer))
    assert lens.likeliest[-1][: len(ids)] == [logit_lens.word(lmm, id_) for id_ in ids]


def test_what_changed_is_the_connector(lmm, random):
    change = model_diff.parameter_change(xgenmm_jax.load(random), lmm)
    assert list(change)[0] == "vision 1" and list(change)[-1] == "decoder, rest"
    assert all(value == 0 for name, value in change.items() if not name.startswith("connector"))
    assert change["connector 1"] > 0.05
