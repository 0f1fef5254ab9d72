"""GroundingDINO through transformers, on a tiny random model that is made here: what it gives becomes rows."""

import curated
import numpy as np
import PIL.Image
import pytest
import tiny_dino
from tiny_dino import TAGS, WORDS

from xgenmm_jax.curation.annotators import FixedTags, GroundingDino
from xgenmm_jax.curation.grounding import GroundingRows
from xgenmm_jax.curation.images import SourceImage
from xgenmm_jax.data.captions import grounding
from xgenmm_jax.data.readers.grounding import Grounding
from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.parquet import Parquet

torch = pytest.importorskip("torch", reason="pip install -e .[parity]")
transformers = pytest.importorskip("transformers", reason="pip install -e .[parity]")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # transformers' own
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return tiny_dino.write(tmp_path_factory.mktemp("dino"))


def image_of(size: tuple[int, int]) -> SourceImage:
    pixels = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8))
    return SourceImage("a", 0, 0, Caption("a", LazyImage(size, pixels.copy), ""), pixels, b"", {})


def test_boxes_and_phrases_of_the_model_are_those_of_its_processor(folder):
    annotator = GroundingDino(FixedTags(TAGS), folder, box_threshold=0.0, text_threshold=0.0, overlap=1.0)
    annotator.check()
    assert annotator.described()["model"] == folder.rpartition("/")[2]
    image = image_of((90, 60))
    detections = annotator.open()(image)
    # What transformers' own pipeline of the two says.
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    inputs = processor(images=image.pixels, text="cat. traffic light. dog.", return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    centers = outputs.pred_boxes[0].numpy()
    scores = outputs.logits.sigmoid()[0].max(-1).values.numpy()
    assert len(detections) == 12
    for one in detections:
        nearest = int(np.abs(scores - one.confidence).argmin())
        x, y, width, height = centers[nearest]
        np.testing.assert_allclose(one.box, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), atol=1e-5)
        assert set(one.tag.split()) <= set(WORDS[7:])
    assert [one.confidence for one in detections] == sorted((one.confidence for one in detections), reverse=True)


def test_boxes_below_the_threshold_are_left_out(folder):
    loose = GroundingDino(FixedTags(TAGS), folder, 0.0, 0.0, 1.0).open()(image_of((90, 60)))
    middle = sorted(one.confidence for one in loose)[6]
    strict = GroundingDino(FixedTags(TAGS), folder, middle, 0.0, 1.0).open()(image_of((90, 60)))
    assert strict == [one for one in loose if one.confidence > middle] and 0 < len(strict) < 12


def test_more_tags_than_a_text_holds_are_asked_in_groups(folder):
    """A text of more tokens than the model was made for would be cut, and its last tags never found."""
    tags = TAGS * 4  # 12 tags of 15 words and 12 dots
    detections = GroundingDino(FixedTags(tags), folder, 0.0, 0.0, 1.0).open()(image_of((90, 60)))
    assert len(detections) == 2 * 12


def test_rows_are_written_and_read_back(folder, tmp_path):
    maker = GroundingRows(GroundingDino(FixedTags(TAGS), folder, 0.0, 0.0, 0.5))
    result = curated.made(curated.images(tmp_path / "tars", shards=1), tmp_path / "made", maker)
    assert result.rows == 3 and set(result.left_out()) == {"unreadable image"}
    storage = Parquet(f"{tmp_path}/made/data/*.parquet")
    records = ShardedSource(storage, Grounding(2, image=("image",)), index=str(tmp_path / "index")).open()
    text = records.record(0, np.random.default_rng(0)).text
    assert "<object>" in grounding.clipped(text, 2) and text.startswith("Picture 000000000")


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="--model: '.*nowhere' cannot be loaded"):
        GroundingDino(FixedTags(TAGS), str(tmp_path / "nowhere")).check()
