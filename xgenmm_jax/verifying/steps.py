"""A few training steps on the three images: does the loss fall, how long does a step take, which kernels ran."""

from collections import Counter
from dataclasses import replace
import re
import time

import jax
import numpy as np

from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.processor import IdsOnly
from xgenmm_jax.models.blip3o import UNDERSTANDING
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.ops.attention_choice import implementation_for
from xgenmm_jax.reporting.machine import memory_mib
from xgenmm_jax.training.config import Initialize
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import put_rows, row_sharding
from xgenmm_jax.training.step import init_state, shardings_of
from xgenmm_jax.verifying import images
from xgenmm_jax.verifying.section import Section

CAPTIONS = ("a red disc above white squares", "a blue disc on a tall image", "a small image with a green disc")
RATE = 1e-4
FROZEN = ("vision", "decoder")
"""The connector alone trains: gradients pass through the decoder, and no moments of a whole model are in memory."""


def rows_of(model: LMM) -> list[list[int]]:
    """A caption after each image; different ids where there is no tokenizer."""
    tokenizer, rows = model.tokenizer, []
    for number, caption in enumerate(CAPTIONS):
        if isinstance(tokenizer, IdsOnly):
            start = 3 + number * 8
            text = [id_ % tokenizer.eos_id for id_ in range(start, start + 8)]
        else:
            text = tokenizer.encode(caption)
        rows.append([tokenizer.image_id, *text, tokenizer.end_id])
    return rows


def check(model: LMM, steps: int) -> Section:
    """Takes the steps of `xgenmm train` on one batch. The model's parameters are given away: use it no more."""
    batch = model.batch(rows_of(model), [[image] for image in images.images()])
    optimizer_config = OptimizerConfig(peak_lr=RATE, warmup_steps=0, schedule="constant")
    # Updates of a run are in the parameters by now. Of a run that draws, what understands takes steps.
    data = replace(model.run.data, target_px=0)
    config = replace(
        model.run, data=data, objective=NextToken(), freeze=FROZEN, accumulation=1, steps=steps,
        optimizer=optimizer_config, lora=None, initialize=Initialize(), average_decay=0.0,
    )  # fmt: skip
    if isinstance(model.config.connector, QFormerConfig):
        # With it the loss would rise or fall by chance.
        connector = replace(model.config.connector, dropout=0.0)
        config = replace(config, model=replace(config.model, connector=connector))
    program = assemble(config, model.mesh)
    losses, seconds = [], []
    with jax.set_mesh(model.mesh):
        make_state = jax.jit(
            lambda params: init_state(params, program.trainable, program.optimizer),
            out_shardings=shardings_of(program.abstract),
            donate_argnums=0,
        )
        parts = {name: model.params[name] for name in UNDERSTANDING}
        params = jax.tree.map(lambda leaf: leaf.astype(np.float32), parts)
        state = make_state(params)
        rows = put_rows(batch, row_sharding(model.mesh))
        began = time.perf_counter()
        compiled = program.step.lower(state, None, rows, np.float32(RATE)).compile()
        compiling_s = time.perf_counter() - began
        for _ in range(steps):
            began = time.perf_counter()
            state, metrics = compiled(state, None, rows, np.float32(RATE))
            losses.append(float(metrics["loss"]))
            seconds.append(time.perf_counter() - began)
        length = batch.token_ids.shape[1]
        attention = implementation_for("auto", length, length)
    faults = []
    if not np.all(np.isfinite(losses)):
        faults.append(f"steps: losses {_numbers(losses)} are not finite; see the tensors above.")
    elif len(losses) > 1 and losses[-1] >= losses[0]:
        faults.append(
            f"steps: the loss went from {losses[0]:.4f} to {losses[-1]:.4f} on one batch, wanted a lower one; the "
            "connector or the decoder is damaged, or this machine computes wrongly: compare with a --reference."
        )
    rows_shown = (
        ("losses", _numbers(losses)),
        ("seconds of a step", f"{min(seconds[1:] or seconds):.3g} (compiling {compiling_s:.3g})"),
        ("memory", _memory(model.mesh)),
        ("devices", f"{model.mesh.size} x {model.mesh.devices.flat[0].device_kind}"),
        ("attention", attention),
        ("kernels called", _kernels(compiled.as_text())),
        ("trained", "the connector alone"),
    )
    return Section(f"{steps} training steps", ("what", "value"), rows_shown, tuple(faults))


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _memory(mesh: jax.sharding.Mesh) -> str:
    used = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in mesh.devices.flat]
    if all(used):
        return f"{max(used) / 2**30:.2f} GiB at most on a device"
    return f"{memory_mib() / 1024:.2f} GiB of this process"


def _kernels(text: str) -> str:
    """Kernels that XLA calls rather than generates, by the names in the compiled program."""
    names = Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    return ", ".join(f"{name} x {count}" for name, count in sorted(names.items())) or "none but XLA's own"
