"""Prompts with images in, answers out: batches of like lengths, one compilation per bucket."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree
import numpy as np

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation import arguments, buckets
from xgenmm_jax.generation.text import beam, decode, schedule, streaming
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.schedule import ExpandedPrompt, Limits, PromptBatch, Scheduler
from xgenmm_jax.generation.vision_tokens import View, VisionTable, instruction_tokens
from xgenmm_jax.models import phi3
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.ops.partitioning import ShardingContext, on_host
from xgenmm_jax.seeds import random_key

_IN_FLIGHT = 2
"""Batches whose answers are not fetched yet: the host prepares the next while the device works."""

_STREAM_STEPS = 4
"""Tokens that a stream writes at once: a word or two, so that the device seldom waits for the host."""


class Computed(NamedTuple):
    """Work of a generator. images, crops: that went through the tower. positions: of prompts, their padding counted."""

    images: int
    crops: int
    positions: int


class Generator:
    """Answers of one model.

    params: {vision, connector, decoder}, as in checkpoints. anyres: how images are cut; `generate` can take another.
    stop_ids: ends of an answer, one or several; by default `<|end|>`, `<|endofchunk|>` and `<|endoftext|>`; of none,
    `()`, only the limit ends it. sharding_context: the mesh over which params lie and the table by which caches and
    crops are cut over it; by default one device's. before_batch: called by `generate` before each batch of prompts;
    what it raises ends the call.

    Over the devices of several hosts, all make one and call the same methods with the same prompts: each reads every
    image, the devices share the work, and every host gets all answers.
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
        before_batch: Callable[[], None] = lambda: None,
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
        self._before_batch = before_batch
        self._placed = sharding_context or contextlib.nullcontext
        self._params = jax.tree.map(jnp.asarray, params)
        self._decoder = phi3.Phi3(config.decoder, config.dtype)
        if stop_ids is None:
            stop_ids = (tokenizer.end_id, tokenizer.end_of_chunk_id, tokenizer.eos_id)
        stops = arguments.stop_ids(stop_ids, config.decoder.logits)
        together = limits.prefill_positions or (1024 if jax.default_backend() == "cpu" else 32768)
        self._settings = decode.Settings(stops, tokenizer.pad_id, prefill_positions=together)
        # As many vision tokens as the limit allows, on the device for as long as the generator.
        bytes_per_slot = config.tokens_per_group * config.decoder.width * jnp.dtype(config.dtype).itemsize
        slots = max((limits.vision_mib << 20) // bytes_per_slot, 1)
        self._vision = VisionTable(config, self._params, min(slots, 4096), full_chunks=limits.few_shapes)
        self._prefix: tuple[tuple[int, ...], phi3.Cache | None] = ((), None)
        self._positions = 0

    @property
    def params(self) -> PyTree:
        """{vision, connector, decoder}, on the devices."""
        return self._params

    @property
    def one_view(self) -> AnyRes:
        """How an image is cut into its global view alone."""
        return replace(self.anyres, grids=())

    def forget_images(self) -> None:
        """Vision tokens of earlier calls are not used again: the next call is as a new generator's, to the bit."""
        self._vision.clear()

    @property
    def computed(self) -> Computed:
        """What this generator has computed so far."""
        return Computed(self._vision.images, self._vision.crops, self._positions)

    def generate(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        *,
        anyres: AnyRes | None = None,
        more_stops: tuple[int, ...] = (),
    ) -> list[str]:
        """The answer to each prompt, in order, without special strings and without spaces around.

        A row stops at a stop id or after max_new_tokens. Other prompts of the call change nothing but time: where
        answers are sampled, the n-th prompt of a call draws its own numbers from (seed, n).

        more_stops: ids that end the answers of this call beside the generator's own.

        Raises: ValueError where images and `<image>` ids differ in number, a prompt is empty, longer than all buckets
        or holds an id that the model has not, fixed sampling would not read all crops of an image, or there are more
        beams or new tokens than the model has ids or buckets have room; before anything is computed.
        """
        answers = self.generate_ids(prompts, decoding, anyres=anyres, more_stops=more_stops)
        return [self._text(ids) for ids in answers]

    def generate_ids(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        *,
        anyres: AnyRes | None = None,
        more_stops: tuple[int, ...] = (),
    ) -> list[list[int]]:
        """As `generate`, the new ids alone, without the stop id."""
        num_beams = decoding.num_beams
        if num_beams > self.config.decoder.logits:
            raise ValueError(
                f"generation: got num_beams {num_beams}, more than the model's {self.config.decoder.logits} ids; give "
                "fewer."
            )
        stops = tuple(dict.fromkeys((*self._settings.stop_ids, *more_stops)))
        settings = self._settings._replace(stop_ids=stops, decoding=decoding.static())
        key = random_key(decoding.seed)
        capacity = buckets.bucket(decoding.max_new_tokens, buckets.NEW_TOKEN_BUCKETS, "new tokens")

        # The prefix that all prompts share is computed once; the rest of each prompt goes into batches.
        breaks = (self.tokenizer.image_id, self.tokenizer.pad_id)
        shared = schedule.common_prefix([prompt.token_ids for prompt in prompts], breaks)
        expanded = [self._expand(i, prompt, shared, anyres or self.anyres) for i, prompt in enumerate(prompts)]
        prefix_ids = tuple(map(int, prompts[0].token_ids[:shared])) if shared else ()
        scheduler = Scheduler(self.config, self._limits, shared, capacity, num_beams)

        answers: list[list[int]] = [[] for _ in prompts]
        in_flight: deque[tuple[PromptBatch, Array]] = deque()
        with self._placed():
            for batch, prefix in self._prefixed(expanded, scheduler, prefix_ids):
                self._before_batch()
                limit, rows, table = jnp.int32(decoding.max_new_tokens), self._rows(batch), self._vision.table
                inputs = (self._decoder, self._params["decoder"], rows, table, prefix, limit)
                if num_beams > 1:
                    dispatched, _ = beam.beam_rows(*inputs, capacity=capacity, settings=settings)
                else:
                    dispatched = decode.generate_rows(*inputs, key, capacity=capacity, settings=settings)
                # The device works on the last batches while the host fetches an earlier one.
                in_flight.append((batch, dispatched))
                if len(in_flight) > _IN_FLIGHT:
                    self._fetch(*in_flight.popleft(), stops, answers)
        while in_flight:
            self._fetch(*in_flight.popleft(), stops, answers)
        return answers

    def _prefixed(
        self, prompts: Sequence[ExpandedPrompt], scheduler: Scheduler, prefix_ids: tuple[int, ...]
    ) -> Iterator[tuple[PromptBatch, phi3.Cache | None]]:
        """Batches in their order, each with the prefix that its rows go on from; its images are encoded.

        Where many prompts begin with the same images, that beginning is computed once for all of them.
        """
        groups = schedule.grouped(prompts, self.tokenizer.image_id, self.tokenizer.pad_id)
        if groups is None:
            # Images of a wave of batches are encoded together, before its batches are dispatched.
            for wave in schedule.waves(scheduler.batches(prompts), self._vision):
                self._vision.load(view for batch in wave for view in batch.views)
                for batch in wave:
                    yield batch, self._prefix_cache(prefix_ids)
            return
        for section in scheduler.sections(groups, self._vision):
            views = [view for batch in (section.heads, *section.batches) for view in batch.views]
            self._vision.load(views)
            heads = self._rows(section.heads)
            inputs = (self._decoder, self._params["decoder"], heads, self._vision.table, self._prefix_cache(prefix_ids))
            cache = decode.prefix_caches(*inputs, positions_together=self._settings.prefill_positions)
            for batch in section.batches:
                yield batch, cache

    def stream(
        self,
        prompt: Prompt,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        *,
        anyres: AnyRes | None = None,
    ) -> Iterator[str]:
        """Pieces of the answer as they are written, a few tokens at a time; joined, what `generate([prompt])` gives.

        Beam search knows its answer only at the end, so it has no stream.

        Raises: as `generate`, at once and not at the first piece.
        """
        if decoding.num_beams > 1:
            raise ValueError(f"generation: got a stream with num_beams {decoding.num_beams}; give 1 beam.")
        capacity = buckets.bucket(decoding.max_new_tokens, buckets.NEW_TOKEN_BUCKETS, "new tokens")
        settings = self._settings._replace(decoding=decoding.static())
        expanded = self._expand(0, prompt, 0, anyres or self.anyres)
        batch = PromptBatch([expanded], 1, schedule.prompt_length(len(expanded.token_ids), self._limits))
        params, key = self._params["decoder"], random_key(decoding.seed)
        with self._placed():
            self._vision.load(expanded.views)
            rows, table = self._rows(batch), self._vision.table
            begun = decode.begin_rows(self._decoder, params, rows, table, key, capacity=capacity, settings=settings)
        return streaming.pieces(self._texts(*begun, decoding.max_new_tokens, settings))

    def _texts(
        self, layers: tuple[PyTree, ...], state: decode.State, max_new_tokens: int, settings: decode.Settings
    ) -> Iterator[str]:
        """The answer so far, after its first token and then after every _STREAM_STEPS more, until it ends."""
        params = self._params["decoder"]
        for until in (*range(1, max_new_tokens, _STREAM_STEPS), max_new_tokens):
            if until > 1:
                with self._placed():
                    state = decode.continue_rows(
                        self._decoder, params, layers, state, jnp.int32(until), settings=settings
                    )
            ids = self._until_stop(on_host(state.answers)[0], settings.stop_ids)
            yield self.tokenizer.decode(ids, keep_special=False)
            if bool(on_host(state.done)[0]):
                return

    def _expand(self, number: int, prompt: Prompt, shared: int, anyres: AnyRes) -> ExpandedPrompt:
        """The prompt with room for its vision tokens, without its first `shared` ids.

        Raises ValueError where its ids or images are refused, see `generate`.
        """
        ids = arguments.token_ids(prompt.token_ids, self.config.decoder.logits, f"generation: prompt {number}")
        if np.all(ids == self.tokenizer.pad_id):
            raise ValueError(f"generation: prompt {number} is nothing but pads, which nobody reads; give a token.")
        is_image = ids == self.tokenizer.image_id
        if is_image.sum() != len(prompt.images):
            raise ValueError(
                f"generation: prompt {number} has {is_image.sum()} <image> and {len(prompt.images)} images; "
                "give one image for each"
            )
        read = instruction_tokens(self.config)
        instruction = tuple(ids[~is_image][:read].tolist()) if read else ()
        views = tuple(View(image, anyres, instruction) for image in prompt.images)
        repeats = np.ones(len(ids), np.int64)
        repeats[is_image] = [self._vision.tokens(view) for view in views]
        return ExpandedPrompt(number, np.repeat(ids, repeats)[shared:], views, shared)

    def _rows(self, batch: PromptBatch) -> decode.PromptRows:
        """The batch as arrays, its views' vision tokens by their index in the table."""
        pairs = []
        for prompt in batch.prompts:
            vision_index = np.full(len(prompt.token_ids), -1, np.int32)
            if prompt.views:
                indices = [self._vision.index(view) for view in prompt.views]
                vision_index[prompt.token_ids == self.tokenizer.image_id] = np.concatenate(indices)
            pairs.append((prompt.token_ids, vision_index))
        self._positions += batch.rows * batch.length
        prompts = batch.prompts
        return decode.left_pad(
            pairs,
            batch.rows,
            batch.length,
            [prompt.first_position for prompt in prompts],
            self.tokenizer.pad_id,
            [prompt.number for prompt in prompts],
            [prompt.prefix_row for prompt in prompts],
        )

    def _prefix_cache(self, ids: tuple[int, ...]) -> phi3.Cache | None:
        if not ids:
            return None
        if self._prefix[0] != ids:
            self._prefix = ids, decode.prefix_cache(self._decoder, self._params["decoder"], jnp.array(ids, jnp.int32))
            self._positions += len(ids)
        return self._prefix[1]

    def _fetch(self, batch: PromptBatch, rows: Array, stops: tuple[int, ...], answers: list[list[int]]) -> None:
        for prompt, ids in zip(batch.prompts, on_host(rows), strict=False):
            answers[prompt.number] = self._until_stop(ids, stops)

    def _until_stop(self, ids: np.ndarray, stops: tuple[int, ...]) -> list[int]:
        is_end = np.isin(ids, (*stops, self._settings.pad_id))
        return ids[: is_end.argmax() if is_end.any() else len(ids)].tolist()

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, keep_special=False).strip()
