"""Which parameters a run folder holds, in a few characters."""

from collections.abc import Sequence
import hashlib
from pathlib import Path

from xgenmm_jax.training.runs import checkpoint_files
from xgenmm_jax.training.runs.checkpoints import FOLDER, newest, progress_of

TENSORS = ("*.safetensors", "*.npz", "*.bin", "*.pt", "config.json")


def of_model(run: Path) -> str:
    """Names the newest parameters of a run, or released tensors: `"sft_multi step 400 1f3a90c2"`.

    The hash is of the list of the checkpoint's files with their checksums, or of names and sizes where there is none.
    """
    if run.is_file():
        return f"{run.name} {_digest(f'{run.name} {run.stat().st_size}')}"
    if (run / "config.json").is_file() and checkpoint_files.steps(run / FOLDER):
        checkpoint = newest(run)
        listed = checkpoint / checkpoint_files.LIST_FILE
        text = listed.read_text(encoding="utf-8") if listed.is_file() else _sizes(checkpoint)
        return f"{run.name} step {checkpoint.name} {_digest(text)}"
    return f"{run.name} {_digest(_sizes(run, TENSORS))}"


def tokens_of(run: Path) -> int:
    """Tokens that a run's newest parameters were trained on in it; 0 for released and converted ones."""
    if run.is_file() or not checkpoint_files.steps(run / FOLDER):
        return 0
    checkpoint = newest(run)
    return progress_of(checkpoint).tokens if (checkpoint / "progress").is_dir() else 0


def _sizes(folder: Path, patterns: Sequence[str] = ("*",)) -> str:
    """Names and sizes of files; of released folders of the tensors alone: evaluations are written beside them."""
    paths = sorted({path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()})
    return "\n".join(f"{path.relative_to(folder)} {path.stat().st_size}" for path in paths)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
