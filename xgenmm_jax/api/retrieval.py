"""A run of BLIP-2's first stage that retrieves: its parameters, its tokens, its scores on published sets."""

import functools
from typing import Any

import jax
import numpy as np

from xgenmm_jax.api.loading import is_run
from xgenmm_jax.convert.tensor_files import refuse_pickles
from xgenmm_jax.data.readers.blip_captions import BlipCaptions
from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.source import Mapped, Source
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.data.text.caption_tokens import for_queries
from xgenmm_jax.data.text.wordpiece import is_wordpiece
from xgenmm_jax.evaluation.retrieval import TEXT_TOKENS, Result, Retriever, Texts, retrieve, views
from xgenmm_jax.evaluation.tasks.retrieval_sets import Pairs
from xgenmm_jax.models import blip2
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.paths import Path
from xgenmm_jax.training.config import TrainConfig, load_config
from xgenmm_jax.training.runs.reading import restore_run
from xgenmm_jax.training.sharding import MeshConfig, make_mesh, param_shardings


def retrieve_pairs(folder: Path, sets: dict[str, Pairs]) -> dict[str, tuple[Result, int]]:
    """Of each set the recalls of a run's newest checkpoint, and how many captions were cut.

    Raises ValueError where the run is no first stage of BLIP-2, or its tokens are not those of its tokenizer.
    """
    if not is_run(folder):
        if not folder.exists():
            raise ValueError(f"run folder: no folder '{folder}'; give a run of experiments/blip2/stage1.py.")
        refuse_pickles(folder)
        raise ValueError(
            f"retrieval: '{folder}' is no run; released files become one first: xgenmm convert {folder} runs/released."
        )
    run = load_config(folder)
    if not isinstance(run.model, Blip2Config):
        raise ValueError(
            f"--tasks: '{folder}' holds a {type(run.model).__name__.removesuffix('Config')}, and retrieval is by "
            "BLIP-2's first stage; give a run of experiments/blip2/stage1.py."
        )
    file = tokenizer_files.beside(folder)
    words = None if file is None else for_queries(file)
    if file is None or words is None or words.rows != run.model.text.vocab_size:
        got = "no tokenizer" if words is None else f"a tokenizer of {words.ids} ids"
        raise ValueError(
            f"retrieval: '{folder}' has {got} for {run.model.text.vocab_size} rows of text; where its weights are of "
            f"LAVIS or transformers, copy BERT's vocab.txt (bert-base-uncased) to {folder}/vocab.txt."
        )
    retriever = Retriever(run.model, _params(folder, run.model))
    # The official code cleans captions that it asks, too.
    cleans = is_wordpiece(file) or _cleans(run)
    results = {}
    for name, pairs in sets.items():
        captions = [_cleaned(text) for text in pairs.texts] if cleans else pairs.texts
        texts = Texts.of(captions, words, min(TEXT_TOKENS, run.model.text.max_positions))
        pixels = views(pairs.images, run.model.vision.image_size_px, retriever.batch)
        results[name] = retrieve(retriever, pixels, texts, np.array(pairs.image_of_text)), texts.cut
    return results


def _params(folder: Path, model: Blip2Config) -> Any:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    boxed = jax.eval_shape(functools.partial(blip2.initialize, model), jax.random.key(0))
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        unboxed(boxed),
        param_shardings(mesh, boxed),
    )
    return restore_run(folder, abstract)


def _cleans(run: TrainConfig) -> bool:
    """Whether the run's captions were cleaned as BLIP's: then those that it is asked are too."""
    return any(_is_cleaned(source) for source, _ in getattr(run.data, "mixture", ()))


def _is_cleaned(source: Source) -> bool:
    if not isinstance(source, Mapped):
        return False
    return isinstance(source.change, BlipCaptions) or _is_cleaned(source.source)


def _cleaned(text: str) -> str:
    return BlipCaptions()(Caption("", LazyImage((1, 1), lambda: None), text)).text
