"""Images that records name: in a folder beside them, never out of it, never fetched; and Hugging Face's struct."""

import hashlib
import shutil

import pytest
from tar_files import jpeg

from xgenmm_jax.data.errors import SourceError
from xgenmm_jax.data.storage import files, images
from xgenmm_jax.data.storage.images import ImageFolder, image_bytes


@pytest.fixture(params=["path", "URL"])
def folder(tmp_path, request, monkeypatch):
    """A folder by its path; and by a URL, whose files a stand-in for the URL's file system reads from there."""
    top = tmp_path / "images"
    (top / "coco").mkdir(parents=True)
    (top / "coco/a.jpg").write_bytes(jpeg((31, 17)))
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    if request.param == "path":
        return str(top)
    size, read = files.size, files.read
    monkeypatch.setattr(files, "size", lambda url: size(url.replace("mem://images", str(top))))
    monkeypatch.setattr(files, "read", lambda url, *range_: read(url.replace("mem://images", str(top)), *range_))
    return "mem://images"


def test_an_image_is_opened_by_its_name(folder):
    image = ImageFolder(folder).open("coco/a.jpg")
    assert image.size_px == image.load().size == (31, 17)
    assert ImageFolder(folder).open("coco/../coco//a.jpg").size_px == (31, 17)


@pytest.mark.parametrize("name", ["../secret.jpg", "coco/../../secret.jpg", "/etc/passwd", ".."])
def test_names_that_lead_out_of_the_folder_are_refused(folder, name):
    with pytest.raises(ValueError, match="lies outside of"):
        ImageFolder(folder).open(name)


@pytest.mark.parametrize(
    "name", ["%2e%2e/secret.jpg", "coco/%2E%2e/%2e./secret.jpg", "%2Fetc/passwd", "s3://other/a.jpg"]
)
def test_names_do_not_lead_out_of_a_url(name):
    with pytest.raises(ValueError, match="lies outside of"):
        ImageFolder("https://host/images").open(name)


@pytest.mark.parametrize("name", ["coco/b.jpg", "coco/" + "x" * 5000 + ".jpg", "gone/a.jpg"])
def test_a_missing_image_is_an_error_of_its_record(folder, name):
    with pytest.raises(ValueError, match="image: ") as raised:
        ImageFolder(folder).open(name)
    assert not isinstance(raised.value, SourceError)


@pytest.mark.parametrize("name", ["", " ", None, 7, ["a.jpg"]])
def test_a_name_that_is_none_is_refused(folder, name, unchecked_signatures):
    with pytest.raises(ValueError, match="wanted the name of a file"):
        ImageFolder(folder).open(name)


def test_a_damaged_image_is_an_error_of_its_record(folder, tmp_path):
    path = tmp_path / "images/coco/a.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="truncated|damaged"):
        ImageFolder(folder).open("coco/a.jpg").load()
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="not an image"):
        ImageFolder(folder).open("coco/a.jpg")


def test_a_long_file_of_a_url_is_refused(folder, monkeypatch):
    monkeypatch.setattr(images, "MOST_IMAGE_BYTES", 100)
    if folder == "mem://images":
        with pytest.raises(ValueError, match="more than 100"):
            ImageFolder(folder).open("coco/a.jpg")


def test_a_storage_that_does_not_answer_is_no_error_of_a_record(monkeypatch):
    def down(url):
        raise SourceError("data: down") from TimeoutError("late")

    monkeypatch.setattr(files, "size", down)
    with pytest.raises(SourceError, match="down"):
        ImageFolder("gs://bucket").open("a.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ""])
def test_images_of_urls_are_named_by_the_hash_of_the_url(folder, tmp_path, suffix):
    url = "http://example.com/../a.jpg?x=/../../secret.jpg"
    with pytest.raises(ValueError, match="are not fetched"):
        ImageFolder(folder).open(url)
    name = hashlib.sha256(url.encode()).hexdigest() + suffix
    shutil.copy(tmp_path / "images/coco/a.jpg", tmp_path / "images" / name)
    assert ImageFolder(folder).open(url).size_px == (31, 17)


def test_the_hash_of_the_docstring_is_that_of_its_url():
    assert hashlib.sha256(b"http://example.com/a.jpg").hexdigest() in ImageFolder.__doc__


def test_encoded_images_of_tables_are_bytes_or_a_struct():
    assert image_bytes(b"x") == image_bytes({"bytes": b"x", "path": None}) == b"x"
    for value, said in (
        ({"bytes": None, "path": "a.jpg"}, "the path 'a.jpg' alone"),
        (None, "NoneType in place of bytes"),
        ("a.jpg", "str in place of bytes"),
        (b"", "no bytes"),
        ({}, "NoneType"),
    ):
        with pytest.raises(ValueError, match=said):
            image_bytes(value)
