"""The training step: one jitted function for every objective, on one device as on many."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Float32, Int32
import optax

from xgenmm_jax.batch import ArrayLike
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.seeds import random_key
from xgenmm_jax.training.averaging import moved
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.base import Params, Rows, Sum
from xgenmm_jax.training.optimizer import merge, reference_of, split
from xgenmm_jax.training.sharding import axis_rules, param_shardings, replicated, row_sharding


class TrainState(NamedTuple):
    """What a step changes. Parameters and optimizer state are float32."""

    step: Int32[Array, ""]
    """Steps taken."""
    params: Params
    opt_state: Any
    """Of the trained parameters alone; an `averaging.WithAverage` where the run keeps their moving average."""
    healthy: Bool[Array, ""]
    """False from the first loss or gradient that is not finite; nothing else changes from then on, `step` included."""


StepFunction = Callable[
    [TrainState, Params | None, Rows, Float32[ArrayLike, ""]], tuple[TrainState, dict[str, Float[Array, ""]]]
]


def init_state(params: Params, trainable: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0."""
    trained, _ = split(params, trainable)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(trained), jnp.ones((), bool))


def abstract_state(
    boxed: Params, trainable: Any, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of a state, as ShapeDtypeStructs; no memory is taken.

    boxed: shapes of the parameters with their logical axis names, as `eval_shape` of an objective's `init` gives them.
    """
    shardings = param_shardings(mesh, boxed)
    shapes = jax.eval_shape(lambda params: init_state(params, trainable, optimizer), unboxed(boxed))
    trained_shardings, _ = split(shardings, trainable)
    # Moments lie as their parameters do; counters are replicated. Masked: Adam's of what Muon turns, and the reverse.
    opt_shardings = optax.tree.map_params(
        optimizer,
        lambda leaf, sharding: leaf if isinstance(leaf, optax.MaskedNode) else sharding,
        shapes.opt_state,
        trained_shardings,
        transform_non_params=lambda _: replicated(mesh),
        is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
    )
    state_shardings = TrainState(replicated(mesh), shardings, opt_shardings, replicated(mesh))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, state_shardings
    )


def shardings_of(abstract: Any) -> Any:
    """The shardings of a tree of ShapeDtypeStructs."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def make_step(
    config: TrainConfig, trainable: Any, optimizer: optax.GradientTransformation, mesh: Mesh, abstract: TrainState
) -> StepFunction:
    """(state, reference, rows, rate) -> (state, metrics). The state given is donated: do not use it again.

    Metrics are float32 scalars: loss, learning_rate, grad_norm, healthy (1 or 0), and the objective's own. Call under
    `jax.set_mesh(mesh)`. Random keys come from (seed, step), so a resumed run draws what an unbroken one draws. The
    learning rate is an argument: another one, or another length of the run, is no other program.
    """

    def step(state: TrainState, reference: Params | None, rows: Rows, rate: Float32[Array, ""]):
        # The gradient of the global batch, with respect to the trained parameters alone.
        trained, frozen = split(state.params, trainable)
        key = jax.random.fold_in(random_key(config.seed), state.step)
        grads, loss, metrics = gradient(config, trained, frozen, reference, rows, key, mesh)
        # The optimizer gives directions without the rate, which is an argument of the step.
        directions, opt_state = optimizer.update(grads, state.opt_state, trained)
        updates = jax.tree.map(lambda direction: rate * direction, directions)
        trained = optax.apply_updates(trained, updates)
        if config.average_decay:
            opt_state = moved(opt_state, trained, config.average_decay, state.step)
        new = TrainState(state.step + 1, merge(trained, frozen), opt_state, jnp.ones((), bool))
        # A step that is not finite changes nothing but `healthy`, which stays false from then on.
        grad_norm = optax.tree.norm(grads)
        healthy = state.healthy & jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        old = state._replace(healthy=jnp.zeros((), bool))
        state = jax.tree.map(lambda a, b: jnp.where(healthy, a, b), new, old)
        common = {"loss": loss, "learning_rate": rate, "grad_norm": grad_norm, "healthy": healthy}
        return state, {name: jnp.asarray(value, jnp.float32) for name, value in (common | metrics).items()}

    def traced(state, reference, rows, rate):
        with axis_rules():
            return step(state, reference, rows, rate)

    # Where everything lies is fixed, so that no host compiles another program.
    state_shardings = shardings_of(abstract)
    reference_shardings = reference_of(state_shardings.params, trainable) if config.keeps_reference else None
    return jax.jit(
        traced,
        in_shardings=(state_shardings, reference_shardings, row_sharding(mesh), replicated(mesh)),
        out_shardings=(state_shardings, replicated(mesh)),
        donate_argnums=0,
    )


def gradient(
    config: TrainConfig,
    trained: Params,
    frozen: Params,
    reference: Params | None,
    rows: Rows,
    key: Array,
    mesh: Mesh,
) -> tuple[Params, Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Gradient with respect to the trained parameters, loss and metrics of one global batch.

    Totals are added over micro-batches and divided by the weight of the whole batch once, so accumulation changes
    rounding and nothing else, but of an objective that draws by its micro-batch's key (noise of symbolic images,
    dropout of low-rank updates) or compares rows with each other (`QueryPretraining`). A batch without any weight gives
    zeros.
    """

    accumulation, shared = config.accumulation, config.objective.shared(rows, key)

    def loss(trained, micro_rows, key):
        params = merge(trained, frozen)
        total, metrics = config.objective.loss(
            config.model, params, reference, micro_rows, key, config.freeze, **shared
        )
        return total.total, (total, metrics)

    grad = jax.grad(loss, has_aux=True)
    if accumulation == 1:
        grads, (total, metrics) = grad(trained, rows, key)
    else:
        sharding = row_sharding(mesh)

        def micro(leaf):
            # Micro-batch a takes rows a, a + A, ...: each device keeps the rows that it has.
            leaf = leaf.reshape(leaf.shape[0] // accumulation, accumulation, *leaf.shape[1:]).swapaxes(0, 1)
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, jax.P(None, *sharding.spec)))

        def body(carry, inputs):
            micro_rows, number = inputs
            new = grad(trained, micro_rows, jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, carry, new), None

        micro_rows = jax.tree.map(micro, rows)
        first = jax.tree.map(lambda leaf: leaf[0], micro_rows)
        # Totals of nothing, in the shapes and dtypes of what a micro-batch gives.
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(grad, trained, first, key)
        )
        numbers = jnp.arange(accumulation, dtype=jnp.int32)
        (grads, (total, metrics)), _ = jax.lax.scan(body, zeros, (micro_rows, numbers))
    # Totals become means once, over the weight of the whole batch.
    weight = jnp.maximum(total.weight, 1.0)
    grads = jax.tree.map(lambda leaf: leaf / weight, grads)
    means = {name: mean(value) for name, value in metrics.items()}
    return grads, total.total / weight, means


def mean(value: Sum) -> Float[Array, ""]:
    """Total by weight, 0 where there is no weight."""
    return value.total / jnp.maximum(value.weight, 1.0)
