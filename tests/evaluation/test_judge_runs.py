"""What is judged of each benchmark, what a reply is worth, and where judged scores stand."""

from dataclasses import replace
import functools
import json
import math
from pathlib import Path

import benchmark_goldens as goldens
from judge_server import Reply, serving
import pytest

from xgenmm_jax.evaluation import judge_runs, results
from xgenmm_jax.evaluation.judge import JudgeError, Server
from xgenmm_jax.evaluation.judge_runs import JudgeSetup
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.tasks import judging, mmvet, suites
from xgenmm_jax.evaluation.tasks.benchmark import Choice
from xgenmm_jax.evaluation.tasks.example import Example

GOLDENS = Path(__file__).parents[1] / "goldens" / "benchmarks"
KEY = "sk-secret-0123456789"
BY_NAME = {benchmark.name: benchmark for benchmark in suites.BENCHMARKS}
server_of = functools.partial(Server, model="gpt-4-turbo", key=KEY, backoff_s=0.01)


def scored(name, rows, profile="paper"):
    """(benchmark, predictions, choice, result) of (example, answer)s, by rules."""
    benchmark, choice = BY_NAME[name], Choice(profile)
    predictions = [Prediction("", example, answer, 0.0) for example, answer in rows]
    predictions = results.rescored(benchmark, predictions, choice)
    return benchmark, predictions, choice, results.result_of(benchmark, predictions, choice, model="m")


def judge(rows_scored, url, folder, **options):
    return judge_runs.judged(*rows_scored, JudgeSetup(server_of(url), **options), folder / "x.judge.jsonl")


def mmvet_rows(answers):
    needs = [{"category": "rec" if n else "ocr,math"} for n in range(len(answers))]
    return [
        (Example(f"v1_{n}", (), f"What is {n}?", ("a<AND>b<OR>c",), fields=needs[n]), answer)
        for n, answer in enumerate(answers)
    ]


def choice_rows(answers):
    options = {"A": "a red kite", "B": "a blue boat", "C": "a green car"}
    return [
        (Example(str(n), (), f"Which {n}?", ("B",), options=options, fields={"category": "x"}), answer)
        for n, answer in enumerate(answers)
    ]


def yes_no_rows(answers, truth="Yes"):
    return [
        (Example(str(n), (), f"Is {n}?", (truth,), fields={"category": "random", "picture": str(n)}), answer)
        for n, answer in enumerate(answers)
    ]


def said(asked):
    """The answer that is asked about, which no other part of our prompts is."""
    return next(word for word in ("one", "two", "three", "four") if f"{word}!" in asked.prompt)


def test_mmvet_is_the_mean_of_the_judges_numbers_and_keeps_the_rule_beside(tmp_path):
    grades = {"one": "1.0", "two": " 0.4\n", "three": "0"}
    with serving(lambda asked: grades[said(asked)]) as server:
        rules = scored("mmvet", mmvet_rows(["one!", "two!", "three!"]))
        result = judge(rules, server.url, tmp_path)
    assert math.isnan(rules[3].value.value) and rules[3].judge == "none"
    assert result.value.value == pytest.approx(100 * 1.4 / 3) == result.normalized
    assert (result.value.items, result.value.unparsed, result.value.note) == (3, 0, "")
    # A row of one capability alone counts twice in its line, as in the toolkit.
    assert result.scores["rec"].value == pytest.approx(20) and result.scores["ocr_math"].value == pytest.approx(100)
    assert result.scores["rule/Overall"] == rules[3].scores["rule/Overall"]
    assert result.judge == f"gpt-4-turbo, prompt {judging.fingerprint(mmvet.PROMPT)}"
    assert {asked.temperature for asked in server.asked} == {0.0}
    assert all(asked.prompt.endswith(f"| a <AND> b <OR> c | {said(asked)}! |") for asked in server.asked)


def test_a_reply_that_is_no_number_up_to_1_is_asked_again_and_then_counts_0_as_unparsed(tmp_path):
    replies = {0.0: "Correctness: 0.5", 0.5: "1.5", 1.0: "nan", 1.5: "-0.1", 2.0: "0.7"}
    with serving(lambda asked: replies[asked.temperature] if said(asked) == "one" else "") as server:
        result = judge(scored("mmvet", mmvet_rows(["one!", "two!"])), server.url, tmp_path)
    assert result.value.value == pytest.approx(35) and (result.value.items, result.value.unparsed) == (2, 1)
    assert sorted(asked.temperature for asked in server.asked) == sorted([0.0, 0.5, 1.0, 1.5, 2.0] * 2)


def test_only_answers_that_the_rules_could_not_read_are_asked_for_a_letter(tmp_path):
    def reply(asked):
        return {"one": "B", "two": "(A)", "three": "no idea", "four": "Z"}[said(asked)]

    rows = choice_rows(["B", "A", "one!", "two!", "three!", "four!", "  "])
    rows += [(replace(example, id=f"{example.id}u", unreadable="torn"), answer) for example, answer in rows[2:3]]
    rows += [(replace(example, id=f"{example.id}o", options={}), answer) for example, answer in rows[2:3]]
    with serving(reply) as server:
        rules = scored("mmstar", rows)
        result = judge(rules, server.url, tmp_path)
    assert (rules[3].value.value, rules[3].value.unparsed) == (pytest.approx(100 / 9), 7)
    # Right: the rules' B and the judge's. Unparsed: "three!", the blank, the unreadable, the one without options.
    assert (result.value.value, result.value.unparsed) == (pytest.approx(200 / 9), 4)
    asked = sorted((said(one), one.temperature) for one in server.asked)
    assert asked == [("four", 0.0), ("one", 0.0), ("three", 0.0), ("three", 0.5), ("three", 1.0), ("two", 0.0)]
    assert "A. a red kite\nB. a blue boat\nC. a green car\nAnswer:" in server.asked[0].prompt


@pytest.mark.parametrize("folder", ["MMBench_DEV_EN", "MUIRBench", "SEEDBench_IMG"])
def test_what_a_judge_reads_out_of_published_rows_is_scored_as_if_it_were_the_answer(tmp_path, folder):
    """MMBench's questions are right where all their rotations are, of which a judge may read some."""
    names = {"MMBench_DEV_EN": "mmbench", "MUIRBench": "muirbench", "SEEDBench_IMG": "seed_image"}
    examples = goldens.tsv_examples(BY_NAME[names[folder]], GOLDENS / folder, "careful")
    letters = {example.id: example.answers[0] for example in examples}
    wanted = {example.id: letters[example.id] if n % 5 else "A" for n, example in enumerate(examples)}
    unclear = [(example, wanted[example.id] if n % 3 else f"Hm, {example.id}!") for n, example in enumerate(examples)]
    with serving(lambda asked: wanted[asked.prompt.split("Answer: Hm, ")[1].split("!")[0]]) as server:
        rules = scored(names[folder], unclear)
        result = judge(rules, server.url, tmp_path)
    assert len(server.asked) == sum(one.extracted is None for one in rules[1]) > 5
    *_, plain = scored(names[folder], [(example, wanted[example.id]) for example in examples])
    assert {name: (one.value, one.unparsed) for name, one in result.scores.items()} == {
        name: (one.value, one.unparsed) for name, one in plain.scores.items()
    }
    assert rules[3].value.value < result.value.value < 100


def test_mmmus_open_questions_are_judged_as_the_toolkit_closes_them(tmp_path):
    example = Example("q", (), "How long?", ("7 m",), fields={"split": "validation", "category": "Music"})
    with serving(lambda asked: "A") as server:
        result = judge(scored("mmmu", [(example, "one!")]), server.url, tmp_path)
    assert "A. 7 m\nB. Other Answers\n" in server.asked[0].prompt and result.value.value == 100


@pytest.mark.parametrize(("name", "score"), [("pope", "acc"), ("hallusionbench", "aAcc")])
def test_yes_and_no_are_read_by_a_judge(tmp_path, name, score):
    rows = yes_no_rows(["Yes", "one!", "two!", "three!"])
    if name == "hallusionbench":
        fields = {"category": "VS", "l2-category": "VS_map"}
        rows = [(replace(e, id=f"VS_map_1_{n}_1_0", fields=fields), a) for n, (e, a) in enumerate(rows)]
    with serving(lambda asked: {"one": "Yes.", "two": "No", "three": "Unknown"}[said(asked)]) as server:
        rules = scored(name, rows)
        result = judge(rules, server.url, tmp_path)
    assert (rules[3].scores[score].value, rules[3].scores[score].unparsed) == (25, 3)
    assert (result.scores[score].value, result.scores[score].unparsed) == (50, 1)
    assert len(server.asked) == 2 + 5


def math_rows(answers):
    def row(number, answer, **fields):
        question = f"Hint: say it.\nQuestion: {number}?"
        return Example(str(number), (), question, (answer,), fields={"task": "t", "skills": "['s']", **fields})

    choices = {"question_type": "multi_choice", "answer_type": "text", "choices": "['x', 'y']", "answer_option": "B"}
    examples = [
        row(0, "3", question_type="free_form", answer_type="integer"),
        row(1, "1.5", question_type="free_form", answer_type="float", precision="1"),
        row(2, "y", **choices),
        row(3, "3", question_type="free_form", answer_type="integer"),
    ]
    return list(zip(examples, answers, strict=True))


@pytest.mark.parametrize("profile", ["paper", "official"])
def test_mathvistas_answers_are_read_out_and_compared(tmp_path, profile):
    replies = {"one": " 3", "two": "1.5", "three": "(B)" if profile == "official" else "B", "four": "so three"}
    with serving(lambda asked: replies[said(asked)]) as server:
        rules = scored("mathvista", math_rows(["It is one!", "two!", "three!", "four!"]), profile)
        result = judge(rules, server.url, tmp_path)
    assert rules[3].value.unparsed == 4 and "without a judge" in rules[3].value.note
    assert (result.value.value, result.value.unparsed, result.value.note) == (75, 1, "")
    assert len(server.asked) == 4  # the toolkit takes the first reply that is not blank
    asked = next(one.prompt for one in server.asked if said(one) == "one")
    assert asked.endswith("\n\nHint: say it.\nQuestion: 0?\nResponse: It is one!\nAnswer:")
    assert result.scores[f"{result.headline}/prefetch_rate"].value == 0


def test_a_prompt_of_the_users_is_filled_once_and_stands_beside_the_number(tmp_path):
    text = "{x} {question} | {answer} | {prediction} | {"
    example = Example("q", (), "What {answer}?", ("{prediction}",), fields={"category": "rec"})
    with serving(lambda asked: "1") as server:
        rules = scored("mmvet", [(example, "one! {question} {options}")])
        result = judge(rules, server.url, tmp_path, prompt=text)
    assert server.asked[0].prompt == "{x} What {answer}? | {prediction} | one! {question} {options} | {"
    assert result.judge.endswith(judging.fingerprint(text))
    with pytest.raises(ValueError, match=r"'p.txt' has no \{prediction\}, .* may hold \{question\}, "):
        judging.check_prompt("{question}", "'p.txt'")


def test_a_rerun_asks_nothing_and_after_a_failure_only_what_is_missing(tmp_path):
    rules = scored("mmvet", mmvet_rows(["one!", "two!", "three!", "four!"]))
    with serving(lambda asked: Reply(status=404) if said(asked) == "four" else "0.5") as server:
        with pytest.raises(JudgeError, match="404"):
            judge(rules, server.url, tmp_path, threads=1)
    assert [said(one) for one in server.asked] == ["one", "two", "three", "four"]
    with serving(lambda asked: "0.5") as server:
        first = judge(rules, server.url, tmp_path)
        assert [said(one) for one in server.asked] == ["four"]
        assert judge(rules, server.url, tmp_path) == first and len(server.asked) == 1
    assert judge(rules, server.url, tmp_path) == first  # without a server
    assert KEY not in (tmp_path / "x.judge.jsonl").read_text() and first.value.value == 50


def test_judged_scores_stand_beside_the_rules_and_stand_in_where_these_are_none(tmp_path):
    with serving(lambda asked: "1" if "Correctness" in asked.prompt else "B") as server:
        for name, rows in (("mmvet", mmvet_rows(["one!"])), ("mmstar", choice_rows(["one!"]))):
            rules = scored(name, rows)
            results.write(rules[3], tmp_path)
            before = (tmp_path / f"{name}.scores.json").read_bytes()
            path = results.write(judge(rules, server.url, tmp_path), tmp_path)
            assert path.name == f"{name}.judged.scores.json"
            assert (tmp_path / f"{name}.scores.json").read_bytes() == before
    by_default = {one.task: (one.judge != "none", one.value.value) for one in results.read(tmp_path)}
    assert by_default == {"mmvet": (True, 100), "mmstar": (False, 0)}
    judged = {one.task: (one.judge != "none", one.value.value) for one in results.read(tmp_path, judged=True)}
    assert judged == {"mmvet": (True, 100), "mmstar": (True, 100)}
    # Of another model's predictions, of fewer, or of answers that were asked anew, it is no score of these.
    for change in ({"model": "other"}, {"answers": "other"}, {"scores": {"Overall": replace(rules[3].value, items=9)}}):
        results.write(replace(rules[3], **change), tmp_path)
        assert [one.judge for one in results.read(tmp_path, judged=True) if one.task == "mmstar"] == ["none"]
    assert all(KEY not in path.read_text() for path in tmp_path.iterdir())


def test_judged_scores_of_a_benchmark_that_the_rules_left_none_of_are_read(tmp_path):
    with serving(lambda asked: "1") as server:
        results.write(judge(scored("mmvet", mmvet_rows(["one!"])), server.url, tmp_path), tmp_path)
    assert [one.value.value for one in results.read(tmp_path)] == [100]


def test_tasks_that_no_judge_is_asked_about_and_mixed_prompts_are_refused():
    setup = JudgeSetup(Server("http://a/v1", "m"))
    named = suites.named(["textvqa", "mmvet", "mmstar", "pope", "mmmu"])
    assert judge_runs.judged_benchmarks(named, None, setup) == named[1:]
    own = replace(setup, prompt="{prediction}")
    assert len(judge_runs.judged_benchmarks(suites.named(["mmstar", "mmmu", "textvqa"]), "paper", own)) == 2
    with pytest.raises(ValueError, match="mmvet and mmmu and pope are judged by prompts of their own"):
        judge_runs.judged_benchmarks(named, None, own)
    with pytest.raises(ValueError, match=r"rules alone score textvqa \(paper\)"):
        judge_runs.judged_benchmarks(named[:1], None, setup)
    with pytest.raises(ValueError, match=r"rules alone score mmstar \(lmms\)"):
        judge_runs.judged_benchmarks(named[2:3], "lmms", setup)


def test_a_prompt_without_end_names_its_example_before_anything_is_asked(tmp_path):
    with serving(lambda asked: "1") as server:
        with pytest.raises(ValueError, match="example 'v1_1' of mmvet has"):
            judge(scored("mmvet", mmvet_rows(["one!", "x" * 2**18])), server.url, tmp_path)
    assert not server.asked


def test_scores_with_their_judge_survive_their_file(tmp_path):
    with serving(lambda asked: "0.5") as server:
        result = judge(scored("mmvet", mmvet_rows(["one!"])), server.url, tmp_path)
    value = json.loads(results.write(result, tmp_path).read_text())
    assert value["judge"] == result.judge and value["headline"] == "Overall" and value["normalized"] == 50
