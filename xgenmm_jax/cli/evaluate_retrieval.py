"""`xgenmm evaluate RUN --tasks retrieval`: texts for images and images for texts, by BLIP-2's first stage."""

import json
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.cli.data_tables import print_table
from xgenmm_jax.cli.errors import nearest
from xgenmm_jax.evaluation.scorers.retrieval import CUTOFFS, Recalls
from xgenmm_jax.evaluation.tasks.retrieval_sets import SETS, RetrievalSet
from xgenmm_jax.paths import Path, local_path

ALL = "retrieval"
"""Every set whose file is there."""
DRAWN = "drawn_retrieval"
"""Held-out images of nano's world, which need no files."""
FILE = "evaluation/retrieval.json"


def is_asked(tasks: str) -> bool:
    """Whether some of these names are of retrieval. FILE.py:NAME is the user's own, whatever it is called."""
    return ".py:" not in tasks and any(ALL in name for name in _names(tasks))


def main(run: Path, tasks: str, data: Path | None, output: Path | None) -> int:
    """Writes RUN/evaluation/retrieval.json and prints a table; gives the exit code."""
    sets = chosen(tasks, data)
    from xgenmm_jax.api.retrieval import retrieve_pairs
    from xgenmm_jax.evaluation.tasks.retrieval_sets import read
    from xgenmm_jax.nano import retrieval

    pairs, titles = {}, {}
    for one in sets:
        assert data is not None
        pairs[one.name], titles[one.name] = read(one, local_path(data, "--data")), one.title
    if DRAWN in _names(tasks):
        pairs[DRAWN], titles[DRAWN] = retrieval.drawn_pairs(), retrieval.TITLE
    results = retrieve_pairs(run, pairs)
    figures: dict[str, Any] = {}
    for name, (result, cut) in results.items():
        recalls = {"contrast": _figures(result.contrast), "matched": _figures(result.matched)}
        counts = {"images": len(pairs[name].images), "texts": len(pairs[name].texts), "cut": cut}
        figures[name] = recalls | counts
    target = run / FILE if output is None else output / "retrieval.json"
    files.make_folder(target.parent)
    files.write_whole(target, json.dumps(figures, indent=2) + "\n")
    columns = ("set", "ranked by", *(f"text R@{n}" for n in CUTOFFS), *(f"image R@{n}" for n in CUTOFFS))
    rows = [
        (titles[name], kind, *(f"{value:.1f}" for value in (*recalls.to_text, *recalls.to_image)))
        for name, (result, _) in results.items()
        for kind, recalls in zip(("contrast", "matching"), result, strict=True)
    ]
    print_table(columns, rows)
    for name, (_, cut) in results.items():
        if cut:
            print(f"{titles[name]}: {cut:,} of {len(pairs[name].texts):,} texts are longer than the model reads; cut.")
    return 0


def _names(tasks: str) -> list[str]:
    return [name.strip() for name in tasks.split(",") if name.strip()]


def chosen(tasks: str, data: Path | None) -> list[RetrievalSet]:
    """The sets of files. Raises ValueError for other names beside them, without --data, or where no file is there."""
    names = [one.name for one in SETS]
    asked = _names(tasks)
    for name in asked:
        if name not in (*names, ALL, DRAWN):
            known = (*names, ALL, DRAWN)
            raise ValueError(
                f"--tasks: got {name} beside retrieval, which another model is asked; {nearest(name, known)}."
            )
    if asked == [DRAWN]:
        return []
    if data is None or not data.is_dir():
        where = "(docs/evaluation.md, Retrieval)"
        raise ValueError(f"--data: got {data or 'none'}; give the folder with coco/ and flickr30k/ {where}.")
    if ALL not in asked:
        return [one for one in SETS if one.name in asked]
    there = [one for one in SETS if (data / one.file).is_file()]
    if not there:
        raise ValueError(f"--data: '{data}' has none of {', '.join(one.file for one in SETS)}; copy Karpathy's splits.")
    return there


def _figures(recalls: Recalls) -> dict[str, float]:
    """By LAVIS' names."""
    pairs = (("txt", recalls.to_text, recalls.to_text_mean), ("img", recalls.to_image, recalls.to_image_mean))
    figures = {f"{kind}_r{n}": value for kind, values, _ in pairs for n, value in zip(CUTOFFS, values, strict=True)}
    return figures | {f"{kind}_r_mean": mean for kind, _, mean in pairs} | {"r_mean": recalls.mean}
