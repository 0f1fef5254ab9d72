"""Folders of files as a storage."""

import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.storage.folder import Folder


def write(top, **texts):
    for name, data in texts.items():
        path = top / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def opened(storage: Folder, number: int = 0, fields=()):
    shard = storage.shards()[number]
    return storage.open(shard, storage.locate(shard), fields)


def test_a_folder_is_a_shard_and_a_file_a_record(tmp_path):
    write(tmp_path, b__2_png=b"22", b__1_png=b"1", b__1_txt=b"one", b__2_txt=b"two", a__c__3_png=b"3", a__c__3_txt=b"x")
    storage = Folder(f"{tmp_path}/**/*.png", beside=("txt",))
    assert storage.shards() == (f"{tmp_path}/a/c", f"{tmp_path}/b")
    assert storage.size(f"{tmp_path}/b") == 9
    shard = opened(storage, 1, ("data", "txt"))
    assert [shard.read(n).key for n in range(2)] == ["b/1.png", "b/2.png"]
    assert dict(shard.read(1).fields) == {"path": "b/2.png", "data": b"22", "txt": b"two"}


def test_vector_graphics_and_files_that_lack_their_text_are_refused(tmp_path):
    write(tmp_path, a_svg=b"<svg>", a_txt=b"a", b_png=b"b", c_png=b"c", c_txt=b"c")
    located = Folder(f"{tmp_path}/*.[ps][nv]g", beside=("txt",)).locate(str(tmp_path))
    assert located.records == 1
    assert [(one.name, one.reason) for one in located.refused] == [
        ("a.svg", "a vector graphic, which has no pixels"), ("b.png", "no file of .txt beside it"),
    ]  # fmt: skip


def test_a_file_that_took_anothers_place_is_noticed(tmp_path):
    write(tmp_path, a_html=b"a", b_html=b"b")
    storage = Folder(f"{tmp_path}/*.html")
    located = storage.locate(str(tmp_path))
    (tmp_path / "b.html").rename(tmp_path / "c.html")
    with pytest.raises(SourceError, match="other files than when it was indexed"):
        storage.open(str(tmp_path), located, ())


def test_images_are_opened_inside_of_the_patterns_folder_alone(tmp_path):
    write(tmp_path, top__en__a_html=b"a", top__images__i_jpg=jpeg((40, 30)), secret_jpg=jpeg((40, 30)))
    raw = opened(Folder(f"{tmp_path}/top/*/*.html")).read(0)
    assert raw.key == "en/a.html" and raw.image("../images/i.jpg").size_px == (40, 30)
    for name in ("../../secret.jpg", "gone.jpg", "\0", "x" * 5000):
        with pytest.raises(ValueError):
            raw.image(name)


def test_a_field_that_is_in_no_record_and_a_url_are_told(tmp_path):
    write(tmp_path, a_html=b"a")
    with pytest.raises(SourceError, match="'path', 'data' and no 'txt'"):
        opened(Folder(f"{tmp_path}/*.html"), 0, ("txt",))
    with pytest.raises(SourceError, match="no file matches"):
        Folder(f"{tmp_path}/*.htm").shards()
    with pytest.raises(SourceError, match="is a URL"):
        Folder("gs://bucket/*.html").shards()
