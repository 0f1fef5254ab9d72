"""Where our step's time goes: each part by itself, and the step's largest operations from JAX's profiler."""

from collections import Counter
from collections.abc import Callable
import functools
from pathlib import Path
import re
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.our_training import OurTraining
from xgenmm_jax.models.blip3 import VLM, splice
from xgenmm_jax.training.objectives.losses import token_log_probs
from xgenmm_jax.training.optimizer import split
from xgenmm_jax.training.sharding import axis_rules

OPERATION = re.compile(r'%?([\w.-]+) = .*? ([\w-]+)\(.*?metadata={op_name="([^"]*)"', re.ASCII)
NOT_LEAVES = ("while", "conditional", "call")
"""Operations whose time is that of others inside."""


class OurProfile(OurTraining):
    """`parts` and `operations` of the same step."""

    def parts(self, repeats: int) -> dict[str, float]:
        """Seconds: the tower forward; resampler, decoder and head forward and backward; the optimizer's update."""
        vlm, batch, params = VLM(self.config.model), self.rows[0], self.state.params
        decoder = params["decoder"]
        head = {name: leaf for name, leaf in decoder.items() if "head" in name}

        def features(vision: Any) -> jax.Array:
            return vlm.apply({"params": {"vision": vision}}, batch, method="features")

        def connect(connector: Any, features: jax.Array) -> jax.Array:
            return vlm.apply({"params": {"connector": connector}}, features, batch, method="connect")

        def embed(decoder: Any, tokens: jax.Array) -> jax.Array:
            text = vlm.apply({"params": {"decoder": decoder}}, method=lambda vlm: vlm.decoder.embed(batch.token_ids))
            return splice(text, tokens, batch.slot)

        def hidden(decoder: Any, embeddings: jax.Array) -> jax.Array:
            return vlm.apply(
                {"params": {"decoder": decoder}},
                method=lambda vlm: vlm.decoder.hidden(embeddings, batch.segment_ids, batch.positions),
            )

        def log_probs(head: Any, states: jax.Array, decoder: Any) -> jax.Array:
            with_head = {"params": {"decoder": {**decoder, **head}}}
            return token_log_probs(
                functools.partial(vlm.apply, with_head, method="logits"),
                states,
                batch.token_ids,
                batch.loss_mask,
                self.config.objective.chunk,
            )

        with jax.set_mesh(self.mesh), axis_rules():
            tower, resample = jax.jit(features), backward(connect, argnums=0)
            decode, predict = backward(hidden, argnums=(0, 1)), backward(log_probs, argnums=(0, 1))
            vision_features = tower(params["vision"])
            embeddings = jax.jit(embed)(decoder, jax.jit(connect)(params["connector"], vision_features))
            states = jax.jit(hidden)(decoder, embeddings)
            calls = {
                "tower": lambda: tower(params["vision"]),
                # Features of a frozen tower need no gradient.
                "resampler": lambda: resample(params["connector"], vision_features),
                "decoder": lambda: decode(decoder, embeddings),
                "head": lambda: predict(head, states, decoder),
            }
            seconds = {name: median_s(call, repeats) for name, call in calls.items()}
            seconds["optimizer"] = median_s(self._update(), repeats)
        return seconds

    def _update(self) -> Callable[[], Any]:
        """One update after the other; the state is used up."""
        trained, _ = split(self.state.params, self.trainable)

        def update(grads: Any, opt_state: Any, trained: Any) -> Any:
            updates, opt_state = self.optimizer.update(grads, opt_state, trained)
            return opt_state, optax.apply_updates(trained, updates), optax.tree.norm(grads)

        jitted = jax.jit(update, donate_argnums=(1, 2))
        grads = jax.tree.map(jnp.ones_like, trained)
        carried = [self.state.opt_state, trained]

        def call() -> Any:
            *carried[:], norm = jitted(grads, *carried)
            return carried, norm

        return call

    def operations(self, count: int) -> list[tuple[str, float]]:
        """The step's `count` largest kinds of operation and their seconds in one step, over all threads.

        Named by the model's modules and the primitive: "decoder/layers transpose dot_general".
        """
        self.run(1)
        batch = self.rows[self.taken % len(self.rows)]
        with jax.set_mesh(self.mesh):
            text = self.step.lower(self.state, None, batch, self.rates[0]).compile().as_text()
        names = operation_names(text)
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                self.run(1)
            (file,) = Path(folder).rglob("*.xplane.pb")
            profile = jax.profiler.ProfileData.from_file(str(file))
        spent: Counter[str] = Counter()
        for plane in profile.planes:
            for line in plane.lines:
                for event in line.events:
                    operation = dict(event.stats).get("hlo_op")
                    if operation and not str(operation).startswith(NOT_LEAVES):
                        spent[names.get(str(operation), str(operation))] += event.duration_ns
        return [(name, nanoseconds / 1e9) for name, nanoseconds in spent.most_common(count)]


def backward(function: Callable, argnums: int | tuple[int, ...]) -> Callable:
    """Forward and backward; the result is squared, so that nothing cancels."""
    return jax.jit(jax.grad(lambda *given: jnp.sum(jnp.square(function(*given).astype(jnp.float32))), argnums))


def operation_names(hlo: str) -> dict[str, str]:
    """Instruction to a short form of where it comes from."""
    matches = (OPERATION.search(line) for line in hlo.splitlines())
    return {match[1]: short_name(match[3]) for match in matches if match}


def short_name(op_name: str) -> str:
    """Example: "jit(traced)/transpose(jvp(VLM.hidden))/decoder/layers/o_proj/dot_general" is "decoder/layers backward
    dot_general"."""
    scopes = re.sub(r"\w+\(|\)", "/", op_name).split("/")
    part = next((scope for scope in scopes if scope in ("vision", "connector", "decoder")), "")
    inner = next((scope for scope in scopes if scope in ("layers", "logits", "attend", "optimizer")), "")
    direction = "backward" if "transpose(" in op_name else "forward" if part else ""
    words = "/".join(word for word in (part, inner) if word)
    return " ".join(word for word in (words, direction, op_name.rsplit("/", 1)[-1]) if word)


def median_s(call: Callable[[], Any], repeats: int) -> float:
    """Of repeats after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]
