"""Preference pairs with answers about noised images: what noise does, which records make a pair, what is read back."""

from dataclasses import dataclass
import io
import json

import curated
import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from xgenmm_jax.cli import curate_noised
from xgenmm_jax.cli import main as cli
from xgenmm_jax.curation.noised import STEPS, NoisedPairs, noised, signal_shares
from xgenmm_jax.data.readers.llava import Llava
from xgenmm_jax.data.readers.preferences import Preferences
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet

RNG = np.random.default_rng(0)


def gray(width: int, height: int, value: int = 128) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, height), (value,) * 3)


def test_noise_has_the_strength_of_its_step():
    shares = signal_shares()
    assert shares.shape == (STEPS,) and (np.diff(shares) < 0).all()
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, STEPS))) * (0.5e-2 - 1e-5) + 1e-5
    assert shares[2] == pytest.approx((1 - betas[0]) * (1 - betas[1]) * (1 - betas[2]))
    values = np.asarray(noised(gray(300, 200, 170), 300, (0, 1)), np.float64) / 127.5 - 1
    assert values.std() == pytest.approx((1 - shares[300]) ** 0.5, rel=0.02)
    assert values.mean() == pytest.approx(shares[300] ** 0.5 * (170 / 127.5 - 1), abs=0.003)


def test_noise_is_the_same_for_a_seed_and_as_coarse_as_the_model_sees():
    image = gray(1536, 768)
    one = np.asarray(noised(image, 500, (0, 7)))
    assert one.shape == (768, 1536, 3)
    assert (one == np.asarray(noised(image, 500, (0, 7)))).all()
    assert (one != np.asarray(noised(image, 500, (1, 7)))).mean() > 0.9
    # Four of its pixels a side are one of the grid.
    cells = one.reshape(192, 4, 384, 4, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    small = np.asarray(noised(gray(40, 30), 500, (0, 7)))
    assert len(np.unique(small.reshape(-1, 3), axis=0)) > 1000


@dataclass(frozen=True)
class Looking:
    """Answers how dark the image is and how long the question."""

    def check(self) -> None:
        """Nothing is needed."""

    def described(self) -> dict:
        return {"run": "looking"}

    def open(self):
        def answers(asked) -> list[str]:
            said = {"How many?": " two ", "Silent?": " \n"}
            return [said.get(question, f"noise {np.asarray(image).std() > 5}") for question, image in asked]

        return answers


QUESTIONS = (
    ("What is it?", "a gray thing"), ("How many?", "two"), ("Silent?", "no"), ("Where is it?", "here"),
    ("<image> What?", "that"),
)  # fmt: skip


@pytest.fixture
def questions(tmp_path) -> ShardedSource:
    """LLaVA's JSON: one question a record, two turns in one, and a text without an image."""
    (tmp_path / "files").mkdir()
    entries = []
    for number, (question, answer) in enumerate(QUESTIONS):
        gray(48, 32, 60 + 20 * number).save(tmp_path / "files" / f"{number}.png")
        turns = [{"from": "human", "value": question if "<image>" in question else f"<image>\n{question}"}]
        turns.append({"from": "gpt", "value": answer})
        entries.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    text = [{"from": "human", "value": "Two and two?"}, {"from": "gpt", "value": "Four."}]
    entries.append({"id": "text", "conversations": text})
    (tmp_path / "llava.json").write_text(json.dumps(entries), encoding="utf-8")
    storage = JsonFiles(str(tmp_path / "llava.json"), images=str(tmp_path / "files"))
    return ShardedSource(storage, Llava())


def test_pairs_are_read_by_the_projects_reader_of_preferences(questions, tmp_path):
    result = curated.made(questions, tmp_path / "made", NoisedPairs(Looking(), batch=3), faces="none")
    left_out = {reason: count for reason, (count, _) in result.left_out().items()}
    assert left_out == {"the same answer": 1, "no answer": 1, "a record without an image": 1}
    storage = Parquet(f"{tmp_path}/made/data/*.parquet")
    reader = Preferences(image=("image",), image_name="")
    records = ShardedSource(storage, reader, index=str(tmp_path / "index")).open()
    pairs = [records.record(number, RNG) for number in range(len(records))]
    assert [pair.turns[-1].text for pair in pairs] == ["<image>\nWhat is it?", "<image>\nWhere is it?", "<image> What?"]
    assert [pair.chosen for pair in pairs] == ["a gray thing", "here", "that"]
    assert {pair.rejected for pair in pairs} == {"noise True"}
    # The image of the pair is the one without noise.
    assert np.asarray(pairs[1].images[0].load()).std() == 0
    row = pq.read_table(tmp_path / "made" / "data" / "000000.parquet").to_pylist()[0]
    assert row["noise_step"] == 500 and PIL.Image.open(io.BytesIO(row["image"]["bytes"])).size == (48, 32)


def test_answers_do_not_depend_on_what_was_done_before(questions, tmp_path):
    """Batches are those of a shard, so a run that goes on asks what an unbroken one would."""
    for name in ("one", "two"):
        curated.made(questions, tmp_path / name, NoisedPairs(Looking(), batch=2), faces="none")
    assert (tmp_path / "one/data/000000.parquet").read_bytes() == (tmp_path / "two/data/000000.parquet").read_bytes()
    with pytest.raises(ValueError, match="maker batch was 2 and is 3"):
        curated.made(questions, tmp_path / "one", NoisedPairs(Looking(), batch=3), faces="none")


def test_captions_ask_nothing(tmp_path):
    result = curated.made(curated.images(tmp_path / "tars", shards=1), tmp_path / "made", NoisedPairs(Looking()))
    count, first = result.left_out()["no question"]
    assert count == 3 and "a record of a Caption asks nothing; give another --reader" in first


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "json:x.json", "made"], "--reader: name what reads questions and answers"),
        (["nowhere", "json:{}", "made", "--reader", "llava"], "run folder: no folder 'nowhere'"),
        ([".", "json:{}", "made", "--reader", "llava", "--noise-step", "1000"], "--noise-step: got 1000"),
        ([".", "json:{}", "made", "--reader", "llava", "--batch", "0"], "--batch: got 0; give 1 or more."),
        ([".", "json:{}", "made", "--reader", "llava", "--max-new-tokens", "0"], "max_new_tokens"),
    ],
)
def test_what_means_nothing_is_one_sentence(words, sentence, questions, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    monkeypatch.setattr("xgenmm_jax.curation.pipeline.check_beam", lambda *_: None)
    words = [word.format(tmp_path / "llava.json") if word.startswith("json:") else word for word in words]
    made = str(tmp_path / "made")
    assert cli.main(["curate", "noised", *(made if word == "made" else word for word in words)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and sentence in told, told


def test_another_run_is_noticed(tmp_path):
    (tmp_path / "run" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "checkpoints" / "5" / "params").write_text("weights")
    one = curate_noised.RunAnswers(str(tmp_path / "run"), 8).described()
    assert one["run"] == "run" and one == curate_noised.RunAnswers(str(tmp_path / "run"), 8).described()
    (tmp_path / "run" / "checkpoints" / "6").mkdir()
    (tmp_path / "run" / "checkpoints" / "6" / "params").write_text("weights")
    assert curate_noised.RunAnswers(str(tmp_path / "run"), 8).described() != one
