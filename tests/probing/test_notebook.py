"""notebooks/probe.ipynb from top to bottom on the shipped nano weights."""

import base64
import importlib.util
import io
from pathlib import Path
import re

import nbformat
import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "probe.ipynb"
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""Most of the notebook's time is compilation; see tests/conftest.py."""


def images(notebook) -> list[PIL.Image.Image]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    encoded = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [PIL.Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded]


@pytest.fixture
def labeled(tmp_path):
    for label, level in (("dark", 30), ("light", 220)):
        (tmp_path / label).mkdir()
        for number in range(4):
            PIL.Image.new("RGB", (20 + number, 20), (level + number,) * 3).save(tmp_path / label / f"{number}.png")
    return tmp_path


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(pooling, random, labeled):
    spec = importlib.util.spec_from_file_location("run_notebook", ROOT / "tools" / "run_notebook.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    folders = {"XGENMM_RUN": pooling, "XGENMM_BEFORE": random, "XGENMM_IMAGES": labeled, "PYTHONPATH": ROOT}
    folders = {name: str(folder) for name, folder in folders.items()}
    done = tool.run(NOTEBOOK, folders | QUICK)
    shown = images(done)
    assert len(shown) == 12, "11, and that of the labeled images"
    for image in shown:
        assert min(image.size) > 60 and len(np.unique(np.asarray(image.convert("L")))) > 10, "an empty image"


def test_committed_notebook_has_its_images_and_no_paths():
    text = NOTEBOOK.read_text()
    assert len(images(nbformat.reads(text, as_version=4))) == 11
    assert len(text) < 2_000_000 and not re.search("/(root|home|Users|tmp)/", text)
