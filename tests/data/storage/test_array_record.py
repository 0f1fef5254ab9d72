"""Files of records: none of them counts as empty because it cannot be read."""

import io
import json
import os
from pathlib import Path
import subprocess
import sys
import textwrap
import threading

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers import records
from xgenmm_jax.data.readers.records import RecordFiles, write_records
from xgenmm_jax.data.records import Caption, Conversation, Document, LazyImage, Turn
from xgenmm_jax.data.storage import array_record

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(array_record.__file__).parents[3])}
RNG = np.random.default_rng(0)
CONVERSATION = (Turn("user", "Hi"), Turn("assistant", "Yes."))


def write(path: Path, records: int, name: str = "r") -> None:
    records_and_blobs = ((Conversation(f"{name}{n}", (), CONVERSATION), []) for n in range(records))
    assert write_records(path, records_and_blobs) == records


def ids(pattern: Path | str) -> list[str]:
    source = RecordFiles(str(pattern)).open()
    return [source.record(i, RNG).id for i in range(len(source))]


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        write(tmp_path / f"a-{number}.array_record", 2, f"{number}/")
    return tmp_path


def damaged(data: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "cut in half": data[: len(data) // 2],
        "cut by a byte": data[:-1],
        "zeros": bytes(len(data)),
        "a text": b"these are no records\n" * 4000,
        "one byte": b"\x00",
        "more behind": data + b"more",
        "json": b'[{"id": 1}]',
    }[how]


HOW = ["empty", "cut in half", "cut by a byte", "zeros", "a text", "one byte", "more behind", "json"]


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_a_damaged_file_is_named_before_the_first_step(folder, how, noted):
    """array_record says nothing and counts 0 records: the run went on without them."""
    path = folder / "a-1.array_record"
    path.write_bytes(damaged(path.read_bytes(), how))
    if not noted:
        (folder / array_record.NOTE_FILE).unlink()
    with pytest.raises(SourceError, match="a-1.array_record"):
        ids(folder / "*.array_record")


@pytest.mark.parametrize("noted", [True, False])
def test_whole_files_are_read_noted_or_not(folder, noted):
    if not noted:
        (folder / array_record.NOTE_FILE).unlink()
    assert ids(folder / "*.array_record") == ["0/0", "0/1", "1/0", "1/1", "2/0", "2/1"]


def test_files_and_note_are_held_to_each_other(folder):
    """A file that was not copied, or stayed from before, changed the data of a run unseen."""
    (folder / "a-1.array_record").rename(folder / "b-1.array_record")
    said = "a-1.array_record' is missing.* note them with python -m xgenmm_jax.data.storage.array_record"
    with pytest.raises(SourceError, match=said):
        ids(folder / "a-*.array_record")
    assert ids(folder / "a-[02].array_record") == ["0/0", "0/1", "2/0", "2/1"]
    with pytest.raises(SourceError, match="b-1.array_record' is not noted"):
        ids(folder / "b*")
    with pytest.raises(SourceError, match="a-1.array_record' is missing"):  # none matches, one should
        ids(folder / "a-1*")


def test_a_file_of_the_noted_size_and_another_number_is_told_when_it_is_read(folder):
    """Sizes are multiples of 64 KiB, so small files have the same."""
    other = folder / "other"
    other.mkdir()
    write(other / "a-1.array_record", 1)
    (other / "a-1.array_record").replace(folder / "a-1.array_record")
    with pytest.raises(SourceError, match="a-1.array_record' holds 1 records and shards.json beside it says 2"):
        ids(folder / "*.array_record")


def test_noting_anew_makes_the_files_as_they_are_the_data(folder, capsys):
    (folder / "a-0.array_record").unlink()
    (folder / "a-1.array_record").rename(folder / "b-1.array_record")
    assert array_record.main([str(folder / "*.array_record")]) == 0
    assert "2 files, 4 records noted" in capsys.readouterr().out
    assert ids(folder / "*.array_record") == ["2/0", "2/1", "1/0", "1/1"]
    # What does not match is left as it was noted.
    (folder / "b-1.array_record").unlink()
    assert array_record.main([str(folder / "a*")]) == 0
    assert set(array_record.read_note(folder)) == {"a-2.array_record", "b-1.array_record"}
    (folder / "c.array_record").write_bytes(b"")
    assert array_record.main([str(folder / "c*")]) == 1
    assert "c.array_record' is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "note",
    [
        "", "{", "[]", '{"shards": 3}', '{"shards": [{"name": "a"}]}', '{"shards": [[1]]}', '{"shards": null}',
        '{"shards": [{"name": "a", "records": -1, "bytes": 0}]}', '{"shards": [{"name": 1, "records": 1, "bytes": 0}]}',
        '{"shards": [{"name": "a", "records": "2", "bytes": 0}]}',
    ],
)  # fmt: skip
def test_a_note_of_another_form_is_one_sentence(folder, note):
    (folder / array_record.NOTE_FILE).write_text(note)
    with pytest.raises(SourceError, match="shards.json' is not .*; delete it, and note them with"):
        ids(folder / "*.array_record")


def test_the_note_says_what_the_folder_holds(folder):
    rows = json.loads((folder / "shards.json").read_text())["shards"]
    assert [(row["name"], row["records"]) for row in rows] == [(f"a-{n}.array_record", 2) for n in range(3)]
    assert all(row["bytes"] == (folder / row["name"]).stat().st_size for row in rows)
    write(folder / "a-1.array_record", 5)
    assert len(ids(folder / "*.array_record")) == 9
    # Neither the note nor a file that is being written is taken for records.
    (folder / "a-9.array_record.7-7.part").write_bytes(b"x")
    assert len(ids(folder / "*")) == 9


WRITER = """
    import sys
    from xgenmm_jax.data.readers.records import write_records
    from xgenmm_jax.data.records import Document
    folder, *names = sys.argv[1:]
    for name in names:
        write_records(f"{folder}/{name}.array_record", [(Document(name, ("x",)), [])])
"""


def test_several_writers_note_what_they_write_in_one_folder(tmp_path):
    """The note of one writer must not lose another's."""
    names = [[f"{writer}-{n}" for n in range(40)] for writer in range(6)]

    def write_many(shards: list[str]) -> None:
        for name in shards:
            write_records(tmp_path / f"{name}.array_record", [(Document(name, ("x",)), [])])

    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    processes = [subprocess.Popen([*command, *shards], env=ENVIRONMENT) for shards in names[:2]]
    threads = [threading.Thread(target=write_many, args=(shards,)) for shards in names[2:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sorted(ids(tmp_path / "*.array_record")) == sorted(name for shards in names for name in shards)


FULL = """
    import resource, signal, sys
    from xgenmm_jax.data.storage.array_record import write_blobs
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    write_blobs(sys.argv[1], [bytes(5_000)] * 300)
"""


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(SourceError, match="a.array_record' was not written .*No such file.*is its folder there"):
        write(tmp_path / "none" / "a.array_record", 1)
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path / "a.array_record")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert "SourceError: data: " in done.stderr and "File too large" in done.stderr
    assert not list(tmp_path.iterdir())

    def broken():
        yield Document("a", ("x",)), []
        raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        write_records(tmp_path / "a.array_record", broken())
    assert not list(tmp_path.iterdir())


LIMITED = """
    import resource, sys
    import numpy as np
    from xgenmm_jax.data.readers.records import RecordFiles, write_records
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
    source = RecordFiles(sys.argv[1]).open()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(source)).tolist()
    print(len(source), len({source.record(i, rng).id for i in [*order, *order[::-1]]}))
"""


@pytest.mark.parametrize(("noted", "limit"), [(True, 120), (False, 120), (True, 48), (False, 40)])
def test_more_files_than_may_be_open_give_every_record(tmp_path, noted, limit):
    """Files beyond the limit of descriptors counted as empty: 1,100 under 1,024 gave 2,457 of 3,300 records."""
    for number in range(150):
        write(tmp_path / f"{number:03}.array_record", 2, f"{number}/")
    if not noted:
        (tmp_path / array_record.NOTE_FILE).unlink()
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path / "*"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.split() == ["300", "300"], done.stderr


def test_few_files_stay_open_however_many_sources_there_are(tmp_path):
    for number in range(90):
        write(tmp_path / f"{number:03}.array_record", 1, f"{number}/")
    before = len(os.listdir("/proc/self/fd"))
    many = [RecordFiles(str(tmp_path / f"{tens}*")).open() for tens in ("00", "01", "02", "03", "04")]
    many += [RecordFiles(str(tmp_path / "*")).open() for _ in range(2)]
    for source in many:
        for i in range(len(source)):
            source.record(i, RNG)
    assert len(os.listdir("/proc/self/fd")) - before <= 64


def test_any_thread_may_read_while_files_are_closed_and_opened(folder, monkeypatch):
    monkeypatch.setattr(array_record, "MOST_OPEN", 1)
    source = RecordFiles(str(folder / "*.array_record")).open()
    wrong = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for i in rng.integers(0, 6, 200).tolist():
            try:
                if source.record(i, rng).id != f"{i // 2}/{i % 2}":
                    wrong.append(i)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_file_that_is_gone_when_it_is_read_is_the_sources_error(folder):
    source = RecordFiles(str(folder / "*.array_record")).open()
    (folder / "a-2.array_record").unlink()
    assert source.record(0, RNG).id == "0/0"
    with pytest.raises(SourceError, match="a-2.array_record' cannot be opened .No such file"):
        source.record(5, RNG)


@pytest.mark.parametrize("noted", [True, False])
def test_a_damaged_record_is_named_and_its_neighbours_are_read(tmp_path, noted):
    """The reader's own error is no ValueError, and says neither file nor record."""
    path = tmp_path / "a.array_record"
    write(path, 40)
    data = bytearray(path.read_bytes())
    offset = data.index(b'"r7"')
    data[offset : offset + 4] = bytes(4)
    path.write_bytes(data)
    if not noted:
        (tmp_path / array_record.NOTE_FILE).unlink()
    source = RecordFiles(str(path)).open()
    with pytest.raises(RecordError, match=r"record 7 of '.*a.array_record' is damaged \(.*mismatch"):
        source.record(7, RNG)
    assert source.record(6, RNG).id == "r6" and source.record(39, RNG).id == "r39"


CAPTION = {"id": "x", "kind": "Caption", "sizes_px": [[4, 4]], "bytes": [0], "text": "a"}


@pytest.mark.parametrize(
    "header",
    [
        {"id": "x"}, [], None, {"id": "x", "kind": "Other", "sizes_px": [], "bytes": [], "turns": []},
        CAPTION | {"text": None}, CAPTION | {"sizes_px": [[0, 4]]}, CAPTION | {"bytes": [9]}, CAPTION | {"bytes": [-1]},
        CAPTION | {"sizes_px": []}, CAPTION | {"sizes_px": [[4]]}, CAPTION | {"sizes_px": [], "bytes": []},
        CAPTION | {"kind": "Document", "parts": [None, None], "separator": ""},
        CAPTION | {"kind": "Conversation", "turns": [["narrator", "x"]]},
        CAPTION | {"kind": "Conversation", "turns": [["user", 3]]},
        CAPTION | {"kind": "Conversation", "turns": ["user"]},
    ],
)  # fmt: skip
def test_what_is_no_record_is_one_sentence(header):
    """KeyError, IndexError and the like passed through and named nothing."""
    text = json.dumps(header).encode()
    with pytest.raises(RecordError, match="(x|record 7 of 'a'): is cut or was not written by `write_records`"):
        records.decode(len(text).to_bytes(8, "little") + text, "record 7 of 'a'")


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 8, b"\x05" + bytes(7) + b"{"])
def test_bytes_that_are_no_record_are_one_sentence(data):
    with pytest.raises(RecordError, match="record 7 of 'a': is cut"):
        records.decode(data, "record 7 of 'a'")


def test_records_hold_texts_that_utf8_cannot():
    encoded = records.encode(Document("d", ("half \ud83d a character",)), [])
    assert records.decode(encoded).parts == ("half \ufffd a character",)


def test_folders_with_brackets_and_a_pattern_over_folders(tmp_path, monkeypatch):
    for name in ("a[b]", "c 1", "c 2"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.array_record", 1, name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ids("~/a[b]/*.array_record") == ["a[b]0"]
    assert ids("~/c */*.array_record") == ["c 10", "c 20"]
    (tmp_path / "c 2" / "x.array_record").unlink()
    with pytest.raises(SourceError, match="c 2/x.array_record' is missing"):
        ids("~/c */*.array_record")
    with pytest.raises(SourceError, match=r"'.*c 1' is a folder; name its files"):
        ids(tmp_path / "c 1")
    monkeypatch.chdir(tmp_path / "a[b]")
    assert ids("*.array_record") == ids("./x*") == ids("../a[b]/*") == ["a[b]0"]


def test_files_without_any_record_are_told(tmp_path):
    write(tmp_path / "a.array_record", 0)
    with pytest.raises(SourceError, match="the 1 files of '.*' hold no record"):
        ids(tmp_path / "*.array_record")
    write(tmp_path / "b.array_record", 1)
    assert ids(tmp_path / "*.array_record") == ["r0"]


def test_the_first_record_that_can_be_read_tells_the_kind(tmp_path):
    """A source whose first record is damaged could not be opened at all."""
    path = tmp_path / "a.array_record"
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 4)).save(file, "PNG")
    captions = [(Caption(f"c{n}", LazyImage((4, 4), lambda: None), "red"), [file.getvalue()]) for n in range(3)]
    write_records(path, captions)
    data = bytearray(path.read_bytes())
    data[data.index(b'"c0"')] = 0
    path.write_bytes(data)
    assert len(RecordFiles(str(path)).open()) == 3

