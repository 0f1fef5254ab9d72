"""The peer computes what ours computes: same weights, same samples, same losses, step after step.

Needs the extra `parity`: pytest -m parity tests/benchmarks
"""

from dataclasses import replace
import json

import jax
import numpy as np
import peer_weights
import pytest

from benchmarks import decode, rounds, train_step, workloads
from benchmarks.machine import Device
from benchmarks.our_training import OurTraining
from benchmarks.padding import padded

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


def test_losses_of_three_steps_are_equal():
    """A wrong mask, crop, label or learning rate on either side would time two different things.

    Two batches of any-resolution images, several crops each; fewer layers than nano's, which compile faster.
    """
    from benchmarks.torch_training import TorchTraining

    work = workloads.workload("nano", "sft_single", rows=2, batches=2, dtype="float32")
    nano = work.config.model
    parts = {part: replace(getattr(nano, part), layers=layers) for part, layers in (("vision", 1), ("connector", 2))}
    model = replace(nano, **parts, decoder=replace(nano.decoder, layers=2, remat="none"))
    ours = OurTraining(replace(work.config, model=model), work.batches)
    plain = [padded(batch, model.tokens_per_group, model.vision.grid) for batch in work.batches]
    peer = TorchTraining(model, work.config.optimizer, plain, "cpu", compiled=False, checkpointing=True)
    peer_weights.give(peer.model, model, jax.device_get(ours.state.params))
    ours.run(3)
    peer.run(3)
    np.testing.assert_allclose(ours.losses, peer.losses, rtol=2e-5)
    assert ours.losses[2] < ours.losses[0]


def test_checkpointing_follows_what_was_asked_and_torchs_lack_of_memory():
    """`sides` starts the peer without it, `smaller_peers` keeps all else; the error's name decides (rounds.py)."""
    import torch

    work = workloads.workload("nano", "stage1", rows=1, batches=1, dtype="float32")
    device = Device("gpu", "NVIDIA H200", 0, 1)
    makes = train_step.sides(work, [], device, "eager", checkpointed=())
    asked = train_step.sides(work, [], device, "both", checkpointed=(train_step.EAGER,))
    smaller = train_step.smaller_peers(makes, device)
    keyword_sets = [made[train_step.EAGER].keywords for made in (makes, smaller, asked)]
    assert [keywords["checkpointing"] for keywords in keyword_sets] == [False, True, True]
    assert (
        keyword_sets[0] | {"checkpointing": True} == keyword_sets[1] and asked[train_step.COMPILED].keywords["compiled"]
    )
    assert rounds.short_of_memory(torch.cuda.OutOfMemoryError.__name__)


def test_kernels_of_a_gpu_are_counted_once():
    """torch gives an operator, and a named range, the time of its kernels: the three largest were one or two."""
    from torch.autograd import DeviceType
    from torch.autograd.profiler_util import EventList, FunctionEvent

    from benchmarks.torch_profile import largest

    def event(name, start_us, end_us, device=DeviceType.CUDA, annotation=False):
        kind = {"use_device": "cuda", "device_type": device, "is_user_annotation": annotation}
        return FunctionEvent(0, name, 0, start_us, end_us, stack=[], **kind)

    operator = event("aten::mm", 0, 90, DeviceType.CPU)
    operator.append_kernel("gemm", 0, 700)
    on_gpu = [event("gemm", 100, 600), event("gemm", 600, 800), event("copy", 800, 850), event("adamw", 850, 950)]
    events = EventList([operator, *on_gpu, event("Optimizer.step", 850, 950, annotation=True)], use_device="cuda")
    events._build_tree()
    averages = events.key_averages()
    device_us = {one.key: one.self_device_time_total for one in averages}
    assert device_us == {"aten::mm": 700, "gemm": 700, "copy": 50, "adamw": 100, "Optimizer.step": 100}
    assert dict(largest(averages, True, 9)) == pytest.approx({"gemm": 700e-6, "adamw": 100e-6, "copy": 50e-6})
    assert [name for name, _ in largest(averages, True, 2)] == ["gemm", "adamw"]
    assert largest(averages, False, 1) == [("aten::mm", 90e-6)]


def test_train_step_beside_torch(quick, tmp_path):
    """Eager alone: compiling takes minutes."""
    file = tmp_path / "step.json"
    small = ["--size", "nano", "--rows", "1", "--batches", "1", "--steps", "1", "--rounds", "2", "--peer", "eager"]
    assert train_step.main([*small, "--profile", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["failed"] == {} and result["fastest_peer"] == "torch" and set(result["sides"]) == {"ours", "torch"}
    assert result["sides"]["torch"]["checkpointing"] is False
    pairs = zip(*(result["sides"][name]["step_s_of_rounds"] for name in ("torch", "ours")), strict=True)
    ratios = [a / b for a, b in pairs]
    assert result["ratios"]["torch"] == {"median": sum(ratios) / 2, "least": min(ratios), "most": max(ratios)}
    for side in result["profile"].values():
        assert set(side["parts_s"]) == {"tower", "resampler", "decoder", "head", "optimizer"}
        assert all(seconds > 0 for seconds in side["parts_s"].values()) and len(side["operations"]) == 3


def test_decode_beside_torch(quick, tmp_path):
    file = tmp_path / "decode.json"
    small = ["--size", "nano", "--batch-sizes", "2", "--prompt-tokens", "24", "--new-tokens", "16", "--rounds", "1"]
    assert decode.main([*small, "--json", str(file)]) == 0
    (batch,) = json.loads(file.read_text())["batches"]
    assert batch["failed"] == {} and set(batch["sides"]) == {"ours", "torch"}
    ours, peer = batch["sides"]["ours"], batch["sides"]["torch"]
    assert [length + 15 for length in ours["prompt_lengths"]] == peer["prompt_lengths"]
