"""`xgenmm generate` and `xgenmm evaluate` as typed, on a run of random parameters."""

import json
import shutil
import zlib

import jax.numpy as jnp
import PIL.Image
import pytest

from xgenmm_jax import api
from xgenmm_jax.cli import main as cli
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.nano import tasks
from xgenmm_jax.training.config_json import to_json


@pytest.fixture(autouse=True)
def no_compilation_cache(monkeypatch):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)


@pytest.fixture
def images(tmp_path):
    PIL.Image.new("RGB", (80, 50), (200, 30, 40)).save(tmp_path / "red.png")
    whole = (tmp_path / "red.png").read_bytes()
    PIL.Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "noise.png")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "noise.png").read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no image")
    # The header alone says 60,000 x 60,000.
    gigantic = bytearray(whole)
    gigantic[16:24] = (60_000).to_bytes(4, "big") * 2
    gigantic[29:33] = zlib.crc32(gigantic[12:29]).to_bytes(4, "big")
    (tmp_path / "gigantic.png").write_bytes(gigantic)
    return tmp_path


def test_generate_prints_the_answer_to_a_question_about_images(run, images, capsys):
    loaded = api.load(run)
    image = str(images / "red.png")
    expected = loaded.generator().generate([loaded.prompt("What is this?", [image, image])], Decoding(5))[0]
    words = ["generate", str(run), "--image", image, "--image", image, "What is this?", "--max-new-tokens", "5"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.strip() == expected
    assert cli.main(["generate", str(run), "Who are you?", "--max-new-tokens", "5"]) == 0


def test_generate_turns_a_photo_upright_unless_told_to_read_as_the_official_code(run, images, monkeypatch, capsys):
    seen = []

    def record(self, asked, most, **options):
        seen.extend(image for prompt in asked for image in prompt.images)
        return [""]

    monkeypatch.setattr("xgenmm_jax.generation.text.generator.Generator.generate", record)
    exif = PIL.Image.Exif()
    exif[0x0112] = 8
    PIL.Image.new("RGBA", (80, 50), (0, 0, 0, 0)).save(images / "phone.png", exif=exif)
    words = ["generate", str(run), "--image", str(images / "phone.png"), "What?", "--no-stream"]
    assert cli.main(words) == cli.main([*words, "--official-images"]) == 0
    upright, official = (image.load() for image in seen)
    assert (upright.size, upright.getpixel((0, 0))) == ((50, 80), (255, 255, 255))
    assert (official.size, official.getpixel((0, 0))) == ((80, 50), (0, 0, 0))


def test_generate_asks_as_the_run_was_trained_or_as_told(run, monkeypatch, capsys):
    prompts = []

    def record(self, asked, most, **options):
        prompts.extend(asked)
        return [""]

    monkeypatch.setattr("xgenmm_jax.generation.text.generator.Generator.generate", record)
    words = ["generate", str(run), "How many?", "--no-stream"]
    for flags in ([], ["--chat-template"], ["--no-chat-template"]):
        assert cli.main([*words, *flags]) == 0
    monkeypatch.setattr(api.LMM, "is_tuned", lambda self: False)
    assert cli.main(words) == 0
    tokenizer = api.load(run).tokenizer
    tuned, template, plain, base = (tokenizer.decode(prompt.token_ids) for prompt in prompts)
    assert tuned == template and tuned.endswith("<|user|>How many?<|end|><|assistant|>")
    assert (plain, base) == ("How many?", "Question:How many? Short answer:")
    capsys.readouterr()
    assert cli.main([*words, "--chat-template", "--no-chat-template"]) == 1
    assert "give one of them" in capsys.readouterr().err


def test_generate_streams_samples_and_searches(run, images, capsys):
    loaded = api.load(run)
    image = str(images / "red.png")
    prompt = loaded.prompt("What is this?", [image])
    words = ["generate", str(run), "--image", image, "What is this?", "--max-new-tokens", "9"]

    def said(*flags: str) -> str:
        assert cli.main([*words, *flags]) == 0
        return capsys.readouterr().out

    greedy = loaded.generator().generate([prompt], Decoding(9))[0] + "\n"
    assert said("--stream") == said("--no-stream") == said() == greedy
    beams = loaded.generator().generate([prompt], Decoding(9, num_beams=3))[0] + "\n"
    assert said("--num-beams", "3") == said("--num-beams", "3", "--stream") == beams
    drawn = ["--temperature", "2", "--top-k", "40", "--top-p", "0.95", "--seed"]
    assert said(*drawn, "1") == said(*drawn, "1", "--stream") != said(*drawn, "2")
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "--top-k", "3"])
    told = capsys.readouterr()
    assert "at temperature 0" in told.err and told.err.count("\n") == 1 and not told.out


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("missing.png", "no file"),
        ("truncated.png", "truncated or damaged"),
        ("text.png", "not an image"),
        ("gigantic.png", "scale it down"),
        (".", "is a folder"),
    ],
)
def test_generate_tells_in_one_line_what_is_no_image(run, images, capsys, name, sentence):
    before = sorted(images.iterdir())
    assert cli.main(["generate", str(run), "--image", str(images / name), "What is this?"]) == 1
    told = capsys.readouterr()
    assert sentence in told.err and told.err.count("\n") == 1 and not told.out
    assert sorted(images.iterdir()) == before


@pytest.mark.parametrize(
    "words, remedy",
    [
        (["generate", "{run}", "--no-stream", "--num-beams", "2", "What?"], "(--num-beams, now 2)"),
        (["generate", "{run}", "--stream", "What?"], "(--max-new-tokens, now 64)"),
        (["evaluate", "{run}", "--items", "1"], "end what else computes on the devices"),
    ],
)
def test_a_device_without_memory_is_one_sentence_with_the_remedies(run, monkeypatch, capsys, words, remedy):
    """It was a traceback through JAX, where training had a sentence."""

    def allocate(*_):
        jnp.zeros(10**15, jnp.int8).block_until_ready()

    for owner, name in ((Generator, "generate"), (Generator, "stream"), (tasks, "run_suite")):
        monkeypatch.setattr(owner, name, allocate)
    assert cli.main([word.format(run=run) for word in words]) == 1
    error = capsys.readouterr().err
    assert f"xgenmm {words[0]}: memory: a device has too little for this" in error and remedy in error
    assert error.count("\n") == 1


def test_what_is_no_run_is_told_in_one_line(tmp_path, run, capsys):
    for command in (["generate", str(tmp_path), "What?"], ["evaluate", str(tmp_path)]):
        assert cli.main(command) == 1
        error = capsys.readouterr().err
        assert "has no config.json" in error and error.count("\n") == 1
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((run / "config.json").read_text())
    assert cli.main(["generate", str(unfinished), "What?"]) == 1
    assert "no checkpoint" in capsys.readouterr().err
    assert [path.name for path in unfinished.iterdir()] == ["config.json"]


def test_evaluate_writes_metrics_and_answers_into_the_run(run, capsys):
    assert cli.main(["evaluate", str(run), "--kinds", "questions", "handwriting", "--items", "2"]) == 0
    metrics = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert {"questions/colour", "questions/mean", "handwriting"} <= metrics.keys()
    assert "questions/colour" in capsys.readouterr().out
    assert len((run / "answers.jsonl").read_text().splitlines()) == 2 * (7 + 7 + 1)


def test_evaluate_asks_what_the_config_names(run, tmp_path, capsys):
    def evaluated(suites, *options):
        settings = json.loads((run / "config.json").read_text())
        (copied / "config.json").write_text(json.dumps(settings | {"evaluate": to_json(suites)}))
        out = tmp_path / "out.json"
        assert cli.main(["evaluate", str(copied), "--json", str(out), *options]) == 0
        return json.loads(out.read_text())["metrics"]

    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    kinds = ("questions", "handwriting")
    named = evaluated((tasks.DrawnWorld(groups=kinds, items=2),))
    assert named == evaluated((), "--kinds", *kinds, "--items", "2") and "questions/mean" in named
    assert evaluated((tasks.DrawnWorld(),), "--kinds", "handwriting", "--items", "2").keys() == {"handwriting"}


def test_evaluate_says_what_to_give_where_nothing_is_named(run, tmp_path, capsys):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    settings = json.loads((run / "config.json").read_text())
    settings["data"]["mixture"] = []
    (copied / "config.json").write_text(json.dumps(settings))
    assert cli.main(["evaluate", str(copied)]) == 1
    error = capsys.readouterr().err
    assert "give --tasks NAMES" in error and error.count("\n") == 1


def contents(folder):
    """What lies in a folder, for comparison."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def test_evaluate_with_json_leaves_the_run_as_it_is(run, tmp_path):
    """A look at a few items once took the place of the answers to all."""
    words = ["evaluate", str(run), "--kinds", "handwriting", "--items", "2"]
    assert cli.main(words) == 0
    before = contents(run)
    assert cli.main([*words, "--json", str(tmp_path / "other.json")]) == 0
    assert contents(run) == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]
    assert json.loads((tmp_path / "other.json").read_text())["answers"] == 2


def test_evaluate_refuses_before_it_asks(run, tmp_path, capsys, monkeypatch):
    def asked(*arguments):
        raise AssertionError("asked")

    monkeypatch.setattr(tasks, "run_suite", asked)
    before = contents(run)
    for options, sentence in (
        (["--kinds", "new_style", "shots"], "'shots' is not asked in the style chat"),
        (["--kinds", "safety", "--style", "few_shot"], "'safety' is not asked in the style few_shot"),
        (["--json", str(tmp_path / "nowhere" / "o.json")], "no folder '"),
        (["--json", str(tmp_path)], "is a folder; give a file"),
    ):
        assert cli.main(["evaluate", str(run), *options]) == 1
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
    assert contents(run) == before and not list(tmp_path.iterdir())


def test_another_seed_asks_other_items(run):
    def asked(*options):
        assert cli.main(["evaluate", str(run), "--kinds", "handwriting", "--items", "2", *options]) == 0
        return {json.loads(line)["id"] for line in (run / "answers.jsonl").read_text().splitlines()}

    assert not asked() & asked("--seed", "1")


def test_evaluate_refuses_what_it_does_not_know(run, capsys):
    assert cli.main(["evaluate", str(run), "--kinds", "question"]) == 1
    assert "did you mean questions" in capsys.readouterr().err
    assert cli.main(["evaluate", str(run), "--items", "0"]) == 1
    assert "--items: got 0" in capsys.readouterr().err


def test_a_run_is_asked_as_it_was_trained(run):
    assert api.load(run).is_tuned()
