"""Every option and argument that is a path is either taken in a bucket or refused in one sentence, before any work."""

import dataclasses
from pathlib import Path
import typing

from buckets import gs_bucket
import pytest

from xgenmm_jax.cli import (
    convert,
    curate_grounding,
    curate_noised,
    curate_ocr,
    curate_tuning_set,
    data_check,
    data_index,
    data_join,
    data_pack,
    data_urls,
    demo,
    draw,
    evaluate,
    generate,
    options,
    score,
    table,
    verify,
)
from xgenmm_jax.cli import main as cli

ARGUMENTS = {
    "convert": convert.Arguments,
    "curate grounding": curate_grounding.Arguments,
    "curate noised": curate_noised.Arguments,
    "curate ocr": curate_ocr.Arguments,
    "curate ocr-hd": curate_ocr.HdArguments,
    "curate tuning-set": curate_tuning_set.Arguments,
    "data check": data_check.Arguments,
    "data index": data_index.Arguments,
    "data join": data_join.Arguments,
    "data pack": data_pack.Arguments,
    "data urls": data_urls.Arguments,
    "demo": demo.Arguments,
    "draw": draw.Arguments,
    "evaluate": evaluate.Arguments,
    "generate": generate.Arguments,
    "score": score.Arguments,
    "table": table.Arguments,
    "verify": verify.Arguments,
}
KINDS = {
    "taken": {
        typing.get_args(kind)[1] for kind in (options.UserPath, options.RunPath, options.Source, options.RunSource)
    },
    "refused": {typing.get_args(kind)[1] for kind in (options.LocalPath, options.LocalRunPath)},
}
URL = "gs://nobucket/a/b"
EXPERIMENT = "experiments/nano/stage1.py"
NO_BUCKET, ON_DISK = "no bucket 'gs://nobucket'", "wanted a path of a file system"


def kinds_of(annotation) -> set[str]:
    """Whether a field's type is that of a path, and of which kind; "unmarked": a path of none of ours."""
    found = set()
    metadata = getattr(annotation, "__metadata__", ())
    for kind, specs in KINDS.items():
        found |= {kind} if specs & set(metadata) else set()
    inner = typing.get_args(annotation)
    if metadata:
        inner = () if found else inner[:1]
    if annotation is Path:
        found.add("unmarked")
    return found.union(*map(kinds_of, inner))


def cases():
    """(command's words with the URL in one place, what is said)."""
    for command, kind in ARGUMENTS.items():
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = dataclasses.fields(kind)
        positional = [field.name for field in fields if options._is_positional(field)]
        for field in fields:
            found = kinds_of(hints[field.name])
            assert found <= {"taken", "refused"} and len(found) < 2, f"{command}: {field.name} is a path of no kind"
            if found:
                values = [URL if name == field.name else "x" for name in positional]
                named = [] if field.name in positional else [f"--{field.name.replace('_', '-')}", URL]
                said = NO_BUCKET if found == {"taken"} else ON_DISK
                yield [*command.split(), *values, *named], said
    # Those that no dataclass has.
    code = "gs://nobucket/mine.py"
    yield ["train", code], ON_DISK
    yield ["train", EXPERIMENT, "--workdir", URL], NO_BUCKET
    yield ["plan", code, "--topology", "v5e:2x2"], ON_DISK
    yield ["plan", EXPERIMENT, "--topology", "v5e:2x2", "--json", URL], NO_BUCKET
    yield ["data", "show", code], ON_DISK
    yield ["data", "show", EXPERIMENT, "--output", URL], NO_BUCKET
    yield ["data", "index", code], ON_DISK
    yield ["data", "index", EXPERIMENT, "--workdir", URL], NO_BUCKET
    yield ["data", "check", f"{code}:mine"], ON_DISK
    yield ["data", "pack", f"{code}:mine", "x"], ON_DISK
    yield ["data", "urls", f"{code}:mine", "x"], ON_DISK
    yield ["evaluate", "x", "--tasks", f"{code}:MINE", "--data", "x"], ON_DISK
    yield ["curate", "ocr", "tars:x/*.tar", URL], "is a URL; give a folder"
    yield ["data", "pack", "tars:x/*.tar", URL, "--reader", "image_captions"], "is a URL; give a folder"


CASES = list(cases())


@pytest.fixture(scope="module", autouse=True)
def bucket():
    with pytest.MonkeyPatch.context() as patch, gs_bucket(patch) as url:
        yield url


@pytest.mark.parametrize("words, said", CASES, ids=[" ".join(words) for words, _ in CASES])
def test_a_url_is_taken_or_refused(words, said, monkeypatch, capsys, tmp_path):
    """Each but --workdir became "gs:/nobucket/a/b", of which most commands said that there was no such file."""
    monkeypatch.setattr(cli, "keep_compilations", lambda: None)
    assert cli.main(words) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and said in told, told
    assert "gs:/nobucket" not in told and not Path("gs:").exists()
    if said == ON_DISK:
        assert "'gs://nobucket/" in told


def test_all_commands_are_asked():
    assert len(CASES) > 35 and {words[0] for words, _ in CASES} == set(cli.COMMANDS)
