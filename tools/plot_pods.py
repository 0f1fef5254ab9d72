"""Draws docs/pictures/pods.png: MFU of every compiled cell, at its bound and as expected, beside published figures.

    python -m tools.plot_pods          (needs matplotlib, of the extra `demo`)

Reads docs/pods.csv. Published: docs/reference/tpus.md#published-speeds.
"""

from pathlib import Path
from typing import NamedTuple

from tools import pod_speeds
from xgenmm_jax.probing.figures import INK, LINES, QUIET, figure, to_image

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "pods.png"
STAGES = ("stage1", "stage2", "sft_single", "sft_multi", "dpo")
SIZES = ("4b", "14b")


class Published(NamedTuple):
    """One figure of MaxText's."""

    words: str
    mfu: float


PANELS: dict[str, tuple[str, tuple[Published, ...]]] = {
    "v5e:16x16": ("256 v5e", (Published("16B, 256 chips", 0.61), Published("32B, 256 chips", 0.67))),
    "v5p:4x4x8": ("128 v5p", (Published("Llama 2 70B, 512 chips", 0.654), Published("32B, 64 chips", 0.715))),
    "v4:4x4x4": ("64 v4", (Published("22B, 64 chips", 0.567),)),
    "v6e:16x16": ("256 v6e", (Published("Llama 3.1 8B, 256 chips", 0.455), Published("70B, 256 chips", 0.503))),
}
"""By topology: the panel's title, what was published for the chip. "v5p-128" and "v4-128" count cores: 64 chips."""


def main() -> None:
    rows = pod_speeds.read()
    drawn, (axes,) = figure(13, 4.4, columns=len(PANELS))
    bound, expected, published, compiled = "#c9d6f5", LINES[0], LINES[1], LINES[2]
    for axis, (topology, (title, figures)) in zip(axes, PANELS.items(), strict=True):
        cells = [rows[size, stage, topology, 1] for size in SIZES for stage in STAGES]
        # A gap between the sizes.
        places = [number + 0.7 * (number >= len(STAGES)) for number in range(len(cells))]
        axis.bar(places, [100 * float(cell["bound_mfu"]) for cell in cells], color=bound, label="bound, traffic hidden")
        axis.bar(places, [100 * float(cell["expected_mfu"]) for cell in cells], color=expected, label="expected")
        known = [(place, float(c["exposed_mfu"])) for place, c in zip(places, cells, strict=True) if c["exposed_mfu"]]
        for number, (place, mfu) in enumerate(known):
            words = "bound, traffic as compiled" if number == 0 else None
            axis.plot([place - 0.4, place + 0.4], [100 * mfu] * 2, color=compiled, linewidth=2.5, label=words)
        for number, one in enumerate(figures):
            axis.axhline(100 * one.mfu, color=published, linewidth=1.2, label="MaxText" if number == 0 else None)
            axis.text(
                *(places[-1] + 0.5, 100 * one.mfu + (1.2 if number else -1.2), f"{one.words}: {100 * one.mfu:.3g}"),
                **dict(fontsize=7.5, color=published, ha="right", va="bottom" if number else "top"),
                bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.6},
            )
        axis.set_title(title, fontsize=11, color=INK)
        axis.set_xticks(places, [cell["stage"] for cell in cells], rotation=60, ha="right", fontsize=8)
        for first, size in ((0, "4B"), (len(STAGES), "14B")):
            axis.text((places[first] + places[first + 4]) / 2, 105, size, ha="center", va="top", fontsize=9, color=INK)
        axis.set_ylim(0, 106)
        axis.tick_params(colors=QUIET, labelcolor=INK)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylabel("MFU, % of the chips' peak", color=INK)
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    to_image(drawn).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
