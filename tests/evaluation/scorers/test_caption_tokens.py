"""Captions put to Java where it is there, and what is said where it is not."""

import json
import os
from pathlib import Path
import shutil
import stat

import pytest

from xgenmm_jax.evaluation.scorers import caption_tokens, ptb

GOLDENS = Path(__file__).parents[2] / "goldens" / "evaluation"
JAR = os.environ.get(caption_tokens.JAR_VARIABLE, "")


@pytest.fixture
def stub_java(tmp_path, monkeypatch):
    """A `java` that does what a shell script says, and a jar for it."""

    def make(script):
        path = tmp_path / "bin" / "java"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nfor last; do :; done\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
        jar = tmp_path / "corenlp.jar"
        jar.touch()
        monkeypatch.setenv(caption_tokens.JAR_VARIABLE, str(jar))
        return caption_tokens.chosen()

    return make


def test_without_a_jar_the_lexer_is_ours(monkeypatch):
    monkeypatch.delenv(caption_tokens.JAR_VARIABLE, raising=False)
    name, tokenize_all = caption_tokens.chosen()
    assert name == "PTB tokens by ptb.py"
    assert tokenize_all(["A cat.", ""]) == [["a", "cat"], []]


def test_java_gets_one_line_a_caption_and_its_punctuation_is_dropped(stub_java):
    name, tokenize_all = stub_java('cat "$last"')
    assert name == "PTB tokens by CoreNLP's Java"
    assert tokenize_all(["a cat .", "b\r\n c", "", "1\u00a01/2 -lrb- é '"]) == [
        ["a", "cat"], ["b", "c"], [], ["1", "1/2", "-lrb-", "é"],
    ]  # fmt: skip


def test_a_java_that_fails_is_told(stub_java):
    _, tokenize_all = stub_java("echo no such class >&2; exit 1")
    with pytest.raises(ValueError, match=r"Java gave 1 of 2 captions and code 1 \(no such class\)"):
        tokenize_all(["a", "b"])


def test_a_missing_jar_or_java_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv(caption_tokens.JAR_VARIABLE, str(tmp_path / "none.jar"))
    with pytest.raises(ValueError, match=r"XGENMM_PTB_JAR: no file '.*none\.jar'; give stanford-corenlp"):
        caption_tokens.chosen()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="XGENMM_PTB_JAR: java does not run"):
        caption_tokens.java_tokens(["a"], tmp_path / "none.jar")


@pytest.mark.skipif(not (JAR and shutil.which("java")), reason="needs java and XGENMM_PTB_JAR")
def test_ours_are_javas_tokens():
    cases = json.loads((GOLDENS / "ptb_captions.json").read_text(encoding="utf-8"))["cases"]
    captions = [text for case in cases for text in (case["caption"], "x")]
    assert caption_tokens.java_tokens(captions, Path(JAR)) == ptb.tokenize_all(captions)
