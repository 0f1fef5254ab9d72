"""Weights and tokenizers by a name of the hub: fetched from a server that answers as the hub does, or one sentence."""

from pathlib import Path
import socket
import time

from checkpoints_made import GOLDENS, TINY28
import hub_server
import huggingface_hub
from huggingface_hub import constants
import jax
import numpy as np
from other_tokenizers import put_vocabulary
import pytest

import xgenmm_jax
from xgenmm_jax import hub
from xgenmm_jax.cli.main import main
from xgenmm_jax.data.text import caption_tokens
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.paths import user_path
from xgenmm_jax.training.config import Initialize
from xgenmm_jax.training.runs import initialize

NAME = "org/tiny"
RELEASED = {name: (TINY28 / name).read_bytes() for name in ("config.json", "model.safetensors")}
TOKENIZER = {"tokenizer.model": (GOLDENS / "phi3_tokenizer" / "tokenizer.model").read_bytes()}
REFUSED = {"pytorch_model.bin": b"\x80\x02.", "modeling.py": b"raise SystemExit", "README.md": b"# tiny"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with one model, whose cache and working folder are empty."""
    monkeypatch.chdir(tmp_path)
    with hub_server.serving() as serving:
        hub_server.use(serving, tmp_path, monkeypatch)
        serving.repos[NAME] = hub_server.Repo()
        serving.repos[NAME].commit(RELEASED | REFUSED)
        yield serving
        huggingface_hub.close_session()


def error_of(call, *arguments, **options) -> str:
    """Its sentence, of one line."""
    with pytest.raises(ValueError) as raised:
        call(*arguments, **options)
    [line] = str(raised.value).splitlines()
    return line


def nobody() -> str:
    """An address where no server is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_weights_are_fetched_and_neither_pickles_nor_code(server):
    folder = hub.local_folder(NAME, "load")
    assert sorted(path.name for path in folder.iterdir()) == sorted(RELEASED)
    assert {name: (folder / name).read_bytes() for name in RELEASED} == RELEASED
    assert server.fetched() == sorted(RELEASED)
    assert hub.model_of(folder) == "tiny" and hub.model_of(TINY28) is None


def test_load_by_name_reads_what_was_fetched(server):
    server.repos[NAME].commit({"model.safetensors": RELEASED["model.safetensors"][:1000], "config.json": b"{}"})
    said = error_of(xgenmm_jax.load, NAME)
    assert "models--org--tiny/snapshots" in said and "model.safetensors" in said


@pytest.mark.slow
def test_load_by_name_gives_the_weights_of_the_folder(server):
    model, expected = xgenmm_jax.load(NAME), xgenmm_jax.load(TINY28)
    jax.tree.map(np.testing.assert_array_equal, model.params, expected.params)
    assert model.run.name == "imported/tiny"


@pytest.mark.slow
def test_verify_by_name(server, tmp_path, capsys):
    assert main(["verify", NAME, "--steps", "0"]) == 0
    assert "the page is tiny.verify.html" in capsys.readouterr().out
    assert NAME in (tmp_path / "tiny.verify.html").read_text()


def test_convert_by_name(server, tmp_path, capsys):
    assert main(["convert", NAME, "run"]) == 0
    assert f"{NAME}: " in capsys.readouterr().out and (tmp_path / "run" / "checkpoints" / "0").is_dir()


def test_an_adapter_is_verified_by_its_name(server, capsys):
    """--adapter took a folder alone."""
    server.repos["org/lora"] = hub_server.Repo()
    server.repos["org/lora"].commit({"adapter_config.json": b'{"peft_type": "LOHA"}', "adapter_model.safetensors": b""})
    assert main(["verify", str(TINY28), "--adapter", "org/lora"]) == 1
    assert "adapter_config.json' has peft_type LOHA; wanted LORA" in capsys.readouterr().err


def test_a_name_where_a_run_is_wanted_is_told_how_it_becomes_one():
    said = error_of(user_path, f"hf://{NAME}", "--initialize.run")
    assert said.startswith("--initialize.run: got 'hf://org/tiny', a model of the hub, wanted a path; ")
    assert "xgenmm convert hf://org/tiny RUN" in said and said.endswith("hf download org/tiny.")
    said = error_of(user_path, f"hf://{NAME}@v1", "--data")
    assert "xgenmm convert hf://org/tiny@v1 RUN" in said and said.endswith("hf download org/tiny --revision v1.")
    # Commands that would fail are not given.
    for url in ("hf://datasets/org/set/train.json", "hf://datasets/squad"):
        said = error_of(user_path, url, "--data")
        assert said == f"--data: got '{url}', wanted gs://BUCKET/... or s3://BUCKET/..., or a path of a file system."


def test_revision_is_a_branch_a_tag_or_a_commit(server):
    repo = server.repos[NAME]
    first = next(iter(repo.commits))
    repo.tags["v1"] = first
    repo.commit(RELEASED | {"config.json": b"{}"})
    assert (hub.local_folder(NAME, "load") / "config.json").read_bytes() == b"{}"
    for revision in ("v1", first):
        assert hub.local_folder(f"{NAME}@{revision}", "load").name == first


def test_mistyped_revision(server, tmp_path):
    said = error_of(hub.local_folder, f"{NAME}@v7", "load")
    assert said == "load: 'org/tiny' on the hub has no revision 'v7'; give a branch, tag or commit of it."


def test_mistyped_name_says_what_was_looked_for(server, capsys, tmp_path):
    assert main(["convert", "org/tyni", "run"]) == 1
    [said] = capsys.readouterr().err.splitlines()
    assert "no folder 'org/tyni' here, and no model 'org/tyni' at http" in said and "HF_TOKEN" in said
    assert not list(tmp_path.glob("run*"))


def test_gated_model_needs_the_token_of_who_agreed(server, monkeypatch):
    server.repos[NAME].is_gated = True
    assert "'org/tiny' is gated: agree to its conditions at http" in error_of(hub.local_folder, NAME, "load")
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert (hub.local_folder(NAME, "load") / "model.safetensors").is_file()


def test_pickles_alone_are_refused(server):
    server.repos["org/old"] = hub_server.Repo()
    server.repos["org/old"].commit(REFUSED | {"config.json": b"{}"})
    said = error_of(hub.local_folder, "org/old", "load")
    assert "holds no *.safetensors" in said and "only pytorch_model.bin, a pickle" in said
    assert server.fetched() == ["config.json"]


def test_cache_is_enough_where_nobody_answers(server, monkeypatch):
    folder = hub.local_folder(NAME, "load")
    hub_server.point_to(monkeypatch, nobody())
    assert hub.local_folder(NAME, "load") == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.local_folder(NAME, "load") == folder
    said = error_of(hub.local_folder, "org/other", "load")
    assert "HF_HUB_OFFLINE forbids to ask the hub" in said


def test_nobody_answers_and_nothing_is_cached(server, monkeypatch, tmp_path):
    hub_server.point_to(monkeypatch, nobody())
    begun = time.monotonic()
    said = error_of(hub.local_folder, NAME, "load")
    assert time.monotonic() - begun < 5 and "does not answer (ConnectError" in said
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_server_that_accepts_and_is_silent_is_given_up(server, monkeypatch):
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub_server.point_to(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert "does not answer (ReadTimeout" in error_of(hub.local_folder, NAME, "load")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("name", ["../../escaped.json", "/escaped.json", "..\\escaped.json", "a/../../escaped.json"])
def test_no_file_is_written_out_of_the_cache(server, tmp_path, name):
    server.repos[NAME].commit(RELEASED | {name: b"{}"})
    try:
        hub.local_folder(NAME, "load")
    except ValueError as error:
        assert "escaped" in str(error)
    inside = {path for path in tmp_path.rglob("*escaped*") if "snapshots" in path.parts}
    assert set(tmp_path.rglob("*escaped*")) == inside and not list(tmp_path.parent.glob("*escaped*"))


def test_local_folder_wins(server, tmp_path):
    (tmp_path / "org").mkdir()
    (tmp_path / NAME).mkdir()
    assert hub.local_folder(NAME, "load") == Path(NAME) and server.asked == []


def test_mistyped_path_beside_a_folder_asks_nobody(server, tmp_path):
    (tmp_path / "runs").mkdir()
    said = error_of(xgenmm_jax.load, "runs/stag1")
    assert said.endswith("or for a model of the hub give hf://runs/stag1 ('runs' is a folder here).")
    assert server.asked == []


def test_scheme_names_a_model_whatever_lies_here(server, tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    assert (hub.local_folder(f"hf://{NAME}", "load") / "model.safetensors").is_file()
    assert "wanted hf://ORG/MODEL" in error_of(hub.local_folder, "hf://org/a/b", "load")


@pytest.mark.parametrize(
    "text", ["tiny", "a/b/c", "./org/tiny", "/org/tiny", "org/weights.safetensors", "~/tiny", "org/..", "org/tiny@../x"]
)
def test_what_is_a_path(server, text):
    assert not isinstance(hub.path_or_name(text, "load"), hub.HubName)
    assert not isinstance(hub.path_or_name(Path(NAME), "load"), hub.HubName)


def test_tokenizer_by_name_fetches_it_alone(server):
    server.repos[NAME].commit(RELEASED | TOKENIZER)
    tokenizer = Tokenizer.load(f"hf://{NAME}")
    assert tokenizer.fingerprint == Tokenizer.load(GOLDENS / "phi3_tokenizer" / "tokenizer.model").fingerprint
    assert server.fetched() == ["tokenizer.model"]
    assert not isinstance(hub.path_or_name(NAME, "tokenizer", is_kept=True), hub.HubName)


def test_berts_vocabulary_by_name_serves_captions_alone(server, tmp_path):
    """It was not fetched."""
    server.repos[NAME].commit(RELEASED | {"vocab.txt": put_vocabulary(tmp_path / "bert", 90).read_bytes()})
    assert caption_tokens.for_queries(f"hf://{NAME}").rows == 91 and server.fetched() == ["vocab.txt"]
    said = error_of(Tokenizer.load, f"hf://{NAME}")
    assert "vocab.txt' is BERT's vocabulary, which serves the first stage of BLIP-2 alone; give the" in said


def test_configs_take_parts_by_scheme_and_no_run(server):
    config = Initialize(vision=f"hf://{NAME}")
    assert initialize.find_weights(config.vision, "initialize.vision").read_bytes() == RELEASED["model.safetensors"]
    said = error_of(Initialize, run=f"hf://{NAME}")
    assert f"xgenmm convert hf://{NAME} FOLDER" in said
    said = error_of(initialize.find_weights, NAME, "initialize.vision")
    assert "or for a model of the hub give hf://org/tiny" in said and len(server.fetched()) == 2


def test_a_pickle_that_another_tool_fetched_does_not_hide_the_weights(server):
    """Its snapshot is this one's too; training_args.bin was refused beside the one file that was wanted."""
    (hub.local_folder(NAME, "load") / "training_args.bin").write_bytes(REFUSED["pytorch_model.bin"])
    file = initialize.find_weights(f"hf://{NAME}", "initialize.vision")
    assert file.read_bytes() == RELEASED["model.safetensors"]


def test_evaluate_by_name_writes_nothing_into_the_cache(server, capsys):
    assert main(["evaluate", NAME, "--tasks", "pope", "--data", "."]) == 1
    assert "give --output FOLDER too" in capsys.readouterr().err and server.asked == []
    assert main(["evaluate", NAME, "--tasks", "pope", "--data", ".", "--output", "scores"]) == 1
    assert "model.safetensors" in server.fetched() and "pope" in capsys.readouterr().err


def test_tokenizer_of_a_command_by_name(server, tmp_path, capsys):
    server.repos[NAME].commit(RELEASED | TOKENIZER)
    (tmp_path / "mine.json").write_text('[{"id": "1", "conversations": [{"from": "human", "value": "What?"}]}]')
    main(["data", "check", "json:mine.json", "--reader", "llava", "--tokenizer", NAME])
    assert server.fetched() == ["tokenizer.model"]
