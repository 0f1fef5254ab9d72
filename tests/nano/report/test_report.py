"""The page and its figures, from made-up runs."""

import base64
from dataclasses import replace
import html
import html.parser
import io
import json
import math
import re
import shlex

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.nano.report import metric_names, page
from xgenmm_jax.nano.report.content import ReportContent, Seconds, StageContent, report_json

MACHINE = {"cpu": "Some CPU", "cores": 2, "memory_gib": 7.6, "python": "3.12.1", "jax": "0.10.2"}


def image(seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def example(measure: str, answer: str, score: float, images: int = 1, truth: str = "red") -> dict:
    return {
        "measure": measure,
        "id": f"{measure}/0",
        "question": "What color is the ring?",
        "truth": [truth],
        "answer": answer,
        "score": score,
        "pictures": [image(i) for i in range(images)],
        "labels": ["bova"] * (images - 1) if images > 2 else [],
    }


def gallery(score: float) -> dict:
    look = {"label": "View: all queries", "picture": image(3)}
    box = "<bbox>[0.1, 0.2][0.5, 0.6]</bbox>"
    return {
        "metrics": {
            "questions/mean": score,
            "questions/colour": score,
            "questions_wrong_image/colour": 0.125,
            "questions_majority/colour": 0.25,
            "attack_success": 1 - score,
            "attack_success/hazard_frame": 0.0625,
            "attack_success/plain_frame": 0.9375,
            "refusal_of_benign/hazard_frame": 0.1875,
            "caption/cider": 1.25,
            "something_new/here": 0.5,
        },
        "baselines": {
            "questions/colour": {"commonest answer": 0.25, "reference answers": 1.0},
            "attack_success": {"always refuses": 0.0, "reference answers": 0.0},
            "caption/cider": {"constant caption": 0.375, "reference answers": 5.5},
        },
        "examples": [
            example("questions/colour", "red" if score > 0.5 else "<script>alert(1)</script>", float(score > 0.5)),
            example("attack_success", "You can use it.", 1.0),
            example("shots/4", "bova", 0.0, images=5),
            example("grounding/iou", box, 1.0, truth=box),
        ],
        "photographs": [
            {"name": "cat", "about": "a cat", "source": "a wheel", "picture": image(1), "caption": "a red ring"}
        ],
        "looks": [
            {
                **example("questions/where", "top", 1.0),
                "picture": image(2),
                "size": [8, 8],
                "views": [look],
                "queries": [{"number": 0, "share": 1.0, "picture": image(4)}],
                "crops_share": 0.0,
            }
        ],
    }


def stage(name: str, score: float) -> StageContent:
    curve = tuple({"step": s, "loss": 3 / s, "tokens": 100 * s, "samples": s, "seconds": 2.0 * s} for s in range(1, 9))
    return StageContent(name, 8, "done", curve, gallery(score), Seconds(16.0, 4.0, 3.0))


def content(running: bool = False) -> ReportContent:
    stages = (stage("stage1", 0.25), stage("sft_single", 0.75), StageContent("dpo", 5))
    return ReportContent(stages, "runs/demo", 1_900_000, MACHINE, "abc123", running, 900.0)


class Links(html.parser.HTMLParser):
    """Everything that a browser would load or follow, and every tag."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded, self.followed, self.tags, self.text = [], [], [], text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "poster", "data") or (tag == "link" and name == "href"):
                self.loaded.append(value)
            elif name == "href":
                self.followed.append(value)


def test_the_page_loads_nothing_and_runs_nothing():
    """A page that needs a network, or a second file, does not survive being mailed."""
    text = page.render(content())
    links = Links(text)
    assert links.loaded and all(link.startswith("data:") for link in links.loaded)
    assert all(link.startswith("#") or link == "report.json" for link in links.followed)
    assert "script" not in links.tags and "iframe" not in links.tags
    assert "http://" not in text and "https://" not in text
    assert "@import" not in text and "url(" not in text


@pytest.mark.parametrize("row", [None, {"step": 2, "loss": 1.0}, {"step": 2, "loss": 1.0, "tokens": math.nan}])
def test_a_curve_without_figures_does_not_end_the_report(row):
    """metrics.jsonl may be empty, or damaged: it was a KeyError in the middle of a demo."""
    stages = (StageContent("stage1", 5, state="training", curve=(row,) if row else ()),)
    damaged = replace(content(), stages=stages, running=True)
    assert "Training stage1" in page.render(damaged)
    figures = report_json(damaged)["stages"]["stage1"]
    assert (figures["tokens"], figures["samples"], figures["steps"]) == (0, 0, 2 if row else 0)


def test_answers_cannot_write_markup():
    text = page.render(content())
    assert "<script>" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize(
    "workdir", ["runs/demo", "my runs/a", "<iframe>a</iframe>", 'a"b', "it's", "a&amp;b", "{{ 7 * 7 }}", "$HOME/[x]"]
)
def test_a_folder_is_named_as_it_is_in_a_command_that_the_shell_takes(workdir):
    """A command with a folder of two words, copied from the page, asked about another."""
    text = page.render(replace(content(), workdir=workdir, commit="<dialog>", machine=MACHINE | {"cpu": "<object>CPU"}))
    assert not {"iframe", "dialog", "object"} & set(Links(text).tags)
    (command,) = re.findall("<pre>(xgenmm generate.*)</pre>", text)
    assert shlex.split(html.unescape(command))[2] == f"{workdir}/sft_single"


def test_the_page_reloads_itself_only_while_somebody_works():
    assert 'http-equiv="refresh"' in page.render(content(running=True))
    assert 'http-equiv="refresh"' not in page.render(content())


def test_a_page_without_anything_yet_renders():
    """It exists from the first minute, before any step."""
    stages = tuple(StageContent(name, 5) for name in ("stage1", "stage2"))
    text = page.render(ReportContent(stages, "runs/demo", 0, {}, "abc", True))
    assert "Starting" in text and text.count("not begun") == 2


def test_json_has_the_agreed_shape_and_the_page_the_same_figures(tmp_path):
    page.write_report(content(), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) >= {"stages", "machine", "commit"}
    assert list(report["stages"]) == ["stage1", "sft_single"]
    for one in report["stages"].values():
        assert set(one) >= {"metrics", "seconds", "tokens"}
    single = report["stages"]["sft_single"]
    assert single["metrics"]["questions/mean"] == 0.75
    assert single["baselines"]["caption/cider"] == {"constant caption": 0.375, "reference answers": 5.5}
    assert (single["seconds"], single["tokens"]) == (20.0, 800)
    assert report["machine"] == MACHINE and report["commit"] == "abc123"
    assert report == json.loads(json.dumps(report_json(content())))
    text = (tmp_path / "report.html").read_text()
    for figure in ("75.0", "25.0", "12.5", "1.25", "something_new/here"):
        assert figure in text
    assert not list(tmp_path.glob("*.partial"))


def test_the_best_of_a_row_is_the_lowest_where_fewer_is_better():
    rows = {row["name"]: row for section in page.table(content()) for row in section["rows"]}
    assert [cell["best"] for cell in rows["questions/colour"]["cells"]] == [False, True, False]
    assert [cell["value"] for cell in rows["questions/colour"]["cells"]] == ["25.0", "75.0", None]
    assert rows["questions/colour"]["cells"][1]["control"] == "12.5"
    assert rows["questions/colour"]["baseline"] == "25.0"
    assert (rows["caption/cider"]["baseline"], rows["caption/cider"]["baseline_words"]) == ("0.38", "constant caption")
    assert (rows["attack_success"]["baseline"], rows["attack_success"]["baseline_words"]) == ("0.0", "always refuses")
    assert [cell["best"] for cell in rows["attack_success"]["cells"]] == [False, True, False]


def test_every_metric_of_a_stage_stands_in_the_table():
    """A metric that is added to the suite must not silently be missing from the page."""
    present = set(gallery(0.5)["metrics"])
    shown = set()
    for _, rows in metric_names.sections(present):
        for name, metric in rows:
            shown |= {name, metric.control}
    assert present <= shown | set(metric_names.MAJORITIES)


def test_no_two_rows_are_called_alike():
    """Three rows were "Small text, one view": exact, ANLS and words."""
    titles = [metric.title for metric in metric_names.METRICS.values()]
    assert len(set(titles)) == len(titles)


def test_attacks_are_told_apart_by_frame():
    """A sum over both frames hides a model that goes by the frame."""
    section = next(section for section in page.table(content()) if section["title"] == "Honesty and safety")
    rows = [(row["name"], row["cells"][0]["value"], row["metric"].better) for row in section["rows"]]
    assert rows[-4:] == [
        ("attack_success", "75.0", "lower"),
        ("attack_success/hazard_frame", "6.2", "lower"),
        ("attack_success/plain_frame", "93.8", "lower"),
        ("refusal_of_benign/hazard_frame", "18.8", "lower"),
    ]
    text = page.render(content())
    assert "Attacks, in stripes" in text and "Harmless, in stripes" in text


def test_the_tile_of_attacks_says_how_many_harmless_requests_are_refused():
    """A model that refuses everything has no attack that succeeds: the figure alone praises it."""
    first, last = stage("sft_multi", 0.25), stage("dpo", 0.75)
    last.gallery["metrics"]["refusal_of_benign"] = 0.0625
    tile = page.tiles(replace(content(), stages=(first, last)))[-1]
    assert (tile["label"], tile["value"]) == ("Attacks that succeed", "25.0")
    assert tile["note"] == "before preference tuning 75.0; harmless requests refused 6.2"


def test_an_attack_that_succeeds_is_marked_wrong():
    groups = {group["name"]: group for group in page.examples(content())}
    assert [answer["score"] for answer in groups["attack_success"]["items"][0]["answers"]] == [0.0, 0.0]
    assert [answer["score"] for answer in groups["questions/colour"]["items"][0]["answers"]] == [0.0, 1.0]


def test_a_row_of_equal_figures_has_no_best():
    same = ReportContent((stage("stage1", 0.5), stage("stage2", 0.5)), "runs/demo", 1, MACHINE, "abc", False)
    rows = {row["name"]: row for section in page.table(same) for row in section["rows"]}
    assert [cell["best"] for cell in rows["questions/colour"]["cells"]] == [False, False]
