"""The peer's side of decoding: transformers' generate of Phi-3, from embeddings."""

import statistics
import time
from typing import Any

import torch

from benchmarks.machine import resident_peak
from benchmarks.peer import make_decoder
from benchmarks.prompts import decoding_prompts
from xgenmm_jax.models.blip3 import VLMConfig


class TorchDecoding:
    """Random weights in the compute dtype. Vision tokens are random too: their values do not change the cost.

    static_cache: transformers' cache of fixed size, which lets it compile the decoding step.
    """

    def __init__(
        self, model: VLMConfig, rows: int, prompt_tokens: int, new_tokens: int, device: str, static_cache: bool
    ):
        torch.manual_seed(0)
        dtype = torch.bfloat16 if model.dtype == "bfloat16" else torch.float32
        with torch.device(device):
            self.decoder = make_decoder(model).to(dtype).eval()
        prompts = decoding_prompts(model, rows, prompt_tokens)
        lengths = [len(prompt.token_ids) - 1 + model.tokens_per_group for prompt in prompts]
        longest = max(lengths)
        self.embeddings = torch.randn(rows, longest, model.decoder.width, device=device, dtype=dtype) * 0.02
        # Left-padded, as generate wants it.
        positions = torch.arange(longest, device=device)
        self.mask = (positions[None] >= longest - torch.tensor(lengths, device=device)[:, None]).long()
        self.device, self.new_tokens = device, new_tokens
        self.cache = "static" if static_cache else "dynamic"
        self.one_token_s: list[float] = []

    @torch.no_grad()
    def _call(self, new_tokens: int) -> float:
        start = time.perf_counter()
        answers = self.decoder.generate(
            inputs_embeds=self.embeddings,
            attention_mask=self.mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            cache_implementation=self.cache,
            eos_token_id=None,
            pad_token_id=0,
        )
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        assert answers.shape == (len(self.embeddings), new_tokens), answers.shape
        return seconds

    def run(self, steps: int) -> float:
        """As ours."""
        spent = 0.0
        for _ in range(steps):
            self.one_token_s.append(self._call(1))
            spent += self._call(self.new_tokens)
        return spent / steps

    def info(self) -> dict[str, Any]:
        on_gpu = self.device == "cuda"
        return {
            "version": f"torch {torch.__version__}",
            "one_token_s": statistics.median(self.one_token_s[1:] or self.one_token_s),
            "peak_bytes": torch.cuda.max_memory_reserved() if on_gpu else resident_peak(),
            "prompt_lengths": sorted({int(n) for n in self.mask.sum(dim=1)}),
        }
