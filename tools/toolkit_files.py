"""The rows of `toolkit_rows.py` in the containers that the toolkits and `xgenmm evaluate` read."""

import base64
from collections.abc import Mapping, Sequence
import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tools import toolkit_rows
from tools.toolkit_rows import LETTERS, MuirRow, PopeRow

PICTURE = {"_type": "Image"}
TEXT = {"dtype": "string", "_type": "Value"}


def write_all(folder: Path, pope: Sequence[PopeRow], muir: Sequence[MuirRow]) -> None:
    """POPE.tsv and MUIRBench.tsv as VLMEvalKit has them, POPE/data and MUIRBENCH/data as the Hugging Face hub."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tsv(folder / "POPE.tsv", [_pope_line(row) for row in pope])
    _write_tsv(folder / "MUIRBench.tsv", [_muir_line(row) for row in muir])
    docs = [_pope_doc(number, *doc) for number, doc in enumerate(toolkit_rows.pope_docs(pope))]
    _write_parquet(pope_parquet(folder), docs, {"image": PICTURE})
    lists = {"options": {"feature": TEXT, "_type": "List"}, "image_list": {"feature": PICTURE, "_type": "List"}}
    _write_parquet(muir_parquet(folder), [_muir_doc(row) for row in muir], lists)


def pope_parquet(folder: Path) -> Path:
    return folder / "POPE" / "data" / "test-00000-of-00001.parquet"


def muir_parquet(folder: Path) -> Path:
    return folder / "MUIRBENCH" / "data" / "test-00000-of-00001.parquet"


def _pope_line(row: PopeRow) -> dict[str, str]:
    picture = base64.b64encode(row.picture).decode() if row.image_of is None else str(row.image_of)
    return {
        "index": str(row.index), "image": picture, "question": row.question, "answer": row.answer,
        "category": ",".join(row.categories),
    }  # fmt: skip


def _pope_doc(number: int, row: PopeRow, category: str) -> dict[str, Any]:
    return {
        "id": str(number), "question_id": str(number), "question": row.question, "answer": row.answer.lower(),
        "image_source": f"drawn_{row.index if row.image_of is None else row.image_of}", "image": _cell(row.picture),
        "category": category,
    }  # fmt: skip


def _muir_line(row: MuirRow) -> dict[str, str]:
    pictures = [base64.b64encode(picture).decode() for picture in row.pictures]
    options = dict.fromkeys(LETTERS, "") | dict(zip(LETTERS, row.options, strict=False))
    names = [f"{row.index}_{number}.png" for number in range(len(pictures))]
    return {
        "index": str(row.index), "question": row.question, **options, "answer": row.answer, "category": row.task,
        "image": str(pictures), "image_path": str(names), "image_relation": "Independent", "image_type": "Drawing",
    }  # fmt: skip


def _muir_doc(row: MuirRow) -> dict[str, Any]:
    return {
        "idx": str(row.index), "task": row.task, "image_relation": "Independent", "image_type": "Drawing",
        "question": row.question, "options": list(row.options), "answer": row.answer,
        "image_list": [_cell(picture) for picture in row.pictures], "counterpart_idx": str(row.index),
    }  # fmt: skip


def _cell(picture: bytes) -> dict[str, Any]:
    return {"bytes": picture, "path": None}


def _write_tsv(path: Path, lines: Sequence[Mapping[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(lines[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    path.write_text(buffer.getvalue(), encoding="utf-8")


def _write_parquet(path: Path, docs: Sequence[Mapping[str, Any]], special: Mapping[str, Any]) -> None:
    """special: features that are no texts, as the library `datasets` describes them; it reads them from the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = []
    for name in docs[0]:
        kind = special.get(name, TEXT)
        inner = picture if PICTURE in (kind, kind.get("feature")) else pa.string()
        columns.append(pa.field(name, pa.list_(inner) if kind["_type"] == "List" else inner))
    features = {name: special.get(name, TEXT) for name in docs[0]}
    schema = pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(pa.Table.from_pylist(list(docs), schema), path)
