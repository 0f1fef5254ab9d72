"""Decoding: ours beside transformers' generate, and what the memory's bandwidth allows.

    python -m benchmarks.decode                           # mid on two processor cores
    python -m benchmarks.decode --size 4b                 # on an H100 or H200
    python -m benchmarks.decode --batch-sizes 1 8 32 --new-tokens 64 --json decode.json

Prompts with one image each, greedy, N new tokens whatever they are: no id ends an answer on either side. Ours is the
`Generator` of `xgenmm generate`; its vision tokens are in its table, as images that come again are. The peer is
transformers' generate of the same decoder from embeddings with the vision tokens in place, made before the clock
starts, with its dynamic cache and, on a GPU, also with its static cache, which it compiles.

tokens/s: new tokens of all rows over the whole call, prefill included. Decoding alone is what N tokens take longer than
one. The bound: each decoding step reads the decoder's weights once and the cache of every row as far as it is filled,
at the device's tabulated bandwidth, or at that of a triad (a = b + s c over arrays larger than any cache) measured in
the same run.
"""

import argparse
from dataclasses import asdict, dataclass, replace
import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.machine import Device, Triad, find_device
from benchmarks.our_decoding import OurDecoding
from benchmarks.report import console, gigabytes, print_table, show
from benchmarks.rounds import Make, Side, Timed, alternate, ratio
from xgenmm_jax import files
from xgenmm_jax.models.blip3 import VLMConfig

OURS, DYNAMIC, STATIC = "ours", "torch", "torch, static cache"


@dataclass(frozen=True)
class Work:
    """Greedy decoding of `rows` prompts at once."""

    model: VLMConfig
    rows: int
    prompt_tokens: int
    new_tokens: int


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    device = find_device()
    model = replace(workloads.model(arguments.size), dtype=device.dtype)
    triad = Side(Triad)
    bandwidth = triad.call("bytes_per_s")
    triad.close()
    show(f"{arguments.size} on {device.kind}: a triad moves {bandwidth / 1e9:,.1f} GB/s")
    results = []
    for rows in arguments.batch_sizes:
        work = Work(model, rows, arguments.prompt_tokens, arguments.new_tokens)
        results.append(compare(work, device, device.bandwidth or bandwidth, arguments))
    result = {
        "benchmark": "decode",
        "size": arguments.size,
        "dtype": model.dtype,
        "device": asdict(device),
        "bandwidth_measured": bandwidth,
        "bandwidth_tabulated": device.bandwidth,
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "batches": results,
    }
    print_decoding(result)
    if arguments.json:
        files.write_whole(arguments.json, json.dumps(result, indent=2) + "\n")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=workloads.SIZES, default="mid")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=192, help="the longest prompt, vision tokens included")
    parser.add_argument("--new-tokens", type=int, default=64, help="16, 64, 256 or 1024 leave no room unused in ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", choices=("yes", "none"), default="yes")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args(argv)
    if arguments.new_tokens < 2:
        parser.error(f"--new-tokens: got {arguments.new_tokens}, wanted 2 or more, to tell decoding from prefill.")
    return arguments


def compare(work: Work, device: Device, bandwidth: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """One batch size, all sides. Whole calls and calls for one token take turns as sides do."""
    times, failed = alternate(sides(work, device, arguments.peer), arguments.rounds, 1, 1, False, show)
    if OURS not in times:
        raise SystemExit(f"decode: ours failed: {failed[OURS]}. With too little memory, choose fewer --batch-sizes.")
    step_bytes = bytes_a_step(work)
    bound = work.rows * bandwidth / step_bytes
    return {
        "rows": work.rows,
        "bytes_a_step": step_bytes,
        "bound_tokens_per_s": bound,
        "sides": {name: side_figures(timed, work, bound) for name, timed in times.items()},
        "ratios": {name: asdict(ratio(times[name], times[OURS])) for name in times if name != OURS},
        "failed": failed,
    }


def sides(work: Work, device: Device, peer: str) -> dict[str, Make]:
    prompts = (work.rows, work.prompt_tokens, work.new_tokens)
    makes: dict[str, Make] = {OURS: functools.partial(OurDecoding, work.model, *prompts)}
    if peer == "none":
        return makes
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        show('decode: torch and transformers are not installed, so ours runs alone; pip install -e ".[parity]".')
        return makes
    from benchmarks.torch_decoding import TorchDecoding

    caches = (DYNAMIC, STATIC) if device.platform == "gpu" else (DYNAMIC,)
    for name in caches:
        makes[name] = functools.partial(
            TorchDecoding, work.model, *prompts, device=device.torch_name, static_cache=name == STATIC
        )
    return makes


def bytes_a_step(work: Work) -> float:
    """What one decoding step must read: the layers' kernels and the head, and on average half of the answers' cache."""
    decoder = work.model.decoder
    width = 2 if work.model.dtype == "bfloat16" else 4
    attention = decoder.width * decoder.head_width * (2 * decoder.heads + 2 * decoder.kv_heads)
    weights = decoder.layers * (attention + 3 * decoder.width * decoder.hidden) + decoder.width * decoder.logits
    visible = min(work.prompt_tokens + work.new_tokens / 2, decoder.window_size + 1)
    cache = work.rows * visible * decoder.layers * 2 * decoder.kv_heads * decoder.head_width
    return width * (weights + cache)


def side_figures(timed: Timed, work: Work, bound: float) -> dict[str, Any]:
    decoding = timed.median - timed.info["one_token_s"]
    rate = work.rows * (work.new_tokens - 1) / decoding if decoding > 0 else None
    return {
        "call_s": timed.median,
        "call_s_of_rounds": list(timed.seconds),
        "tokens_per_s": work.rows * work.new_tokens / timed.median,
        "decoding_tokens_per_s": rate,
        "of_bound": rate / bound if rate else None,
        **timed.info,
    }


def print_decoding(result: dict[str, Any]) -> None:
    rows = []
    for batch in result["batches"]:
        for name, side in batch["sides"].items():
            faster = batch["ratios"].get(name)
            decoding = side["decoding_tokens_per_s"]
            rows.append(
                (
                    f"batch {batch['rows']}: {name} ({side['version']})",
                    f"{side['call_s']:.4g}",
                    f"{side['tokens_per_s']:,.0f}",
                    f"{decoding:,.0f}" if decoding else "",
                    f"{batch['bound_tokens_per_s']:,.0f}",
                    f"{side['of_bound']:.0%}" if decoding else "",
                    gigabytes(side["peak_bytes"]),
                    f"{faster['median']:.2f} ({faster['least']:.2f} to {faster['most']:.2f})" if faster else "",
                )
            )
        for name, reason in batch["failed"].items():
            show(f"batch {batch['rows']}: {name} failed: {reason}")
    title = f"{result['new_tokens']} new tokens behind prompts of up to {result['prompt_tokens']}"
    head = ("side", "s a call", "tokens/s", "decoding", "bound", "of bound", "peak memory", "times ours")
    print_table(title, head, rows)
    console.print("times ours: seconds of the call over ours, round by round; decoding: tokens/s without prefill.")


if __name__ == "__main__":
    raise SystemExit(main())
