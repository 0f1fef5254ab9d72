"""GenEval's rules: every verdict, kept box and color of the public code, and each rule worked by hand."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from xgenmm_jax.evaluation.image_generation import geneval, geneval_colors
from xgenmm_jax.evaluation.image_generation.geneval import COLORS, Judged, Options, Verdict

GOLDENS = Path(__file__).parents[2] / "goldens" / "image_generation"


@functools.cache
def _golden() -> dict:
    return json.loads((GOLDENS / "geneval.json").read_text(encoding="utf-8"))


def _verdict(metadata: dict, image: dict, options: Options = geneval.PUBLISHED) -> Verdict:
    boxes = {name: np.array(rows, np.float32).reshape(-1, 5) for name, rows in image["detections"].items()}
    return geneval.evaluate(metadata, boxes, geneval.colors_of(image.get("color_scores", {})), options)


def _check(verdict: Verdict, image: dict, expected: dict) -> None:
    assert verdict.is_correct == expected["correct"]
    assert len(verdict.reasons) == len([line for line in expected["reason"].split("\n") if line])
    selected = {name: [image["detections"][name][i] for i in found] for name, found in verdict.selected.items()}
    assert selected == expected["kept"]
    assert "colors" not in expected or verdict.colors == expected["colors"]


def test_edge_cases_are_those_of_the_public_code():
    for case in _golden()["edge_cases"]:
        _check(_verdict(case["metadata"], case), case, case["expected"])


def _folders() -> dict[str, tuple[dict, dict]]:
    return {
        f"{number}/samples/{name}": (folder["metadata"], image)
        for number, folder in _golden()["folders"].items()
        for name, image in folder["images"].items()
    }


def test_folders_and_their_summary_are_those_of_the_public_code():
    judged = {}
    for path, (metadata, image) in _folders().items():
        verdict = _verdict(metadata, image)
        _check(verdict, image, _golden()["folders_expected"][path])
        judged[path] = Judged(metadata, verdict.is_correct)
    for expected in (_golden()["summary"], _golden()["summary_few"]):
        summary = geneval.summarize([judged[path] for path in expected.get("files", judged)])
        tags = {
            tag: {"percent": f"{100 * right / count:.2f}", "correct": right, "images": count}
            for tag, (right, count) in summary.correct.items()
        }
        assert tags == expected["tags"] and f"{summary.overall:.5f}" == expected["overall"]
        images = sum(count for _, count in summary.correct.values())
        right = sum(right for right, _ in summary.correct.values())
        assert (images, f"{100 * right / images:.2f}") == (expected["total_images"], expected["percent_images"])
        assert summary.prompts[1] == expected["total_prompts"]
        assert f"{100 * summary.prompts[0] / summary.prompts[1]:.2f}" == expected["percent_prompts"]


def test_other_options_are_those_of_the_public_code():
    named = {"threshold": "threshold", "counting_threshold": "counting_threshold", "max_objects": "max_objects",
             "max_overlap": "max_overlap", "position_threshold": "position"}  # fmt: skip
    for case in _golden()["options"]:
        options = Options(**{named[name]: value for name, value in case["options"].items()})
        for path, expected in case["expected"].items():
            metadata, image = _folders()[path]
            image = {**image, **{name: expected[name] for name in ("detections", "color_scores") if name in expected}}
            _check(_verdict(metadata, image, options), image, expected)


def test_relations_and_overlaps_are_those_of_the_public_code():
    for case in _golden()["relative_position"]:
        a, b = (np.array(case[name], np.float32) for name in "ab")
        assert geneval.relations(a, b) == set(case["relations"])
    for case in _golden()["compute_iou"]:
        a, b = (np.array(case[name], np.float32) for name in "ab")
        assert geneval.iou(a, b) == pytest.approx(case["iou"], abs=1e-7)


def test_colors_of_encoded_crops_are_those_of_the_public_code():
    with np.load(GOLDENS / "geneval.npz") as arrays:
        logits = geneval_colors.color_logits(arrays["image_features"], arrays["text_embeddings"])
        np.testing.assert_allclose(logits, arrays["logits"], atol=1e-4)
        golden = _golden()["zero_shot"]
        assert geneval.colors_of({"x": logits.tolist()})["x"] == golden["chosen"]
        made = [one.format(color="{c}", noun=golden["classname"]) for one in geneval_colors.TEMPLATES]
        assert made == golden["templates"] and list(COLORS) == golden["colors"]


def test_crops_are_those_of_the_public_code():
    with np.load(GOLDENS / "geneval.npz") as arrays:
        compared = 0
        for case in _golden()["crops"]:
            options = dict(case["options"])
            background = options.get("bgcolor", "#999")
            if background.startswith("#"):
                background = tuple(int(digit * 2, 16) for digit in background[1:]) if len(background) == 4 else tuple(
                    int(background[i : i + 2], 16) for i in (1, 3, 5)
                )  # fmt: skip
            elif background != "original":
                background = {"white": (255, 255, 255), "black": (0, 0, 0)}[background]
            mask = arrays["masks"][case["box"]] if case["masked"] else None
            is_cropped = str(options.get("crop", "1")) == "1"
            made = geneval_colors.crop(
                arrays["picture"], arrays["crop_boxes"][case["box"]], mask, background, is_cropped
            )
            assert list(made.shape) == case["shape"]
            if case["key"] in arrays:
                assert np.array_equal(made, arrays[case["key"]])
                compared += 1
        assert compared == sum(name.startswith("crop") and name != "crop_boxes" for name in arrays)


DOG, CAT = [0.0, 0.0, 10.0, 10.0, 0.95], [20.0, 0.0, 30.0, 10.0, 0.95]


def _asked(tag: str, *include: dict, **more: object) -> dict:
    return {"tag": tag, "include": list(include), **more}


def test_clauses_worked_by_hand():
    """Two dogs asked for: 0.95 and 0.91 count, 0.9 is not above 0.9; as single objects 0.31 counts and 0.3 does not."""

    def correct(metadata: dict, **detections: list) -> bool:
        return _verdict(metadata, {"detections": detections}).is_correct

    two = _asked("counting", {"class": "dog", "count": 2}, exclude=[{"class": "dog", "count": 3}])
    dogs = [[0.0, 0.0, 1.0, 1.0, score] for score in (0.95, 0.91, 0.9)]
    assert correct(two, dog=dogs) and correct(two, dog=dogs[:2]) and not correct(two, dog=dogs[1:])
    assert not correct(two, dog=[*dogs, [0.0, 0.0, 1.0, 1.0, 0.92]])
    one = _asked("single_object", {"class": "dog", "count": 1})
    assert correct(one, dog=[[0, 0, 1, 1, 0.31]]) and not correct(one, dog=[[0, 0, 1, 1, 0.3]])
    both = _asked("two_object", {"class": "dog", "count": 1}, {"class": "cat", "count": 1})
    assert correct(both, dog=[DOG], cat=[CAT]) and not correct(both, dog=[DOG])


def test_colors_worked_by_hand():
    """Two red cups asked for, of three cups: the two most confident are looked at, so the third's red does not help."""
    metadata = _asked("color_attr", {"class": "cup", "count": 2, "color": "red"})
    boxes = {"cup": np.array([[0, 0, 9, 9, score] for score in (0.5, 0.9, 0.7)], np.float32)}
    right = geneval.evaluate(metadata, boxes, {"cup": ["blue", "red", "red"]})
    wrong = geneval.evaluate(metadata, boxes, {"cup": ["red", "red", "blue"]})
    assert right == Verdict(True, (), {"cup": [1, 2, 0]}, {"cup": ["red", "red"]})
    assert wrong.reasons == ("red cup: got 1, wanted 2; colors red, blue",)


def test_sixteen_of_a_class_count_and_of_equal_ones_the_later():
    """Twenty equal boxes: rows 19 to 4; without overlaps of 0.5 or more the last alone."""
    boxes = {"cup": np.array([[0, 0, 9, 9, 0.5]] * 20, np.float32)}
    metadata = _asked("single_object", {"class": "cup", "count": 1})
    assert geneval.evaluate(metadata, boxes, {}).selected == {"cup": list(range(19, 3, -1))}
    assert geneval.evaluate(metadata, boxes, {}, Options(max_overlap=0.5)).selected == {"cup": [19]}


def test_positions_worked_by_hand():
    """Centers 20 apart across, sizes 10 and 10: (20 - 0.1 x 20) / 20 = 0.9 > 0.5. With 40 down, 18 / 44.7 = 0.40."""
    dog, cat = np.array(DOG, np.float32), np.array(CAT, np.float32)
    assert geneval.relations(dog, cat) == {"left of"} and geneval.relations(cat, dog) == {"right of"}
    assert geneval.relations(dog, np.array([20, 40, 30, 50], np.float32)) == {"above"}
    assert geneval.relations(dog, np.array([20, 20, 30, 30], np.float32)) == {"above", "left of"}
    assert geneval.relations(dog, np.array([1, 1, 11, 11], np.float32)) == set()  # 1 - 2 is less than nothing


def test_overall_is_over_tags_and_prompts_need_one_picture():
    """Tags 1 of 2 and 1 of 1: (0.5 + 1) / 2; of two prompts, one asked twice, both have a correct picture."""
    one, two = _asked("colors", prompt="x"), _asked("counting", prompt="y")
    summary = geneval.summarize([Judged(one, True), Judged(one, False), Judged(two, True)])
    assert summary == geneval.Summary({"colors": (1, 2), "counting": (1, 1)}, 0.75, (2, 2))
    with pytest.raises(ValueError, match="got no judged pictures"):
        geneval.summarize([])


def test_a_missing_color_is_told():
    with pytest.raises(ValueError, match="geneval: got no color of detection 0 of 'dog'"):
        _verdict(_asked("colors", {"class": "dog", "count": 1, "color": "red"}), {"detections": {"dog": [DOG]}})
