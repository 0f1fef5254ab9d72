"""What travels between chips in a step, read from the program that the TPU compiler made.

A loop's body is written once in the text and counts as often as the loop runs. A collective that runs beside other
work appears several times: as its start, in each piece of work beside it, and as its end. The start counts. One that
has no start of its own runs alone: nothing else of the chip works meanwhile.

Between slices data goes through the hosts: the compiler cuts a collective into one inside each slice and a `send` and
`recv` of every chip's share (libtpu 0.0.51). What is received counts, under the kind that the transfer names.
"""

from collections import defaultdict
from collections.abc import Mapping
import re
from typing import NamedTuple

import numpy as np

_HOST_TRANSFERS = {
    "ALL_REDUCE": "all-reduce",
    "ALL_GATHER": "all-gather",
    "REDUCE_SCATTER": "reduce-scatter",
    "ALL_TO_ALL": "all-to-all",
    "ONE_TO_ONE": "collective-permute",
}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16, "s32": 32,
        "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64}  # fmt: skip


class Traffic(NamedTuple):
    """Of one kind of collective, in a step, on one chip."""

    times: int
    """How often it runs."""
    link_bytes: float
    """Received over the links of a slice."""
    network_bytes: float
    """Received from other slices over the datacenter's network."""
    exposed_bytes: float = 0.0
    """Of link_bytes: by collectives that run beside no other work."""


class _Collective(NamedTuple):
    kind: str
    bytes: float
    """Of its result; of its operand where it scatters."""
    group: int
    """Chips that take part, in one slice."""
    slices: int
    """Slices that take part."""
    is_beside: bool = False
    """Whether it begins and ends apart, other work between the two."""


class _Computation(NamedTuple):
    collectives: list[_Collective]
    calls: list[tuple[str, str | None]]
    """Names of computations that it runs, and the condition where it runs one in a loop."""
    largest_constant: int
    """In a loop's condition: how often the loop runs."""


def traffic(text: str, devices: int, slices: int = 1) -> dict[str, Traffic]:
    """By kind, from a compiled program's text (`compiled.as_text()`). Devices stand slice by slice in the mesh.

    Raises ValueError for a program that was not understood: slices that train together exchange something.
    """
    computations, entry = _computations(text, devices, slices)
    times: Mapping[str, int] = _times(computations, entry)
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for name, computation in computations.items():
        if computation.collectives and not times[name]:
            raise ValueError(f"computation {name} communicates and nothing runs it: a new way of writing programs.")
        for collective in computation.collectives:
            links, network = _received(collective)
            sums[collective.kind][0] += times[name]
            sums[collective.kind][1] += times[name] * links
            sums[collective.kind][2] += times[name] * network
            sums[collective.kind][3] += 0 if collective.is_beside else times[name] * links
    if slices > 1 and not any(network for _, _, network, _ in sums.values()):
        raise ValueError(f"nothing is exchanged between the {slices} slices: a new way of writing programs.")
    return {kind: Traffic(*sums[kind]) for kind in KINDS if kind in sums}


def _received(collective: _Collective) -> tuple[float, float]:
    """(link, network) bytes that one chip receives.

    Over several slices a chip exchanges its own share of the group's array with its partners, and the rest is gathered
    inside the slice.
    """
    kind, size, group, slices, _ = collective
    if kind == "collective-permute":
        return (size, 0.0) if slices == 1 else (0.0, size)
    passes = 2 if kind == "all-reduce" else 1
    links = passes * size * (group - 1) / group
    network = passes * size / group * (slices - 1) / slices
    return links, network


def _computations(text: str, devices: int, slices: int) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, name, lines = "", None, []
    for line in text.splitlines():
        start = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if start:
            name, lines = start[2], []
            entry = name if start[1] else entry
        elif line.rstrip() == "}" and name:  # a kernel's attributes go over lines that begin so
            computations[name] = _computation(name, lines, devices, slices)
            name = None
        else:
            lines.append(line)
    return computations, entry


def _computation(name: str, lines: list[str], devices: int, slices: int) -> _Computation:
    body = "\n".join(lines)
    constants = [int(number) for number in re.findall(r"= s32\[\]\S* constant\((\d+)\)", body)]
    calls: list[tuple[str, str | None]] = []
    collectives = []
    # The pieces of work beside a collective, and its end, repeat it.
    repeats = name.startswith("async_collective_fusion") or "AsyncCollectiveDone" in body
    is_start = "AsyncCollectiveStart" in body
    for line in lines:
        if loop := re.search(r" while\(.*condition=%([\w.\-]+), body=%([\w.\-]+)", line):
            calls.append((loop[2], loop[1]))
            continue
        calls += [(called, None) for called in re.findall(r"(?:calls|_computation)=%([\w.\-]+)", line)]
        if branches := re.search(r"branch_computations=\{([^}]*)\}", line):
            calls += [(branch.strip(" %"), None) for branch in branches[1].split(",")]
        if not repeats and (collective := _collective(name, line, devices, slices)):
            collectives.append(collective._replace(is_beside=collective.is_beside or is_start))
    return _Computation(collectives, calls, max(constants, default=1))


def _collective(computation: str, line: str, devices: int, slices: int) -> _Collective | None:
    match = re.match(rf"\s+(?:ROOT )?%\S+ = (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
    if not match:
        return _host_transfer(line, slices)
    shapes, kind, start = match.groups()
    sizes = _sizes(shapes)
    if start and kind == "all-gather":
        sizes = sizes[len(sizes) // 2 :]  # operands, then results
    elif start and kind == "collective-permute":
        sizes = sizes[:1]  # operand, result, and what the chips wait for
    group = _group(line, devices)
    if kind == "reduce-scatter":
        sizes = [size * len(group) for size in sizes]
    elif computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # the compiler's name of one that it fused
    slices_of_group = len(np.unique(group // (devices // slices)))
    return _Collective(kind, sum(sizes), len(group) // slices_of_group, slices_of_group, bool(start))


def _host_transfer(line: str, slices: int) -> _Collective | None:
    """What a chip receives of its own share from the other slices."""
    match = re.match(r'\s+(?:ROOT )?%\S+ = \((.*?), u32\[\].* recv\(.*_xla_megascale_transfer_type="(\w+)"', line)
    if not match:
        return None
    shape, transfer = match.groups()
    if transfer not in _HOST_TRANSFERS:
        raise ValueError(f"slices exchange by {transfer}: a new way of writing programs.")
    kind = _HOST_TRANSFERS[transfer]
    parts = slices if kind == "reduce-scatter" else 1  # its operand counts
    return _Collective(kind, parts * sum(_sizes(shape)), 1, slices)


def _sizes(shapes: str) -> list[float]:
    return [_bytes(*shape) for shape in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shapes)]


def _bytes(dtype: str, shape: str) -> float:
    return BITS.get(dtype, 8) / 8 * int(np.prod([int(side) for side in shape.split(",") if side], dtype=np.int64))


def _group(line: str, devices: int) -> np.ndarray:
    """The first group of devices of a collective, in any of the three ways to write it."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        over = [axis for axis in sizes if f"'{axis}'" in named[2]]
        grid = np.arange(devices).reshape(list(sizes.values()))
        return grid[tuple(slice(None) if axis in over else 0 for axis in sizes)].reshape(-1)
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        grid = np.arange(devices).reshape([int(side) for side in iota[3].split(",")])
        if iota[4]:
            grid = grid.transpose([int(axis) for axis in iota[4].split(",")])
        return grid.reshape(int(iota[1]), int(iota[2]))[0]
    if listed := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", line):
        return np.array([int(device) for device in listed[1].split(",")])
    return np.arange(devices)


def _times(computations: Mapping[str, _Computation], entry: str) -> dict[str, int]:
    """How often each computation runs in a step; both branches of a choice count."""
    times = dict.fromkeys(computations, 0)

    def visit(name: str, count: int) -> None:
        if name not in computations:
            return
        times[name] += count
        for called, condition in computations[name].calls:
            repeats = computations[condition].largest_constant if condition in computations else 1
            visit(called, count * repeats)

    visit(entry, 1)
    return times
