"""Our side of decoding: the Generator, with images that are in its table."""

import functools
import statistics
import time
from typing import Any

from flax import linen as nn
import jax
import numpy as np

from benchmarks.machine import resident_peak
from benchmarks.prompts import anyres_of, decoding_prompts, tokenizer_of
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.models import blip3
from xgenmm_jax.models.blip3 import VLMConfig

NO_STOP = ()
"""No id ends an answer: every one is as long as is asked for."""


class OurDecoding:
    """Random weights in the compute dtype, drawn on the device."""

    def __init__(self, model: VLMConfig, rows: int, prompt_tokens: int, new_tokens: int):
        initialize = functools.partial(blip3.initialize, model)

        def params(key: jax.Array) -> Any:
            return jax.tree.map(lambda leaf: leaf.astype(model.dtype), nn.unbox(initialize(key)))

        # All rows in one batch, whatever their cache takes.
        limits = Limits(rows=rows, cache_mib=1 << 20)
        tokenizer = tokenizer_of(model)
        drawn = jax.jit(params)(jax.random.key(0))
        self.generator = Generator(model, drawn, tokenizer, anyres_of(model), limits=limits, stop_ids=NO_STOP)
        self.prompts = decoding_prompts(model, rows, prompt_tokens)
        self.new_tokens = new_tokens
        self.one_token_s: list[float] = []

    def run(self, steps: int) -> float:
        """Seconds a call for all new tokens; a call for a single one is timed beside each."""
        spent = 0.0
        for _ in range(steps):
            self.one_token_s.append(self._call(1))
            spent += self._call(self.new_tokens)
        return spent / steps

    def _call(self, new_tokens: int) -> float:
        start = time.perf_counter()
        self.generator.generate_ids(self.prompts, Decoding(max_new_tokens=new_tokens))
        return time.perf_counter() - start

    def info(self) -> dict[str, Any]:
        stats = jax.devices()[0].memory_stats() or {}
        # The first call compiled.
        return {
            "version": f"jax {jax.__version__}",
            "one_token_s": statistics.median(self.one_token_s[1:] or self.one_token_s),
            "peak_bytes": stats.get("peak_bytes_in_use") or resident_peak(),
            "prompt_lengths": [int(n) for n in np.unique([len(prompt.token_ids) for prompt in self.prompts])],
        }
