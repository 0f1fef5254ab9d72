"""Environments of lmms-eval and of VLMEvalKit's fork, each with this checkout of the package."""

import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[1]
PINS = ROOT / "requirements.txt"
TORCH = ("torch==2.13.0",)

LMMS_EVAL = ("lmms-eval==0.7.3",)
LMMS_EVAL_NEEDS = (
    "accelerate", "datasets", "evaluate", "httpx", "jsonlines", "aiohttp", "pytablewriter", "sacrebleu", "openai",
    "transformers", "pillow", "pyyaml", "sympy", "Jinja2", "loguru", "tenacity", "packaging", "python-dotenv",
    "tqdm-multiprocess",
    # With 4, lmms-eval ends at "No module named 'filelock._api'".
    "filelock<3.21",
)  # fmt: skip

VLMEVALKIT = ("ms-vlmeval==0.0.20",)
VLMEVALKIT_NEEDS = (
    "pandas", "tabulate", "python-dotenv", "openpyxl", "xlsxwriter", "matplotlib", "portalocker", "validators", "sty",
    "rich", "termcolor", "timeout-decorator", "einops", "json_repair", "Levenshtein", "editdistance", "distance",
    "apted", "anls", "nltk", "requests", "imageio", "opencv-python-headless", "omegaconf", "scikit-learn", "decord",
    "jieba", "num2words", "pylatexenc==2.10", "rouge", "math-verify", "transformers", "accelerate", "datasets",
    "filelock<3.21",
)  # fmt: skip


def python(environment: Path) -> Path:
    return environment / "bin" / "python"


def make(environment: Path, toolkit: tuple[str, ...], needs: tuple[str, ...]) -> None:
    """Makes the environment, some minutes and 2 GB, unless it is whole already.

    toolkit: installed without its dependencies, most of which are never used; needs: those that are.
    """
    done = environment / "whole"
    if done.is_file():
        return
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    _install(environment, *TORCH)
    # Our dependencies at the versions of `make`, where the toolkit leaves them.
    _install(environment, "-c", str(PINS), "-e", str(ROOT))
    _install(environment, "--no-deps", *toolkit)
    _install(environment, *needs)
    done.touch()


def _install(environment: Path, *packages: str) -> None:
    # A checkout in PYTHONPATH would look installed to pip.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python(environment), "-m", "pip", "install", "--quiet", *packages], check=True, env=variables)
