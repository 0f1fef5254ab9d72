"""Checkpoints of other layouts as our parameters: onto disk or onto devices, a slice of a leaf at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
import functools
import re
from typing import Any
import zlib

import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from xgenmm_jax import files
from xgenmm_jax.convert import peft_settings, trees
from xgenmm_jax.convert.detect import Detected, detect_format
from xgenmm_jax.convert.parameter_store import ParameterWriter
from xgenmm_jax.convert.rules import Rule, Shape, their_shapes
from xgenmm_jax.convert.scratch import FRESH, Scratch, cast
from xgenmm_jax.convert.tensor_files import Tensors, open_tensors
from xgenmm_jax.convert.tensor_shapes import NO_OVERRIDES, Overrides, Settings
from xgenmm_jax.convert.trees import Config
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.paths import Path

READABLE = ("F32", "BF16", "F16", "float32", "bfloat16", "float16")
CONFIG_FILES = ("config.json", "open_clip_config.json")
PROCESSOR_FILE = "preprocessor_config.json"
ROPE = ("rope_scaling", "rope_parameters")
SETTINGS_OF_PARTS = (
    "vision_encoder_config", "siglip_vision_config", "vision_tokenizer_config", "text_config", "vision_config",
    "qformer_config", "model_cfg", "vision_cfg", *ROPE,
)  # fmt: skip
"""Members of config.json that are objects where they are there; those of ROPE may be null."""
THREADS = 2
"""One reads while the other rearranges. Each holds a slice and its copy: at most a gigabyte at 4B."""

Progress = Callable[[int], None]
"""Called with the number of parameters that are done since the last call."""


@dataclass(frozen=True)
class Source:
    """An opened checkpoint that fits its family: everything is there at its shape. Close it.

    pieces: rules and where their tensors are; two for a training checkpoint with a tower from elsewhere.
    settings: its config.json. initialized: leaves that it lacks, which `initial_leaf` gives.
    """

    path: Path
    family: str
    config: Config
    pieces: tuple[tuple[tuple[Rule, ...], Tensors], ...]
    settings: Settings
    initialized: tuple[str, ...]
    dtypes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the files beside the tensors are."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def processor(self) -> Settings:
        """Its preprocessor_config.json, {} where there is none."""
        return read_settings(self.path, (PROCESSOR_FILE,))

    @property
    def parameters(self) -> int:
        """How many numbers all leaves hold."""
        return sum(int(np.prod(shape)) for shape in trees.shapes(self.config).values())

    def close(self) -> None:
        for _, tensors in self.pieces:
            tensors.close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(path: Path, overrides: Overrides = NO_OVERRIDES, vision: Path | None = None) -> Source:
    """Opens a checkpoint and checks all of it; reads headers only.

    vision: a tower's checkpoint, for a training checkpoint of xGen-MM without its own.

    Raises ValueError that names every missing, spare and misshapen tensor.
    """
    if peft_settings.is_adapter(path):
        raise ValueError(
            f"checkpoint: '{path}' holds an adapter and no model; give the model that it was trained over, and the "
            f"adapter beside: xgenmm_jax.load(MODEL, adapter='{path}'), or --initialize.adapter of a training."
        )
    # The tower first: the model's size follows from its config.
    tower = open_source(vision, overrides) if vision is not None else None
    if tower is not None and not isinstance(tower.config, ViTConfig):
        tower.close()
        raise ValueError(f"--vision: '{vision}' is {tower.family}; give a tower.")
    tensors = open_tensors(path)
    try:
        settings = read_settings(path)
        shapes = {name: info.shape for name, info in tensors.infos.items()}
        try:
            detected = detect_format(shapes, settings, overrides, None if tower is None else tower.config)
        except ValueError as error:
            # What was detected is named there; the file only here.
            raise ValueError(f"'{path}': {error}") from error
        if tower is not None and any(rule.ours.startswith("vision/") for rule in detected.rules):
            raise ValueError(f"--vision: '{path}' has its own tower; leave --vision away.")
        _check(path, detected, tensors, shapes)
    except BaseException:
        tensors.close()
        if tower is not None:
            tower.close()
        raise
    # Each piece: rules, and the tensors that they read.
    pieces = ((detected.rules, tensors), *(() if tower is None else tower.pieces))
    dtypes = tuple(sorted({_dtype(tensors, rule) for rules, tensors in pieces for rule in rules}))
    return Source(path, detected.family, detected.config, pieces, settings, detected.initialized, dtypes)


def _dtype(tensors: Tensors, rule: Rule) -> str:
    return tensors.infos[rule.pieces(0 if rule.layers else None)[0].name].dtype


def read_settings(path: Path, names: Sequence[str] = CONFIG_FILES) -> Settings:
    """The config.json of a checkpoint's folder, {} where there is none.

    names: of the file, in the order of preference.

    Raises ValueError where it is no object, or one of its parts (SETTINGS_OF_PARTS) is none.
    """
    folder = path if path.is_dir() else path.parent
    for name in names:
        file = folder / name
        if not file.is_file():
            continue
        try:
            settings = files.parse_json(files.read_text(file))
        except ValueError as error:
            raise ValueError(f"checkpoint: '{file}' is not JSON ({error}); copy it again.") from error
        if not isinstance(settings, dict):
            raise ValueError(f"checkpoint: '{file}' holds no JSON object; copy it again.")
        _check_parts(settings, file)
        return settings
    return {}


def _check_parts(settings: Settings, file: Path) -> None:
    for name, value in settings.items():
        if name not in SETTINGS_OF_PARTS:
            continue
        if not isinstance(value, dict) and not (value is None and name in ROPE):
            raise ValueError(f"checkpoint: '{file}' has {value!r:.40} as {name}, wanted an object; copy it again.")
        if isinstance(value, dict):
            _check_parts(value, file)


def _check(path: Path, detected: Detected, tensors: Tensors, shapes: Mapping[str, Shape]) -> None:
    expected = their_shapes(detected.rules, trees.shapes(detected.config))
    bad = _problems(expected, shapes, detected.ignored)
    for name in expected:
        info = tensors.infos.get(name)
        if info is not None and info.dtype not in READABLE:
            bad.append(f"{name} has dtype {info.dtype} for F32, BF16 or F16")
    if bad:
        raise ValueError(
            f"checkpoint: '{path}' looks like {detected.family} but does not fit it: {'; '.join(bad)}. Copy it again, "
            "or put the config.json of its size beside it."
        )


def _problems(expected: Mapping[str, Shape], have: Mapping[str, Shape], ignored: Callable[[str], bool]) -> list[str]:
    """What keeps a checkpoint from being read: misshapen, missing, spare; a phrase each, layers alike in one."""
    layers_of: dict[tuple[str, str], list[str]] = {}
    for name, shape in expected.items():
        if name not in have:
            _note(layers_of, name, "is missing")
        elif have[name] != shape:
            _note(layers_of, name, f"has {list(have[name])} for {list(shape)}")
    for name in have:
        if name not in expected and not ignored(name):
            _note(layers_of, name, "is spare")
    return [
        f"{', '.join(names) if len(names) <= 3 else f'{names[0]} ... {names[-1]} ({len(names)} layers)'} {what}"
        for (_, what), names in layers_of.items()
    ]


def _note(layers_of: dict[tuple[str, str], list[str]], name: str, what: str) -> None:
    layers_of.setdefault((re.sub(r"\d+", "#", name), what), []).append(name)


def read_slice(
    rule: Rule, tensors: Tensors, layer: int | None, dtype: np.dtype, scratch: Scratch = FRESH
) -> np.ndarray:
    """Our leaf of a rule, or one layer of it, contiguous."""
    names = rule.pieces(layer)
    index = layer if rule.scanned else None
    parts = [tensors.read(piece.name, index, piece.part, piece.of, scratch) for piece in names]
    return cast(np.asarray(rule.transform.into(parts)), dtype, scratch)


def initial_leaf(path: str, shape: Shape, dtype: np.dtype) -> np.ndarray:
    """A leaf that the checkpoint lacks: xGen-MM's additions to a Phi-3.

    Rows for the additional ids are drawn as the official code draws them, N(0, 0.02), from the leaf's name. Biases of
    the head are zero, where the official code draws them within 1 / sqrt(width): so the imported model is Phi-3.
    """
    if path.endswith("bias"):
        return np.zeros(shape, dtype)
    random = np.random.default_rng(zlib.crc32(path.encode()))
    return (0.02 * random.standard_normal(shape, np.float32)).astype(dtype)


def write_parameters(source: Source, folder: Path, dtype: np.dtype, progress: Progress = lambda _: None) -> None:
    """All leaves into a checkpoint's `params` folder, which is made here."""
    shapes = trees.shapes(source.config)
    writer = ParameterWriter(folder, shapes, dtype)
    scratch = Scratch()

    def copy(rule: Rule, tensors: Tensors, layer: int | None) -> int:
        scratch.reset()
        array = read_slice(rule, tensors, layer, dtype, scratch)
        writer.write(rule.ours, layer, array)
        return array.size

    def make(path: str) -> int:
        writer.write(path, None, initial_leaf(path, shapes[path], dtype))
        return int(np.prod(shapes[path]))

    copies = [
        functools.partial(copy, rule, tensors, layer)
        for rules, tensors in source.pieces
        for rule in rules
        for layer in rule.slices()
    ]
    in_threads([*copies, *(functools.partial(make, path) for path in source.initialized)], progress)


def in_threads(jobs: Iterable[Callable[[], int]], progress: Progress, threads: int = THREADS) -> None:
    """Runs jobs, at most `threads` at once, and reports what each gives. The first error ends it."""
    waiting: deque[Future[int]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) >= threads:
                    progress(waiting.popleft().result())
            while waiting:
                progress(waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()


def load_tree(
    source: Source, shardings: Mapping[str, NamedSharding], dtype: np.dtype, progress: Progress = lambda _: None
) -> dict[str, jax.Array]:
    """All leaves by path on the devices.

    shardings: by path. A stacked leaf grows layer by layer on the devices, so the host never holds more than a layer.
    Every process reads all files and keeps its shards.
    """
    shapes = trees.shapes(source.config)
    leaves: dict[str, jax.Array] = {}
    for rules, tensors in source.pieces:
        for rule in rules:
            leaves[rule.ours] = _load_leaf(rule, tensors, shapes[rule.ours], shardings[rule.ours], dtype)
            progress(leaves[rule.ours].size)
    for path in source.initialized:
        leaves[path] = _put(initial_leaf(path, shapes[path], dtype), shardings[path])
        progress(leaves[path].size)
    return leaves


def _load_leaf(rule: Rule, tensors: Tensors, shape: Shape, sharding: NamedSharding, dtype: np.dtype) -> jax.Array:
    if not rule.layers:
        return _put(read_slice(rule, tensors, None, dtype), sharding)
    one_layer = NamedSharding(sharding.mesh, PartitionSpec(*tuple(sharding.spec)[1:]))
    leaf = jax.jit(functools.partial(jax.numpy.zeros, shape, dtype), out_shardings=sharding)()
    # One program for all layers: the layer's number is data.
    insert = jax.jit(
        lambda leaf, layer, number: jax.lax.dynamic_update_index_in_dim(leaf, layer, number, 0),
        donate_argnums=0,
        out_shardings=sharding,
    )
    for number in range(rule.layers):
        layer = _put(read_slice(rule, tensors, number, dtype), one_layer)
        leaf = insert(leaf, layer, np.int32(number))
        # Else the host runs ahead of the devices, holding layer after layer.
        leaf.block_until_ready()
    return leaf


def _put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of leaves by path."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
