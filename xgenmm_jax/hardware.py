"""What a chip can do at most: the denominators of utilisation and of the plan's bounds.

Source: jax-ml/scaling-book `tpus.md` (TPUs; the links' measured, lower rates), cloud.google.com/tpu/docs/v6e (v6e's
peak, and the datacenter network of v5e and v6e per pod), docs.cloud.google.com/tpu/docs/tpu7x, NVIDIA's data sheets of
H100 SXM and H200 (dense bfloat16); docs/reference/tpus.md#chips, #matrix-unit, #published-speeds.
"""

from dataclasses import dataclass

import jax

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator chip; where JAX shows a chip as several devices, one of these.

    peak_flops: bfloat16 FLOP/s. hbm_bytes: what a program may use, by the compiler's own limit where it is known.
    link_bandwidth (one link of the chip network, one way) and network_bandwidth (between slices): B/s.
    links: of a chip on a torus, each of them one way; a GPU's NVLink is one.
    unit: side of the matrix unit, whose tiles are computed whole; 0 where the plan counts none. hbm_bandwidth: B/s.
    usual_mfu: the share of the peak that a plan expects, below what was published for text models with heads of 128.
    kinds: `jax.Device.device_kind` of its devices. devices: that JAX shows of a chip.
    """

    peak_flops: float
    hbm_bytes: float
    kinds: tuple[str, ...]
    link_bandwidth: float
    links: int
    network_bandwidth: float
    unit: int
    hbm_bandwidth: float
    usual_mfu: float = 0.5
    devices: int = 1


CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, ("TPU v4",), 4.5e10, 6, 6.25e9, 128, 1.2e12),
    "v5e": Chip(197e12, 15.75 * GIB, ("TPU v5 lite", "TPU v5e"), 4.5e10, 4, 3.125e9, 128, 8.1e11),
    "v5p": Chip(459e12, 95.73 * GIB, ("TPU v5", "TPU v5p"), 9e10, 6, 6.25e9, 128, 2.8e12),
    "v6e": Chip(918e12, 31.24 * GIB, ("TPU v6 lite", "TPU v6e"), 9e10, 4, 1.25e10, 256, 1.64e12, 0.4),
    "tpu7x": Chip(1153.5e12, 94.74 * GIB, ("TPU7x",), 9e10, 3, 6.25e9, 256, 3.69e12, 0.4, devices=2),
    "h100": Chip(989e12, 0.75 * 80e9, ("NVIDIA H100 80GB HBM3", "NVIDIA H100"), 4.5e11, 1, 5e10, 0, 3.35e12),
    "h200": Chip(989e12, 0.75 * 141e9, ("NVIDIA H200",), 4.5e11, 1, 5e10, 0, 4.8e12),
}
"""By the name that stands before the colon of a topology. Of a GPU's memory JAX gives a program three quarters."""


def chip_of(device: jax.Device) -> Chip | None:
    """The chip of a device; None for a CPU and for what the table lacks."""
    return next((chip for chip in CHIPS.values() if device.device_kind in chip.kinds), None)
