"""Where the peer's time goes: each part by itself, and the largest operations from torch's profiler."""

from collections.abc import Callable, Iterable
import time
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

from benchmarks.peer import TorchBatch
from benchmarks.torch_training import TorchTraining


class TorchProfile(TorchTraining):
    """`parts` and `operations` of the same step; compiled parts where the step is compiled."""

    def parts(self, repeats: int) -> dict[str, float]:
        """As ours: tower forward; resampler, decoder and head forward and backward; clipping and the update."""
        model, batch = self.model, self.batches[0]
        with torch.no_grad(), self.autocast():
            features = model.features(batch)
            embeddings = model.splice(model.resampler(features, batch.image_mask), batch)
            states = self._hidden(embeddings.detach(), batch).detach()
        embeddings, states = (x.detach().requires_grad_() for x in (embeddings, states))
        calls = {
            "tower": self._forward(lambda: model.features(batch)),
            "resampler": self._backward(lambda: model.resampler(features, batch.image_mask).float().square().sum()),
            "decoder": self._backward(lambda: self._hidden(embeddings, batch).float().square().sum()),
            "head": self._backward(lambda: self._loss(states, batch)),
            "optimizer": self._update,
        }
        seconds = {}
        for name, call in calls.items():
            for parameter in self.trained:
                parameter.grad = torch.ones_like(parameter) if name == "optimizer" else None
            seconds[name] = self._median_s(call, repeats)
        return seconds

    def _hidden(self, embeddings: torch.Tensor, batch: TorchBatch) -> torch.Tensor:
        return self.model.decoder.model(
            inputs_embeds=embeddings, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state

    def _loss(self, states: torch.Tensor, batch: TorchBatch) -> torch.Tensor:
        decoder = self.model.decoder
        logits = decoder.lm_head(states)
        return decoder.loss_function(logits=logits, labels=batch.labels, vocab_size=decoder.config.vocab_size)

    def _forward(self, function: Callable[[], Any]) -> Callable[[], Any]:
        compiled = torch.compile(function, dynamic=False) if self.loss_of is not self.model else function

        def call() -> None:
            with self.autocast():
                compiled()

        return call

    def _backward(self, function: Callable[[], torch.Tensor]) -> Callable[[], Any]:
        compiled = torch.compile(function, dynamic=False) if self.loss_of is not self.model else function

        def call() -> None:
            with self.autocast():
                loss = compiled()
            loss.backward()
            for parameter in self.trained:
                parameter.grad = None

        return call

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.trained, self.clip_norm)
        self.optimizer.step()

    def _median_s(self, call: Callable[[], Any], repeats: int) -> float:
        call()
        seconds = []
        for _ in range(repeats):
            self.synchronize()
            start = time.perf_counter()
            call()
            self.synchronize()
            seconds.append(time.perf_counter() - start)
        return sorted(seconds)[len(seconds) // 2]

    def operations(self, count: int) -> list[tuple[str, float]]:
        """The step's `count` largest operations and their own seconds in one step."""
        self.run(len(self.batches))  # each has its shapes, which torch.compile compiles
        kinds = [torch.profiler.ProfilerActivity.CPU]
        on_gpu = self.device == "cuda"
        if on_gpu:
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as profiler:
            self.run(1)
        return largest(profiler.key_averages(), on_gpu, count)


def largest(events: Iterable[FunctionEventAvg], on_gpu: bool, count: int) -> list[tuple[str, float]]:
    """The `count` largest operations and their own seconds; on a GPU its kernels and copies.

    There an operator has the time of the kernels that it starts, and a range that is named on the GPU
    (Optimizer.step#AdamW.step) that of all inside it: counted are the kernels alone, as in the sum under torch's table.
    """
    if on_gpu:
        kernels = [one for one in events if one.device_type == DeviceType.CUDA and not one.is_user_annotation]
        spent = [(kernel.key, kernel.self_device_time_total / 1e6) for kernel in kernels]
    else:
        spent = [(event.key, event.self_cpu_time_total / 1e6) for event in events]
    return sorted(spent, key=lambda pair: -pair[1])[:count]
