"""Prompts of the published files, and pictures in the folders that the benchmarks' scorers read."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.evaluation.image_generation import exports
from xgenmm_jax.evaluation.image_generation.prompts import IMAGES_PER_PROMPT, BenchmarkPrompt, prompts

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}],
     "prompt": "a photo of two cats"},
]  # fmt: skip
DPG_HEAD = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The files of all five, two prompts or three of each."""
    folder = tmp_path / "data"
    for name in ("geneval", "dpg", "wise_2025/data", "wise_verified", "mjhq"):
        (folder / name).mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in GENEVAL)
    (folder / "geneval" / "evaluation_metadata.jsonl").write_text(lines, encoding="utf-8")
    table = [DPG_HEAD, 'COCOval1,"two cats, red",,1,0,entity,whole,entity - whole (cat),is there a cat?',
             'COCOval1,"two cats, red",,2,1,attribute,color,attribute - color (cat),is it red?',
             "partiprompts2,a dog,,1,0,entity,whole,entity - whole (dog),is there a dog?"]  # fmt: skip
    (folder / "dpg" / "dpg_bench.csv").write_text("\n".join(table), encoding="utf-8")
    names = ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
    for first, name in zip((1, 401, 701), names, strict=True):
        rows = [{"Prompt": f"prompt {first}", "Explanation": "x", "Subcategory": "y", "prompt_id": first}]
        (folder / "wise_2025" / "data" / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        (folder / "wise_verified" / f"{name}_verified.json").write_text(json.dumps(rows), encoding="utf-8")
    meta = {"8f1a": {"category": "people", "prompt": "a man"}, "77b2": {"category": "logo", "prompt": "a fox"}}
    (folder / "mjhq" / "meta_data.json").write_text(json.dumps(meta), encoding="utf-8")
    return folder


def _image(shade: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (6, 4), (shade, 0, 255 - shade))


def test_prompts_are_read_from_the_published_files(published: Path):
    assert [(one.id, one.text) for one in prompts("geneval", published)] == [
        ("00000", "a photo of a bench"), ("00001", "a photo of two cats")
    ]  # fmt: skip
    assert [(one.id, one.text) for one in prompts("dpg", published)] == [
        ("COCOval1", "two cats, red"), ("partiprompts2", "a dog")
    ]  # fmt: skip
    for version in ("wise_2025", "wise_verified"):
        assert [one.id for one in prompts(version, published)] == ["1", "401", "701"]
    assert [(one.folder, one.id, one.text) for one in prompts("mjhq", published)] == [
        ("people", "8f1a", "a man"), ("logo", "77b2", "a fox")
    ]  # fmt: skip
    assert prompts("geneval", published / "geneval") == prompts("geneval", published)


def test_a_prompt_may_hold_what_ends_a_line_elsewhere(tmp_path: Path):
    row = {**GENEVAL[0], "prompt": "a bench\u2028and a cat"}
    text = json.dumps(row, ensure_ascii=False) + "\r\n"
    (tmp_path / "evaluation_metadata.jsonl").write_text(text, encoding="utf-8", newline="")
    assert [one.text for one in prompts("geneval", tmp_path)] == [row["prompt"]]


@pytest.mark.parametrize("benchmark", list(IMAGES_PER_PROMPT))
def test_every_layout_goes_on_where_it_stopped(benchmark, published: Path, tmp_path: Path):
    asked, folder = prompts(benchmark, published), tmp_path / "out"
    drawn = [(prompt, [_image(10 * i) for i in range(IMAGES_PER_PROMPT[benchmark])]) for prompt in asked]
    assert exports.remaining(benchmark, folder, asked) == asked
    assert exports.write(benchmark, folder, drawn[:1]) == 1
    assert exports.remaining(benchmark, folder, asked) == asked[1:]
    assert exports.write(benchmark, folder, iter(drawn)) == len(asked) - 1
    assert exports.write(benchmark, folder, drawn) == 0 and exports.remaining(benchmark, folder, asked) == []
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == {
        "geneval": [f"0000{n}/{name}" for n in (0, 1) for name in
                    ("metadata.jsonl", *(f"samples/000{k}.png" for k in range(4)))],
        "dpg": ["COCOval1.png", "partiprompts2.png"],
        "wise_2025": ["1.png", "401.png", "701.png"],
        "wise_verified": ["1.png", "401.png", "701.png"],
        "mjhq": ["logo/77b2.png", "people/8f1a.png"],
    }[benchmark]  # fmt: skip


def test_pictures_of_two_models_are_never_mixed(tmp_path: Path):
    folder = tmp_path / "wise_2025"
    exports.begin_or_continue(folder, {"model": "a step 1", "seed": 0})
    exports.write("wise_2025", folder, [(BenchmarkPrompt("1", "a man"), [_image(0)])])
    exports.begin_or_continue(folder, {"model": "a step 1", "seed": 0})
    assert [path.name for path in folder.iterdir()] == ["1.png"], "a scorer may take every file for a picture"
    with pytest.raises(ValueError, match="holds pictures of seed 0, now 1; give another folder"):
        exports.begin_or_continue(folder, {"model": "a step 1", "seed": 1})
    (tmp_path / "wise_2025.json").unlink()
    with pytest.raises(ValueError, match="is not empty, and no '.*wise_2025.json' says what drew its pictures"):
        exports.begin_or_continue(folder, {"model": "a step 1", "seed": 0})


def test_a_renamed_run_goes_on_with_its_pictures(tmp_path: Path):
    """The name of its folder was compared as if it were of the parameters."""
    folder = tmp_path / "wise_2025"
    exports.begin_or_continue(folder, {"model": "draw step 800 1f3a90c2", "seed": 0})
    exports.begin_or_continue(folder, {"model": "my old draw step 800 1f3a90c2", "seed": 0})
    assert json.loads((tmp_path / "wise_2025.json").read_text())["model"] == "draw step 800 1f3a90c2"
    for other in ("draw step 801 1f3a90c2", "draw step 800 00000000", "draw 1f3a90c2"):
        with pytest.raises(ValueError, match=f"pictures of model 'draw step 800 1f3a90c2', now '{other}'; give"):
            exports.begin_or_continue(folder, {"model": other, "seed": 0})


def test_geneval_folders_hold_their_metadata_and_refuse_another_prompts(published: Path, tmp_path: Path):
    asked = prompts("geneval", published)
    exports.write("geneval", tmp_path, [(asked[1], [_image(k) for k in range(4)])])
    assert json.loads((tmp_path / "00001" / "metadata.jsonl").read_text(encoding="utf-8")) == GENEVAL[1]
    third = np.asarray(PIL.Image.open(tmp_path / "00001" / "samples" / "0002.png"))
    assert np.array_equal(third, np.asarray(_image(2)))
    (tmp_path / "00001" / "samples" / "0003.png").unlink()
    assert exports.remaining("geneval", tmp_path, asked) == asked
    other = BenchmarkPrompt("00001", "a photo of a dog", metadata=GENEVAL[0])
    with pytest.raises(ValueError, match="is of another prompt than 'a photo of a dog'"):
        exports.remaining("geneval", tmp_path, [other])


def test_four_pictures_of_dpg_are_one_of_two_rows(tmp_path: Path):
    exports.write("dpg", tmp_path, [(BenchmarkPrompt("x", "x"), [_image(40 * k) for k in range(4)])])
    tiled = np.asarray(PIL.Image.open(tmp_path / "x.png"))
    assert tiled.shape == (8, 12, 3)
    assert [int(tiled[y, x, 0]) for y in (0, 4) for x in (0, 6)] == [0, 40, 80, 120]
    unlike = [_image(0), _image(0), _image(0), PIL.Image.new("RGB", (4, 4))]
    with pytest.raises(ValueError, match="dpg: got 4 pictures of 'y' of unlike size"):
        exports.write("dpg", tmp_path, [(BenchmarkPrompt("y", "y"), unlike)])


def test_names_out_of_the_folder_and_files_that_are_missing_are_told(tmp_path: Path):
    for name in ("../x", "/etc", ".hidden", "a b", "a/b"):
        with pytest.raises(ValueError, match="prompts: got the name"):
            BenchmarkPrompt(name, "x")
    with pytest.raises(ValueError, match="dpg: no file dpg_bench.csv or dpg/dpg_bench.csv in"):
        prompts("dpg", tmp_path)
    (tmp_path / "meta_data.json").write_text('{"x": {"prompt": "no category"}}', encoding="utf-8")
    with pytest.raises(ValueError, match="not the file of mjhq that is published"):
        prompts("mjhq", tmp_path)
    with pytest.raises(ValueError, match="wise_2025: got 4 pictures a prompt; its layout has 1"):
        exports.remaining("wise_2025", tmp_path, [], 4)
    with pytest.raises(ValueError, match="dpg: got 1 pictures of 'x', wanted 4"):
        exports.write("dpg", tmp_path, [(BenchmarkPrompt("x", "x"), [_image(0)])])
