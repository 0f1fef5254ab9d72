"""Every document, heading and file that code, tests and documents name is there."""

from pathlib import Path

import pytest

from tools import citations

ROOT = Path(__file__).parents[1]


def test_every_citation_resolves():
    """Reasons ended in a wall: "spec 2.3" was no file of the project, and files had moved since they were named."""
    problems = citations.unresolved(ROOT)
    assert not problems, "\n".join(["citations that do not resolve (tools/citations.py):", *problems])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project of one document and one module, whose citations resolve."""
    for folder in ("docs", "xgenmm_jax/models"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "docs" / "design.md").write_text("# Design\n\n## Layers, and *why*\n\n## Precision\n", encoding="utf-8")
    vit = tmp_path / "xgenmm_jax" / "models" / "vit.py"
    vit.write_text('"""See docs/design.md, Precision."""\n', encoding="utf-8")
    assert citations.unresolved(tmp_path) == []
    return tmp_path


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("docs/design.md#layers-and-why, docs/design.md, `models/vit.py`, `vit.py`, `docs/design.md`", None),
        ("docs/gone.md", "no file gone.md"),
        ("docs/design.md#gone", "no heading #gone in design.md"),
        ("(docs/design.md, Speed)", "no heading 'Speed' in design.md"),
        ("see `models/eva.py`", "no file models/eva.py"),
        ("see `eva.py`", "no file eva.py"),
        ("as spec 2.3 says", "'spec 2.3' is not in the project"),
        ("https://git-lfs.github.com/spec/v1", None),
    ],
)
def test_a_citation_of_what_is_not_there_is_named_with_its_line(checkout: Path, line: str, problem: str | None):
    (checkout / "xgenmm_jax" / "batch.py").write_text(f'"""The contract.\n\n{line}\n"""\n', encoding="utf-8")
    expected = [] if problem is None else [f"xgenmm_jax/batch.py:3: {problem}"]
    assert citations.unresolved(checkout) == expected


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("[a](design.md#precision) [b](#this) [c](https://example.org/x.md#y)", None),
        ("[a](gone.md)", "no file gone.md"),
        ("[a](#that)", "no heading #that in other.md"),
    ],
)
def test_links_of_markdown_are_followed_from_their_own_folder(checkout: Path, link: str, problem: str | None):
    (checkout / "docs" / "other.md").write_text(f"# This\n\n{link}\n", encoding="utf-8")
    expected = [] if problem is None else [f"docs/other.md:3: {problem}"]
    assert citations.unresolved(checkout) == expected
