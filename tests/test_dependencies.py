"""What the package needs: neither its demo nor the demo's libraries."""

import os
from pathlib import Path
import subprocess
import sys

import paper_files

from experiments import mixtures
from xgenmm_jax.data.text.tokenizer import train_tokenizer

REPOSITORY = Path(__file__).parents[1]

REFUSING = """
import importlib.abc, sys

class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(f"{name}.".startswith(f"{refused}.") for refused in REFUSED):
            raise ModuleNotFoundError(f"refused: {name}", name=name)

sys.meta_path.insert(0, Refusing())
"""

IMPORT_ALL = """
import importlib, pathlib
package = pathlib.Path("xgenmm_jax")
for path in sorted(package.rglob("*.py")):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    # lmms-eval alone imports its adapter.
    of_others = ("xgenmm_jax.cli.demo", "xgenmm_jax.integrations.lmms_eval")
    if not f"{name}.".startswith("xgenmm_jax.nano.") and name not in of_others:
        importlib.import_module(name)
        print(name)
"""

STAGE1 = """
import dataclasses, pathlib, sys
from experiments import recipes, stage1
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models import sizes
from xgenmm_jax.training.config import HeldOut, Initialize
from xgenmm_jax.training.loop import train

# Three tokens more than the vocabulary: an image's and a turn's.
size = recipes.Size("nano", sizes.nano(512, len(Tokenizer.load("t.model")) - 3), "weights/none")
config = stage1.config(size)
data = dataclasses.replace(
    config.data,
    tokenizer="t.model",
    row=RowConfig(length=128, crops=4, images=4, vision_tokens=size.model.tokens_per_group, too_long="drop"),
    anyres=AnyRes(grids=(), view_px=64, view_cells=8),
    batch_rows=2,
    window=32,
)
optimizer = dataclasses.replace(config.optimizer, warmup_steps=1)
config = dataclasses.replace(
    config, data=data, optimizer=optimizer, initialize=Initialize(), held_out=HeldOut(), steps=2, log_every=1
)
assert train(config, pathlib.Path("run")).step == 2
print(pathlib.Path("run/metrics.jsonl").read_text())
print(sorted(name for name in sys.modules if name.startswith("xgenmm_jax.nano")))
"""


def run(refused: list[str], code: str, folder: Path) -> list[str]:
    """Lines that a new process prints which cannot import these; it fails where it needs them."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    program = f"REFUSED = {refused!r}\n{REFUSING}\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_package_imports_without_its_demo():
    """The drawn world was imported all over the core, a quarter of the package that a real run has no use for."""
    names = run(["xgenmm_jax.nano"], IMPORT_ALL, REPOSITORY)
    assert {"xgenmm_jax.training.loop", "xgenmm_jax.cli.train", "xgenmm_jax.probing.linear"} <= set(names)


def test_stage1_trains_without_the_extra_demo(tmp_path, monkeypatch):
    """`pip install .` suffices for published files: what draws is not asked for."""
    monkeypatch.chdir(tmp_path)
    paper_files.write_sources(source for source, _ in mixtures.stage1())
    train_tokenizer([f"{paper_files.CAPTION} {number}" for number in range(90)], tmp_path / "t.model", 400)
    lines = run(["sklearn", "skimage", "matplotlib"], STAGE1, tmp_path)
    assert '"step": 2' in lines[1] and lines[-1] == "[]"
