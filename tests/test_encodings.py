"""No place reads or writes text by the machine's locale, and none writes over a file by halves."""

import ast
import json
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
# Being changed to `files` in work of their own.
LATER = ("data/source.py", "data/readers/records.py", "training/metrics.py", "training/runs/run_folder.py")
SOURCES = sorted(
    path
    for folder in ("xgenmm_jax", "tools", "benchmarks", "experiments", "launch")
    for path in (ROOT / folder).rglob("*.py")
    if not str(path).endswith(("xgenmm_jax/files.py", *LATER))
)


def locale_dependent(code: str) -> list[int]:
    """Lines that open a file as text without saying how it is encoded, or cut its text at more than newlines."""
    lines = []
    for call in ast.walk(ast.parse(code)):
        if not isinstance(call, ast.Call):
            continue
        of = call.func.value if isinstance(call.func, ast.Attribute) else None
        name = call.func.attr if of is not None else getattr(call.func, "id", "")
        words = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        words += [k.value.value for k in call.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
        mode = next((word for word in words if re.fullmatch(r"[rwax][bt+]*", word)), None)
        encoded = any(keyword.arg == "encoding" for keyword in call.keywords)
        if name in ("read_text", "write_text"):
            bad = not encoded and not (isinstance(of, ast.Name) and of.id == "files")
        elif name in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile"):
            # A source or an image has an `open` too: of methods, those that say a mode are of files.
            is_text = mode is not None and "b" not in mode or mode is None and of is None
            bad = is_text and not encoded
        else:
            inner = of if name == "splitlines" else None
            inner_name = getattr(inner.func, "attr", "") if isinstance(inner, ast.Call) else ""
            bad = inner_name in ("read_text", "read")
        if bad:
            lines.append(call.lineno)
    return lines


@pytest.mark.parametrize(
    ("code", "is_bad"),
    [
        ("path.read_text()", True),
        ("(a / b).write_text(x + y)", True),
        ("open(path)", True),
        ("open(path, 'a')", True),
        ("path.open('w')", True),
        ("gzip.open(path, 'rt')", True),
        ("files.read_text(path).splitlines()", True),
        ("tempfile.NamedTemporaryFile(mode='w')", True),
        ("open(path, 'rb')", False),
        ("path.open('w', encoding='utf-8')", False),
        ("files.read_text(path)", False),
        ("source.open(store); PIL.Image.open(file)", False),
        ("str(error).splitlines()", False),
    ],
)
def test_what_depends_on_the_locale_is_found(code, is_bad):
    assert bool(locale_dependent(code)) is is_bad


def test_every_place_says_how_text_is_encoded():
    """`read_text()` takes the locale's encoding: files with any accent were unreadable under LC_ALL=C."""
    assert len(SOURCES) > 100
    lines_of = {str(path.relative_to(ROOT)): locale_dependent(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: lines for name, lines in lines_of.items() if lines} == {}


def in_the_c_locale(code: str, folder: Path) -> str:
    """What Python code prints where the locale is ASCII; `where` is the folder."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "JAX_PLATFORMS": "cpu"}
    start = "import pathlib, sys; where = pathlib.Path(sys.argv[1]); assert sys.flags.utf8_mode == 0\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code, str(folder)], env=environment, capture_output=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("ascii")


def test_runs_and_checkpoints_are_read_and_written_in_the_c_locale(tmp_path):
    """A run whose config names a folder with an accent, a released folder whose config.json names its author, ..."""
    (tmp_path / "config.json").write_bytes('\ufeff{"name": "Größe/データ", "class": "x"}\n'.encode())
    (tmp_path / "spikes.jsonl").write_bytes('{"step": 1, "samples": ["\u2028é"]}\n{"step": 2, "samp'.encode())
    index = {"weight_map": {"gewichte.é": "model-ü.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    printed = in_the_c_locale(
        "from xgenmm_jax.training.config import read_object\n"
        "from xgenmm_jax.training.runs.side_files import has_step, read_rows\n"
        "from xgenmm_jax.training.spikes import Spikes\n"
        "from xgenmm_jax.convert.importing import read_settings\n"
        "from xgenmm_jax.nano.world import drawings\n"
        "print(ascii(read_object(where / 'config.json', {'name': str}, 'copy it')['name']))\n"
        "print(ascii(read_settings(where)['name']))\n"
        "print(ascii(read_rows(where / 'spikes.jsonl', has_step)))\n"
        "Spikes(where, 5)._keep({'step': 3, 'figure': 'loss', 'value': 1.0, 'median': 0.1, 'samples': ['\\xe9']})\n"
        "print(len(drawings.OBJECTS) > 0, drawings.sprite(drawings.OBJECTS[0], drawings.STYLES[0]).size[0] > 0)\n",
        tmp_path,
    ).split("\n")
    name = ascii("Größe/データ")
    assert printed[:4] == [name, name, ascii([{"step": 1, "samples": ["\u2028é"]}]), "True True"]
    lines = (tmp_path / "spikes.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["samples"] for line in lines[:-1]] == [["\u2028é"], ["é"]]


def test_reports_and_figures_are_written_in_the_c_locale(tmp_path):
    in_the_c_locale(
        "from xgenmm_jax.nano.report.content import ReportContent, StageContent\n"
        "from xgenmm_jax.nano.report.page import write_report\n"
        "from xgenmm_jax.evaluation.predictions import write_metrics\n"
        "from xgenmm_jax.nano.demo import _write_json\n"
        "facts = dict(parameters=1, machine={}, commit='\\xe9t\\xe9 \\u2192', running=False)\n"
        "write_report(ReportContent((StageContent('stage1', 5),), workdir='', **facts), where)\n"
        "write_metrics({'caption/cider \\xe9': 0.5}, 0, where / 'metrics.json')\n"
        "_write_json(where / 'gallery.json', {'said': '\\u30c7'})\n",
        tmp_path,
    )
    assert "été →" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["commit"] == "été →"
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"] == {"caption/cider é": 0.5}
    assert json.loads((tmp_path / "gallery.json").read_text()) == {"said": "デ"}
    assert not list(tmp_path.glob("*.partial"))


def test_the_command_prints_what_the_terminal_lacks_in_ascii(tmp_path):
    """An answer with an accent ended `xgenmm generate` with UnicodeEncodeError."""
    printed = in_the_c_locale(
        "import types\nfrom xgenmm_jax.cli import main as cli\n"
        "sys.modules['xgenmm_jax.cli.generate'] = types.SimpleNamespace(main=lambda rest: print('caf\\xe9 \\u2192'))\n"
        "cli.main(['generate'])\n",
        tmp_path,
    )
    assert printed == "caf\\xe9 \\u2192\n"
