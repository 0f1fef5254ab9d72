"""Multiple-choice benchmarks read from the containers in which they are published, asked and scored."""

import base64
from collections.abc import Iterator
from dataclasses import replace
import json
from pathlib import Path

from published_sets import COLOURS, WRITERS, picture
import pytest

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import PROFILES, Profile
from xgenmm_jax.evaluation.tasks import mmvet
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Choice
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.suites import BENCHMARKS

BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}


def load(name: str, folder: Path, profile: Profile) -> tuple[Benchmark, tuple[Example, ...]]:
    benchmark_name, write = WRITERS[name]
    write(folder)
    benchmark = BY_NAME[benchmark_name]
    return benchmark, benchmark.load(folder, Choice(profile)).examples


def readable() -> Iterator[tuple[str, Profile]]:
    """Each container with each profile that it serves."""
    for name, (benchmark, _) in WRITERS.items():
        kind = "Original" if name.endswith("json") else "Parquet"
        published = [one for one in BY_NAME[benchmark].published if type(one).__name__ == kind]
        yield from ((name, profile) for profile in PROFILES if any(profile in one.profiles for one in published))


def colours(example: Example) -> list[str]:
    """Names of the colours nearest to the images'."""
    pixels = [image.load().convert("RGB").getpixel((4, 3)) for image in example.images]
    distance = lambda name, pixel: sum(abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True))  # noqa: E731
    return [min(COLOURS, key=lambda name: distance(name, pixel)) for pixel in pixels]


@pytest.mark.parametrize(("name", "profile"), list(readable()))
def test_a_published_set_is_asked_and_its_right_answers_score_1(name, profile, tmp_path):
    benchmark, examples = load(name, tmp_path, profile)
    predictions = []
    for example in examples:
        if example.unreadable:
            continue
        message = benchmark.message(example, profile)
        images = [part for part in message if isinstance(part, int)]
        assert images and set(images) <= set(range(len(example.images)))
        answer = example.answers[0]
        if benchmark.name == "mmvet":
            answer = answer.replace("<AND>", " and ").split("<OR>")[0]
        elif benchmark.name == "mathvista":
            answer = example.fields.get("answer_option", answer) if profile != "official" else answer
        scored = benchmark.task([example], Choice(profile)).scored(answer, example)
        assert scored.score == 1.0 and scored.extracted
        predictions.append(Prediction(benchmark.name, example, answer, scored.score, extracted=scored.extracted))
    table = benchmark.summarize(predictions, profile)
    headline = table[benchmark.headline_of(profile)]
    if benchmark.name == "mmvet":
        assert headline.note == mmvet.JUDGED
    else:
        assert headline.value == pytest.approx(100.0)
    assert headline.unparsed == 0


@pytest.mark.parametrize(
    ("name", "profile", "seen"),
    [
        ("seed_json", "paper", [["green"]]),
        ("seed_parquet", "lmms", [["blue"]]),
        ("mmbench_parquet", "lmms", [["green"]] * 3),
        ("realworldqa_parquet", "lmms", [["red"], ["blue"]]),
        ("mmmu_parquet", "official", [["red", "blue"], ["green"]]),
        ("mathvista_json", "paper", [["blue"], ["red"], ["blue"]]),
        ("mathvista_parquet", "latest", [["blue"]]),
        ("mmvet_json", "paper", [["green"], ["red"]]),
        ("blink_parquet", "official", [["red", "green", "blue"], ["red"]]),
        ("qbench2_parquet", "lmms", [["red", "blue"]]),
        ("qbench2_json", "official", [["red", "blue"]] * 2),
        ("muirbench_parquet", "paper", [["red", "green", "blue"]]),
        ("mantis_parquet", "official", [["red", "blue"]] * 2),
    ],
)
def test_images_are_the_published_ones_in_order(name, profile, seen, tmp_path):
    _, examples = load(name, tmp_path, profile)
    assert [colours(example) for example in examples] == seen


def test_videos_of_seed_are_left_out_and_its_categories_named(tmp_path):
    benchmark, (example,) = load("seed_json", tmp_path, "paper")
    assert example.fields["category"] == "Instances Counting"
    assert example.options == {"A": "red", "B": "None", "C": "blue", "D": "2"}
    assert benchmark.load(tmp_path, Choice("paper")).left_out == {"not of this split": 1}


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("paper", ("Which shows ", 0, "?\nA. ", 1, "\nB. ", 2, "\nC. None of the choices\nAnswer with the option's "
                   "letter from the given choices directly.")),
        ("lmms", (0, 1, 2, "Which shows <image>?\nA. <image>\nB. <image>\nC. None of the choices\nAnswer with the "
                  "option's letter from the given choices directly.")),
        ("official", ("Question: Which shows ", 0, "?\nChoices:\n(A) ", 1, "\n(B) ", 2, "\n(C) None of the choices\n"
                      "Hint: Please provide the correct option letter, such as A, B, C, D, directly.\nAnswer:")),
    ],
)  # fmt: skip
def test_muirbench_has_images_where_each_code_sets_them(profile, message, tmp_path):
    benchmark, (example,) = load("muirbench_parquet", tmp_path, profile)
    assert benchmark.message(example, profile) == message


def test_mantis_sets_images_at_tags_and_missing_ones_in_front(tmp_path):
    benchmark, (choice, short) = load("mantis_parquet", tmp_path, "official")
    ask = "Answer with the option's letter from the given choices directly."
    text = f" Which is newer?\n (A) Image 1\n (B) Image 2\n{ask}"
    assert benchmark.message(choice, "official") == (0, 1, text)
    begin = "Given the images, answer the following short answer vqa question:\nQ: How many in all?\n"
    end = 'You can first give your analysis, and then give your final answer as "Final Answer:"'
    assert benchmark.message(short, "official") == (0, 1, begin + end)


def test_the_officials_mmmu_prompt_has_images_in_question_and_options(tmp_path):
    benchmark, (choice, question) = load("mmmu_parquet", tmp_path, "official")
    end = "\n(C) O'Neil\n\nAnswer with the option's letter from the given choices directly."
    assert benchmark.message(choice, "official") == ("", 0, " Which is right: ", 1, "?\n(A) $6\n(B) ", 1, end)
    ask = "Answer the question using a single word or phrase."
    assert benchmark.message(question, "official") == ("Give x of ", 0, f".\n{ask}")


def test_blinks_disclaimer_stands_in_front_of_tasks_with_people(tmp_path):
    benchmark, (style, depth) = load("blink_parquet", tmp_path, "official")
    prompt = "Which is nearer?\nSelect from the following choices.\n(A) A\n(B) B\n"
    assert benchmark.message(depth, "official") == (0, prompt)
    *_, text = benchmark.message(style, "official")
    assert text.startswith("Disclaimer: This is not to make unfair assumptions") and text.endswith(prompt)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), ("(B)", "B"), ("It is (A) or (B)\n\nSo (B) it is", "B"), ("(A) and (B)", None), ("So (A).", None),
     ("b", None), ("(A)\n\nsurely", "A")],
)  # fmt: skip
def test_blinks_script_reads_a_letter_alone_or_the_one_in_brackets(answer, letter, tmp_path):
    benchmark, (_, depth) = load("blink_parquet", tmp_path, "official")
    assert benchmark.score(answer, depth, "official").extracted == letter


def test_a_pair_of_qbench2_lacking_one_picture_is_unreadable_and_wrong(tmp_path):
    benchmark, _ = load("qbench2_json", tmp_path, "official")
    (tmp_path / "q-bench2" / "all_single_images" / "09769.jpg").unlink()
    first, _ = benchmark.load(tmp_path, Choice("official")).examples
    assert "09769.jpg" in first.unreadable and first.images == ()
    assert benchmark.task([first], Choice("official")).scored("B", first) == (0.0, None)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ('{"questions": 3}', "has no list of questions"),
        ('{"questions": [[]]}', r"entry 1 is \[\]; wanted an object with its columns"),
        ('{"questions": [{"data_type": "image"}]}', "has an entry without 'question', 'answer', .*; found: data_type"),
    ],
)
def test_a_damaged_seed_file_is_refused_with_its_name(broken, message, tmp_path):
    benchmark, _ = load("seed_json", tmp_path, "paper")
    (tmp_path / "SEED-Bench.json").write_text(broken, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"SEED-Bench.json.*{message}"):
        benchmark.load(tmp_path, Choice("paper"))


def test_no_picture_is_read_from_outside_of_its_folder(tmp_path):
    benchmark, _ = load("mathvista_json", tmp_path / "data", "paper")
    path = tmp_path / "data" / "MathVista" / "testmini.json"
    path.write_text(path.read_text().replace("images/2.jpg", "../../secret.jpg"), encoding="utf-8")
    (tmp_path / "secret.jpg").write_bytes(b"no picture of the set")
    first, *_ = benchmark.load(tmp_path / "data", Choice("paper")).examples
    assert "lies outside of" in first.unreadable


def test_blink_is_averaged_over_rows_or_over_tasks():
    path = Path(__file__).parents[2] / "goldens" / "evaluation" / "blink_aggregation.json"
    (case,) = json.loads(path.read_text(encoding="utf-8"))["cases"]
    predictions = [
        Prediction(
            "blink", Example(str(number), (), "", (), fields={"category": row["task"]}), "", float(row["correct"])
        )
        for number, row in enumerate(case["rows"])
    ]
    benchmark = BY_NAME["blink"]
    expected = case["expected"]
    assert benchmark.summarize(predictions, "official")["Total"].value == pytest.approx(
        100 * expected["official_macro"]
    )
    assert benchmark.summarize(predictions, "paper")["Overall"].value == pytest.approx(100 * expected["micro"])
    assert benchmark.summarize(predictions, "lmms")["blink_acc"].value == pytest.approx(100 * expected["micro"])


def test_questions_about_the_same_image_are_one_group_of_the_error(tmp_path):
    """Two pairs of answers, each about one image: the error of the mean of two groups, not of four answers."""
    benchmark, (example,) = load("seed_json", tmp_path, "paper")
    other = replace(example, fields={**example.fields, "image": "another"})
    asked = [replace(one, id=str(number)) for number, one in enumerate((example, example, other, other))]
    predictions = [
        Prediction("seed_image", one, "", score) for one, score in zip(asked, (1.0, 1.0, 0.0, 1.0), strict=True)
    ]
    overall = benchmark.summarize(predictions, "paper")["Overall"]
    assert (overall.value, overall.items) == (75.0, 4)
    assert overall.stderr == pytest.approx(25.0)  # half the difference of the groups' means, 100 and 50


def test_mmbench_counts_a_question_once_and_names_an_unparsed_one(tmp_path):
    benchmark, examples = load("mmbench_parquet", tmp_path, "lmms")
    task = benchmark.task(examples, Choice("lmms"))
    answers = (examples[0].answers[0], "", examples[2].answers[0])
    predictions = [
        Prediction("mmbench", example, answer, scored.score, extracted=scored.extracted)
        for example, answer in zip(examples, answers, strict=True)
        for scored in [task.scored(answer, example)]
    ]
    table = benchmark.summarize(predictions, "lmms")
    assert (table["gpt_eval_score"].value, table["gpt_eval_score"].items, table["gpt_eval_score"].unparsed) == (0, 1, 1)
    assert set(table) == {"gpt_eval_score", "CP", "image_style"}


def test_what_mathvista_could_not_read_is_the_text_nan_in_its_spreadsheet(tmp_path):
    """Read with the toolkit's faults, a refusal is right where the right option is that text."""
    shown = base64.b64encode(picture("red")).decode()
    cells = f"1\tmulti_choice\ttext\tC\t['Na+', 'NB', 'nan']\tnan\tWhich code?\t{shown}"
    header = "index\tquestion_type\tanswer_type\tanswer_option\tchoices\tanswer\tquestion\timage"
    (tmp_path / "MathVista_MINI.tsv").write_text(f"{header}\n{cells}\n", encoding="utf-8")
    benchmark = BY_NAME["mathvista"]
    for reading, score in (("careful", 0.0), ("as_published", 1.0)):
        choice = Choice("fork", reading)
        (example,) = benchmark.load(tmp_path, choice).examples
        assert benchmark.task([example], choice).scored("It cannot be seen", example) == (score, None)
