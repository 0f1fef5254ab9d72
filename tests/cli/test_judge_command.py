"""`xgenmm evaluate --tasks`, `xgenmm score` and `xgenmm table` with a judge and without one, as typed."""

import base64
import io
import json
from types import SimpleNamespace

from answering import AnsweringModel
from judge_server import Reply, serving
import PIL.Image
import pytest

from xgenmm_jax import api
from xgenmm_jax.cli import main as cli
from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.evaluation import judge as judges

KEY = "sk-secret-0123456789"
ANSWERS = ("The red kite.", "I see nothing", "It is hard to say")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return tokenizer.train_tokenizer(["What is the color of it?"] * 3, tmp_path_factory.mktemp("w") / "w.model", 400)


@pytest.fixture
def data(tmp_path):
    """Three questions of MM-Vet and of MMStar in VLMEvalKit's tables."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (20, 20), "red").save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [f"{n}\t{picture}\tWhat is {n}?\tred<AND>kite\trec,ocr" for n in range(3)]
    (folder / "MMVet.tsv").write_text("\n".join(["index\timage\tquestion\tanswer\tcategory", *rows]) + "\n")
    rows = [f"{n}\t{picture}\tWhich {n}?\tgreen hat\tblue car\tB\tx\ty" for n in range(3)]
    names = "index\timage\tquestion\tA\tB\tanswer\tcategory\tl2-category"
    (folder / "MMStar.tsv").write_text("\n".join([names, *rows]) + "\n")
    return folder


@pytest.fixture
def evaluate(tmp_path, data, words, monkeypatch, capsys):
    """Runs the command on a model that gives ANSWERS; gives exit code, output, errors and the scores' folder."""
    answers = iter(ANSWERS * 2)
    model = AnsweringModel(lambda prompt: next(answers))
    model.tokenizer = words
    run = tmp_path / "run"
    run.mkdir()
    config = SimpleNamespace(decoder=SimpleNamespace(width=32))
    processor = SimpleNamespace(chat=ChatStyle())
    loaded = SimpleNamespace(generator=lambda limits: model, config=config, processor=processor)
    monkeypatch.setattr(api, "load", lambda *arguments, **options: loaded)
    monkeypatch.setattr("xgenmm_jax.training.runs.fingerprints.of_model", lambda run: "run step 1")
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr(judges._jitter, "uniform", lambda least, most: 0.0)  # no waits between tries
    monkeypatch.setenv("XGENMM_JUDGE_KEY", KEY)

    def evaluated(*options, tasks="mmvet,mmstar"):
        code = cli.main(["evaluate", str(run), "--tasks", tasks, "--data", str(data), *options])
        told = capsys.readouterr()
        return code, told.out, told.err, run / "evaluation" / "paper"

    return evaluated


def scores(path):
    value = json.loads(path.read_text())
    return value["judge"], value["scores"][value["headline"]]["value"]


def reply(asked):
    return "0.5" if "Correctness" in asked.prompt else "B"


def table(run, capsys, *options):
    assert cli.main(["table", str(run), "--format", "json", *options]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    return one


def test_without_a_judge_mmvets_cell_is_empty_and_says_why(evaluate, capsys):
    code, out, err, folder = evaluate()
    assert (code, err) == (0, "") and "judge none" in out
    assert "MM-Vet: MM-Vet is scored by a judge model; without one there is no score" in " ".join(out.split())
    assert scores(folder / "mmvet.scores.json") == ("none", None)
    assert scores(folder / "mmstar.scores.json") == ("none", 0)
    assert not list(folder.glob("*judge*"))
    text = json.dumps(table(folder.parents[1], capsys))
    assert "MMVet: MM-Vet is scored by a judge model; without one there is no score." in text


def test_with_a_judge_both_scores_are_kept_and_the_table_chooses(evaluate, tmp_path, capsys):
    with serving(reply) as server:
        options = ("--judge", server.url, "--judge-model", "gpt-4-turbo")
        code, out, err, folder = evaluate(*options)
        assert (code, err, len(server.asked)) == (0, "", 6)
        assert "gpt-4-turbo, prompt" in " ".join(out.split())
        assert {asked.authorization for asked in server.asked} == {f"Bearer {KEY}"}
        assert evaluate(*options)[:2] == (0, out) and len(server.asked) == 6
    assert scores(folder / "mmvet.scores.json")[1] is None and scores(folder / "mmstar.scores.json") == ("none", 0)
    assert scores(folder / "mmvet.judged.scores.json")[1] == 50
    assert scores(folder / "mmstar.judged.scores.json")[1] == 100
    run = folder.parents[1]
    by_default, judged = json.dumps(table(run, capsys)), json.dumps(table(run, capsys, "--judged"))
    assert "MMVet: judged by gpt-4-turbo, prompt" in by_default and "MMStar: judged" not in by_default
    assert "MMVet: judged by" in judged and "MMStar: judged by gpt-4-turbo, prompt" in judged
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 8 and not any(KEY.encode() in path.read_bytes() for path in kept)


def test_a_judge_that_cannot_be_reached_leaves_the_rules_scores_and_is_one_sentence(evaluate):
    with serving(reply) as server:
        pass
    code, out, err, folder = evaluate("--judge", server.url, "--judge-model", "m")
    assert code == 1 and err.count("\n") == 1 and KEY not in err
    assert err.startswith("xgenmm evaluate: judge: 'http://127.0.0.1:") and "gives no reply" in err
    assert "MMStar" in out and scores(folder / "mmstar.scores.json") == ("none", 0)
    assert not list(folder.glob("*.judged.scores.json"))


def test_replies_of_before_a_failure_are_kept_and_the_next_try_asks_the_rest(evaluate):
    def failing(asked):
        return Reply(status=401) if "Which 2?" in asked.prompt else reply(asked)

    with serving(failing) as server:
        options = ("--judge", server.url, "--judge-model", "m", "--judge-threads", "1")
        code, _, err, folder = evaluate(*options)
        assert code == 1 and "refuses with status 401" in err and KEY not in err
    assert scores(folder / "mmvet.judged.scores.json")[1] == 50
    with serving(reply) as server:
        code, *_ = evaluate("--judge", server.url, "--judge-model", "m")
    assert code == 0 and [asked.prompt.count("Which 2?") for asked in server.asked] == [1]
    assert scores(folder / "mmstar.judged.scores.json")[1] == 100


def test_score_judges_a_file_without_a_model_and_leaves_what_the_table_reads(evaluate, tmp_path, capsys):
    *_, folder = evaluate()
    (tmp_path / "p.txt").write_text("{question}|{answer}|{prediction}")
    with serving(lambda asked: "1" if asked.prompt == "What is 0?|red <AND> kite|The red kite." else "0") as server:
        words = ["score", str(folder / "mmvet.jsonl"), "--judge", server.url, "--judge-model", "m"]
        words += ["--judge-prompt", str(tmp_path / "p.txt"), "--json", str(tmp_path / "o.json")]
        assert cli.main(words) == cli.main(words) == 0
    assert len(server.asked) == 3
    assert scores(tmp_path / "o.json") == ("none", None)
    judge, value = scores(tmp_path / "o.judged.json")
    assert value == pytest.approx(100 / 3) and judge.startswith("m, prompt ")
    assert scores(folder / "mmvet.judged.scores.json") == (judge, value)
    # By other rules than those it was asked by, they are no score of the run's table.
    (folder / "mmvet.judged.scores.json").unlink()
    assert cli.main([*words, "--profile", "latest"]) == 0
    assert not (folder / "mmvet.judged.scores.json").exists()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--judge-model", "m"], "--judge-model: there is no judge; give its address"),
        (["--judge", "http://a/v1"], "--judge-model: got none"),
        (["--judge", "a", "--judge-model", "m"], "wanted one as http"),
        (["--judge", "http://a/v1", "--judge-model", "m", "--judge-threads", "0"], "--judge-threads: got 0"),
        (["--judge", "http://a/v1", "--judge-model", "m", "--judge-key-variable", KEY], "no such variable is set"),
        (["--judge", "http://a/v1", "--judge-model", "m", "--judge-prompt", "{data}/MMVet.tsv"], "has no {prediction}"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_the_model_is_asked(evaluate, data, options, words):
    code, out, err, folder = evaluate(*(option.replace("{data}", str(data)) for option in options))
    assert code == 1 and words in err and err.count("\n") == 1 and KEY not in err
    assert not out and not folder.exists()


def test_a_judge_goes_with_benchmarks_alone(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path), "--judge", "http://a/v1", "--judge-model", "m"]) == 1
    assert "--judge: drawn items and what the config names need none; give --tasks" in capsys.readouterr().err
