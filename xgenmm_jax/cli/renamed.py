"""Names of the command line that have changed: what an unknown option, file or function is called today."""

from pathlib import Path

OPTIONS = {
    "--loss.": "--objective.",
    "--model.sampling": "--model.token-sampling",
    "--model.decoder.vocab-rows": "--model.decoder.vocab-size",
    "--model.decoder.initial-len": "--model.decoder.num-text-tokens",
    "--model.decoder.additional": "--model.decoder.num-extra-tokens",
    "--model.text.vocab-rows": "--model.text.vocab-size",
    "--model.captioner.vocab-rows": "--model.captioner.vocab-size",
    "--picture": "--image",
    "--official-pictures": "--official-images",
}
"""Old -> new; one that ends in a dot stands for all options that begin with it."""

GONE = {
    "--model.train-vision": "the tower trains unless --freeze lists vision",
    "--model.no-train-vision": "--freeze vision does the same",
    "--initialize.connector-start": "the experiment file names the function, Initialize(connector_start=...)",
    "--data.picture-folder": "drawn images are made anew each time, which is faster; leave it away",
}
"""Options that no option took over -> what to do instead."""

RUNS = {
    "queries_64": "queries_half",
    "queries_196": "queries_as_mlp",
    "queries_256": "queries_double",
    "queries_64_sft": "queries_half_sft",
    "queries_196_sft": "queries_as_mlp_sft",
    "queries_256_sft": "queries_double_sft",
    "nano_queries_8": "queries_half --at nano",
    "nano_queries_32": "queries_double --at nano",
    "nano_queries_8_sft": "queries_half_sft --at nano",
    "nano_queries_32_sft": "queries_double_sft --at nano",
    **{f"tokens_{percent}b": f"percent_{percent}" for percent in (2, 10, 20, 40, 60, 100)},
    **{f"nano_{percent}": f"percent_{percent} --at nano" for percent in (2, 10, 20, 60, 100)},
    "nano": "config --at nano",
    "stage2_4": "stage2_fewer",
    "stage2_12": "stage2_all",
    "sft_4": "sft_fewer",
    "sft_12": "sft_all",
    "nano_stage2_2": "stage2_fewer --at nano",
    "nano_stage2_4": "stage2_all --at nano",
    "nano_sft_2": "sft_fewer --at nano",
    "nano_sft_4": "sft_all --at nano",
    "nano_tower_sigmoid": "tower_sigmoid",
    "nano_tower_softmax": "tower_softmax",
    "nano_sigmoid": "sigmoid",
    "nano_softmax": "softmax",
}
"""Functions of the ablations, old -> new; others that began with nano_ are now asked for by --at nano."""


def option(name: str) -> str | None:
    """What an option, `--loss.z_loss` or `--loss.z-loss`, is called today; None where it was not renamed."""
    name = name.replace("_", "-")
    prefix = next((old for old in OPTIONS if old.endswith(".") and name.startswith(old)), name)
    new = OPTIONS.get(prefix)
    return None if new is None else new + name.removeprefix(prefix)


def gone(name: str) -> str | None:
    """What to do instead of an option that there is no more; None for others."""
    return GONE.get(name.replace("_", "-"))


def run(name: str, runs: list[str]) -> str | None:
    """How a function of an experiment file with these `runs` is asked for today: "mlp --at nano" for `nano_mlp`."""
    new = RUNS.get(name, f"{name.removeprefix('nano_')} --at nano" if name.startswith("nano_") else None)
    return new if new is not None and new.split()[0] in runs else None


def file(path: Path) -> str | None:
    """Where an experiment that is not at `path`, FOLDER/NAME.py, lies now: FOLDER.py:NAME, or in a folder below."""
    whole = Path(f"{path.parent}.py")
    if whole.is_file() and f"\ndef {path.stem}(" in whole.read_text(encoding="utf-8", errors="replace"):
        return f"{whole}:{path.stem}"
    below = sorted(path.parent.glob(f"*/{path.name}"))
    return str(below[0]) if below else None
