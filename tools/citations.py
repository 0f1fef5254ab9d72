"""Citations of files and headings, which must be there: `python -m tools.citations [FOLDER]` lists those that are not.

Checked are, in code, tests and documents: paths of documents with their anchor or title ("docs/design.md, Precision"),
links of Markdown, files in backticks, and the former name of docs/reference, "spec".
"""

from collections.abc import Iterator
from pathlib import Path
import re
import sys

PACKAGE = "xgenmm_jax"
CITED_FROM = (PACKAGE, "experiments", "tests", "benchmarks", "tools", "launch", "docs", "notebooks")
SUFFIXES = (".py", ".md", ".sh", ".css", ".html")
NOT_CITATIONS = ("citations.py", "test_citations.py")
"""Files that speak of citations that do not resolve."""

PLACEHOLDERS = ("docs/log/FILE.md", "docs/reference/FILE.md", "docs/guides/optimization/custom_model.md")
"""Ways to cite, and a page of MaxText."""

DOCUMENT = re.compile(
    r"(?<![\w/])(?P<file>docs/[\w/.-]+\.(?:md|png|svg))(?:#(?P<anchor>[\w-]+))?(?:`?, (?P<title>[A-Z]\w+))?"
)
LINK = re.compile(r"\]\((?P<file>[^)#:\s]*)(?:#(?P<anchor>[\w-]+))?\)")
SPEC = re.compile(r"(?<![\w/.])spec[ /](?:[\w.]*\d[\w.]*|\w+\.md)")
PATH = re.compile(r"`(?P<file>[\w./-]*\w\.(?:py|md|sh|cfg|toml|ipynb|svg|png))(?:#(?P<anchor>[\w-]+))?`")
OTHERS_FILES = {
    "modeling_xgenmm.py": "released xGen-MM",
    "train.py": "the released training script",
    "utils.py": "the released evaluation code",
    "tiering.md": "MaxText",
    "xla_flags_library.py": "MaxText",
    "tpus.md": "jax-ml/scaling-book",
    "training.md": "jax-ml/scaling-book",
    "fuji.py": "AXLearn",
}
"""Files of other projects that code and docs name, and whose they are. `docs/reference/` names many more."""


def unresolved(root: Path) -> list[str]:
    """Citations of files and headings that are not there: "file:line: what"."""
    names = {path.name for path in _files(root)}
    problems = []
    for path in _files(root):
        if path.name in NOT_CITATIONS:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            for problem in _problems(root, path, line, names):
                problems.append(f"{path.relative_to(root)}:{number}: {problem}")
    return problems


def _files(root: Path) -> list[Path]:
    """The files that cite and may be cited."""
    paths = [path for folder in CITED_FROM for path in (root / folder).rglob("*") if path.is_file()]
    top = [path for path in root.iterdir() if path.is_file()]
    return sorted(path for path in (*paths, *top) if path.suffix in SUFFIXES)


def _problems(root: Path, path: Path, line: str, names: set[str]) -> Iterator[str]:
    for match in SPEC.finditer(line):
        yield f"'{match[0]}' is not in the project"
    for match in DOCUMENT.finditer(line):
        if match["file"] not in PLACEHOLDERS:
            yield from _missing(root / match["file"], match["anchor"], match["title"])
    if path.suffix == ".md":
        for match in LINK.finditer(line):
            yield from _missing(path.parent / match["file"] if match["file"] else path, match["anchor"], None)
    # The reference names files of other projects, the dated log files that have gone since.
    if not {"reference", "log"} & set(path.relative_to(root).parts):
        for match in PATH.finditer(line):
            file = match["file"]
            places = [root / file, root / PACKAGE / file, path.parent / file]
            is_there = any(place.exists() for place in places) or "/" not in file and file in {*names, *OTHERS_FILES}
            if not is_there and file not in PLACEHOLDERS:
                yield f"no file {file}"


def _missing(file: Path, anchor: str | None, title: str | None) -> Iterator[str]:
    if not file.exists():
        yield f"no file {file.name}"
    elif file.suffix == ".md":
        headings = anchors(file.read_text(encoding="utf-8"))
        if anchor and anchor not in headings:
            yield f"no heading #{anchor} in {file.name}"
        if title and not any(heading.startswith(title.lower()) for heading in headings):
            yield f"no heading '{title}' in {file.name}"


def anchors(text: str) -> set[str]:
    """The anchors of a Markdown text's headings, as GitHub makes them: "## Strip grouping" -> strip-grouping."""
    headings = re.findall(r"^#{1,6} +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


if __name__ == "__main__":
    print(*unresolved(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()), sep="\n")
