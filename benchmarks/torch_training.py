"""The peer's side: a training step in torch as the released code takes it, AdamW, the tower under no_grad."""

from collections.abc import Sequence
import contextlib
import time
from typing import Any

import torch

from benchmarks.machine import resident_peak
from benchmarks.padding import Padded
from benchmarks.peer import Peer, TorchBatch, to_device
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.training.optimizer import OptimizerConfig


class TorchTraining:
    """One device; bfloat16 by autocast with float32 parameters, as the released script's amp_bf16. Batches in turns.

    compiled: torch.compile, each batch's shape by itself. checkpointing: layers are computed again, as ours with remat.
    """

    def __init__(
        self,
        model: VLMConfig,
        optimizer: OptimizerConfig,
        batches: Sequence[Padded],
        device: str,
        compiled: bool,
        checkpointing: bool,
    ):
        torch.manual_seed(0)
        with torch.device(device):
            self.model = Peer(model)
        if checkpointing:
            self.model.checkpoint_layers()
        self.device, self.clip_norm, self.checkpointing = device, optimizer.clip_norm, checkpointing
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=optimizer.peak_lr,
            betas=optimizer.betas,
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )
        self.mixed = model.dtype == "bfloat16"
        dtype = torch.bfloat16 if self.mixed else torch.float32
        self.batches = [to_device(batch, device, dtype) for batch in batches]
        # Shapes of their own rather than dynamic ones: kinder to the peer's kernels.
        torch._dynamo.config.recompile_limit = max(8, 2 * len(batches))
        self.loss_of = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.losses: list[float] = []
        self.taken = 0

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device, torch.bfloat16) if self.mixed else contextlib.nullcontext()

    def step(self, batch: TorchBatch) -> torch.Tensor:
        with self.autocast():
            loss = self.loss_of(batch)
        loss.backward()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.trained, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def run(self, steps: int) -> float:
        """Seconds a step."""
        losses = []
        self.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            losses.append(self.step(self.batches[self.taken % len(self.batches)]))
            self.taken += 1
        self.synchronize()
        seconds = (time.perf_counter() - start) / steps
        self.losses.extend(map(float, losses))
        return seconds

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def info(self) -> dict[str, Any]:
        """peak_bytes: as ours counts them."""
        on_gpu = self.device == "cuda"
        return {
            "version": f"torch {torch.__version__}",
            "checkpointing": self.checkpointing,
            "losses": self.losses,
            "peak_bytes": torch.cuda.max_memory_reserved() if on_gpu else resident_peak(),
        }
