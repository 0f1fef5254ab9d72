"""notebooks/draw.ipynb from top to bottom on a run that draws."""

import base64
import importlib.util
import io
from pathlib import Path
import re

import drawing_cases
import nbformat
import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "draw.ipynb"
IMAGES = 4


def images(notebook) -> list[PIL.Image.Image]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    encoded = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [PIL.Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded]


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path):
    spec = importlib.util.spec_from_file_location("run_notebook", ROOT / "tools" / "run_notebook.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    run = drawing_cases.saved(tmp_path / "run")
    done = tool.run(
        NOTEBOOK, {"XGENMM_RUN": str(run), "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    )
    shown = images(done)
    assert len(shown) == IMAGES
    for image in shown:
        assert min(image.size) > 60 and len(np.unique(np.asarray(image.convert("L")))) > 10, "an empty image"


def test_committed_notebook_has_its_images_and_no_paths():
    text = NOTEBOOK.read_text()
    assert len(images(nbformat.reads(text, as_version=4))) == IMAGES
    assert len(text) < 2_000_000 and not re.search("/(root|home|Users|tmp)/", text)
