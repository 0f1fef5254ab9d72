"""Prompts with pictures in, answers out: batches of like lengths, one compilation per bucket."""

from collections import deque
from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree
import numpy as np

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.chat import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation import arguments
from xgenmm_jax.generation.text import beam, cache, decode, sampling, streaming
from xgenmm_jax.generation.vision_tokens import View, VisionTable, instruction_tokens
from xgenmm_jax.models import phi3
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.ops.partitioning import ShardingContext
from xgenmm_jax.seeds import random_key

_IN_FLIGHT = 2
"""Batches whose answers are not fetched yet: the host lays out the next while the device works."""

_STREAM_STEPS = 4
"""Tokens between two looks of a stream at its answer: a word or two, so that the device seldom waits for the host."""


@dataclass(frozen=True)
class Limits:
    """What one device holds.

    rows: prompts decoded together. cache_mib: keys and values of a batch; rows are halved until they fit.
    vision_mib: vision tokens kept for pictures that come again. prefill_positions: positions of prompts computed
    together; by default few on a CPU, a third faster on two cores. few_shapes: lengths in coarse buckets and batches
    always full, for a small model whose programs take longer to compile than to run.
    """

    rows: int = 64
    cache_mib: int = 4096
    vision_mib: int = 64
    prefill_positions: int | None = None
    few_shapes: bool = False

    def __post_init__(self):
        for name, least in (("rows", 1), ("cache_mib", 0), ("vision_mib", 0), ("prefill_positions", 1)):
            if getattr(self, name) is not None:
                arguments.whole(f"limits.{name}", getattr(self, name), least)


class _Expanded(NamedTuple):
    """A prompt with `<image>` repeated over its vision tokens, behind the shared prefix."""

    number: int
    token_ids: np.ndarray
    views: tuple[View, ...]


class Generator:
    """Answers of one model.

    params: {vision, connector, decoder}, as in checkpoints. anyres: how pictures are cut; `generate` can take another.
    stop_ids: ends of an answer, one or several; by default `<|end|>`, `<|endofchunk|>` and `<|endoftext|>`; of none,
    `()`, only the limit ends it. sharding_context: the mesh over which params lie and the table by which caches and
    crops are cut over it; by default one device's.
    """

    def __init__(
        self,
        config: VLMConfig,
        params: PyTree,
        tokenizer: Tokenizer,
        anyres: AnyRes,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        stop_ids: Any = None,
        sharding_context: ShardingContext | None = None,
    ):
        if anyres.view_px != config.vision.image_size_px:
            raise ValueError(
                f"generation: views of {anyres.view_px} px for a tower of {config.vision.image_size_px} px; "
                "make AnyRes.view_px the tower's size"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.anyres = anyres
        self._limits = limits
        self._placed = sharding_context or contextlib.nullcontext
        self._params = jax.tree.map(jnp.asarray, params)
        self._decoder = phi3.Phi3(config.decoder, config.dtype)
        if stop_ids is None:
            stop_ids = (tokenizer.end_id, tokenizer.end_of_chunk_id, tokenizer.eos_id)
        stops = arguments.stop_ids(stop_ids, config.decoder.logits)
        together = limits.prefill_positions or (1024 if jax.default_backend() == "cpu" else 32768)
        self._settings = decode.Settings(stops, tokenizer.pad_id, sampling.greedy, together)
        bytes_per_slot = config.tokens_per_group * config.decoder.width * jnp.dtype(config.dtype).itemsize
        slots = max((limits.vision_mib << 20) // bytes_per_slot, 1)
        self._vision = VisionTable(config, self._params, min(slots, 4096), full_chunks=limits.few_shapes)
        self._prefix: tuple[tuple[int, ...], phi3.Cache | None] = ((), None)

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: SupportsIndex,
        *,
        anyres: AnyRes | None = None,
        num_beams: SupportsIndex = 1,
        length_penalty: SupportsFloat = 1.0,
        temperature: SupportsFloat = 0.0,
        top_k: SupportsIndex = 0,
        top_p: SupportsFloat = 1.0,
        seed: SupportsIndex = 0,
    ) -> list[str]:
        """The answer to each prompt, in order, without special strings and without spaces around.

        A row stops at a stop id or after max_new_tokens. Other prompts of the call change nothing but time.

        num_beams: above 1, beam search as Hugging Face's generate, see `beam.beam_rows`. temperature: above 0, draws
        (`sampling.Sampler`); the n-th prompt of a call draws its own numbers from (seed, n). seed: any whole number
        (`seeds.random_key`).

        Raises: ValueError where pictures and `<image>` ids differ in number, a prompt is empty, longer than all buckets
        or holds an id that the model has not, fixed sampling would not read all crops of a picture, or settings mean
        nothing; before anything is computed.
        """
        rows = self.generate_ids(
            prompts, max_new_tokens, anyres=anyres, num_beams=num_beams, length_penalty=length_penalty,
            temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
        )  # fmt: skip
        return [self._text(ids) for ids in rows]

    def generate_ids(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: SupportsIndex,
        *,
        anyres: AnyRes | None = None,
        num_beams: SupportsIndex = 1,
        length_penalty: SupportsFloat = 1.0,
        temperature: SupportsFloat = 0.0,
        top_k: SupportsIndex = 0,
        top_p: SupportsFloat = 1.0,
        seed: SupportsIndex = 0,
    ) -> list[list[int]]:
        """As `generate`, the new ids alone, without the stop id."""
        asked = arguments.options(max_new_tokens, num_beams, length_penalty, temperature, top_k, top_p, seed)
        max_new_tokens, num_beams = asked.max_new_tokens, asked.num_beams
        if num_beams > self.config.decoder.logits:
            raise ValueError(
                f"generation: got num_beams {num_beams}, more than the model's {self.config.decoder.logits} ids; give "
                "fewer."
            )
        beams = beam.Beams(num_beams, asked.length_penalty) if num_beams > 1 else None
        settings = self._settings._replace(chooser=asked.chooser)
        key = random_key(asked.seed)
        capacity = cache.bucket(max_new_tokens, cache.NEW_TOKEN_BUCKETS, "new tokens")
        breaks = (self.tokenizer.image_id, self.tokenizer.pad_id)
        shared = cache.common_prefix([prompt.token_ids for prompt in prompts], breaks)
        expanded = [self._expand(i, prompt, shared, anyres or self.anyres) for i, prompt in enumerate(prompts)]
        prefix_ids = tuple(map(int, prompts[0].token_ids[:shared])) if shared else ()
        expanded.sort(key=lambda prompt: len(prompt.token_ids))
        most = max(self._limits.rows // num_beams, 1)
        batches = list(self._batches(expanded, most, shared, capacity, num_beams))

        answers: list[list[int]] = [[] for _ in prompts]
        in_flight: deque[tuple[list[_Expanded], Array]] = deque()
        with self._placed():
            for wave in self._waves(batches):
                self._vision.load(view for batch in wave for prompt in batch for view in prompt.views)
                for batch in wave:
                    full = len(batches) > 1 or self._limits.few_shapes
                    rows = most if full else cache.row_bucket(len(batch), most)
                    rows = min(rows, self._rows_that_fit(_longest(batch), shared, capacity, num_beams))
                    laid_out = self._rows(batch, rows, shared)
                    limit, prefix = jnp.int32(max_new_tokens), self._prefix_cache(prefix_ids)
                    head = (self._decoder, self._params["decoder"], laid_out, self._vision.table, prefix, limit)
                    if beams:
                        dispatched, _ = beam.beam_rows(*head, capacity=capacity, settings=settings, beams=beams)
                    else:
                        dispatched = decode.generate_rows(*head, key, capacity=capacity, settings=settings)
                    in_flight.append((batch, dispatched))
                    if len(in_flight) > _IN_FLIGHT:
                        self._fetch(*in_flight.popleft(), answers)
        while in_flight:
            self._fetch(*in_flight.popleft(), answers)
        return answers

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: SupportsIndex,
        *,
        anyres: AnyRes | None = None,
        temperature: SupportsFloat = 0.0,
        top_k: SupportsIndex = 0,
        top_p: SupportsFloat = 1.0,
        seed: SupportsIndex = 0,
    ) -> Iterator[str]:
        """Pieces of the answer as they are written, a few tokens at a time; joined, what `generate([prompt])` gives.

        Beam search knows its answer only at the end, so it has no stream.

        Raises: as `generate`, at once and not at the first piece.
        """
        asked = arguments.options(max_new_tokens, 1, 1.0, temperature, top_k, top_p, seed)
        capacity = cache.bucket(asked.max_new_tokens, cache.NEW_TOKEN_BUCKETS, "new tokens")
        settings = self._settings._replace(chooser=asked.chooser)
        expanded = self._expand(0, prompt, 0, anyres or self.anyres)
        params, key = self._params["decoder"], random_key(asked.seed)
        with self._placed():
            self._vision.load(expanded.views)
            rows, table = self._rows([expanded], 1, 0), self._vision.table
            begun = decode.begin_rows(self._decoder, params, rows, table, key, capacity=capacity, settings=settings)
        return streaming.pieces(self._texts(*begun, asked.max_new_tokens, settings))

    def _texts(
        self, layers: tuple[PyTree, ...], state: decode.State, max_new_tokens: int, settings: decode.Settings
    ) -> Iterator[str]:
        """The answer so far, again and again until it ends."""
        params = self._params["decoder"]
        for until in (*range(1, max_new_tokens, _STREAM_STEPS), max_new_tokens):
            if until > 1:
                with self._placed():
                    reached = jnp.int32(until)
                    state = decode.continue_rows(self._decoder, params, layers, state, reached, settings=settings)
            yield self.tokenizer.decode(self._until_stop(np.asarray(state.answers[0])), keep_special=False)
            if bool(state.done[0]):
                return

    def _expand(self, number: int, prompt: Prompt, shared: int, anyres: AnyRes) -> _Expanded:
        ids = arguments.token_ids(prompt.token_ids, self.config.decoder.logits, f"generation: prompt {number}")
        if np.all(ids == self.tokenizer.pad_id):
            raise ValueError(f"generation: prompt {number} is nothing but pads, which nobody reads; give a token.")
        is_image = ids == self.tokenizer.image_id
        if is_image.sum() != len(prompt.pictures):
            raise ValueError(
                f"generation: prompt {number} has {is_image.sum()} <image> and {len(prompt.pictures)} pictures; "
                "give one picture for each"
            )
        read = instruction_tokens(self.config)
        instruction = tuple(ids[~is_image][:read].tolist()) if read else ()
        views = tuple(View(picture, anyres, instruction) for picture in prompt.pictures)
        repeats = np.ones(len(ids), np.int64)
        repeats[is_image] = [self._vision.tokens(view) for view in views]
        return _Expanded(number, np.repeat(ids, repeats)[shared:], views)

    def _batches(
        self, prompts: list[_Expanded], most: int, shared: int, capacity: int, num_beams: int
    ) -> Iterator[list[_Expanded]]:
        """Neighbours in length; as many as fit beside the longest, which comes first when counted from the end."""
        end = len(prompts)
        while end:
            rows = min(most, self._rows_that_fit(_longest(prompts[:end]), shared, capacity, num_beams))
            yield prompts[max(end - rows, 0) : end]
            end -= min(rows, end)

    def _rows_that_fit(self, longest: int, shared: int, capacity: int, num_beams: int) -> int:
        decoder = self.config.decoder
        length = shared + self._length_bucket(longest) + capacity
        per_row = 2 * decoder.layers * length * decoder.kv_heads * decoder.head_width * num_beams
        fitting = (self._limits.cache_mib << 20) // (per_row * jnp.dtype(self.config.dtype).itemsize)
        return max(1, 1 << (fitting.bit_length() - 1)) if fitting else 1

    def _length_bucket(self, longest: int) -> int:
        buckets = cache.COARSE_PROMPT_BUCKETS if self._limits.few_shapes else cache.PROMPT_BUCKETS
        return cache.bucket(longest, buckets, "tokens of a prompt")

    def _waves(self, batches: list[list[_Expanded]]) -> Iterator[list[list[_Expanded]]]:
        """Batches in a row whose pictures fit into the table together: encoded at once, in full chunks."""
        wave: list[list[_Expanded]] = []
        views: set[View] = set()
        used = 0
        for batch in batches:
            new = {view for prompt in batch for view in prompt.views} - views
            needed = sum(map(self._vision.groups, new))
            if wave and used + needed > self._vision.slots:
                yield wave
                wave, views, used = [], set(), 0
                new = {view for prompt in batch for view in prompt.views}
                needed = sum(map(self._vision.groups, new))
            wave.append(batch)
            views |= new
            used += needed
        if wave:
            yield wave

    def _rows(self, batch: list[_Expanded], rows: int, shared: int) -> decode.PromptRows:
        pairs = []
        for prompt in batch:
            vision_index = np.full(len(prompt.token_ids), -1, np.int32)
            if prompt.views:
                places = [self._vision.index(view) for view in prompt.views]
                vision_index[prompt.token_ids == self.tokenizer.image_id] = np.concatenate(places)
            pairs.append((prompt.token_ids, vision_index))
        length = self._length_bucket(_longest(batch))
        numbers = [prompt.number for prompt in batch]
        return decode.left_pad(pairs, rows, length, shared, self.tokenizer.pad_id, numbers)

    def _prefix_cache(self, ids: tuple[int, ...]) -> phi3.Cache | None:
        if not ids:
            return None
        if self._prefix[0] != ids:
            self._prefix = ids, decode.prefix_cache(self._decoder, self._params["decoder"], jnp.array(ids, jnp.int32))
        return self._prefix[1]

    def _fetch(self, batch: list[_Expanded], rows: Array, answers: list[list[int]]) -> None:
        for prompt, ids in zip(batch, np.asarray(rows), strict=False):
            answers[prompt.number] = self._until_stop(ids)

    def _until_stop(self, ids: np.ndarray) -> list[int]:
        stops = np.isin(ids, (*self._settings.stop_ids, self._settings.pad_id))
        return ids[: stops.argmax() if stops.any() else len(ids)].tolist()

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, keep_special=False).strip()


def _longest(prompts: list[_Expanded]) -> int:
    return max(len(prompt.token_ids) for prompt in prompts)
