"""A run's speed: tokens and model FLOPs a second, and MFU."""

from collections.abc import Sequence
from typing import Any

import jax

from xgenmm_jax.hardware import chip_of
from xgenmm_jax.training.config import TrainConfig


class Throughput:
    """A run's speed in lines of metrics: per device, in model FLOPs, and as MFU where the devices' peak is known."""

    def __init__(self, config: TrainConfig, devices: Sequence[jax.Device]):
        self._config, self._devices = config, len(devices)
        chips = [chip_of(device) for device in devices]
        self._peak = None if None in chips else sum(chip.peak_flops for chip in chips)

    def flops(self, rows: Any) -> float:
        """Model FLOPs of a step on this host's rows (numpy); 0 where the objective does not know them."""
        config = self._config
        return config.objective.flops(config.model, rows, config.freeze, config.lora)

    def figures(self, tokens: int, flops: float, seconds: float) -> dict[str, float]:
        """tokens_per_second_per_device; model_flops_per_second (all devices) and mfu (0..1) where they are known.

        tokens, flops: of all hosts in these seconds.
        """
        row = {"tokens_per_second_per_device": tokens / seconds / self._devices}
        if flops:
            row["model_flops_per_second"] = flops / seconds
            if self._peak is not None:
                row["mfu"] = flops / seconds / self._peak
        return row
