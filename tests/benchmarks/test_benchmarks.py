"""What the benchmarks compute from measurements, and that our side of each runs without torch."""

from dataclasses import replace
import functools
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import stand_ins

from benchmarks import decode, flops, kernels, machine, rounds, scaling, train_step, workloads
from benchmarks.our_profile import short_name
from benchmarks.padding import IGNORED, image_patches, padded
from xgenmm_jax.batch import Batch
from xgenmm_jax.models import sizes
from xgenmm_jax.models.flops import model_flops, workload_of
from xgenmm_jax.models.token_sampling import group_crops

DEVICE = {"platform", "kind", "memory_bytes", "cores"}
TRAIN_SIDE = {"step_s", "step_s_of_rounds", "tokens_per_s", "flops_per_s", "mfu", "version", "losses", "peak_bytes"}
DECODE_SIDE = {"call_s", "call_s_of_rounds", "tokens_per_s", "decoding_tokens_per_s", "of_bound", "one_token_s"}


@functools.cache
def nano(stage: str) -> workloads.Workload:
    return workloads.workload("nano", stage, rows=6, batches=1, dtype="float32")


def test_line_through_known_numbers():
    """A line exactly, then one point off by 3 of 12."""
    assert scaling.fit([1, 2, 3], [3, 5, 7]) == pytest.approx((2.0, 1.0, 1.0, 0.0), abs=1e-12)
    line = scaling.fit([0, 1, 2, 3], [1, 3, 5, 7 + 5])
    assert line.slope == pytest.approx(3.5) and line.intercept == pytest.approx(0.0)
    assert line.r_squared == pytest.approx(1 - 7.5 / 68.75) and line.deviation == pytest.approx(1.0)


def test_exponent_tells_quadratic_from_linear():
    def points(power):
        return [scaling.Point(x, float(x**power), (), 0, 0) for x in (1, 2, 4)]

    assert scaling.exponent(points(1)) == pytest.approx(1) and scaling.exponent(points(2)) == pytest.approx(2)


def test_points_that_do_not_fit_together_are_measured_apart(tmp_path):
    """All 7 points of 4b stood in memory at once, 49 GB each. One that fails ends in a sentence that names it."""
    make = functools.partial(stand_ins.Large, str(tmp_path / "memory"))
    assert scaling.timed({1: make, 3: make}, "crops", rounds=2, apart=True) == [[3.0, 3.0], [3.0, 3.0]]
    with pytest.raises(SystemExit) as exit:
        scaling.timed({1: make, 3: make}, "crops", rounds=2, apart=False)
    assert str(exit.value) == (
        "scaling: 3 crops an image failed: RuntimeError: RESOURCE_EXHAUSTED: Out of memory. Memory is short: "
        "lower --most-crops."
    )
    with pytest.raises(SystemExit, match="scaling: 4 images a row failed: ValueError: no compiler. The message is"):
        scaling.timed({4: stand_ins.Bad}, "images", rounds=2, apart=True)


@pytest.mark.parametrize(("size", "gigabytes", "apart"), [("4b", 141, True), ("4b", 200, False), ("small", 8, False)])
def test_memory_decides_whether_points_stand_apart(size, gigabytes, apart, monkeypatch):
    device = machine.Device("gpu", "NVIDIA H200", gigabytes * 10**9, 16)
    monkeypatch.setattr(scaling, "find_device", lambda: device)
    apart_values = []
    monkeypatch.setattr(
        scaling, "timed", lambda makes, sweep, rounds, apart: apart_values.append(apart) or [[1.0], [2.0]]
    )
    assert scaling.main(["--size", size, "--sweeps", "crops", "--most-crops", "3"]) == 0
    assert apart_values == [apart]


def test_ratios_are_paired_by_round():
    """A machine that was half as fast in round two does not widen the spread."""
    ours, peer = rounds.Timed((1.0, 2.0, 1.0), {}), rounds.Timed((3.0, 6.0, 4.0), {})
    ratio = rounds.ratio(peer, ours)
    assert (ratio.median, ratio.least, ratio.most) == (3.0, 3.0, 4.0)


@pytest.mark.parametrize("stage", ["stage1", "sft_single"])
def test_padded_samples_are_those_of_the_packed_rows(stage):
    """Same tokens, targets and crops, each once; vision tokens point at the crops of their own image."""
    work = nano(stage)
    (batch,), model = work.batches, work.config.model
    plain = padded(batch, model.tokens_per_group, model.vision.grid)
    real = batch.segment_ids > 0
    assert plain.attention_mask.sum() == real.sum() and len(plain.pixels) == (batch.crop_image >= 0).sum()
    assert (plain.labels != IGNORED).sum() == batch.loss_mask.sum()
    used = plain.vision_index[plain.vision_index >= 0]
    assert np.array_equal(np.sort(used), np.arange(len(plain.pixels) * model.tokens_per_group))
    crop = used[:: model.tokens_per_group] // model.tokens_per_group
    slots = batch.slot[batch.slot >= 0][:: model.tokens_per_group] // model.tokens_per_group
    row = np.nonzero(batch.slot >= 0)[0][:: model.tokens_per_group]
    assert np.array_equal(plain.pixels[crop], batch.pixels[row, slots])
    assert (np.diff(plain.attention_mask, axis=1) <= 0).all()


def test_image_patches_are_those_that_the_model_sees():
    """Against the model's own mask, any-resolution images of many shapes."""
    work = nano("sft_single")
    (batch,), grid = work.batches, work.config.model.vision.grid
    features = jnp.zeros((*batch.crop_image.shape, grid**2, 1))
    _, expected = group_crops(features, Batch(*map(jnp.asarray, batch)), grid)
    is_crop = batch.crop_image >= 0
    ours = np.stack([image_patches(batch, row, grid) for row in range(len(is_crop))])
    assert np.array_equal(ours[is_crop], np.asarray(expected)[is_crop])


def test_flops_of_the_released_sizes():
    """Known numbers: SO400M forward on one crop 0.67 TFLOP, Phi-3-mini 3.72e9 weights in its layers' kernels."""
    assert flops.decoder_weights(sizes.B4.decoder) == 32 * (4 * 3072**2 + 3 * 3072 * 8192)
    assert flops.tower_flops(sizes.B4.vision) == pytest.approx(0.67e12, rel=0.02)
    assert flops.causal_attention_flops(sizes.B4.decoder, 3) == 32 * 4 * 3072 * 6
    window = sizes.B4.decoder.window_size + 1
    long = flops.causal_attention_flops(sizes.B4.decoder, 2 * window)
    assert long == 32 * 4 * 3072 * (window * (window + 1) / 2 + window * window)


@pytest.mark.parametrize(("size", "stage", "rows"), [("nano", "sft_single", 6), ("4b", "stage1", 1)])
def test_flops_are_those_of_a_training_run(size, stage, rows):
    """Part by part: MFU in a benchmark's table and in a run's metrics is of the same work."""
    work = nano(stage) if size == "nano" else workloads.workload(size, stage, rows, 1, "bfloat16")
    (batch,), config = work.batches, work.config
    run = model_flops(config.model, workload_of(batch, config.model), config.freeze, config.objective.needs_reference)
    parts = run._asdict()
    assert parts.pop("drawing") == parts.pop("target") == 0
    assert flops.step_flops(config.model, [batch]) == parts


def test_padding_counts_no_flops():
    work = nano("stage1")
    (batch,), model = work.batches, work.config.model
    longer = batch._replace(
        **{name: np.pad(getattr(batch, name), ((0, 0), (0, 64))) for name in ("segment_ids", "loss_mask")}
    )
    assert flops.step_flops(model, [batch]) == flops.step_flops(model, [longer])


@pytest.mark.parametrize("stage", workloads.STAGE_NAMES)
def test_large_batches_have_the_statistics_of_their_stage(stage):
    """4b: part of the positions that are vision tokens, as the experiments' files count on; uniform rows are full."""
    model = workloads.model("4b")
    small = replace(workloads.STAGES["4b"]["stage1"](), model=model)
    share_range = {"stage1": (0.2, 0.5), "stage2": (0.5, 0.85), "sft_single": (0.65, 0.9), "uniform": (0.4, 0.6)}[stage]
    work = workloads.workload("4b", stage, rows=4, batches=1, dtype="bfloat16")
    (batch,) = work.batches
    real = batch.segment_ids > 0
    assert share_range[0] < (batch.slot >= 0).sum() / real.sum() < share_range[1]
    assert real.mean() == 1.0 if stage == "uniform" else real.mean() > 0.75
    assert batch.token_ids.max() < small.model.decoder.num_text_tokens


def test_a_device_that_is_too_small_is_told_before_anything_starts():
    need = train_step.state_bytes(sizes.B4)
    assert 62e9 < need.ours < 66e9
    small = machine.Device("gpu", "NVIDIA RTX 4090", 24 * 2**30, 16)
    with pytest.raises(SystemExit, match="scaling: 4b needs 64.6 GB .* has 25.8 GB. Choose a smaller --size"):
        train_step.not_together("scaling", "4b", need, small, 2)
    assert train_step.not_together("train_step", "4b", need, replace(small, memory_bytes=141 * 10**9), 2)
    assert not train_step.not_together("train_step", "4b", need, replace(small, memory_bytes=200 * 10**9), 2)


def test_kernels_want_a_gpu():
    with pytest.raises(SystemExit, match="kernels: got cpu, wanted an NVIDIA GPU"):
        kernels.main([])


def test_rates_of_known_devices():
    h200 = machine.Device("gpu", "NVIDIA H200", 0, 1)
    assert h200.peak_flops == 989e12 and h200.bandwidth == 4.8e12 and h200.torch_name == "cuda"
    assert machine.Device("cpu", "AMD EPYC", 0, 2).peak_flops is None


def test_bytes_of_a_decoding_step():
    """Phi-3-mini in bfloat16: 7.4 GB of kernels and 98 MB of head's half, and a row's cache at 393 kB a token."""
    one = decode.bytes_a_step(decode.Work(replace(sizes.B4, dtype="bfloat16"), 1, 192, 64))
    eight = decode.bytes_a_step(decode.Work(replace(sizes.B4, dtype="bfloat16"), 8, 192, 64))
    cache = 224 * 32 * 2 * 3072 * 2
    assert eight - one == 7 * cache
    assert one - cache == 2 * (flops.decoder_weights(sizes.B4.decoder) + 3072 * 32015)


def test_operations_are_named_by_part():
    path = "jit(traced)/transpose(jvp(VLM.hidden))/decoder/layers/o_proj/dot_general"
    assert short_name(path) == "decoder/layers backward dot_general"
    forward = "jit(traced)/jvp(VLM.hidden)/vision/layers/mlp/fc1/dot_general"
    assert short_name(forward) == "vision/layers forward dot_general"


def test_a_failed_side_is_named_and_the_other_goes_on():
    """A peer that cannot compile must not take our figures with it."""
    makes = {"good": stand_ins.Good, "bad": stand_ins.Bad}
    times, failed = rounds.alternate(makes, rounds=2, steps=1, warmup=1, apart=False, tell=lambda text: None)
    assert set(times) == {"good"} and times["good"].seconds == (0.5, 0.5)
    assert failed == {"bad": "ValueError: no compiler"}
    apart, _ = rounds.alternate(
        {"good": stand_ins.Good}, rounds=2, steps=1, warmup=1, apart=True, tell=lambda text: None
    )
    # A side that is made anew each round has run its warm-up and one round, and no more.
    assert apart["good"].info == {"runs": 2} and times["good"].info == {"runs": 3}


@pytest.mark.parametrize("apart", [False, True])
def test_a_side_without_memory_is_taken_smaller_in_all_rounds(apart):
    """The peer computed its layers again at every memory, which took a fifth more work than ours."""
    told = []
    makes = {"ours": functools.partial(stand_ins.Peer, checkpointing=None), "torch": stand_ins.Peer}
    smaller = {"torch": functools.partial(stand_ins.Peer, checkpointing=True)}
    times, failed = rounds.alternate(makes, 2, 1, 1, apart, told.append, smaller)
    assert failed == {} and times["torch"].seconds == (2.0, 2.0)
    assert times["torch"].info["checkpointing"] is True and times["ours"].info["checkpointing"] is None
    (note,) = [line for line in told if "less memory" in line]
    assert note.startswith("torch: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB; now")


def test_a_side_that_is_killed_while_it_sleeps_has_failed():
    side = rounds.Side(stand_ins.Good)
    side._process.kill()
    side._process.join()
    with pytest.raises(rounds.SideError, match="ended with code -9"):
        side.call("run", 1)


def test_only_memory_makes_a_side_smaller():
    smaller = {"torch": functools.partial(stand_ins.Peer, checkpointing=True)}
    times, failed = rounds.alternate({"torch": stand_ins.Bad}, 1, 1, 1, False, lambda text: None, smaller)
    assert times == {} and failed == {"torch": "ValueError: no compiler"}
    # The message always names -9.
    assert not rounds.short_of_memory("its process ended with code -11; -9 is the kernel's, for memory")
    assert rounds.short_of_memory("its process ended with code -9; -9 is the kernel's, for memory")


def test_peers_are_taken_smaller_on_a_gpu_alone():
    makes = {train_step.OURS: stand_ins.Bad, train_step.EAGER: stand_ins.Peer}
    h200 = machine.Device("gpu", "NVIDIA H200", 0, 1)
    (smaller,) = train_step.smaller_peers(makes, h200).items()
    assert smaller[0] == train_step.EAGER and smaller[1]().info() == {"checkpointing": True}
    assert train_step.smaller_peers(makes, replace(h200, platform="cpu")) == {}


@pytest.mark.parametrize(
    ("info", "remat"), [({}, "minimal"), ({"checkpointing": True}, "full"), ({"checkpointing": False}, "none")]
)
def test_the_table_tells_what_is_computed_again(info, remat):
    assert train_step.remat_of(info, "minimal") == remat


def test_tables_in_a_log_are_not_cut():
    """At rich's 80 columns tokens/s of 12,345 became 12,3 and three dots, and the peer's name "torch..."."""
    row = ("torch.compile (torch 2.13.0+cu130)", *["minimal_with_context"] * 5)
    script = f"from benchmarks.report import print_table; print_table('step', ('side', *'abcde'), [{row}])"
    table = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert row[0] in table and table.count("minimal_with_context") == 5


@pytest.mark.slow
def test_train_step_runs_without_torch(quick, tmp_path):
    file = tmp_path / "step.json"
    small = ["--size", "nano", "--rows", "1", "--batches", "1", "--steps", "1", "--rounds", "2"]
    assert train_step.main([*small, "--peer", "none", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["benchmark"] == "train_step" and set(result["device"]) == DEVICE
    assert set(result["sides"]) == {"ours"} and set(result["sides"]["ours"]) == TRAIN_SIDE
    side = result["sides"]["ours"]
    assert len(side["step_s_of_rounds"]) == 2 and side["step_s"] > 0 and result["ratios"] == {}
    assert side["tokens_per_s"] == pytest.approx(result["work"]["tokens"] / side["step_s"])
    assert side["flops_per_s"] == pytest.approx(sum(result["flops"].values()) / side["step_s"])
    # Two steps of warm-up and two rounds of one, on one batch: it learns.
    assert len(side["losses"]) == 4 and side["losses"][3] < side["losses"][0]


@pytest.mark.slow
def test_decode_runs_without_torch(quick, tmp_path):
    file = tmp_path / "decode.json"
    small = ["--size", "nano", "--batch-sizes", "2", "--prompt-tokens", "24", "--new-tokens", "16", "--rounds", "1"]
    assert decode.main([*small, "--peer", "none", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    (batch,) = result["batches"]
    assert batch["rows"] == 2 and DECODE_SIDE < set(batch["sides"]["ours"])
    assert batch["sides"]["ours"]["prompt_lengths"] == [8, 9]
    assert batch["bound_tokens_per_s"] == pytest.approx(2 * result["bandwidth_measured"] / batch["bytes_a_step"])


@pytest.mark.slow
def test_scaling_runs_and_draws(quick, tmp_path):
    file, image = tmp_path / "scaling.json", tmp_path / "scaling.png"
    small = ["--sweeps", "crops", "--most-crops", "3", "--rounds", "1"]
    assert scaling.main([*small, "--json", str(file), "--plot", str(image)]) == 0
    crops = json.loads(file.read_text())["sweeps"]["crops"]
    assert [point["crops"] for point in crops["points"]] == [1, 3]
    assert [point["tokens"] for point in crops["points"]] == [384, 640]
    assert set(crops["line"]) == {"slope", "intercept", "r_squared", "deviation"}
    assert image.read_bytes().startswith(b"\x89PNG") and image.stat().st_size < 150_000
