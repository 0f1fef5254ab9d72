"""Text files mean the same on every machine."""

import contextlib
import json
import os
from pathlib import Path
import socket
import stat
import subprocess
import sys

import pytest

from xgenmm_jax import files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_is_utf8_with_or_without_a_mark(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("é\r\nb", encoding=encoding, newline="")
    assert files.read_text(tmp_path / "a.txt") == "é\r\nb"
    assert files.read_lines(tmp_path / "a.txt") == ["é", "b"]


def test_lines_end_at_newlines_alone(tmp_path):
    """`splitlines` tore JSON lines at U+2028, U+0085 and form feeds."""
    text = "a\u2028b\u0085c\x0cd\x1ee"
    (tmp_path / "a.jsonl").write_text(json.dumps({"t": text}, ensure_ascii=False) + "\n\n[1]\n", encoding="utf-8")
    assert list(files.json_lines(tmp_path / "a.jsonl")) == [(1, {"t": text}), (3, [1])]


def test_what_is_no_utf8_is_named_with_its_byte(tmp_path):
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.txt' is not UTF-8 \(byte 0xe9 at 1\)"):
        files.read_text(tmp_path / "latin.txt")
    assert files.read_text(tmp_path / "latin.txt", errors="replace") == "n\ufffd"
    (tmp_path / "wide.txt").write_text("a", encoding="utf-16")
    with pytest.raises(ValueError, match="perhaps UTF-16"):
        files.read_text(tmp_path / "wide.txt")


def test_lone_surrogates_become_replacement_characters_and_pairs_their_character():
    assert files.parse_json(r'{"a\ud83d": ["x\ude00", "\ud83d\ude00"]}') == {"a\ufffd": ["x\ufffd", "😀"]}
    assert files.without_surrogates("\ud83d\ude00 \ud83d") == "😀 \ufffd"


def test_json_that_is_torn_or_nested_without_end_is_an_error_with_its_place(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": ')
    with pytest.raises(ValueError, match="a.jsonl' line 2 is not JSON"):
        list(files.json_lines(tmp_path / "a.jsonl"))
    assert files.whole_json_lines(tmp_path / "a.jsonl") == [{"a": 1}]
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="deep.json' is not JSON"):
        files.read_json(tmp_path / "deep.json")


@pytest.mark.parametrize("depth", [200, 400, 600, 800, 900, 950])
def test_json_that_nests_deeply_is_read_or_refused(depth):
    """Replacing halves of characters took more of the stack than the parser, and ended the run."""
    text = "[" * depth + '"\\ud83d"' + "]" * depth
    for one in (text, text.encode()):
        try:
            value = files.parse_json(one)
        except ValueError as error:
            assert "nested too deeply" in str(error)
        else:
            for _ in range(depth):
                [value] = value
            assert value == "\ufffd"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    files.write_whole(tmp_path / "a", "old é")

    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_whole(tmp_path / "a", fail)
    assert files.read_text(tmp_path / "a") == "old é"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_was_writing_can_be_deleted_and_what_others_write_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    names = {
        f"a.npz.{host}-{dead.pid}-5.partial": False,
        f"a.npz.{host}-{os.getpid()}-5.partial": True,  # a thread of a process that runs
        f"a.npz.another-{dead.pid}-5.partial": True,  # of another machine: nobody here knows whether it runs
        "folder.partial": True,
        f"a.npz.{host}-{dead.pid}-5": True,
    }
    for name in names:
        (tmp_path / name).touch()
    files.delete_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}
    files.delete_unfinished(tmp_path / "nowhere")


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_is_written_whole_or_not_at_all(tmp_path, replace):
    """And what another process has there is replaced where that is asked for alone."""
    path = tmp_path / "a"
    with pytest.raises(OSError, match="disk full"), files.whole_folder(path, replace) as folder:
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
    with files.whole_folder(path, replace) as folder:
        (folder / "old").touch()
    files.partial_folder(path).mkdir()
    with contextlib.nullcontext() if replace else pytest.raises(FileExistsError):
        with files.whole_folder(path, replace) as folder:
            (folder / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new" if replace else "old"]
    assert files.partial_folder(path).exists() is not replace


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    """`--json /dev/stdout`; by renaming, root would make a file of /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_whole(tmp_path / "pipe", "é\ud800")
    assert os.read(reader, 100).decode() == "é\ufffd"
    os.close(reader)
    files.write_whole(Path(os.devnull), lambda path: path.write_bytes(b"x"))
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode) and [path.name for path in tmp_path.iterdir()] == ["pipe"]
