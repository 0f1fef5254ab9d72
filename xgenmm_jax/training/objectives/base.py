"""What a run learns, as the loop sees it: `TrainConfig.objective` is one of these."""

import abc
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array, Float, Float32, Int

from xgenmm_jax.data.rows.order import State
from xgenmm_jax.models.lora import LoRA

Params = Any
"""Nested dicts of arrays."""

Rows = Any
"""A NamedTuple of arrays whose first axis is rows: `Batch`, or `CaptionBatch`."""


class Sum(NamedTuple):
    """A sum and what divides it. Micro-batches and devices add both, so the average is over the global batch."""

    total: Float[Array, ""]
    weight: Float[Array, ""]


class Items(NamedTuple):
    """What a loss averages, one by one: tokens or pairs. Where weight is 0, there is none."""

    values: dict[str, Float32[Array, "B n"]]
    """Of each figure, "loss" among them; 0 where there is no item."""
    weight: Float32[Array, "B n"]
    segment_ids: Int[Array, "B n"]
    """The segment of its row that an item belongs to."""


class Counts(NamedTuple):
    """What a batch holds, counted on the host."""

    samples: int
    tokens: int
    """Positions that are not padding."""
    positions: int
    """Padding too: tokens / positions is the fill."""


class Objective(abc.ABC):
    """A frozen dataclass with the options of a loss. model and data are those of the run's config."""

    needs_reference: ClassVar[bool] = False
    """Whether `loss` wants the starting values of the trained parameters beside them."""
    has_perplexity: ClassVar[bool] = False
    """Whether the loss is a cross entropy a token, in nats."""

    def check(self, model: Any, data: Any) -> None:
        """Raises ValueError where model and data do not fit each other or this objective; nothing is opened."""
        return None

    def check_micro_batch(self, rows: int) -> None:
        """Raises ValueError where so few rows have no loss; of a batch they are those that run together."""
        return None

    @abc.abstractmethod
    def init(self, model: Any, key: Array) -> Params:
        """Parameters boxed with logical axis names; also under `jax.eval_shape`."""

    def prepare(self, model: Any, params: Params, batches: Iterator[Rows]) -> Params:
        """The parameters that a new run begins with, where some follow from the data; as they are, here.

        batches: those that the run begins with, on the devices. All hosts call this, under the run's mesh.
        """
        return params

    @abc.abstractmethod
    def loss(
        self, model: Any, params: Params, reference: Params | None, rows: Rows, key: Array, freeze: tuple[str, ...]
    ) -> tuple[Sum, dict[str, Sum]]:
        """The loss, whose total is differentiated, and further metrics.

        reference: the starting values of the trained parameters, where `needs_reference`. key: of this step and
        micro-batch. freeze: parts of the model, or path prefixes, that do not train. By name it takes what `shared`
        gives, all of which may be missing: then rows are the whole batch and key is the step's.
        """

    def shared(self, rows: Rows, key: Array) -> dict[str, Array]:
        """What `loss` has to know of a whole step, the same in each of its micro-batches: nothing, here.

        rows: of the global batch. key: of the step.
        """
        return {}

    def items(
        self, model: Any, params: Params, reference: Params | None, rows: Rows, freeze: tuple[str, ...]
    ) -> Items | None:
        """What `loss` averages, one by one, so that the held-out loss can be told by source; arguments as there.

        None, as here, where an objective has no held-out loss.
        """
        return None

    @abc.abstractmethod
    def batches(
        self, model: Any, data: Any, seed: int, state: State, host_index: int, host_count: int
    ) -> Iterator[tuple[Rows, list[str], State]]:
        """Endless (rows of numpy arrays, ids of their samples, state after them) from a state on, of one host.

        Close the iterator to end its threads and processes. Raises ValueError where data and model do not fit.
        """

    @abc.abstractmethod
    def count(self, rows: Rows) -> Counts:
        """What a batch (numpy) holds."""

    def flops(self, model: Any, rows: Rows, freeze: tuple[str, ...], lora: LoRA | None = None) -> float:
        """Model FLOPs of a step on these rows (numpy); 0 where they are not known."""
        return 0.0
