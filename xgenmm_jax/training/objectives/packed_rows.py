"""What the objectives on packed rows share: parameters, batches of rows, log-probabilities of tokens."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar

import jax
from jaxtyping import Array, Float
import numpy as np

from xgenmm_jax.batch import Batch
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import Asking, DataConfig
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.text.chat import check_style
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models import flops
from xgenmm_jax.models.blip3 import VLM, VLMConfig, initialize, splice
from xgenmm_jax.models.lora import LoRA, dropout_streams
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.training.objectives.base import Counts, Objective, Params
from xgenmm_jax.training.objectives.losses import token_log_probs

NO_STREAMS: Mapping[str, Array] = MappingProxyType({})


class PackedRows(Objective):
    """An objective of a VLMConfig on a DataConfig; subclasses have the loss."""

    learns_drawing: ClassVar[bool] = False
    """Whether rows hold captions to draw beside their images, and are a `DrawingBatch`."""

    def check(self, model: VLMConfig, data: DataConfig) -> None:
        """Raises ValueError where rows have other views or vision tokens than the model, more crops than it reads, or
        captions to draw that this objective does not learn from."""
        if data.target_px and not self.learns_drawing:
            raise ValueError(
                f"data.target_px: got {data.target_px}, and {type(self).__name__} learns from no captions to draw; "
                "make it 0, or give an objective that draws, FlowMatching."
            )
        per = "image" if model.token_sampling is TokenSampling.FIXED_SAMPLING else "crop"
        if data.row.vision_tokens_per != per:
            raise ValueError(
                f"data.row.vision_tokens_per: got '{data.row.vision_tokens_per}', and with model.token_sampling "
                f"'{model.token_sampling.value}' the resampler's tokens are those of one {per}; make it '{per}'."
            )
        _check_equal(
            "data.row.vision_tokens", data.row.vision_tokens, "model's vision tokens a group", model.tokens_per_group
        )
        for option, asking in askings(data).items():
            anyres, vision = asking.anyres, model.vision
            px, cells = f"{option}.anyres.view_px", f"{option}.anyres.view_cells"
            _check_equal(px, anyres.view_px, "model.vision.image_size_px", vision.image_size_px)
            _check_equal(cells, anyres.view_cells, "model.vision's patches a side", vision.grid)
            model.check_crops(anyres.max_crops, f"{option}.anyres cuts an image into up to")

    def init(self, model: VLMConfig, key: Array) -> Params:
        return initialize(model, key)

    def batches(
        self, model: VLMConfig, data: DataConfig, seed: int, state: State, host_index: int, host_count: int
    ) -> Iterator[tuple[Batch, list[str], State]]:
        """Raises ValueError where the tokenizer is not the model's, or turns are not written in it."""
        tokenizer = Tokenizer.load(data.tokenizer)
        for option, asking in askings(data).items():
            check_style(asking.chat, tokenizer, f"{option}.chat")
        _check_equal("tokenizer's ids", len(tokenizer), "model.decoder's logits", model.decoder.logits)
        # Processes that hold the same rows are one host here, and would all write the same part of an index.
        may_measure = jax.process_count() == 1
        return loader.batches(data, seed, state, host_index, host_count, may_measure)

    def count(self, rows: Batch) -> Counts:
        is_filled = np.asarray(rows.segment_ids) > 0
        samples = is_filled & (np.asarray(rows.positions) == 0)  # a segment may be missing between others
        return Counts(int(samples.sum()), int(is_filled.sum()), is_filled.size)

    def flops(self, model: VLMConfig, rows: Batch, freeze: tuple[str, ...], lora: LoRA | None = None) -> float:
        workload = flops.workload_of(rows, model)
        return flops.model_flops(model, workload, freeze, self.needs_reference, lora).total


def askings(data: DataConfig) -> dict[str, Asking]:
    """By their options, all views and words: those of the rows, and those in which the trained model is asked."""
    of_rows = {"data": Asking(data.anyres, data.chat)}
    return of_rows if data.asked is None else of_rows | {"data.asked": data.asked}


def _check_equal(name: str, got: int, expected_name: str, expected: int) -> None:
    """Raises ValueError for two numbers that differ."""
    if got != expected:
        raise ValueError(f"{name}: got {got}, {expected_name}: {expected}; make them equal.")


def check_chunk(chunk: int) -> None:
    """Raises ValueError for a loss over chunks of no position."""
    if chunk < 1:
        raise ValueError(f"objective.chunk: got {chunk}, wanted at least 1.")


def trains_vision(freeze: tuple[str, ...]) -> bool:
    """Whether gradients reach the tower."""
    return "vision" not in freeze


def training_streams(model: VLMConfig, params: Params, key: Array, step_key: Array | None) -> dict[str, Array]:
    """The random streams of a training step. step_key: None: `key`, where there are no micro-batches."""
    row_key = key if step_key is None else step_key
    return dropout_streams(params, key, row_key if model.connector_drops else None)


def batch_log_probs(
    vlm: VLM,
    params: Params,
    batch: Batch,
    chunk: int,
    features: Float[Array, "B C P E"] | None = None,
    streams: Mapping[str, Array] = NO_STREAMS,
) -> Float[Array, "B T"]:
    """Log-probability of every supervised token of packed rows, 0 elsewhere; float32.

    features: the tower's, where they are known already. streams: random ones of a training step, by name.
    """
    if features is None:
        return _log_probs(vlm, params, batch, chunk, lambda vlm: vlm.hidden(batch), streams)
    return log_probs_with_images(vlm, params, batch, chunk, lambda vlm: vlm.connect(features, batch), streams)


def log_probs_with_images(
    vlm: VLM,
    params: Params,
    batch: Batch,
    chunk: int,
    images: Callable[[VLM], Float[Array, "B M D"]],
    streams: Mapping[str, Array] = NO_STREAMS,
) -> Float[Array, "B T"]:
    """As `batch_log_probs`, with vision tokens that `images` makes."""

    def hidden(vlm: VLM) -> Float[Array, "B T D"]:
        text = vlm.decoder.embed(batch.token_ids)
        embeddings = splice(text, images(vlm), batch.slot)
        return vlm.decoder.hidden(embeddings, batch.segment_ids, batch.positions)

    return _log_probs(vlm, params, batch, chunk, hidden, streams)


def _log_probs(
    vlm: VLM,
    params: Params,
    batch: Batch,
    chunk: int,
    hidden: Callable[[VLM], Float[Array, "B T D"]],
    streams: Mapping[str, Array],
) -> Float[Array, "B T"]:
    variables = {"params": params}
    return token_log_probs(
        lambda states: vlm.apply(variables, states, method="logits"),
        vlm.apply(variables, method=hidden, rngs=dict(streams)),
        batch.token_ids,
        batch.loss_mask,
        chunk,
    )
