"""Everything that users may pass as an image, or as lists of them, and the errors for everything else."""

import io
import os
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.api import image_inputs
from xgenmm_jax.api.processor import Processor
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Crops, LazyImage
from xgenmm_jax.data.text.tokenizer import train_tokenizer

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    words = train_tokenizer(["a b"] * 3, tmp_path_factory.mktemp("words") / "words.model", 400)
    return Processor(words, AnyRes(grids=(), view_px=16, view_cells=2))


@pytest.fixture
def file(tmp_path):
    PIL.Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def read(processor, image) -> np.ndarray:
    opened = processor.image(image)
    pixels = np.asarray(opened.load())
    assert opened.size_px == pixels.shape[1::-1]
    return pixels


class Borrowed:
    """An array of another library, as torch's are."""

    def __array__(self, dtype=None, copy=None):
        return PIXELS if dtype is None else PIXELS.astype(dtype)


class Waiting:
    """One that must be detached first."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


class Named(os.PathLike):
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


def test_files_in_every_form_are_one_image(processor, file, monkeypatch):
    data = file.read_bytes()
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.chdir(file.parent)
    names = [str(file), file, "a.png", "~/a.png", Named(file)]
    for form in (*names, data, bytearray(data), memoryview(data), io.BytesIO(data)):
        np.testing.assert_array_equal(read(processor, form), PIXELS)
    with file.open("rb") as opened:
        np.testing.assert_array_equal(read(processor, opened), PIXELS)
        assert opened.tell() == 0 and not opened.closed
    written = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(written, "PNG")  # and its place is at the end
    np.testing.assert_array_equal(read(processor, written), PIXELS)
    assert written.tell() == len(written.getvalue())


@pytest.mark.parametrize(
    "array",
    [
        PIXELS,
        PIXELS.astype(np.int64),
        PIXELS.astype(np.uint16),
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        jnp.asarray(PIXELS),
        jnp.asarray(PIXELS / 255),
        Borrowed(),
        np.asfortranarray(PIXELS),
        PIXELS.transpose(2, 0, 1).copy().transpose(1, 2, 0),
    ],
)
def test_arrays_of_every_kind_are_pixels(processor, array):
    np.testing.assert_array_equal(read(processor, array), PIXELS)


def test_one_channel_is_grey_and_a_fourth_is_alpha(processor):
    grey = np.repeat(PIXELS[..., :1], 3, axis=2)
    for form in (PIXELS[..., 0], PIXELS[..., :1], PIXELS[..., 0] / 255):
        np.testing.assert_array_equal(read(processor, form), grey)
    opaque = np.concatenate([PIXELS, np.full((5, 7, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(read(processor, opaque), PIXELS)
    np.testing.assert_array_equal(read(processor, opaque / 255), PIXELS)
    mask = PIXELS[..., 0] > 100
    np.testing.assert_array_equal(read(processor, mask)[..., 0], mask * np.uint8(255))
    half = (PIXELS / 255).astype(ml_dtypes.bfloat16)
    assert np.abs(read(processor, half).astype(int) - PIXELS).max() <= 1


def test_what_becomes_of_an_array_later_does_not_matter(processor):
    for channels in (3, 1):
        array = PIXELS[..., :channels].copy()
        image = processor.image(array)
        before = np.asarray(image.load())
        array[:] = 0
        np.testing.assert_array_equal(np.asarray(image.load()), before)


@pytest.mark.parametrize(
    "array, sentence",
    [
        (PIXELS.transpose(2, 0, 1), r"shape \(3, 5, 7\), with the channels first; put them last, array.transpose"),
        (np.zeros((1, 5, 7)), r"shape \(1, 5, 7\), with the channels first"),
        (np.zeros((4, 9, 9), np.uint8), r"shape \(4, 9, 9\), with the channels first"),
        (PIXELS[None], r"shape \(1, 5, 7, 3\), several images; give them one by one"),
        (np.zeros((9, 9, 5)), r"shape \(9, 9, 5\), 5 channels"),
        (np.zeros((9, 9, 0)), r"shape \(9, 9, 0\), wanted height, width"),
        (np.zeros((0, 7, 3), np.uint8), r"shape \(0, 7, 3\), wanted height, width"),
        (np.zeros(7), r"shape \(7,\), wanted height, width"),
        (np.float32(1), r"shape \(\), wanted height, width"),
        (PIXELS.astype(np.float32), "floats from .* to .*, wanted 0 to 1; scale it first"),
        (PIXELS / 127.5 - 1, "floats from -.*, wanted 0 to 1"),
        (np.full((3, 3, 3), np.nan), "floats from nan to nan, wanted 0 to 1"),
        (np.full((5, 5, 3), np.inf), "wanted 0 to 1"),
        (np.full((5, 5), 65535, np.uint16), "whole numbers from 65535 to 65535, wanted 0 to 255"),
        (np.full((5, 5, 3), -1), "whole numbers from -1 to -1, wanted 0 to 255"),
        (np.full((5, 5, 3), "a"), "got an array of <U1; give whole numbers"),
        (np.full((5, 5, 3), None), "got an array of object; give whole numbers"),
        (np.zeros((5, 5, 3), complex), "got an array of complex128"),
        (Waiting(), "the Waiting gives no array .*detach.*cpu"),
    ],
)
def test_arrays_that_are_no_pixels_are_refused(processor, array, sentence):
    with pytest.raises(ValueError, match=f"^image: .*{sentence}") as error:
        processor.image(array)
    assert "\n" not in str(error.value)


def closed_file(file: Path):
    opened = file.open("rb")
    opened.close()
    return opened


def closed_image(file: Path):
    with PIL.Image.open(file) as image:
        return image


def closed_later(file: Path):
    image = PIL.Image.open(file)
    image.load()
    image.close()
    return image


def truncated(file: Path):
    noise = np.random.default_rng(1).integers(0, 256, (90, 90, 3), np.uint8)
    PIL.Image.fromarray(noise).save(file)
    return PIL.Image.open(io.BytesIO(file.read_bytes()[:3000]))


def made_crops(pixels, size_px) -> Crops:
    """Past the tests' own check, as users make them."""
    crops = object.__new__(Crops)
    object.__setattr__(crops, "pixels", pixels)
    object.__setattr__(crops, "size_px", size_px)
    return crops


class Unreadable(io.RawIOBase):
    name = "socket"

    def read(self, size=-1):
        raise OSError(107, "Transport endpoint is not connected")


@pytest.mark.parametrize(
    "image, sentence",
    [
        ("http://localhost/a.png", "got 'http://localhost/a.png', which is fetched from nowhere; save it"),
        ("HTTPS://x/y.jpg", "which is fetched from nowhere"),
        ("file:///tmp/y.jpg", "which is fetched from nowhere"),
        ("data:image/png;base64," + "A" * 100, r"got 'data:image/png;base64,A*\.\.\.', which is fetched from nowhere"),
        (Path("https://x/y.jpg"), "which is fetched from nowhere"),
        ("iVBORw0KGgo" * 1000, "got a text of 11,000 letters, no file's name"),
        ("a" * 300, "got a text of 300 letters, no file's name"),
        ("", "got the empty path"),
        (" ", "got the empty path"),
        ("nowhere.png", "no file 'nowhere.png'"),
        ("a\0.png", "zero byte"),
        (b"", "the bytes are none; give those of an image's file"),
        (b"/some/where.png", "in bytes is not an image"),
        (io.BytesIO(), "the open file is empty"),
        (io.StringIO("text"), "the open file gives str; open it in binary mode"),
        (closed_file, "the open file .*a.png is closed .*open it for reading"),
        (closed_image, "the PNG image cannot be read .*closed.*; open it again, and close it afterwards"),
        (closed_later, "the PNG image cannot be read .*; open it again"),
        (truncated, "the PNG image cannot be read .*truncated"),
        (Unreadable(), "the open file socket cannot be read .*not connected"),
        (lambda file: file.open("ab"), "cannot be read .*; open it for reading"),
        (None, "got None; give a PIL image, a file's name"),
        (3, "got 3; give a PIL image"),
        (["a.png"], "got a list that begins with 'a.png'; give a PIL image"),
        ({"bytes": b"x"}, "got a dict; give a PIL image"),
        (object(), "got a object; give a PIL image"),
        (made_crops([[1]], (7, 5)), "got crops whose pixels are a list that begins with .*; give an array"),
        (made_crops(np.zeros((16, 16, 3)), (7, 5)), r"pixels are an array of shape \(16, 16, 3\)"),
        (made_crops(np.zeros((1, 16, 16, 3)), None), "got crops of size_px None; give .width, height."),
        (made_crops(np.zeros((1, 16, 16, 3)), (0, 5)), "got crops of an image of 0 x 5 px"),
    ],
)
def test_what_is_no_image_is_one_sentence(processor, file, image, sentence):
    """A closed image ended in an attribute of None, a URL in a missing file, a text of base64 in the system's error."""
    if callable(image) and not isinstance(image, io.IOBase):
        image = image(file)
    with pytest.raises(ValueError, match=f"^image: .*{sentence}") as error:
        processor.image(image)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    if hasattr(image, "close"):
        image.close()


def test_a_file_whose_name_looks_like_a_url_is_a_file(processor, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    Path("data:1.png").write_bytes(file.read_bytes())
    np.testing.assert_array_equal(read(processor, "data:1.png"), PIXELS)


IMAGE = PIL.Image.fromarray(PIXELS)
CROPS = Crops(np.zeros((1, 16, 16, 3), np.float32), (7, 5))


@pytest.mark.parametrize(
    "one", ["a.png", Path("a.png"), b"x", IMAGE, PIXELS, PIXELS[..., 0], CROPS, io.BytesIO(b"x")]
)
def test_the_images_of_a_single_prompt_may_lie_flat(one):
    """A list of names was taken for lists of letters: no file 'a'."""
    for images, count in ((one, 1), ([one], 1), ([[one]], 1), ((one, one), 2), ([(one, one)], 2)):
        (listed,) = image_inputs.per_prompt(images, 1, "generate", "prompts and")
        assert len(listed) == count and all(image is one for image in listed)


@pytest.mark.parametrize("nothing", [None, [], [None], [[]], [()]])
def test_no_images_for_a_single_prompt(nothing):
    assert image_inputs.per_prompt(nothing, 1, "generate", "prompts and") == [[]]


def test_several_prompts_have_lists_of_their_own():
    assert image_inputs.per_prompt(None, 3, "generate", "prompts and") == [[], [], []]
    assert image_inputs.per_prompt([None, ["a"], ()], 3, "generate", "prompts and") == [[], ["a"], []]
    assert image_inputs.per_prompt([], 0, "generate", "prompts and") == []
    stack = np.zeros((2, 4, 4, 3), np.uint8)
    assert [len(listed) for listed in image_inputs.per_prompt([stack, None], 2, "generate", "prompts and")] == [2, 0]
    assert len(image_inputs.per_prompt(stack, 1, "generate", "prompts and")[0]) == 2


@pytest.mark.parametrize(
    "images, prompts, sentence",
    [
        (["a.png", "b.png"], 2, "got 'a.png' in place of a list of images; give each prompt its own list"),
        ("a.png", 2, "got 'a.png' in place of a list of images"),
        ([["a.png"], "b.png"], 2, "got 'b.png' in place of a list"),
        ([IMAGE, IMAGE], 2, "in place of a list of images"),
        (np.zeros((2, 4, 4, 3)), 2, r"got an array of shape \(4, 4, 3\) in place of a list"),
        (["a.png"], 0, "in place of a list"),
        ([["a.png"]], 2, "got 2 prompts and 1 lists of images; give one for each"),
        ([[], [], []], 2, "got 2 prompts and 3 lists"),
        ([["a.png"], []], 1, "got 1 prompts and 2 lists"),
        ([], 2, "got 2 prompts and 0 lists"),
        (3, 1, "got 3; give a list of them"),
        ({"a.png"}, 1, "got a set; give a list of them"),
        ([3, 4], 2, "got 3; give a list of them"),
    ],
)
def test_lists_that_leave_it_open_are_refused(images, prompts, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        image_inputs.per_prompt(images, prompts, "generate", "prompts and")
    assert "\n" not in str(error.value)


def test_a_prompt_takes_an_image_by_itself(processor):
    alone, listed = processor.prompt("a", PIXELS), processor.prompt("a", [PIXELS])
    assert alone.token_ids == listed.token_ids and len(alone.images) == len(listed.images) == 1
    assert processor.prompt("a", None).images == processor.question_prompt("a", ()).images == ()
    assert processor.question_prompt("a", IMAGE).token_ids == processor.question_prompt("a", [IMAGE]).token_ids
    assert isinstance(processor.images([PIXELS])[0], LazyImage) and processor.images(CROPS) == (CROPS,)
    assert processor.crops(PIXELS).size_px == (7, 5) and processor.crops(CROPS) is CROPS


@pytest.mark.parametrize("question", [None, 3, b"a", ["a"], Path("a")])
def test_a_question_that_is_no_text_is_refused(processor, question):
    for ask in (processor.prompt, processor.question_prompt):
        with pytest.raises(ValueError, match="prompt: got .*; give a question, as text"):
            ask(question)


@pytest.mark.parametrize("question", [os.fsdecode(b"caf\xe9?"), "a\ud800b", "\udcff"])
def test_bytes_that_are_no_utf8_in_a_question_are_marked(processor, question):
    """A terminal of another encoding hands them over as lone surrogates, which no tokenizer takes."""
    ids = processor.prompt(question, chat_template=False).token_ids
    assert "\ufffd" in processor.tokenizer.decode(ids)
