"""Counts how easily a stranger walks the code: `python -m tools.survey [FOLDER]`; docs/design.md keeps the table.

FOLDER: a checkout; by default the one that this file lies in. Every line is computed from the source text, so older
commits can be compared: `git worktree add ../before d833a01`, then `python -m tools.survey ../before`.
"""

import argparse
import ast
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
import statistics
import tokenize

from tools import survey_ways
from tools.citations import PACKAGE, unresolved

# ---------------------------------------------------------------- identifiers

WORDS = {
    "attention": ("Sight", "Causal", "reach", "packed_rows", "seen_keys", "long_rows", "product", "normed_product"),
    "kernels": ("matvec", "real_crops", "Placement", "placement", "layers_apart"),
    "model": ("grouping", "Sampling", "projector", "Projector", "vocab_rows", "initial_len", "additional"),
    "data and training": ("place", "places", "Speedometer", "accounting", "Load", "Size", "Window", "dice"),
    "conversion": ("imported", "Given", "recognize", "made"),
    "evaluation": ("Measure", "Case", "Answer", "_Asker"),
    "probing": ("looking", "comparing"),
    "variables": ("turned", "wanted", "found", "kept", "told", "own"),
    "images": ("picture", "pictures", "Picture"),
}
"""Identifiers of our own that have a common word: docs/design.md, "Words"."""

_OF_DATA = (f"{PACKAGE}/data/", f"{PACKAGE}/reporting/window_rows.py")
KEPT_WORDS = {
    "Sampling": (
        tuple(f"{PACKAGE}/{name}" for name in ("api/", "cli/", "generation/images/", "nano/drawing/")),
        "of images from a diffusion transformer; the resampler has TokenSampling",
    ),
    "Size": (_OF_DATA, "what a sample takes of a row: positions, crops, images, segments"),
    "Window": (_OF_DATA, "the samples that are packed together; attention has SlidingWindow"),
    "product": ((*_OF_DATA, f"{PACKAGE}/planning/"), "itertools.product; a matrix product of a step"),
}
"""Word -> (the files, by the beginning of their path, where it stays in another sense, that sense)."""

# ---------------------------------------------------------------- one of each


def _fills_batch(name: str, tree: ast.Module) -> list[str]:
    """Modules that make a `Batch` of arrays, or write into its arrays. A class of the module's own is none."""
    fields = {"token_ids", "segment_ids", "loss_mask", "slot", "positions"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and name != f"{PACKAGE}/batch.py":
            fields -= {getattr(item.target, "id", "") for item in node.body if isinstance(item, ast.AnnAssign)}
    for node in ast.walk(tree):
        keywords = node.keywords if isinstance(node, ast.Call) and _called(node) == "Batch" else []
        targets = node.targets if isinstance(node, ast.Assign) else []
        is_written = any(isinstance(t, ast.Subscript) and getattr(t.value, "attr", "") in fields for t in targets)
        if is_written or any(keyword.arg in fields for keyword in keywords):
            return [name]
    return []


def _assembles_step(name: str, tree: ast.Module) -> list[str]:
    """Modules that put optimizer, mesh and objective together into a step."""
    return [name] if any(isinstance(n, ast.Call) and _called(n) == "make_step" for n in ast.walk(tree)) else []


LOCK = f"{PACKAGE}/training/runs/run_lock.py"
"""Another mechanism: a hard link that one of several processes can make, and a replacement that looks once more at
what it replaces."""


def _renames(name: str, tree: ast.Module) -> list[str]:
    """Modules that write beside a file's or folder's path and rename to it."""
    if name == LOCK:
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and str(node.value).endswith((".part", ".partial")):
            calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
            is_path = [len(c.args) == 1 and not c.keywords and c.func.attr in ("replace", "rename") for c in calls]
            is_os = [c.func.attr in ("replace", "link") and getattr(c.func.value, "id", "") == "os" for c in calls]
            if any(is_path) or any(is_os):
                return [name]
    return []


def _spells_decoding(name: str, tree: ast.Module) -> list[str]:
    """Functions whose arguments, and classes whose fields, are the options of decoding one by one."""
    matches = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
        elif isinstance(node, ast.ClassDef):
            names = [getattr(item.target, "id", "") for item in node.body if isinstance(item, ast.AnnAssign)]
        if {"temperature", "top_k", "top_p"} <= set(names):
            matches.append(f"{name}:{node.name}")
    return matches


def _attends(name: str, tree: ast.Module) -> list[str]:
    """Classes outside of the operations that map their inputs to queries, keys and values themselves.

    Whatever else they do there: a decoder's block counts, too, which turns queries and keys and writes a cache.
    """
    if name.startswith((f"{PACKAGE}/ops/", "benchmarks/")):
        return []
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [
        f"{name}:{node.name}"
        for node in classes
        if any(isinstance(n, ast.Call) and _called(n) == "attend" for n in ast.walk(node))
    ]


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


ONE_OF_EACH: dict[str, Callable[[str, ast.Module], list[str]]] = {
    "modules that fill a `Batch`": _fills_batch,
    "modules that assemble a step": _assembles_step,
    "modules that write beside and rename": _renames,
    "signatures that spell out decoding options": _spells_decoding,
    "classes with an attention of their own": _attends,
}

# ---------------------------------------------------------------- the table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1])
    root = parser.parse_args().folder.resolve()
    for title, figure, details in rows(root):
        print(f"| {title} | {figure} |")
        for detail in details:
            print(f"    {detail}")


def rows(root: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(what, figure, what it is made of) of the table."""
    sources = _python(root, PACKAGE)
    trees = {name: ast.parse(text) for name, text in sources.items()}
    nano = {name for name in sources if name.startswith(f"{PACKAGE}/nano/")}
    yield "lines, core", f"{sum(_lines(text) for name, text in sources.items() if name not in nano):,}", []
    yield "lines, nano", f"{sum(_lines(sources[name]) for name in nano):,}", []
    sizes = [_lines(text) for text in sources.values() if text.strip()]
    figures = f"{len(sizes)}, {statistics.median(sizes):.0f}, {max(sizes)}"
    yield "files that are not empty, median lines, most", figures, []
    for title, steps in survey_ways.ways_of(root).items():
        try:
            jumps, visited = survey_ways.walk(root, steps)
            yield f"{title}: jumps, files", f"{jumps}, {visited}", []
        except ValueError as error:
            yield f"{title}: jumps, files", str(error), []
    everything = trees | {name: ast.parse(text) for name, text in _python(root, "benchmarks").items()}
    for title, matches in ONE_OF_EACH.items():
        found = [match for name, tree in everything.items() for match in matches(name, tree)]
        yield title, str(len(found)), found
    counts = own_words(trees)
    yield "identifiers of our own", str(sum(counts.values())), [f"{word} {count}" for word, count in counts.items()]
    problems = unresolved(root)
    yield "citations that do not resolve", str(len(problems)), problems
    yield "comment lines per 100 in functions of more than 30 lines", f"{comment_share(sources, trees):.1f}", []


def _python(root: Path, folder: str) -> dict[str, str]:
    """Name below the root -> text of a folder's Python files."""
    paths = sorted((root / folder).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _lines(text: str) -> int:
    return len(text.splitlines())


def own_words(trees: dict[str, ast.Module]) -> dict[str, int]:
    """How often each word of WORDS is an identifier in a sense that has a common word."""
    counts: Counter[str] = Counter()
    listed = {word for words in WORDS.values() for word in words}
    for file, tree in trees.items():
        for name in identifiers_of(tree):
            if name in listed and not (name in KEPT_WORDS and file.startswith(KEPT_WORDS[name][0])):
                counts[name] += 1
    return {word: counts[word] for words in WORDS.values() for word in words if counts[word]}


def identifiers_of(tree: ast.Module) -> Iterator[str]:
    """Every name that the code defines or uses: variables, arguments, fields, functions, classes, modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield from node.name.split(".")


def comment_share(sources: dict[str, str], trees: dict[str, ast.Module]) -> float:
    """Lines that are a comment alone, per 100 lines of functions of more than 30 lines."""
    comments = total = 0
    for name, tree in trees.items():
        lines = sources[name].splitlines()
        alone = set()
        for token in tokenize.generate_tokens(iter([f"{line}\n" for line in lines]).__next__):
            if token.type == tokenize.COMMENT and lines[token.start[0] - 1].lstrip().startswith("#"):
                alone.add(token.start[0])
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > 30:
                span = range(node.lineno, node.end_lineno + 1)
                comments += len(alone.intersection(span))
                total += len(span)
    return 100 * comments / max(total, 1)


if __name__ == "__main__":
    main()
