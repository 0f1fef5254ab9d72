"""`xgenmm convert --push` uploads an export to the hub, once it is whole and somebody has said yes."""

import io
import sys

from checkpoints_made import TINY28, same_bytes
import hub_server
import huggingface_hub
import pytest
from safetensors.numpy import load_file

from xgenmm_jax import hub
from xgenmm_jax.cli.main import main

# Of httpx2, about how huggingface_hub hands it a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

EXPORT = ["convert", "run", "out", "--to", "xgenmm", "--push", "org/mine"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported") / "run"
    assert main(["convert", str(TINY28), str(folder)]) == 0
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch, imported):
    """An empty hub, and in the working folder `run`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(imported)
    with hub_server.serving() as serving:
        hub_server.use(serving, tmp_path, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", serving.token)
        yield serving
        huggingface_hub.close_session()


def error_of(capsys, *options: str) -> str:
    assert main([*EXPORT, *options]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("xgenmm")]
    return line


def test_pushed_and_read_back(server, tmp_path, capsys):
    assert main([*EXPORT, "--yes"]) == 0
    assert f"uploaded to {server.url}/org/mine" in capsys.readouterr().out
    repo = server.repos["org/mine"]
    assert repo.is_private
    [files] = repo.commits.values()
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    read = hub.local_folder("org/mine", "load")
    same_bytes(load_file(read / "model.safetensors"), load_file(TINY28 / "model.safetensors"))


def test_yes_is_typed_at_the_terminal(server, monkeypatch, capsys):
    server.repos["org/mine"] = hub_server.Repo()
    server.repos["org/mine"].commit({"config.json": b"{}", "notes.txt": b"mine"})
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert main(EXPORT) == 0
    said = capsys.readouterr().out
    assert "which is there, public, with 2 files: those of the same name are replaced, the others stay?" in said
    newest = list(server.repos["org/mine"].commits.values())[-1]
    assert newest["notes.txt"] == b"mine" and newest["config.json"] != b"{}"


@pytest.mark.parametrize("typed", ["\n", "no\n", ""])
def test_another_answer_uploads_nothing(server, monkeypatch, capsys, tmp_path, typed):
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert "nothing was uploaded, as the answer was no" in error_of(capsys)
    assert server.repos == {} and (tmp_path / "out" / "model.safetensors").is_file()


def test_nobody_to_ask_is_told_before_the_export(server, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert "there is no terminal; give --yes" in error_of(capsys)
    assert server.asked == [] and not (tmp_path / "out").exists()


def test_no_token_is_told_before_the_export(server, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    assert "no token of the hub is known here" in error_of(capsys, "--yes")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "(401); give a token that may" in error_of(capsys, "--yes")
    assert not (tmp_path / "out").exists()


def test_failed_export_uploads_nothing(server, capsys, tmp_path):
    (tmp_path / "run").unlink()
    (tmp_path / "run").mkdir()
    error_of(capsys, "--yes")
    assert server.repos == {} and not (tmp_path / "out").exists()


def test_large_file_that_is_refused_is_one_sentence(server, capsys):
    server.refuses_large_files = True
    assert "try again" in error_of(capsys, "--yes") and not server.repos["org/mine"].commits


def test_refused_upload_leaves_the_export(server, capsys, tmp_path):
    server.refuses_upload = True
    said = error_of(capsys, "--yes")
    assert "refuses this for 'org/mine' (403)" in said and said.endswith("later: hf upload org/mine out.")
    assert (tmp_path / "out" / "model.safetensors").is_file() and not server.repos["org/mine"].commits


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["convert", "run", "out", "--push", "org/mine", "--yes"], "give --to"),
        (["convert", "run", "out", "--to", "xgenmm", "--push", "org/mine@v1", "--yes"], "wanted ORG/MODEL alone"),
        (["convert", "run", "out", "--to", "xgenmm", "--push", "mine", "--yes"], "wanted hf://ORG/MODEL"),
        (["convert", "run", "out", "--to", "xgenmm", "--public"], "--public: nothing is uploaded; give --push"),
        (["convert", "run", "out", "--to", "xgenmm", "--yes"], "--yes: nothing is uploaded; give --push"),
        (["convert", "org/mine", "out", "--to", "xgenmm"], "exports a run, no model of the hub"),
    ],
)
def test_what_cannot_be_pushed(server, capsys, tmp_path, options, wanted):
    assert main(options) == 1
    assert wanted in capsys.readouterr().err and not (tmp_path / "out").exists()
