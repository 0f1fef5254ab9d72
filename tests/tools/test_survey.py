"""The survey of the code counts what it says."""

import ast
from pathlib import Path

import pytest

from tools import survey, survey_ways

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("title", survey_ways.WAYS)
def test_each_way_of_this_checkout_can_be_walked(title: str):
    """A definition that moved left a way that nobody could follow, and a figure in docs/design.md that was wrong."""
    jumps, files = survey_ways.walk(ROOT, survey_ways.ways_of(ROOT)[title])
    assert jumps == len(survey_ways.WAYS[title]) - 1 and files <= jumps


def test_an_experiment_leads_to_its_loss_in_five_jumps():
    jumps, _ = survey_ways.walk(ROOT, survey_ways.WAYS["from experiments/stage1.py to the loss"])
    assert jumps <= 5


@pytest.mark.parametrize("title", sorted(survey.ONE_OF_EACH.keys() - {"classes with an attention of their own"}))
def test_this_checkout_has_one_of_each(title: str, figures: dict[str, tuple[str, list[str]]]):
    figure, modules = figures[title]
    assert figure == "1", modules


def test_this_checkout_has_no_words_of_its_own_and_only_known_attentions(figures: dict[str, tuple[str, list[str]]]):
    assert figures["identifiers of our own"] == ("0", [])
    attentions = {name.split(":")[1] for name in figures["classes with an attention of their own"][1]}
    # docs/design.md says why each of the other three is no MultiHeadAttention.
    assert attentions == {"MultiHeadAttention", "DecoderBlock", "ResamplerBlock", "DiTBlock"}


@pytest.fixture(scope="module")
def figures() -> dict[str, tuple[str, list[str]]]:
    return {title: (figure, details) for title, figure, details in survey.rows(ROOT)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Three definitions in two files; `first` names `Second`, whose method names `third`."""
    (tmp_path / "a.py").write_text("def first():\n    return Second()\n\n\ndef third():\n    pass\n", encoding="utf-8")
    (tmp_path / "b.py").write_text("class Second:\n    def go(self):\n        third()\n", encoding="utf-8")
    return tmp_path


def test_a_way_has_a_jump_between_two_definitions_and_counts_a_file_once(checkout: Path):
    assert survey_ways.walk(checkout, ("a.py:first", "b.py:Second", "a.py:third")) == (2, 2)
    assert survey_ways.walk(checkout, ("b.py:Second", "b.py:Second.go", "a.py:third")) == (2, 2)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (("a.py:first", "a.py:third"), "neither of a.py:first and a.py:third mentions the other"),
        (("a.py:first", "b.py:Third"), "b.py defines no Third"),
        (("a.py:first", "c.py:Second"), "c.py defines no Second"),
    ],
)
def test_a_way_that_is_broken_is_refused(checkout: Path, steps: tuple[str, ...], problem: str):
    with pytest.raises(ValueError, match=problem):
        survey_ways.walk(checkout, steps)


@pytest.mark.parametrize(
    ("title", "code", "count"),
    [
        ("modules that fill a `Batch`", "Batch(token_ids=a, slot=b)", 1),
        ("modules that fill a `Batch`", "out.slot[0] = 1", 1),
        ("modules that fill a `Batch`", "Batch(*arrays); read = batch.slot[0]", 0),
        ("modules that assemble a step", "step = make_step(config)", 1),
        ("modules that assemble a step", "def make_step(config): pass", 0),
        ("modules that write beside and rename", "beside = path.with_suffix('.partial'); beside.replace(path)", 1),
        ("modules that write beside and rename", "beside = path.with_suffix('.partial'); 'ab'.replace('a', 'b')", 0),
        ("signatures that spell out decoding options", "def f(*, temperature, top_k, top_p): pass", 1),
        ("signatures that spell out decoding options", "def f(decoding): temperature = top_k = top_p = 1", 0),
        ("classes with an attention of their own", "class A:\n def __call__(self): attend(q, k, v)", 1),
    ],
)
def test_one_of_each_is_told_from_the_syntax(title: str, code: str, count: int):
    assert len(survey.ONE_OF_EACH[title]("xgenmm_jax/models/a.py", ast.parse(code))) == count


def test_words_are_counted_as_identifiers_and_not_where_they_have_another_sense():
    code = "def f(place, Size):\n    'a place'  # place\n    return place.found"
    assert survey.own_words({"xgenmm_jax/data/a.py": ast.parse(code)}) == {"place": 2, "found": 1}
    assert survey.own_words({"xgenmm_jax/models/a.py": ast.parse(code)}) == {"place": 2, "Size": 1, "found": 1}


def test_comments_count_where_they_stand_alone_in_a_long_function():
    long = "def f():\n" + "    x = 1  # beside\n" * 38 + "    # alone\n    return x\n"
    short = "def g():\n    # alone\n    pass\n"
    texts = {"a.py": long + short}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    assert survey.comment_share(texts, trees) == pytest.approx(100 / 41)
