"""Folders that tensorflow-datasets prepared are read by number, without TensorFlow; what is not as it says is an error.

The folders are made by `tools/make_tfds_folders.py`.
"""

import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from xgenmm_jax.data.errors import RecordError, SourceError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.storage.array_record import write_blobs
from xgenmm_jax.data.storage.tfds import Tfds, TfdsShard

REPOSITORY = Path(__file__).parents[3]
FOLDERS = REPOSITORY / "tests" / "fixtures" / "tfds"
COCO = FOLDERS / "coco_captions" / "2014" / "1.1.0"

WITHOUT_TENSORFLOW = """
import sys
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.storage.tfds import Tfds

storage = Tfds(sys.argv[1])
for path in storage.shards():
    shard = storage.open(path, storage.locate(path), ())
    for number in range(len(shard)):
        print(image_from_bytes(shard.read(number).data("image"), "image").load().size)
print([name for name in sys.modules if name.split(".")[0] in ("tensorflow", "jax")])
"""


def opened(storage: Tfds, number: int = 0, fields: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> TfdsShard:
    shard = storage.shards()[number]
    return storage.open(shard, storage.locate(shard), fields, optional)


@pytest.fixture
def coco(tmp_path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(COCO, tmp_path / "coco_captions" / "2014" / "1.1.0"))


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_records_are_read_by_number():
    storage = Tfds(str(COCO))
    assert [storage.locate(shard).records for shard in storage.shards()] == [2, 3]
    shard = opened(storage, 1)
    for number in (2, 0):
        fields = shard.read(number).fields
        at = fields["image/id"]
        assert fields["image/filename"] == f"COCO_train2014_{at:012}.jpg"
        assert fields["captions/id"] == list(range(10 * at, 11 * at + 1))
        assert image_from_bytes(fields["image"], "x").size_px == (24 + at, 16)
        assert fields["captions/text"][0].endswith("field.") and "objects/bbox" in fields
    assert shard.read(2).key == "coco_captions-train.array_record-00001-of-00002__2"


def test_every_record_equals_what_tensorflow_datasets_gives():
    source = tfds.builder_from_directory(COCO).as_data_source("train")
    storage = Tfds(str(COCO))
    raws = []
    for number in range(2):
        shard = opened(storage, number)
        raws += [shard.read(index) for index in range(len(shard))]
    assert len(raws) == len(source) == 5
    for raw, theirs in zip(raws, source, strict=True):
        assert raw.fields["image/id"] == theirs["image/id"]
        assert raw.fields["captions/text"] == [text.decode() for text in theirs["captions"]["text"]]
        assert raw.fields["objects/label"] == theirs["objects"]["label"]
        assert (image_from_bytes(raw.data("image"), "x").load().tobytes()) == theirs["image"].tobytes()


def test_only_fields_that_are_asked_for_are_read():
    shard = opened(Tfds(str(COCO)), 0, ("captions/text",), ("image", "jpg"))
    assert list(shard.read(0).fields) == ["captions/text", "image"]
    with pytest.raises(SourceError, match="no field 'txt'.*'captions/text', 'image'"):
        opened(Tfds(str(COCO)), 0, ("txt",))


def test_builders_of_big_vision_are_read():
    fields = opened(Tfds(str(FOLDERS / "textvqa"))).read(0).fields
    assert isinstance(fields["question_id"], int) and fields["question"] == "what does it say?"
    assert fields["answers"] == [] or len(fields["answers"]) == 10


def test_neither_tensorflow_nor_jax_is_imported(tmp_path):
    """With TensorFlow installed, too: the one found here ends the process, which no `except Exception` holds up."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('tensorflow was imported')")
    folders = [str(REPOSITORY), str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(COCO)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *images, imported = done.stdout.splitlines()
    assert len(images) == 5 and imported == "[]"


def test_images_in_sequences_stay_encoded_and_text_that_is_no_utf8_bytes():
    shard = opened(Tfds(str(FOLDERS / "pages")))
    raws = [shard.read(number) for number in range(4)]
    most = max(raws, key=lambda raw: len(raw.fields["pages"]))
    assert [image_from_bytes(page, "page").size_px for page in most.fields["pages"]] == [(8, 8)] * 3
    assert most.fields["words"] == [["a", "b"], [], ["c"]] and most.fields["embedding"].shape == (2, 3)
    inner = {name: most.fields[f"source/{name}"] for name in ("license", "is_scan", "scale")}
    assert inner == {"license": "CC0", "is_scan": True, "scale": 0.5}
    assert {type(raw.fields["title"]) for raw in raws} == {str, bytes}
    with pytest.raises(RecordError, match="'title' is no UTF-8 text"):
        most.text("title")


def test_a_name_is_looked_up_where_tensorflow_datasets_prepares(coco, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path / "coco_captions")
    shutil.copytree(coco, coco.parent / "1.10.0")
    edited(coco.parent / "1.10.0" / "dataset_info.json", '"1.1.0"', '"1.10.0"')
    (coco.parent / "1.11.0").mkdir()  # begun
    for name in ("coco_captions/2014", "2014", str(tmp_path / "coco_captions" / "2014")):
        assert Path(Tfds(name).shards()[0]).parent.name == "1.10.0"
    assert Path(Tfds("coco_captions/2014/1.1.0").shards()[0]).parent.name == "1.1.0"
    with pytest.raises(SourceError, match=r"coco_captions'; there is .*2014/1.10.0.*TFDS_DATA_DIR"):
        Tfds("coco_captions").shards()
    with pytest.raises(SourceError, match=rf"below '{tmp_path}'.*Nothing is downloaded"):
        Tfds("mnist").shards()


@pytest.mark.parametrize("split", ["test", "train[:50%]", "train+val", ""])
def test_a_split_that_is_not_there_is_an_error_of_the_source(split):
    with pytest.raises(SourceError, match=r"no split .* it has 'train', 'val', which are read whole"):
        Tfds(str(COCO), split).shards()


def test_files_that_need_tensorflow_are_refused_with_the_way_out():
    with pytest.raises(SourceError, match="tfrecord.*tfds convert_format.*1.0.0' --out_file_format=array_record"):
        Tfds(str(FOLDERS / "docvqa")).shards()


def test_files_that_were_converted_beside_are_read(tmp_path):
    """`tfds convert_format` leaves the first format in dataset_info.json and notes the other one."""
    folder = Path(shutil.copytree(FOLDERS / "textvqa" / "1.0.0", tmp_path / "textvqa"))
    edited(folder / "dataset_info.json", '"array_record"', '"tfrecord",\n"alternativeFileFormats": ["array_record"]')
    assert len(opened(Tfds(str(folder)))) == 4


def test_a_file_that_is_gone_is_an_error_of_the_source(coco):
    storage = Tfds(str(coco))
    first, second = storage.shards()
    shard = storage.open(second, storage.locate(second), ())
    os.remove(second)
    with pytest.raises(SourceError, match="00001-of-00002' of the 2 files of 'train' is not there"):
        storage.shards()
    for call in (lambda: storage.size(second), lambda: storage.locate(second), lambda: shard.read(0)):
        with pytest.raises(SourceError, match="00001-of-00002"):
            call()


def test_a_file_with_another_number_of_records_is_an_error_of_the_source(coco):
    storage = Tfds(str(coco))
    first, second = storage.shards()
    shard = storage.open(first, storage.locate(first), ())
    shutil.copy(second, first)
    for call in (lambda: storage.locate(first), lambda: shard.read(0)):
        with pytest.raises(SourceError, match="holds 3 records and dataset_info.json beside it says 2; copy"):
            call()


@pytest.mark.parametrize("keep", [0, 100, 70000])
def test_a_file_that_is_cut_off_is_an_error_of_the_source(coco, keep):
    storage = Tfds(str(coco))
    path = Path(storage.shards()[0])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match="00000-of-00002"):
        storage.locate(str(path))


def test_a_damaged_record_costs_itself_alone(coco):
    storage = Tfds(str(coco))
    path = Path(storage.shards()[0])
    data = bytearray(path.read_bytes())
    data[data.index(b"JFIF")] ^= 255
    path.write_bytes(data)
    shard = opened(storage)
    failed = []
    for number in range(2):
        try:
            shard.read(number)
        except RecordError as error:
            failed.append(str(error))
    assert len(failed) == 1 and "00000-of-00002__" in failed[0]


def example(**image) -> bytes:
    features = tf_feature_pb2.Features(feature={"image": tf_feature_pb2.Feature(**image)})
    return tf_example_pb2.Example(features=features).SerializeToString()


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xff\xff\xff\xff",
        b"{}",
        example(),
        example(bytes_list={"value": [b"x", b"y"]}),
        example(int64_list={"value": [3]}),
    ],
)
def test_a_record_of_another_form_is_an_error_of_its_own(coco, blob):
    path = Path(Tfds(str(coco)).shards()[0])
    write_blobs(path, [blob, blob])
    with pytest.raises(RecordError, match="00002__1: it is not as features.json says"):
        opened(Tfds(str(coco))).read(1)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("features.json", "tensorflow_datasets.core.features.text_feature.Text", "this.Text", "'this.Text'; wanted"),
        ("features.json", '"text": {}', '"type": "this.Text"', "'this.Text'; wanted"),
        ("features.json", "{", "", "not JSON"),
        ("features.json", "pythonClassName", "name", "is not as tensorflow-datasets prepares it"),
        ("dataset_info.json", '"{DATASET}', '"../{DATASET}', "names files elsewhere"),
        ("dataset_info.json", '"name": "coco', '"name": "../coco', "2014/1.1.0"),
        ("dataset_info.json", '"array_record"', '"zip"', "prepares it"),
        ("dataset_info.json", '"version"', '"edition"', "prepares it"),
    ],
)
def test_a_folder_of_another_form_is_an_error_of_the_source(coco, file, old, new, said):
    """Classes that features.json names would be imported."""
    edited(coco / file, old, new)
    with pytest.raises(SourceError, match=said):
        Tfds(str(coco)).shards()
    assert "this" not in sys.modules


def legacy(feature: str, content) -> dict:
    """A feature as earlier versions of tensorflow-datasets wrote it."""
    return {"type": f"tensorflow_datasets.core.features.{feature}", "content": content}


def test_features_of_older_versions_are_read(coco):
    image = legacy("image_feature.Image", '{"shape": {"dimensions": [-1, -1, 3]}, "dtype": "uint8"}')
    text = legacy("text_feature.Text", {"use_encoding": False})
    features = {"image": image | {"proto_cls": "tensorflow_datasets.ImageFeature"}, "image/filename": text}
    path = coco / "features.json"
    path.write_text(json.dumps(legacy("features_dict.FeaturesDict", features)))
    fields = opened(Tfds(str(coco))).read(0).fields
    assert sorted(fields) == ["image", "image/filename"] and fields["image/filename"].startswith("COCO")
    features["image"]["content"] = json.dumps({"featuresDict": {"features": {"x": {"pythonClassName": "this.Text"}}}})
    path.write_text(json.dumps(legacy("features_dict.FeaturesDict", features)))
    with pytest.raises(SourceError, match="'this.Text'; wanted"):
        Tfds(str(coco)).shards()


def test_a_folder_without_features_is_an_error_of_the_source(coco):
    (coco / "features.json").unlink()
    with pytest.raises(SourceError, match="no features.json"):
        Tfds(str(coco)).shards()
