"""adapter_config.json of PEFT's LoRA: what is read of it, what is refused, how it is written.

Source: docs/reference/checkpoints.md#peft-adapters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import json
import math
import re
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.paths import Path

FILE = "adapter_config.json"
_OFF: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "use_qalora": (False, None),
    "alora_invocation_tokens": (None, []),
    "use_bdlora": (None, False),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
}
"""Settings that change what an adapter computes or what it stands beside, with the values that do not; DoRA, biases and
updates of embeddings are none of ours, and starts such as PiSSA's change the base."""


@dataclass(frozen=True)
class PeftSettings:
    """rank, alpha: of modules that no pattern names. scaled_by_root: alpha / sqrt(rank), rank-stabilized LoRA.

    rank_pattern, alpha_pattern: regular expression of a module's name, or of its end, to its own value.
    """

    rank: int
    alpha: float
    scaled_by_root: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    modules_to_save: tuple[str, ...]

    def rank_of(self, module: str) -> int:
        return _matching(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str, rank: int) -> float:
        """What a module's update is multiplied by."""
        alpha = _matching(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.scaled_by_root else rank)


def _matching(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    for key, value in pattern.items():
        if key == module or module.endswith(f".{key}") or re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def is_adapter(folder: Path) -> bool:
    """Whether it is a folder of PEFT's, which holds updates and no model."""
    return (folder / FILE).is_file() and not (folder / "config.json").is_file()


def read_settings(folder: Path) -> PeftSettings:
    """Raises ValueError where the file is missing, is no LoRA's, or says something that is not read, which it names."""
    file = folder / FILE
    if not file.is_file():
        raise ValueError(f"adapter: '{folder}' has no {FILE}; give a folder that PEFT or `--to peft` wrote.")
    try:
        value = files.parse_json(files.read_text(file))
    except ValueError as error:
        raise ValueError(f"adapter: '{file}' is not JSON ({error}); copy it again.") from error
    if not isinstance(value, dict) or value.get("peft_type") != "LORA":
        kind = value.get("peft_type") if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"adapter: '{file}' has peft_type {kind}; wanted LORA.")
    for name, plain in _OFF.items():
        if name in value and value[name] not in plain:
            raise ValueError(
                f"adapter: '{file}' has {name} {json.dumps(value[name])[:60]}, which is not read; wanted "
                f"{json.dumps(plain[0])}: train it so, or merge it with PEFT and convert the whole model."
            )
    rank, alpha = value.get("r", 8), value.get("lora_alpha", 8)
    rank_pattern, alpha_pattern = value.get("rank_pattern") or {}, value.get("alpha_pattern") or {}
    saved = value.get("modules_to_save") or ()
    numbers = (rank, alpha, *_values(rank_pattern), *_values(alpha_pattern))
    ranks = (rank, *_values(rank_pattern))
    is_number = all(type(one) in (int, float) and 0 < one < math.inf for one in numbers)
    if not is_number or not all(type(one) is int for one in ranks):
        raise ValueError(f"adapter: '{file}': r, lora_alpha or a pattern of them is no number above 0; copy it again.")
    if not all(isinstance(one, str) for one in saved):
        raise ValueError(f"adapter: '{file}': modules_to_save holds something else than names; copy it again.")
    for key in (*rank_pattern, *alpha_pattern):
        try:
            re.compile(key)
        except re.error as error:
            raise ValueError(f"adapter: '{file}': '{key[:60]}' is no pattern ({error}); copy it again.") from error
    alphas = {key: float(one) for key, one in alpha_pattern.items()}
    return PeftSettings(rank, float(alpha), bool(value.get("use_rslora")), rank_pattern, alphas, tuple(saved))


def _values(pattern: Any) -> tuple[Any, ...]:
    """Its values; what no number can be where it is no object."""
    return tuple(pattern.values()) if isinstance(pattern, dict) else (pattern,)


def settings_text(
    rank: int,
    alpha: float,
    dropout: float,
    modules: list[str],
    alphas: Mapping[str, float],
    modules_to_save: list[str],
    task: str | None,
) -> str:
    """The file. modules: with an update, by their whole names. alphas: of those whose alpha is another."""
    value = {
        "alpha_pattern": dict(alphas),
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _whole(alpha),
        "lora_dropout": dropout,
        "modules_to_save": modules_to_save or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "target_modules": modules,
        "task_type": task,
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(value, indent=2) + "\n"


def _whole(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number
