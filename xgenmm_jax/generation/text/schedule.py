"""Which prompts of a call are answered together: batches of like lengths, waves of batches that share an encoding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from xgenmm_jax.generation import arguments, buckets
from xgenmm_jax.generation.vision_tokens import View, VisionTable
from xgenmm_jax.models.blip3 import VLMConfig

PREFIX_STEP = 8
"""A shared prefix is cut to a multiple of this, so that like prompts share a compilation."""
PREFIX_MIN = 16
"""A shorter prefix is computed with each prompt."""
LEAST_SAVED = 0.25
"""Of the positions of all prompts: with less, beginnings that some prompts share are computed with each prompt."""


@dataclass(frozen=True)
class Limits:
    """What one device holds.

    rows: prompts decoded together. cache_mib: keys and values of a batch; rows are halved until they fit.
    vision_mib: vision tokens kept for images that come again. prefill_positions: positions of prompts computed
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


class ExpandedPrompt(NamedTuple):
    """A prompt with `<image>` repeated over its vision tokens, without the prefix that all prompts share.

    number: its index in the call. first_position: of its first token here. prefix_row: which row of its batch's prefix
    it goes on from.
    """

    number: int
    token_ids: np.ndarray
    views: tuple[View, ...]
    first_position: int = 0
    prefix_row: int = 0


class PromptBatch(NamedTuple):
    """Prompts that are decoded together, in `rows` rows of `length` positions; rows beyond the prompts are padding."""

    prompts: list[ExpandedPrompt]
    rows: int
    length: int

    @property
    def views(self) -> tuple[View, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(view for prompt in self.prompts for view in prompt.views))


class PromptGroup(NamedTuple):
    """Prompts that begin with the same texts and images. head: that beginning; rests: what follows of each."""

    head: ExpandedPrompt
    rests: list[ExpandedPrompt]


class Section(NamedTuple):
    """Groups whose heads are computed together, each once, as the prefix of the batches of what follows them."""

    heads: PromptBatch
    batches: list[PromptBatch]


@dataclass(frozen=True)
class Scheduler:
    """Cuts the prompts of one call into batches whose keys and values fit beside the model.

    shared: tokens of the prefix that all prompts share. capacity: room for new tokens.
    """

    config: VLMConfig
    limits: Limits
    shared: int
    capacity: int
    num_beams: int

    def sections(self, groups: Sequence[PromptGroup], table: VisionTable) -> Iterator[Section]:
        """Groups of neighbouring lengths, the longest heads first: as many as fit into half of the cache's memory.

        The other half holds a batch. Several sections have the same shapes where their longest heads and rests do.
        """
        half = replace(self, limits=replace(self.limits, cache_mib=self.limits.cache_mib // 2))
        alone = replace(half, capacity=0, num_beams=1)
        by_length = sorted(groups, key=lambda group: len(group.head.token_ids), reverse=True)
        while by_length:
            longest = len(by_length[0].head.token_ids)
            most = min(self.limits.rows, alone.rows_that_fit(longest))
            taken, views, used = 0, set[View](), 0
            while taken < min(most, len(by_length)):
                new = set(by_length[taken].head.views) - views
                if taken and used + sum(map(table.groups, new)) > table.slots:
                    break
                views, used, taken = views | new, used + sum(map(table.groups, new)), taken + 1
            section, by_length = by_length[:taken], by_length[taken:]
            length = prompt_length(longest, self.limits)
            heads = PromptBatch([group.head for group in section], buckets.row_bucket(taken, most), length)
            rests = [rest._replace(prefix_row=row) for row, group in enumerate(section) for rest in group.rests]
            yield Section(heads, replace(half, shared=self.shared + length).batches(rests))

    def batches(self, prompts: Sequence[ExpandedPrompt]) -> list[PromptBatch]:
        """Neighbours in length, the longest prompts first: as many in a batch as fit beside its longest.

        A single batch is as small as its prompts allow; several are all full, so that they share a program.
        """
        most = max(self.limits.rows // self.num_beams, 1)
        by_length = sorted(prompts, key=lambda prompt: len(prompt.token_ids))
        groups = []
        while by_length:
            rows = min(most, self.rows_that_fit(_longest(by_length)))
            groups.append(by_length[-rows:])
            del by_length[-rows:]
        is_full = len(groups) > 1 or self.limits.few_shapes
        return [self._batch(group, most if is_full else buckets.row_bucket(len(group), most)) for group in groups]

    def _batch(self, prompts: list[ExpandedPrompt], rows: int) -> PromptBatch:
        longest = _longest(prompts)
        return PromptBatch(prompts, min(rows, self.rows_that_fit(longest)), prompt_length(longest, self.limits))

    def rows_that_fit(self, longest: int) -> int:
        """How many rows' keys and values fit into `limits.cache_mib`: a power of two, at least 1."""
        decoder = self.config.decoder
        length = self.shared + prompt_length(longest, self.limits) + self.capacity
        per_row = 2 * decoder.layers * length * decoder.kv_heads * decoder.head_width * self.num_beams
        fitting = (self.limits.cache_mib << 20) // (per_row * jnp.dtype(self.config.dtype).itemsize)
        return max(1, 1 << (fitting.bit_length() - 1)) if fitting else 1


def prompt_length(longest: int, limits: Limits) -> int:
    """The bucket of a batch whose longest prompt has so many tokens. Raises ValueError where none holds it."""
    lengths = buckets.COARSE_PROMPT_BUCKETS if limits.few_shapes else buckets.PROMPT_BUCKETS
    return buckets.bucket(longest, lengths, "tokens of a prompt")


def _longest(prompts: Sequence[ExpandedPrompt]) -> int:
    return max(len(prompt.token_ids) for prompt in prompts)


def waves(batches: Sequence[PromptBatch], table: VisionTable) -> Iterator[list[PromptBatch]]:
    """Successive batches whose images fit into the table together: encoded at once, in full chunks."""
    wave: list[PromptBatch] = []
    views: set[View] = set()
    used = 0
    for batch in batches:
        needed = sum(map(table.groups, set(batch.views) - views))
        if wave and used + needed > table.slots:
            yield wave
            wave, views, used = [], set(), 0
            needed = sum(map(table.groups, batch.views))
        wave.append(batch)
        views.update(batch.views)
        used += needed
    if wave:
        yield wave


def common_prefix(prompts: Sequence[Sequence[int]], stop_ids: Sequence[int]) -> int:
    """How many ids all prompts begin with, before any of `stop_ids`: a multiple of PREFIX_STEP, less than every prompt.

    Example: prompts of 40 ids that differ from the 30th on share 24; 0 for a single prompt, or less than PREFIX_MIN.
    """
    if len(prompts) < 2:
        return 0
    shortest = min(len(ids) for ids in prompts) - 1
    # Sorted sequences differ most between the first and the last.
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    alike = itertools.takewhile(
        lambda pair: pair[0] == pair[1] and pair[0] not in stop_ids, zip(first, last, strict=False)
    )
    shared = sum(1 for _ in alike)
    whole = min(shared, shortest) // PREFIX_STEP * PREFIX_STEP
    return whole if whole >= PREFIX_MIN else 0


def grouped(prompts: Sequence[ExpandedPrompt], image_id: int, pad_id: int) -> list[PromptGroup] | None:
    """Prompts by an equal beginning up to their last image and as far as the group's texts agree behind it.

    None where that saves less than LEAST_SAVED of the positions of all prompts, or a prompt ends in an image, so that
    no token is left to go on from.
    """
    if any(len(prompt.token_ids) and prompt.token_ids[-1] == image_id for prompt in prompts):
        return None
    by_beginning: dict[tuple[bytes, tuple[View, ...]], list[ExpandedPrompt]] = {}
    for prompt in prompts:
        images = np.flatnonzero(prompt.token_ids == image_id)
        end = int(images[-1]) + 1 if len(images) else 0
        by_beginning.setdefault((prompt.token_ids[:end].tobytes(), prompt.views), []).append(prompt)
    groups = [_group(key, members, pad_id) for key, members in by_beginning.items()]
    together = sum(len(group.head.token_ids) + sum(len(rest.token_ids) for rest in group.rests) for group in groups)
    if together > (1 - LEAST_SAVED) * sum(len(prompt.token_ids) for prompt in prompts):
        return None
    return groups


def _group(key: tuple[bytes, tuple[View, ...]], members: list[ExpandedPrompt], pad_id: int) -> PromptGroup:
    first = members[0]
    end = len(key[0]) // first.token_ids.itemsize
    if end:
        shortest = min(len(member.token_ids) for member in members) - 1
        rows = np.stack([member.token_ids[:shortest] for member in members])
        unlike = np.flatnonzero((rows != rows[0]).any(axis=0))
        end = max(end, int(unlike[0]) if len(unlike) else shortest)
    head = first._replace(token_ids=first.token_ids[:end], views=key[1])
    position = first.first_position + int((head.token_ids != pad_id).sum())
    rests = [
        member._replace(token_ids=member.token_ids[end:], views=(), first_position=position) for member in members
    ]
    return PromptGroup(head, rests)
