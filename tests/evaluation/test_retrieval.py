"""Retrieval by BLIP-2 with transformers' numbers, from pixels and ids to ranks."""

from dataclasses import replace
import json

import blip2_goldens as goldens
import jax
import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.convert.formats import blip2
from xgenmm_jax.evaluation import retrieval as runs
from xgenmm_jax.evaluation.retrieval import Retriever, Texts
from xgenmm_jax.evaluation.scorers import retrieval
from xgenmm_jax.evaluation.tasks.retrieval_sets import SETS, read

CONFIG = replace(goldens.CONFIG, connector=replace(goldens.CONNECTOR, feature_epsilon=1e-6), language_head=False)


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    params = goldens.tree_of(blip2.stage1_rules(CONFIG, "transformers"), goldens.RETRIEVAL)
    return Retriever(CONFIG, params, batch=3)  # four rows are a whole batch and one that is padded


def texts() -> Texts:
    ids, valid = goldens.text("retrieval")
    return Texts(np.asarray(ids), np.asarray(valid), 0)


def pixels():
    images = np.asarray(goldens.pixels())
    return iter([images[:3], images[3:]])


def test_scores_are_those_of_transformers(retriever):
    golden = goldens.golden("retrieval")
    with jax.default_matmul_precision("highest"):
        features, vectors = retriever.see(pixels())
        scores = runs.similarities(vectors, retriever.texts(texts()), rows=3)
        matches = retriever.matches(features, texts().token_ids, texts().valid)
    np.testing.assert_allclose(features, golden["image_embeds"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(scores, golden["similarity"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(matches, golden["itm_logits"][:, 1], rtol=0, atol=2e-5)


@pytest.mark.slow
def test_candidates_are_ranked_by_logit_and_similarity(retriever):
    """Recall of one candidate is that of contrast; of all it is that of the sum."""
    own = np.arange(4)
    one = runs.retrieve(retriever, pixels(), texts(), own, candidates=1)
    assert one.matched.to_text[0] == one.contrast.to_text[0] and one.matched.to_image[0] == one.contrast.to_image[0]
    features, vectors = retriever.see(pixels())
    scores = runs.similarities(vectors, retriever.texts(texts()))
    matches = np.stack([retriever.matches(features[[i] * 4], texts().token_ids, texts().valid) for i in range(4)])
    expected = retrieval.recalls(scores + matches, (scores + matches).T, own)
    assert runs.retrieve(retriever, pixels(), texts(), own).matched == expected


def test_karpathys_files_are_read(tmp_path):
    for one, folder in zip(SETS, ("coco/val2014", "flickr30k/flickr30k-images"), strict=True):
        (tmp_path / folder).mkdir(parents=True)
        for number in (1, 2):
            PIL.Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / folder / f"{number}.png")
        rows = [
            {
                "filename": f"{number}.png",
                "split": split,
                "sentences": [{"raw": f"{number} {n}"} for n in range(number)],
            }
            for number, split in ((1, "test"), (2, "test"), (3, "train"))
        ]
        if folder.startswith("coco"):
            rows = [{**row, "filepath": "val2014"} for row in rows]
        (tmp_path / one.file).write_text(json.dumps({"images": rows, "dataset": "x"}))
        pairs = read(one, tmp_path)
        assert pairs.texts == ("1 0", "2 0", "2 1") and pairs.image_of_text == (0, 1, 1)
        assert pairs.images[1].load().getpixel((0, 0)) == (2, 0, 0)
        view = next(runs.views(pairs.images, 28))
        assert view.shape == (2, 28, 28, 3)
    (tmp_path / "coco" / "val2014" / "2.png").unlink()
    with pytest.raises(ValueError, match="coco_retrieval: .*recall is over all of them"):
        read(SETS[0], tmp_path)
    with pytest.raises(ValueError, match="copy Karpathy's splits"):
        read(SETS[1], tmp_path / "coco")
