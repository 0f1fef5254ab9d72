"""A training step of ours beside the same model's in torch, on the same samples.

    python -m benchmarks.train_step                                    # mid, stage 1: what two processor cores can do
    python -m benchmarks.train_step --size 4b --stage stage1 --remat minimal_with_context --rounds 2      # on an H200
    python -m benchmarks.train_step --profile --json step.json

Ours is the step that `train` runs, packed rows; the peer is transformers' SigLIP and Phi-3 with SDPA and the released
code's resampler, each sample a row, right-padded to the longest, eager and with torch.compile. Both train the resampler
and the decoder by AdamW, in float32 on a CPU and in bfloat16 over float32 parameters on a GPU. Tokens are the real
ones: positions of samples, vision tokens included, padding not. Batches are on the device before the clock starts.

The sides are processes of their own and take turns; figures are medians over rounds. Where the device's memory holds
only one side, `--apart` (chosen by itself) starts each anew for its turn. The peer computes layers again only where its
memory is short without (`--peer-checkpointing`). It needs the extra `parity`; without it ours runs alone.
"""

import argparse
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
import functools
import importlib.util
import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks import flops, workloads
from benchmarks.machine import Device, find_device
from benchmarks.our_profile import OurProfile
from benchmarks.our_training import OurTraining
from benchmarks.padding import Padded, padded
from benchmarks.profile import profile
from benchmarks.report import console, gigabytes, print_table, show
from benchmarks.rounds import Make, Ratio, Timed, alternate, ratio, short_of_memory
from benchmarks.workloads import Workload
from xgenmm_jax import files
from xgenmm_jax.convert import trees
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.remat import Remat

OURS, EAGER, COMPILED = "ours", "torch", "torch.compile"


@dataclass(frozen=True)
class Need:
    """Bytes of parameters, gradients and moments; activations come on top."""

    ours: int
    peer: int


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    device = find_device()
    rows = arguments.rows or workloads.ROWS[arguments.size]
    work = workloads.workload(arguments.size, arguments.stage, rows, arguments.batches, device.dtype)
    if arguments.remat:
        decoder = replace(work.config.model.decoder, remat=arguments.remat)
        work = replace(work, config=replace(work.config, model=replace(work.config.model, decoder=decoder)))
    model = work.config.model
    plain = [padded(batch, model.tokens_per_group, model.vision.grid) for batch in work.batches]
    asked = (EAGER, COMPILED) if arguments.peer_checkpointing == "on" else ()
    makes = sides(work, plain, device, arguments.peer, asked)
    smaller = smaller_peers(makes, device) if arguments.peer_checkpointing == "auto" else {}
    apart = arguments.apart or not_together("train_step", arguments.size, state_bytes(model), device, len(makes))
    steps = arguments.steps * len(work.batches)
    times, failed = alternate(makes, arguments.rounds, steps, 2 * len(work.batches), apart, show, smaller)
    if OURS not in times:
        raise SystemExit(f"train_step: ours failed: {failed[OURS]}. {remedy(failed[OURS])}")
    result = figures(arguments, device, work, plain, times, failed)
    print_step(result)
    if arguments.profile:
        again = [name for name, timed in times.items() if timed.info.get("checkpointing")]
        profiled = sides(work, plain, device, arguments.peer, again, profiled=True)
        result["profile"] = profile({name: make for name, make in profiled.items() if name not in failed})
    if arguments.json:
        files.write_whole(arguments.json, json.dumps(result, indent=2) + "\n")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=workloads.SIZES, default="mid")
    parser.add_argument("--stage", choices=workloads.STAGE_NAMES, default="stage1")
    parser.add_argument("--rows", type=int, help="rows of a batch; by default what the size is meant for")
    parser.add_argument("--remat", choices=get_args(Remat), help="what ours saves of a layer; by default the size's")
    parser.add_argument("--batches", type=int, default=2, help="different batches, taken in turns")
    parser.add_argument("--steps", type=int, default=2, help="times that a round takes each batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", choices=("both", "eager", "compile", "none"), default="both")
    parser.add_argument(
        "--peer-checkpointing",
        choices=("auto", "on", "off"),
        default="auto",
        help="whether the peer computes its layers again; auto: on a GPU, where it runs out of memory without",
    )
    parser.add_argument("--apart", action="store_true", help="only one side in memory at a time")
    parser.add_argument("--profile", action="store_true", help="time by part, and the three largest operations")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args(argv)


def sides(
    work: Workload,
    plain: list[Padded],
    device: Device,
    peer: str,
    checkpointed: Collection[str],
    profiled: bool = False,
) -> dict[str, Make]:
    """Ours and the peers that are asked for and installed.

    checkpointed: names of peers that compute layers again. profiled: sides that can tell their parts.
    """
    ours = OurProfile if profiled else OurTraining
    makes: dict[str, Make] = {OURS: functools.partial(ours, work.config, work.batches)}
    names = {"both": (EAGER, COMPILED), "eager": (EAGER,), "compile": (COMPILED,), "none": ()}[peer]
    if not names:
        return makes
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        show('train_step: torch and transformers are not installed, so ours runs alone; pip install -e ".[parity]".')
        return makes
    # Imported here, as they need torch.
    from benchmarks.torch_profile import TorchProfile
    from benchmarks.torch_training import TorchTraining

    for name in names:
        makes[name] = functools.partial(
            TorchProfile if profiled else TorchTraining,
            work.config.model,
            work.config.optimizer,
            plain,
            device.torch_name,
            compiled=name == COMPILED,
            checkpointing=name in checkpointed,
        )
    return makes


def smaller_peers(makes: dict[str, Make], device: Device) -> dict[str, Make]:
    """The peers, computing layers again, for those that run out of memory without; on a CPU, which kills, none."""
    if device.platform == "cpu":
        return {}
    return {name: functools.partial(make, checkpointing=True) for name, make in makes.items() if name != OURS}


def state_bytes(model: VLMConfig) -> Need:
    """Float32: parameters, and of what trains gradients and two moments."""
    shapes = trees.shapes(model)
    total = sum(map(math.prod, shapes.values()))
    frozen = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("vision/"))
    need = 4 * (frozen + 4 * (total - frozen))
    return Need(ours=need, peer=need)


def not_together(benchmark: str, size: str, need: Need, device: Device, count: int) -> bool:
    """Whether `count` sides must take turns in memory. Exits where even one does not fit."""
    if not device.memory_bytes:
        return False
    if need.ours > device.memory_bytes:
        raise SystemExit(
            f"{benchmark}: {size} needs {gigabytes(need.ours)} for parameters, gradients and moments, activations not "
            f"counted; {device.kind} has {gigabytes(device.memory_bytes)}. Choose a smaller --size, or a device of "
            f"{gigabytes(1.25 * need.ours)}."
        )
    # A quarter on top for activations.
    return (need.ours + (count - 1) * need.peer) * 1.25 > device.memory_bytes


def remedy(reason: str) -> str:
    """What to do about a side's failure."""
    if short_of_memory(reason):
        return "Memory is short: fewer --rows, --peer none, or --apart."
    return "The message is the side's own."


def figures(
    arguments: argparse.Namespace,
    device: Device,
    work: Workload,
    plain: list[Padded],
    times: dict[str, Timed],
    failed: dict[str, str],
) -> dict[str, Any]:
    """What goes into the JSON."""
    needed = flops.step_flops(work.config.model, work.batches)
    total = sum(needed.values())
    tokens = float(np.mean([(batch.segment_ids > 0).sum() for batch in work.batches]))
    ratios = {name: ratio(times[name], times[OURS]) for name in times if name != OURS}
    fastest = min(ratios, key=lambda name: times[name].median, default=None)
    return {
        "benchmark": "train_step",
        "size": arguments.size,
        "stage": arguments.stage,
        "parameters": sum(map(math.prod, trees.shapes(work.config.model).values())),
        "dtype": work.config.model.dtype,
        "remat": work.config.model.decoder.remat,
        "device": asdict(device),
        "work": describe(work, plain, tokens),
        "flops": needed,
        "sides": {name: side_figures(timed, tokens, total, device) for name, timed in times.items()},
        "failed": failed,
        "ratios": {name: asdict(value) for name, value in ratios.items()},
        "fastest_peer": fastest,
    }


def describe(work: Workload, plain: list[Padded], tokens: float) -> dict[str, float]:
    """Of a batch, averages. places: positions that are computed."""
    positions = work.batches[0].token_ids.size
    return {
        "rows": len(work.batches[0].token_ids),
        "row_length": work.batches[0].token_ids.shape[1],
        "samples": float(np.mean([len(batch.token_ids) for batch in plain])),
        "tokens": tokens,
        "crops": float(np.mean([len(batch.pixels) for batch in plain])),
        "supervised": float(np.mean([batch.loss_mask.sum() for batch in work.batches])),
        "places": positions,
        "places_of_peer": float(np.mean([batch.token_ids.size for batch in plain])),
        "crops_of_ours": work.batches[0].crop_image.size,
    }


def side_figures(timed: Timed, tokens: float, needed: float, device: Device) -> dict[str, Any]:
    rate = needed / timed.median
    return {
        "step_s": timed.median,
        "step_s_of_rounds": list(timed.seconds),
        "tokens_per_s": tokens / timed.median,
        "flops_per_s": rate,
        "mfu": rate / device.peak_flops if device.peak_flops else None,
        **timed.info,
    }


def remat_of(side: dict[str, Any], ours: str) -> str:
    """What a side keeps of its layers, in our words: all ("none") or each layer's input ("full") for the peer."""
    return {None: ours, True: "full", False: "none"}[side.get("checkpointing")]


def print_step(result: dict[str, Any]) -> None:
    work, device = result["work"], result["device"]
    show(
        f"{result['size']}, {result['stage']}: {result['parameters'] / 1e6:,.1f}M parameters, {result['dtype']}, "
        f"{device['kind']} ({device['cores']} cores)\n"
        f"{work['samples']:.1f} samples of {work['tokens']:,.0f} tokens and {work['crops']:.1f} crops a step; computed "
        f"are {work['places']:,} positions packed, {work['places_of_peer']:,.0f} padded"
    )
    rows = []
    for name, side in result["sides"].items():
        spread = f"{min(side['step_s_of_rounds']):.4g} to {max(side['step_s_of_rounds']):.4g}"
        faster = Ratio(**result["ratios"][name]) if name in result["ratios"] else None
        rows.append(
            (
                f"{name} ({side['version']})",
                remat_of(side, result["remat"]),
                f"{side['step_s']:.4g}",
                spread,
                f"{side['tokens_per_s']:,.0f}",
                f"{side['flops_per_s'] / 1e9:,.0f}",
                f"{side['mfu']:.1%}" if side["mfu"] else "",
                gigabytes(side["peak_bytes"]),
                f"{faster.median:.2f} ({faster.least:.2f} to {faster.most:.2f})" if faster else "",
            )
        )
    head = ("side", "remat", "s a step", "rounds", "tokens/s", "GFLOP/s", "MFU", "peak memory", "times ours")
    print_table("Training step", head, rows)
    for name, reason in result["failed"].items():
        show(f"{name} failed: {reason}. {remedy(reason)}")
    if result["fastest_peer"]:
        fastest = result["fastest_peer"]
        console.print(f"Ours is {result['ratios'][fastest]['median']:.2f} times as fast as {fastest}, the faster peer.")


if __name__ == "__main__":
    raise SystemExit(main())
