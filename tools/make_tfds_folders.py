"""Makes tests/fixtures/tfds/: folders that tensorflow-datasets prepared, with a few small images each.

Writing needs TensorFlow, which the project does without; so in an environment of its own:

    python -m venv tfds_venv
    tfds_venv/bin/pip install tensorflow-cpu==2.21.0 tensorflow-datasets==4.9.10 importlib_resources pillow
    tfds_venv/bin/python tools/make_tfds_folders.py [NAME ...]

Without names all are made anew. `coco_captions` and `clevr` have the features of the builders in tensorflow-datasets
itself; the others have those of big_vision's
builders (docs/reference/data.md#builders-of-tensorflow-datasets). By default they write TFRecord: `docvqa` is left so,
to be refused. Images are drawn, texts written here. Another run gives equal records in other bytes, since protobuf
orders their fields anew.
"""

import io
from pathlib import Path
import shutil
import sys
import tempfile

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.clevr import clevr_dataset_builder
from tensorflow_datasets.object_detection import coco_captions

OUTPUT = Path(__file__).parents[1] / "tests" / "fixtures" / "tfds"
COLORS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 200), "gray": (128, 128, 128)}
CAPTIONS = ("A {} field.", "Everything is {} here.", "A plain {} picture", "un café {}", "{}.")


def image(color: str, size_px: tuple[int, int], form: str) -> io.BytesIO:
    """An encoded image of one color."""
    file = io.BytesIO()
    PIL.Image.new("RGB", size_px, COLORS[color]).save(file, form)
    file.seek(0)
    return file


class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of builders with one split of four examples."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: dict = {}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.FEATURES))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(4):
            yield number, self.example(number)


class CocoCaptions(coco_captions.CocoCaptions, skip_registration=True):
    """1 to 5 captions an image, every other image without objects."""

    name = "coco_captions"

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "val")}

    def _generate_examples(self, split: str):
        for number in range(5 if split == "train" else 2):
            color, name = list(COLORS)[number % 4], f"COCO_{split}2014_{number:012}.jpg"
            box = tfds.features.BBox(ymin=0.0, xmin=0.25, ymax=0.5, xmax=1.0)
            things = [{"id": 7, "area": 50, "bbox": box, "label": 16, "is_crowd": False}]
            texts = [text.format(color) for text in CAPTIONS[: number + 1]]
            example = {
                "image": image(color, (24 + number, 16), "JPEG"),
                "image/filename": name,
                "image/id": number,
                "objects": things * (number % 2),
                "captions": [{"id": 10 * number + at, "text": text} for at, text in enumerate(texts)],
            }
            yield name, example


class Clevr(clevr_dataset_builder.Builder, skip_registration=True):
    """1 to 3 questions a scene; the last has no answers, as in the test split."""

    name = "clevr"
    pkg_dir_path = Path(clevr_dataset_builder.__file__).parent

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(4):
            color = list(COLORS)[number]
            cube = {"color": color, "material": "metal", "shape": "cube", "size": "small", "rotation": 0.5}
            coords = {"3d_coords": np.zeros(3, np.float32), "pixel_coords": np.ones(3, np.float32)}
            asked = [("What color is the cube?", color), ("Are there two cubes?", "no"), ("How many cubes?", "1")]
            texts = asked[: number + 1] if number < 3 else [("How many cubes?", "")]
            yield (
                number,
                {
                    "image": image(color, (24, 16 + number), "PNG"),
                    "file_name": f"CLEVR_train_{number:06}.png",
                    "objects": [cube | coords],
                    "question_answer": [{"question": question, "answer": answer} for question, answer in texts],
                },
            )


class Chartqa(Small, skip_registration=True):
    name = "chartqa"
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="human", description="questions that people wrote")]
    FEATURES = {
        "question_id": tfds.features.Scalar(np.int32),
        "image/filename": tfds.features.Text(),
        "image": tfds.features.Image(encoding_format="png"),
        "question": tfds.features.Text(),
        "answer": tfds.features.Text(),
    }

    def example(self, number: int) -> dict:
        color = list(COLORS)[number]
        return {
            "question_id": number,
            "image/filename": f"{number}.png",
            "image": image(color, (20, 12 + number), "PNG"),
            "question": "What color is the bar?",
            "answer": color,
        }


class Textvqa(Small, skip_registration=True):
    """Ten answers a question, as people wrote them; the last has none, as in the test split."""

    name = "textvqa"
    FEATURES = {
        "image/id": tfds.features.Scalar(np.int32),
        "image_filepath": tfds.features.Text(),
        "image": tfds.features.Image(encoding_format="jpeg"),
        "question_id": tfds.features.Scalar(np.int32),
        "question": tfds.features.Text(),
        "answers": tfds.features.Sequence(tfds.features.Text()),
    }
    ANSWERS = (
        ["nokia"] * 10,
        ["stop sign", "stop", "stop", "stop sign", "halt", "stop", "unanswerable", "stop", "stop", "sign"],
        ["5", "five", "Five", "five", "5", "6", "7", "8", "9", "10"],
        [],
    )

    def example(self, number: int) -> dict:
        return {
            "image/id": number,
            "image_filepath": f"train_images/{number}.jpg",
            "image": image("gray", (16, 16 + number), "JPEG"),
            "question_id": 34602 + number,
            "question": "what does it say?",
            "answers": self.ANSWERS[number],
        }


class Pages(Small, skip_registration=True):
    """No published set: what a record may hold beyond the others' fields."""

    name = "pages"
    FEATURES = {
        "pages": tfds.features.Sequence(tfds.features.Image(encoding_format="png")),
        "words": tfds.features.Sequence(tfds.features.Sequence(tfds.features.Text())),
        "title": tfds.features.Text(),
        "source": {"license": tfds.features.Text(), "is_scan": np.bool_, "scale": np.float32},
        "embedding": tfds.features.Tensor(shape=(2, 3), dtype=np.float32),
    }

    def example(self, number: int) -> dict:
        return {
            "pages": [image(color, (8, 8), "PNG") for color in list(COLORS)[:number]],
            "words": [["a", "b"], [], ["c"]][:number],
            "title": b"caf\xe9" if number % 2 else "café",  # Latin-1, which is no UTF-8
            "source": {"license": "CC0", "is_scan": True, "scale": 0.5},
            "embedding": np.arange(6, dtype=np.float32).reshape(2, 3),
        }


class Docvqa(Small, skip_registration=True):
    name = "docvqa"
    FEATURES = {
        "question_id": tfds.features.Scalar(np.int32),
        "image/filename": tfds.features.Text(),
        "image": tfds.features.Image(encoding_format="png"),
        "question": tfds.features.Text(),
        "answers": tfds.features.Sequence(tfds.features.Text()),
    }

    def example(self, number: int) -> dict:
        return {
            "question_id": number,
            "image/filename": f"documents/{number}.png",
            "image": image("gray", (12, 16), "PNG"),
            "question": "What is the date?",
            "answers": ["1 May 1998", "May 1"],
        }


def main() -> None:
    names = sys.argv[1:]
    for builder in (CocoCaptions, Clevr, Chartqa, Textvqa, Pages, Docvqa):
        if names and builder.name not in names:
            continue
        shutil.rmtree(OUTPUT / builder.name, ignore_errors=True)
        form = None if builder is Docvqa else "array_record"
        with tempfile.TemporaryDirectory() as folder:
            one = builder(data_dir=folder, file_format=form)
            shards = 2 if builder is CocoCaptions else 1
            config = tfds.download.DownloadConfig(num_shards=shards, compute_stats=tfds.download.ComputeStatsMode.SKIP)
            one.download_and_prepare(download_config=config)
            prepared = Path(one.data_dir)
            shutil.copytree(prepared, OUTPUT / prepared.relative_to(folder))
    for path in sorted(OUTPUT.rglob("*")):
        if path.is_file():
            print(path.relative_to(OUTPUT), path.stat().st_size)


if __name__ == "__main__":
    main()
