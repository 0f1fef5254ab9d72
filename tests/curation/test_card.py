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
    assert (front["license"], front["license_name"]) == ("other", "cc0") and front["size_categories"] == ["n<1K"]
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


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        ({"cc0-1.0": 2}, {"license": "cc0-1.0"}),
        ({"CC-BY-NC-SA-4.0": 2}, {"license": "cc-by-nc-sa-4.0"}),
        ({"CC BY 4.0 (of the author)": 2}, {"license": "other", "license_name": "cc-by-4.0-of-the-author"}),
        ({"©": 2}, {"license": "other", "license_name": "own"}),
        ({"cc0-1.0": 2, "cc-by-4.0": 1}, {"license": "other", "license_name": "several"}),
        ({"not said": 3}, {"license": "unknown"}),
        ({}, {"license": "unknown"}),
    ],
)
def test_a_licence_is_the_hubs_name_of_it_or_another(result, licences, said):
    """The hub knows a licence by its own names alone; of several none is the data's."""
    _, made, _, maker = result
    text = card.markdown(made, maker, Options(), "x", {"licences": licences})
    front = yaml.safe_load(text.split("---\n")[1])
    assert {name: value for name, value in front.items() if name.startswith("license")} == said


@pytest.mark.parametrize(
    ("rows", "name"), [(0, "n<1K"), (1_000, "1K<n<10K"), (1_500_000, "1M<n<10M"), (200_000_000, "100M<n<1B")]
)
def test_a_size_is_the_hubs_name_of_it(rows, name):
    """Sets of a million rows and more were "n>1M", which the hub has not."""
    assert card.size_name(rows) == name


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


def test_names_below_bars_do_not_lie_over_each_other(monkeypatch):
    """Turned ones were centred at their bars; places were cut to "at the bottom left c"."""
    figure = pytest.importorskip("matplotlib.figure", reason="draws the charts")
    drawn = []
    save = figure.Figure.savefig
    kept = lambda self, *args, **options: drawn.append(self) or save(self, *args, **options)  # noqa: E731
    monkeypatch.setattr(figure.Figure, "savefig", kept)
    charts.bar_chart("places", {"at the bottom left corner": 2, "at the bottom right corner": 1, "in the center": 9})
    charts.bar_chart("licences", {"cc-by-4.0": 1, "cc0-1.0": 2})
    (turned, plain) = ([one.axes[0].get_xticklabels(), one.axes[0].get_yticks()] for one in drawn)
    assert [label.get_text() for label in turned[0]][1:] == ["at the bottom left corner", "at the bottom right corner"]
    assert {(label.get_ha(), label.get_rotation()) for label in turned[0]} == {("right", 60.0)}
    assert {(label.get_ha(), label.get_rotation()) for label in plain[0]} == {("center", 0.0)}
    assert all(tick == int(tick) for tick in plain[1])
