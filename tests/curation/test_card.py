"""The data card and the page of samples: what they say is what lies beside them."""

from pathlib import Path
import re

import curated
import PIL.Image
import pytest
import yaml

from xgenmm_jax.curation import card, charts, samples
from xgenmm_jax.curation.shards import Options


@pytest.fixture
def result(tmp_path: Path):
    """(folder, what was made, source, maker)."""
    source, maker = curated.images(tmp_path / "tars"), curated.rows_of()
    return tmp_path / "made", curated.made(source, tmp_path / "made", maker), source, maker


def test_the_card_counts_what_was_made_and_left_out(result):
    folder, made, _, maker = result
    text = card.write(folder, made, maker, Options(), "xgenmm curate ocr 'tars:*.tar' made").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "cc0" and front["size_categories"] == ["n<1K"]
    assert front["configs"] == [{"config_name": "default", "data_files": "data/*.parquet"}]
    for line in (
        "| rows | 9 |", "| images looked at | 12 |", "| `captions` | string |", "| least confidence | 0.5 |",
        "| unreadable image | 3 | 00000.tar/000000001: image:", "    xgenmm curate ocr 'tars:*.tar' made",
        "| duplicates left out | no |", "Confidences, in bins of 0.05: 0.90 9.",
    ):  # fmt: skip
        assert line in text, line
    linked = re.findall(r"!\[\w+\]\((.*?)\)", text)
    assert linked == ["card/confidences.png", "card/licences.png"]
    for name in linked:
        with PIL.Image.open(folder / name) as chart:
            assert chart.width > 500


def test_the_card_of_the_same_rows_is_the_same(result):
    folder, made, _, maker = result
    card.write(folder, made, maker, Options(), "xgenmm curate")
    before = {path.name: path.read_bytes() for path in [folder / "README.md", *(folder / "card").iterdir()]}
    card.write(folder, made, maker, Options(), "xgenmm curate")
    assert before == {path.name: path.read_bytes() for path in [folder / "README.md", *(folder / "card").iterdir()]}


def test_a_card_of_several_licences_names_none_of_them(result):
    folder, made, _, maker = result
    figures = {"licences": {"cc0": 2, "cc-by-4.0": 1}}
    note = made.notes[0]._replace(figures=figures)
    text = card.markdown(made._replace(notes=(note,)), maker, Options(), "x", figures)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "other"


@pytest.mark.parametrize("images", [True, False])
def test_samples_show_boxes_on_pictures_and_escape_texts(tmp_path, images):
    """Where rows have no images they are read from the source again."""
    source, maker = curated.images(tmp_path / "tars"), curated.rows_of()
    made = curated.made(source, tmp_path / "made", maker, images=images)
    page = samples.render(tmp_path / "made", made, source, maker, seed=3)
    assert page.count("<article") == 9 and page.count('src="data:image/jpeg') == 9
    assert page.count('<rect class="c0" x="0.0" y="0.0" width="0.5" height="0.25">') == 9
    assert "&lt;ocr&gt;" in page and "<ocr>" not in page and "No image" not in page


def test_twenty_rows_are_drawn_each_as_likely(tmp_path):
    made = curated.made(curated.images(tmp_path / "tars"), tmp_path / "made")
    notes = tuple(note._replace(rows=rows) for note, rows in zip(made.notes, (30, 0, 70), strict=True))
    counts = {}
    for seed in range(300):
        drawn = samples.draw(notes, seed)
        places = {(note.shard, number) for note, number in drawn}
        assert len(places) == 20 and all(0 <= number < note.rows for note, number in drawn)
        for place in places:
            counts[place] = counts.get(place, 0) + 1
    assert len(counts) == 100 and min(counts.values()) > 30 and max(counts.values()) < 95


def test_of_many_names_the_largest_bars_stay():
    assert charts.ordered({"0.95": 1, "0.80": 5}) == [("0.80", 5), ("0.85", 0), ("0.90", 0), ("0.95", 1)]
    assert charts.ordered({"9": 1, "11": 5}) == [("9", 1), ("10", 0), ("11", 5)]
    bars = charts.ordered({f"tag {number:02}": number for number in range(30)})
    assert len(bars) == charts.MOST_BARS and bars[0] == ("tag 29", 29) and bars[-1] == ("7 others", 21)
