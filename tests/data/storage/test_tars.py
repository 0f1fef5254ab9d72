"""Tars are walked once and read by range; what is no sample is refused, what is cut is an error."""

import io
import tarfile

import pytest
from tar_files import caption_tar, jpeg, write_tar

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.storage import tars
from xgenmm_jax.data.storage.tars import Tars, split


def opened(storage: Tars, number: int = 0):
    shard = storage.shards()[number]
    return storage.open(shard, storage.locate(shard), ())


def test_samples_are_read_by_number(tmp_path):
    samples = [(f"{n:04}", {"jpg": jpeg(seed=n), "txt": b"text %d" % n}) for n in range(7)]
    write_tar(tmp_path / "0.tar", samples)
    shard = opened(Tars(f"{tmp_path}/*.tar"))
    assert len(shard) == 7
    for number in (5, 0, 6):
        raw = shard.read(number)
        assert (raw.key, dict(raw.fields)) == (f"0.tar/{number:04}", samples[number][1])


def test_members_of_the_same_name_in_two_folders_are_two_samples(tmp_path):
    write_tar(tmp_path / "0.tar", [("a/1", {"txt": b"x"}), ("b/1", {"txt": b"y"}), ("b/1", {"txt": b"z"})])
    shard = opened(Tars(f"{tmp_path}/0.tar"))
    assert [shard.read(number).fields["txt"] for number in range(3)] == [b"x", b"y", b"z"]


def test_long_names_and_long_members_are_read(tmp_path):
    key = "k" * 300
    write_tar(tmp_path / "0.tar", [(key, {"txt": b"x" * 5000, "json": b"{}"}), ("next", {"txt": b"y"})])
    shard = opened(Tars(f"{tmp_path}/0.tar"))
    assert shard.read(0).key == f"0.tar/{key}" and len(shard.read(0).data("txt")) == 5000
    assert shard.read(1).text("txt") == "y"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("000012.jpg", ("000012", "jpg")),
        ("a/b.JSON", ("a/b", "json")),
        ("x.seg.png", ("x", "seg.png")),
        ("arXiv/astro-ph.0405083.json", ("arXiv/astro-ph.0405083", "json")),
        ("1003.0459.tiff", ("1003.0459", "tiff")),
        ("1003.0459v2.tiff", ("1003.0459v2", "tiff")),
        ("page.2.avif", ("page.2", "avif")),
        ("page.2.jp2", ("page.2", "jp2")),
    ],
)
def test_names_are_split_where_their_writers_meant(name, parts):
    assert split(name) == parts


def test_links_devices_and_names_that_leave_the_folder_are_refused(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind in (
            ("a.txt", None),
            ("b.txt", tarfile.SYMTYPE),
            ("c.txt", tarfile.CHRTYPE),
            ("d", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind or tarfile.REGTYPE, "/etc/passwd"
            tar.addfile(info, io.BytesIO())
        for name in ("../e.txt", "/f.txt", "README"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    storage = Tars(f"{tmp_path}/0.tar")
    located = storage.locate(storage.shards()[0])
    assert located.records == 1
    assert [one.reason for one in located.refused] == [
        "a link", "a device", "a folder", "a name that leads out of its folder", "a name that leads out of its folder",
        "a name without a suffix",
    ]  # fmt: skip


@pytest.mark.parametrize("keep", [0, 100, 700, 2000, 5000])
def test_a_tar_that_is_cut_off_is_an_error_of_the_source(tmp_path, keep):
    path = caption_tar(tmp_path / "0.tar", 5)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"0.tar.*copy it again"):
        Tars(str(path)).locate(str(path))


def test_a_tar_cut_between_members_is_an_error_of_the_source(tmp_path):
    path = caption_tar(tmp_path / "0.tar", 5)
    end = int(Tars(str(path)).locate(str(path)).arrays["offset"][3])
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(SourceError, match="without the end mark of a tar"):
        Tars(str(path)).locate(str(path))


def test_a_tar_that_changed_behind_the_index_costs_its_records(tmp_path):
    path = caption_tar(tmp_path / "0.tar", 5)
    shard = opened(Tars(str(path)))
    data = bytearray(path.read_bytes())
    data[int(shard._located.arrays["offset"][2]) + 20] ^= 255
    path.write_bytes(data)
    assert shard.read(1).fields.keys() == {"jpg", "txt", "json"}
    with pytest.raises(RecordError, match=r"0.tar\[2\].*index the source again"):
        shard.read(2)


def test_a_tar_that_is_gone_is_an_error_of_the_source(tmp_path):
    path = caption_tar(tmp_path / "0.tar", 2)
    shard = opened(Tars(str(path)))
    path.unlink()
    with pytest.raises(SourceError, match="no file"):
        shard.read(0)


def test_captions_are_read_with_their_images(tmp_path):
    shard = opened(Tars(str(caption_tar(tmp_path / "0.tar", 3))))
    record = ImageCaptions().read(shard.read(1), 0)
    assert record.id == "0.tar/000000001" and record.text and record.image.load().size == record.image.size_px


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"txt": b"x"}, "no image: wanted one of jpg"),
        ({"jpg": jpeg()}, "no 'txt'"),
        ({"jpg": jpeg(), "txt": b" "}, "empty"),
        ({"jpg": jpeg(), "txt": b"\xff"}, "no UTF-8"),
        ({"jpg": b"x", "txt": b"x"}, "not an image"),
    ],
)
def test_a_bad_caption_is_an_error_of_its_record(tmp_path, members, said):
    shard = opened(Tars(str(write_tar(tmp_path / "0.tar", [("7", members)]))))
    with pytest.raises(ValueError, match=said):
        ImageCaptions().read(shard.read(0), 0)


def test_ranges_in_braces_are_names_that_must_be_there(tmp_path):
    for number in (8, 9, 10):
        caption_tar(tmp_path / f"{number:02}.tar", 1)
    assert len(Tars(f"{tmp_path}/{{08..10}}.tar").shards()) == 3
    with pytest.raises(SourceError, match=r"11.tar' and 1 more"):
        Tars(f"{tmp_path}/{{08..12}}.tar").shards()
    with pytest.raises(SourceError, match="no file matches"):
        Tars(f"{tmp_path}/x*.tar").shards()


def test_a_member_that_no_sample_has_is_an_error_with_those_that_are_there(tmp_path):
    path = write_tar(tmp_path / "0.tar", [(f"{n}", {"jpg": jpeg(), "txt": b"red"}) for n in range(3)])
    storage, located = Tars(str(path)), Tars(str(path)).locate(str(path))
    with pytest.raises(SourceError, match="no sample of .*0.tar' has 'caption'; the members found: 'jpg', 'txt'; the "):
        storage.open(str(path), located, ("txt", "caption"))
    assert len(storage.open(str(path), located, ("txt",), ("webp",))) == 3


def test_sparse_files_are_refused_and_their_neighbors_read(tmp_path):
    sparse = tarfile.TarInfo("a.jpg")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 512)  # the map: 512 bytes at 0 ...
    header[483:495] = b"%011o\0" % (3 << 30)  # ... of 3 GB
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    text = tarfile.TarInfo("b.txt")
    text.size = 2
    (tmp_path / "0.tar").write_bytes(
        bytes(header) + bytes(512) + text.tobuf(tarfile.GNU_FORMAT) + b"hi" + bytes(510) + bytes(1024)
    )
    storage = Tars(f"{tmp_path}/0.tar")
    located = storage.locate(storage.shards()[0])
    assert [one.reason for one in located.refused] == ["a sparse file"]
    assert opened(storage).read(0).text("txt") == "hi"


def test_a_sample_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    write_tar(tmp_path / "0.tar", [("a", {"jpg": bytes(5000)}), ("b", {"jpg": bytes(100)})])
    shard = opened(Tars(f"{tmp_path}/0.tar"))
    monkeypatch.setattr(tars, "MOST_SAMPLE_BYTES", 4096)
    with pytest.raises(RecordError, match=r"0.tar\[0\]: its members have .* more than 4,096"):
        shard.read(0)
    assert len(shard.read(1).data("jpg")) == 100


def test_headers_of_long_names_without_end_are_an_error_of_the_tar(tmp_path):
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 4
    (tmp_path / "0.tar").write_bytes((name.tobuf(tarfile.GNU_FORMAT) + b"abc\0" + bytes(508)) * 3000 + bytes(1024))
    with pytest.raises(SourceError, match="no whole tar"):
        opened(Tars(f"{tmp_path}/0.tar"))


def test_names_that_are_no_utf_8_give_ids_that_can_be_written(tmp_path):
    write_tar(tmp_path / "0.tar", [("caf\udce9", {"txt": b"x"})])
    assert opened(Tars(f"{tmp_path}/0.tar")).read(0).key.encode() == "0.tar/caf\ufffd".encode()
