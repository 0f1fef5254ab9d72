"""Which parameters a run folder holds, in a few characters."""

from collections.abc import Sequence
import fnmatch
import hashlib

from xgenmm_jax import files
from xgenmm_jax.paths import Path
from xgenmm_jax.training.runs import checkpoint_files
from xgenmm_jax.training.runs.checkpoints import FOLDER, newest, progress_of

TENSORS = ("*.safetensors", "*.npz", "*.bin", "*.pt", "config.json")


def of_model(run: Path) -> str:
    """Names the newest parameters of a run, or released tensors: `"sft_multi step 400 1f3a90c2"`.

    The hash is of the list of the checkpoint's files with their checksums, or of names and sizes where there is none.
    """
    if run.is_file():
        return f"{run.name} {_digest(f'{run.name} {files.size(run)}')}"
    if (run / "config.json").is_file() and checkpoint_files.steps(run / FOLDER):
        checkpoint = newest(run)
        listed = checkpoint / checkpoint_files.LIST_FILE
        text = files.read_text(listed) if listed.is_file() else _sizes(checkpoint)
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
    sizes = files.tree(folder)
    names = [name for name in sizes if any(fnmatch.fnmatchcase(name.rpartition("/")[2], one) for one in patterns)]
    return "\n".join(f"{name} {sizes[name]}" for name in names)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
