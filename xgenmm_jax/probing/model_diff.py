"""Two checkpoints of one architecture side by side: before and after a stage."""

from collections.abc import Sequence

import jax
import numpy as np
import PIL.Image

from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.processor import Image
from xgenmm_jax.probing.attention_maps import whole_shown
from xgenmm_jax.probing.figures import INK, QUIET, figure, show_image, to_image

Question = tuple[Image, str]


def parameter_change(before: LMM, after: LMM) -> dict[str, float]:
    """How far each part moved: |after - before| / |before|, a layer of a stack at a time.

    Raises ValueError where the two are not of one architecture.
    """
    changes: dict[str, list[np.ndarray]] = {}
    flat = jax.tree_util.tree_leaves_with_path(before.params)
    other = jax.tree_util.tree_leaves(after.params)
    if before.config.decoder != after.config.decoder or len(flat) != len(other):
        raise ValueError("model_diff: the two checkpoints are of different architectures; give two of one.")
    for (path, old), new in zip(flat, other, strict=True):
        keys = [str(key.key) for key in path]
        old_array, new_array = np.asarray(old, np.float32), np.asarray(new, np.float32)
        stacked = "layers" in keys
        part = keys[0] if stacked else f"{keys[0]}, rest"
        layers = zip(old_array, new_array, strict=True) if stacked else [(old_array, new_array)]
        for number, (a, b) in enumerate(layers, start=1):
            name = f"{part} {number}" if stacked else part
            sums = np.array([np.sum((b - a) ** 2, dtype=np.float64), np.sum(a**2, dtype=np.float64)])
            changes.setdefault(name, []).append(sums)
    totals = {name: np.sum(parts, axis=0) for name, parts in changes.items()}
    order = ("vision", "connector", "decoder")
    named = sorted(totals, key=lambda name: (order.index(name.split()[0].rstrip(",")), _number(name)))
    return {name: float(np.sqrt(totals[name][0] / max(totals[name][1], 1e-12))) for name in named}


def _number(name: str) -> int:
    last = name.split()[-1]
    return int(last) if last.isdigit() else 1_000


def change_shown(before: LMM, after: LMM) -> PIL.Image.Image:
    """`parameter_change` as bars, in percent."""
    change = parameter_change(before, after)
    drawn, axes = figure(6.5, 0.6 + 0.2 * len(change))
    axis = axes[0, 0]
    values = [100 * value for value in change.values()]
    axis.barh(range(len(change)), values, color="#2f5bd0", height=0.6)
    for row, value in enumerate(values):
        axis.text(value, row, f" {value:.1f} %", va="center", fontsize=7, color=INK)
    axis.set_yticks(range(len(change)), list(change), fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * max(*values, 1e-3))
    axis.set_xticks([])
    axis.set_title("how far each part moved, of its size", fontsize=9, color=INK)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    return to_image(drawn)


def answers_shown(
    models: dict[str, LMM], questions: Sequence[Question], max_new_tokens: int = 24
) -> PIL.Image.Image:
    """Images with questions; for each model where all its queries look together, and what it answers.

    Every model is asked in the chat template.
    """
    answers = {
        name: lmm.generate(
            [text for _, text in questions], [[image] for image, _ in questions], max_new_tokens=max_new_tokens,
            chat_template=True,
        )
        for name, lmm in models.items()
    }  # fmt: skip
    drawn, axes = figure(1.9 * (len(models) + 1), 2.15 * len(questions), len(questions), len(models) + 1)
    for number, (image, text) in enumerate(questions):
        first = next(iter(models.values()))
        show_image(axes[number, 0], first.processor.image(image).load(), _wrapped(text), QUIET)
        for column, (name, lmm) in enumerate(models.items(), start=1):
            title = f"{name}: {answers[name][number]}"
            show_image(axes[number, column], whole_shown(lmm, image), _wrapped(title))
    return to_image(drawn)


def _wrapped(text: str, width: int = 26) -> str:
    lines, line = [], ""
    for piece in text.replace("$", r"\$").split():
        if line and len(line) + 1 + len(piece) > width:
            lines.append(line)
            line = piece
        else:
            line = f"{line} {piece}".strip()
    return "\n".join([*lines, line][:3])
