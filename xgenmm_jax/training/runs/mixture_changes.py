"""A run that goes on with other weights of its mixture, or with sources added at its end: from which window on.

What was drawn stays drawn: new weights begin with the first window that the resumed state has not begun. config.json
keeps them as `data.phases`, so that the next resume draws the same.
"""

import dataclasses
from typing import Any

from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.rows.phases import Phase
from xgenmm_jax.paths import Path
from xgenmm_jax.training.config import TrainConfig, read_settings, write_settings
from xgenmm_jax.training.config_json import to_json


def with_mixture_of(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A run's settings, with those of now where the mixture may differ: weights, sources at the end, phases left out.

    before, now: `to_json` of configs; the first is given back as it is where there is nothing of the kind.
    """
    old, new = before.get("data"), now.get("data")
    if not (isinstance(old, dict) and isinstance(new, dict) and old.get("class") == new["class"] and "phases" in new):
        return before
    pairs, typed = old.get("mixture"), new["mixture"]
    if not _are_pairs(pairs) or len(pairs) > len(typed):
        return before
    changed = {"mixture": _merged(pairs, typed)}
    if not new["phases"]:
        changed["phases"] = []
    return {**before, "data": {**old, **changed}}


def phases_of_run(config_file: Path) -> tuple[Phase, ...]:
    """The phases that a run's config.json keeps; () where there is none, or its data have no such thing."""
    if not config_file.is_file():
        return ()
    data = read_settings(config_file, "copy it again, or delete the folder").get("data")
    if not isinstance(data, dict) or not _are_pairs(data.get("mixture")) or "phases" not in data:
        return ()
    phases = data["phases"] or [[0, [weight for _, weight in data["mixture"]]]]
    return tuple(Phase(window, tuple(map(float, weights))) for window, weights in phases)


def phases_now(before: tuple[Phase, ...], data: DataConfig, state: State) -> tuple[Phase, ...]:
    """The phases of a run that goes on from a state of its data.

    before: those that it has. Where their last weights are the mixture's, they stay, even those that begin after the
    state: it was saved before they did, and the rows are those of a run that was not stopped. Otherwise the mixture's
    weights begin with the first window that is not begun, in place of all that were to begin then or later.

    Example: (0, a), (812, b) before. At state (812, 3) they stay with b, and become (0, a), (812, b), (813, c) with c;
    at (800, 0), of an older checkpoint, they stay with b, and become (0, a), (800, c) with c, (0, a) with a.
    """
    weights = data.order_phases[-1].weights
    if _are_equal(before[-1].weights, weights):
        return (*before[:-1], before[-1]._replace(weights=weights))
    begin = state.window + (state.row > 0)
    past = tuple(phase for phase in before if phase.window < begin)
    if past and _are_equal(past[-1].weights, weights):
        return (*past[:-1], past[-1]._replace(weights=weights))
    return (*past, Phase(begin, weights))


def with_phases(config: TrainConfig, before: tuple[Phase, ...], state: State) -> TrainConfig:
    """The config with the phases of a run that goes on (`phases_now`); nothing is written."""
    if config.data.phases:
        return config
    phases = phases_now(before, config.data, state)
    plain = () if len(phases) == 1 else tuple(map(tuple, phases))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, phases=plain))


def keep(config: TrainConfig, config_file: Path) -> None:
    """Writes what of the mixture a run's config.json does not keep yet."""
    settings, now = read_settings(config_file, "copy it again"), to_json(config)["data"]
    changed = {"mixture": _merged(settings["data"]["mixture"], now["mixture"]), "phases": now["phases"]}
    if any(settings["data"][name] != value for name, value in changed.items()):
        write_settings({**settings, "data": {**settings["data"], **changed}}, config_file)


def description(before: tuple[Phase, ...], phases: tuple[Phase, ...], names: list[str]) -> str:
    """What changes, in one line: the window, and the weights of before and of then by source."""
    window, weights = phases[-1]
    last = next((phase.weights for phase in reversed(before) if phase.window < max(window, 1)), before[0].weights)
    last = (*last, *(0.0,) * (len(weights) - len(last)))
    pairs = zip(names, last, weights, strict=True)
    text = ", ".join(f"{name} {was:g} -> {is_:g}" if was != is_ else f"{name} {is_:g}" for name, was, is_ in pairs)
    gone = [phase.window for phase in before if phase not in phases and phase.window > 0]
    ended = f" (those that were to begin with window {', '.join(map(str, gone))} never do)" if gone else ""
    return f"from window {window} on the weights are {text}{ended}"


def _merged(pairs: list, typed: list) -> list:
    """Sources of before, with weights of now, and the sources that are new."""
    shared = zip(pairs, typed, strict=False)
    return [[source, weight] for (source, _), (_, weight) in shared] + typed[len(pairs) :]


def _are_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)


def _are_equal(weights: tuple[float, ...], longer: tuple[float, ...]) -> bool:
    """Sources that the first lack have weight 0."""
    return (*weights, *(0.0,) * (len(longer) - len(weights))) == longer
