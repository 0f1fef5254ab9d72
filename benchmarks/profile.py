"""Time by part and largest operations of each side of `train_step`, printed and as JSON."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report import print_table, show
from benchmarks.rounds import Make, Side, SideError

PARTS = ("tower", "resampler", "decoder", "head", "optimizer")
REPEATS = 5
LARGEST = 3


def profile(makes: Mapping[str, Make]) -> dict[str, Any]:
    """One side after the other, each alone in memory."""
    result: dict[str, Any] = {}
    for name, make in makes.items():
        try:
            side = Side(make)
            parts = side.call("parts", REPEATS)
            side.close()
            # Anew: the parts have used the state up.
            side = Side(make)
            operations = side.call("operations", LARGEST)
            side.close()
        except SideError as error:
            show(f"profile of {name} failed: {error}")
            continue
        result[name] = {"parts_s": parts, "operations": [{"name": key, "seconds": s} for key, s in operations]}
    print_profile(result)
    return result


def print_profile(result: Mapping[str, Any]) -> None:
    rows = [(part, *(f"{side['parts_s'][part]:.4g}" for side in result.values())) for part in PARTS]
    sums = (f"{sum(side['parts_s'].values()):.4g}" for side in result.values())
    print_table("Parts by themselves, seconds", ("part", *result), [*rows, ("together", *sums)])
    for name, side in result.items():
        show(f"{name}, largest operations of a step (seconds, over all threads):")
        for operation in side["operations"]:
            show(f"  {operation['seconds']:.4g}  {operation['name']}")
