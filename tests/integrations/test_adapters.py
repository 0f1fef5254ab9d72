"""The adapters where no toolkit is installed, and with stand-ins of them."""

import configparser
import importlib
from importlib.metadata import EntryPoint
from pathlib import Path
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from xgenmm_jax.integrations import import_stand_ins, lmms_eval_manifest, vlmevalkit
from xgenmm_jax.integrations.toolkit_requests import UserTurn


def test_importing_the_adapters_imports_neither_jax_nor_a_toolkit():
    """lmms-eval loads the manifest of every installed model whenever it starts."""
    code = (
        "import sys\n"
        "from xgenmm_jax.integrations import lmms_eval_manifest, toolkit_requests, vlmevalkit\n"
        "print([name for name in ('jax', 'lmms_eval', 'vlmeval', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_lmms_eval_class_without_lmms_eval_says_what_is_missing():
    if importlib.util.find_spec("lmms_eval") is not None:
        pytest.skip("lmms-eval is installed here")
    with pytest.raises(ModuleNotFoundError, match="lmms-eval: no module 'lmms_eval'"):
        importlib.import_module("xgenmm_jax.integrations.lmms_eval")


def test_the_entry_point_names_the_manifest():
    declared = configparser.ConfigParser()
    declared.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    name, _, value = declared["options.entry_points"]["lmms_eval.models"].strip().partition(" = ")
    assert name == lmms_eval_manifest.MODEL
    assert EntryPoint(name, value, "lmms_eval.models").load() is lmms_eval_manifest.manifest


def test_vlmevalkits_options_follow_a_double_dash():
    own, rest = vlmevalkit.parse(["--run", "r", "--local-data", "--", "--data", "POPE", "--judge", "exact_matching"])
    assert (own.run, own.local_data, own.stand_ins) == ("r", True, False)
    assert rest == ["--data", "POPE", "--judge", "exact_matching"]


@pytest.mark.parametrize("argv", [["--run", "r", "POPE"], ["--run", "r", "--", "--model", "other"], ["--", "--data"]])
def test_options_on_the_wrong_side_are_refused(argv, capsys):
    with pytest.raises(SystemExit):
        vlmevalkit.parse(argv)
    assert "usage" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_told_before_anything_is_imported():
    with pytest.raises(SystemExit, match="no file or folder 'no/such/run'"):
        vlmevalkit.main(["--run", "no/such/run"])


def test_the_launcher_without_vlmevalkit_says_so(tmp_path: Path):
    if importlib.util.find_spec("vlmeval") is not None:
        pytest.skip("VLMEvalKit is installed here")
    with pytest.raises(SystemExit, match="no module 'vlmeval'"):
        vlmevalkit.main(["--run", str(tmp_path)])


class Base:
    """As vlmeval.vlm.base.BaseModel, of which the adapter needs nothing."""


@pytest.fixture
def vlmeval(monkeypatch: pytest.MonkeyPatch):
    """Modules by VLMEvalKit's names, with what the launcher touches."""
    modules = {name: ModuleType(name) for name in ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.base", "vlmeval.config",
                                                   "vlmeval.dataset")}  # fmt: skip
    modules["vlmeval.vlm.base"].BaseModel = Base
    modules["vlmeval.config"].supported_VLM = {}
    published = type("POPE", (), {"DATASET_MD5": {"POPE": "c12f5acb142f2ef1f85a26ba2fbe41d5"}})
    modules["vlmeval.dataset"].DATASET_CLASSES = [published, type("Other", (), {})]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(**{name.rpartition(".")[2]: module for name, module in modules.items()})


def test_the_model_is_registered_under_its_name_and_loaded_later(vlmeval):
    vlmevalkit.register("no/such/run", max_new_tokens=8)
    made = vlmeval.config.supported_VLM["xgenmm_jax"]
    assert made.func is vlmeval.vlm.XGenMMJax and issubclass(made.func, Base)
    assert (made.func.INTERLEAVE, made.func.INSTALL_REQ) == (True, False)
    with pytest.raises(ValueError, match="no file or folder 'no/such/run'"):
        made()
    with pytest.raises(ValueError, match="no argument top_p"):
        made(top_p=1)


def test_a_message_reaches_the_run_in_its_order(vlmeval):
    asked = []
    one = object.__new__(vlmevalkit.model_class())
    one._model = SimpleNamespace(answer=lambda message, length: asked.append((message, length)) or "Yes")
    one._max_new_tokens = 8
    items = [{"type": "image", "value": "0.png"}, {"type": "text", "value": "Is there <image>?"}]
    assert one.generate_inner(items, dataset="POPE") == "Yes"
    assert asked == [(UserTurn((0, "Is there <image>?"), ("0.png",)), 8)]


def test_local_data_are_taken_whatever_their_checksum(vlmeval):
    vlmevalkit.accept_local_data()
    assert vlmeval.dataset.DATASET_CLASSES[0].DATASET_MD5 == {}


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package "toolkit" that imports a missing library, and a library "asking" that does without it if it must."""
    (tmp_path / "toolkit.py").write_text("import no_such_library.parts.deep as parts\n", encoding="utf-8")
    (tmp_path / "asking.py").write_text(
        "try:\n    import no_such_library\nexcept ImportError:\n    no_such_library = None\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("toolkit", "asking", "no_such_library")]:
        del sys.modules[name]


def test_a_toolkit_imports_stand_ins_of_what_is_missing_alone(toolkit):
    missing = import_stand_ins.install(["no_such_library", "numpy"], importer="toolkit")
    assert "no_such_library" in missing and "numpy" not in missing
    stand_in = importlib.import_module("toolkit").parts
    derived = type("Derived", (stand_in.Layer,), {})
    with pytest.raises(ImportError, match="'no_such_library.parts.deep.Layer' is a stand-in; install no_such_library"):
        derived()


def test_another_library_is_told_that_the_missing_one_is_missing(toolkit):
    """openpyxl took a stand-in for lxml, and no spreadsheet could be read."""
    import_stand_ins.install(["no_such_library"], importer="toolkit")
    assert importlib.import_module("asking").no_such_library is None
