"""Low-rank updates in PEFT's layout: adapter_config.json and adapter_model.safetensors, written and read.

Names are those of the modules that the updates change, in a layout that whole models are converted to:
`base_model.model.<module>.lora_A.weight` [rank, inputs], `lora_B.weight` [outputs, rank], and the tensors of
modules_to_save as they are. Numbers are float32 and come back as they went.

Source: docs/reference/checkpoints.md#peft-adapters.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from safetensors.numpy import save_file

from xgenmm_jax.convert import peft_settings
from xgenmm_jax.convert.importing import READABLE
from xgenmm_jax.convert.parameter_store import Reader
from xgenmm_jax.convert.peft_maps import WEIGHT, LinearMap, layouts, linear_maps
from xgenmm_jax.convert.rules import Rule, Shape, their_shapes
from xgenmm_jax.convert.tensor_files import Tensors, open_tensors
from xgenmm_jax.convert.trees import Config, shapes
from xgenmm_jax.models import lora
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.paths import Path

Layout = Literal["peft", "peft_phi3"]
"""Over the official xGen-MM code's model, and over transformers' Phi3ForCausalLM."""
RULES_OF = {"peft": ("xgenmm", "phi3", "siglip"), "peft_phi3": ("phi3",)}
"""The first of these layouts that the model has."""
MODEL_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
NO_BASE = (
    "adapter_config.json names no base model: load the adapter over a base in the same layout, which `xgenmm convert "
    "BASE DIR --to {}` writes."
)


def write(reader: Reader, config: Config, updates: LoRA, layout: Layout, folder: Path) -> tuple[str, ...]:
    """Writes the updates of a run, and what trained whole beside them, into a folder that is there; gives notes.

    reader: of a checkpoint of the run, which holds these alone.

    Raises ValueError where the layout has no place for one of them.
    """
    known = layouts(config)
    name = next((one for one in RULES_OF[layout] if one in known), None)
    if name is None:
        raise ValueError(f"adapter: the run's model has no layout for --to {layout}; choose another.")
    kernels = [path.removesuffix(lora.DOWN) + lora.KERNEL for path in reader.paths if path.endswith(f"/{lora.DOWN}")]
    whole = [path for path in reader.paths if not lora.is_update(path)]
    ours = {rule.ours for rule in known[name]}
    homeless = [path for path in (*kernels, *whole) if path not in ours]
    if homeless:
        raise ValueError(
            f"adapter: the layout has no place for '{homeless[0]}'"
            f"{f' and {len(homeless) - 1} more' if len(homeless) > 1 else ''}; choose another --to."
        )
    maps = linear_maps(config, known[name], kernels)
    rules = [rule for rule in known[name] if rule.ours in whole]
    modules_to_save = _modules(config, known[name], rules, [one for linear in maps.values() for one in _all(linear)])
    tensors: dict[str, np.ndarray] = {}
    alphas: dict[str, float] = {}
    for linear in maps.values():
        for layer in linear.rule.slices():
            for module, scale in _write_layer(reader, linear, layer, tensors):
                if np.float32(updates.alpha / updates.rank) != scale:
                    alphas[module] = float(scale) * updates.rank
    for rule in rules:
        for layer in rule.slices():
            pieces = rule.pieces(layer)
            parts = rule.transform.back(reader.read(rule.ours, layer), len(pieces))
            for piece, part in zip(pieces, parts, strict=True):
                tensors[f"{PREFIX}{piece.name}"] = np.ascontiguousarray(part, np.float32)
    save_file(dict(sorted(tensors.items())), folder / MODEL_FILE, {"format": "pt"})
    modules = [one for linear in maps.values() for one in _all(linear)]
    task = "CAUSAL_LM" if name == "phi3" else None
    text = peft_settings.settings_text(
        updates.rank, updates.alpha, updates.dropout, modules, alphas, modules_to_save, task
    )
    (folder / peft_settings.FILE).write_text(text, encoding="utf-8")
    return (NO_BASE.format(name),)


def _all(linear: LinearMap) -> list[str]:
    """Names of a kernel's modules in all layers."""
    return [module for layer in linear.rule.slices() for module in linear.modules(layer)]


def _write_layer(
    reader: Reader, linear: LinearMap, layer: int | None, tensors: dict[str, np.ndarray]
) -> Iterator[tuple[str, np.float32]]:
    """Adds the tensors of one layer; gives its modules and what their updates count."""
    beside = linear.rule.ours.removesuffix(lora.KERNEL)
    down, up, scale = (reader.read(beside + kind, layer) for kind in (lora.DOWN, lora.UP, lora.SCALE))
    rank = down.shape[-1]
    down, up = down.reshape(-1, rank), up.reshape(rank, -1)
    for module, outputs in zip(linear.modules(layer), linear.outputs, strict=True):
        tensors[f"{PREFIX}{module}{A}"] = np.ascontiguousarray(down[linear.inputs].T, np.float32)
        tensors[f"{PREFIX}{module}{B}"] = np.ascontiguousarray(up[:, outputs].T, np.float32)
        yield module, np.float32(scale)


def _modules(config: Config, rules: Sequence[Rule], saved: Sequence[Rule], updated: Sequence[str]) -> list[str]:
    """The outermost modules whose tensors are all saved. Raises ValueError for a tensor that lies in none."""
    ours = shapes(config)
    every = list(their_shapes(rules, {rule.ours: ours[rule.ours] for rule in rules}))
    names = set(their_shapes(saved, {rule.ours: ours[rule.ours] for rule in saved})) if saved else set()
    others = [name for name in (*every, *(f"{one}.lora" for one in updated)) if name not in names]
    modules: dict[str, None] = {}
    for name in names:
        parents = name.split(".")[:-1]
        prefixes = [".".join(parents[:length]) for length in range(1, len(parents) + 1)]
        module = next((one for one in prefixes if not any(other.startswith(f"{one}.") for other in others)), None)
        if module is None:
            raise ValueError(
                f"adapter: '{name}' trained whole and lies in no module without others that did not; let lora.whole "
                "name all of them, or none."
            )
        modules[module] = None
    return sorted(modules)


@dataclass(frozen=True)
class Adapter:
    """An adapter as our leaves. updates: `lora_a`, `lora_b` and `lora_scale` by path, float32. ranks: of a kernel's
    layers, by its path, how many columns of A the adapter has; the rest are zero. whole: leaves of modules_to_save."""

    folder: Path
    updates: Mapping[str, np.ndarray]
    ranks: Mapping[str, np.ndarray]
    whole: Mapping[str, np.ndarray]


def read(folder: Path, config: Config) -> Adapter:
    """An adapter over a model, in whichever of its layouts it names.

    Modules that are one kernel here and have other As than each other (q, k and v) become one update of as many ranks
    as they have together, which computes the same.

    Raises ValueError where it is no LoRA that is read, or its names or shapes are not the model's.
    """
    settings = peft_settings.read_settings(folder)
    file = folder / MODEL_FILE
    pickled = folder / "adapter_model.bin"
    with contextlib.closing(open_tensors(pickled if pickled.is_file() and not file.is_file() else file)) as tensors:
        names = _names(file, tensors)
        modules = {name.removesuffix(A) for name in names if name.endswith(A)}
        saved = [name for name in names if not name.endswith((A, B))]
        lone = [name for name in names if name.endswith(B) and name.removesuffix(B) not in modules]
        lone += [module for module in sorted(modules) if module + B not in names]
        if lone:
            raise ValueError(f"adapter: '{file}' has one of lora_A and lora_B alone for {lone[0]}; copy it again.")
        rules, expected = _layout_of(file, config, modules, saved)
        _check_shapes(file, tensors, modules, saved, expected, settings)
        # Leaves of ours that have something of it.
        touched = [rule for rule in rules if any(one in modules for one in _modules_of(rule))]
        maps = linear_maps(config, touched, [rule.ours for rule in touched])
        updates: dict[str, np.ndarray] = {}
        ranks: dict[str, np.ndarray] = {}
        for path, linear in maps.items():
            blocks = [_block(linear, layer, tensors, modules, settings) for layer in linear.rule.slices()]
            ranks[path] = np.array([down.shape[1] for down, _, _ in blocks])
            updates |= _leaves(linear, blocks)
        whole = {rule.ours: _whole(file, rule, tensors, set(saved)) for rule in _saved_rules(rules, saved)}
    return Adapter(folder, updates, ranks, whole)


def _names(file: Path, tensors: Tensors) -> set[str]:
    """Names without their common beginning. Raises ValueError for what is no part of a plain LoRA of linear maps."""
    names = set()
    for name in tensors.infos:
        stem = name.removeprefix(PREFIX)
        if stem == name or (".lora_" in stem and not stem.endswith((A, B))):
            raise ValueError(
                f"adapter: '{file}' has '{name}', which is not read; wanted {PREFIX}<module>{A}, {B.lstrip('.')} and "
                "the tensors of modules_to_save (no DoRA, no biases, no embeddings)."
            )
        names.add(stem)
    if not any(name.endswith(A) for name in names):
        raise ValueError(f"adapter: '{file}' holds no update; give a folder that PEFT or `--to peft` wrote.")
    return names


def _modules_of(rule: Rule) -> list[str]:
    return [piece.name.removesuffix(WEIGHT) for layer in rule.slices() for piece in rule.pieces(layer)]


def _layout_of(
    file: Path, config: Config, modules: set[str], saved: Sequence[str]
) -> tuple[tuple[Rule, ...], Mapping[str, Shape]]:
    """The layout in which the model has these names, and the shapes of all of its tensors."""
    ours = shapes(config)
    names = [*sorted(f"{module}{WEIGHT}" for module in modules), *saved]
    least: list[str] | None = None
    for rules in layouts(config).values():
        expected = their_shapes(rules, {rule.ours: ours[rule.ours] for rule in rules})
        unknown = [name for name in names if name not in expected]
        if not unknown:
            return rules, expected
        if least is None or len(unknown) < len(least):
            least = unknown
    raise ValueError(
        f"adapter: '{file}' is of another model: there is no {', '.join(least[:3]) if least else names[0]}"
        f"{f' and {len(least) - 3} more' if least and len(least) > 3 else ''} here; give the base that it was trained "
        "over."
    )


def _check_shapes(
    file: Path,
    tensors: Tensors,
    modules: set[str],
    saved: Sequence[str],
    expected: Mapping[str, Shape],
    settings: peft_settings.PeftSettings,
) -> None:
    of_tensors = {name: expected[name] for name in saved}
    for module in sorted(modules):
        rank = settings.rank_of(module)
        weight = expected[f"{module}{WEIGHT}"]
        if len(weight) != 2:
            raise ValueError(f"adapter: '{file}' has an update of {module}, which is no linear map here; not read.")
        of_tensors |= {module + A: (rank, weight[1]), module + B: (weight[0], rank)}
    for name, shape in of_tensors.items():
        info = tensors.infos[PREFIX + name]
        if info.shape != shape:
            raise ValueError(
                f"adapter: '{file}': {name} has {list(info.shape)} for {list(shape)}; give the base that it was "
                "trained over, or copy it again."
            )
        if info.dtype not in READABLE:
            raise ValueError(f"adapter: '{file}': {name} has dtype {info.dtype} for F32, BF16 or F16.")


def _block(
    linear: LinearMap,
    layer: int | None,
    tensors: Tensors,
    modules: set[str],
    settings: peft_settings.PeftSettings,
) -> tuple[np.ndarray, np.ndarray, float]:
    """A [inputs, rank], B [rank, outputs] and what they count, of one layer of a kernel; of none rank 0."""
    sizes = len(linear.inputs), sum(map(len, linear.outputs))
    parts = []
    for module, outputs in zip(linear.modules(layer), linear.outputs, strict=True):
        if module in modules:
            theirs = tensors.read(f"{PREFIX}{module}{A}").astype(np.float32)
            down = np.empty((sizes[0], len(theirs)), np.float32)
            down[linear.inputs] = theirs.T
            up = tensors.read(f"{PREFIX}{module}{B}").astype(np.float32).T
            parts.append((down, up, outputs, settings.scale_of(module, len(theirs))))
    if not parts:
        return np.zeros((sizes[0], 0), np.float32), np.zeros((0, sizes[1]), np.float32), 1.0
    scale = parts[0][3]
    is_one = all(np.array_equal(down, parts[0][0]) and part_scale == scale for down, _, _, part_scale in parts)
    rank = len(parts[0][1]) if is_one else sum(len(up) for _, up, _, _ in parts)
    whole = np.zeros((rank, sizes[1]), np.float32)
    start = 0
    for _, up, outputs, part_scale in parts:
        whole[start : start + len(up), outputs] = up if part_scale == scale else up * np.float32(part_scale / scale)
        start += 0 if is_one else len(up)
    down = parts[0][0] if is_one else np.concatenate([down for down, _, _, _ in parts], 1)
    return down, whole, scale


def _leaves(linear: LinearMap, blocks: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> dict[str, np.ndarray]:
    """Of all layers of a kernel, filled up with zeros to one rank."""
    rank = max(down.shape[1] for down, _, _ in blocks)
    downs = [np.pad(down, ((0, 0), (0, rank - down.shape[1]))) for down, _, _ in blocks]
    ups = [np.pad(up, ((0, rank - len(up)), (0, 0))) for _, up, _ in blocks]
    lead = (len(blocks),) if linear.rule.layers else ()
    beside = linear.rule.ours.removesuffix(lora.KERNEL)
    return {
        beside + lora.DOWN: np.stack(downs).reshape(*lead, *linear.kernel_inputs, rank),
        beside + lora.UP: np.stack(ups).reshape(*lead, rank, *linear.kernel_outputs),
        beside + lora.SCALE: np.array([scale for _, _, scale in blocks], np.float32).reshape(lead),
    }


def _saved_rules(rules: Sequence[Rule], saved: Sequence[str]) -> list[Rule]:
    names = set(saved)
    return [rule for rule in rules if any(p.name in names for layer in rule.slices() for p in rule.pieces(layer))]


def _whole(file: Path, rule: Rule, tensors: Tensors, saved: set[str]) -> np.ndarray:
    """A leaf of ours from modules_to_save."""
    layers = []
    for layer in rule.slices():
        pieces = rule.pieces(layer)
        missing = [piece.name for piece in pieces if piece.name not in saved]
        if missing:
            raise ValueError(
                f"adapter: '{file}' saves a part of '{rule.ours}' and not {missing[0]}; save all layers of it, or none."
            )
        parts = [tensors.read(PREFIX + piece.name, None, piece.part, piece.of) for piece in pieces]
        layers.append(np.ascontiguousarray(rule.transform.into(parts), np.float32))
    return np.stack(layers) if rule.layers else layers[0]
