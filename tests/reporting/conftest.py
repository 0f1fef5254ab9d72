"""Data of a user's own, some of which is bad, hostile or large."""

import json

import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.anyres import GRIDS_RELEASED, AnyRes
from xgenmm_jax.data.readers.llava import LlavaJson
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import train_tokenizer

SCRIPT = "<script>console.error('ran')</script>"
ASKED = {
    "script": f"What is {SCRIPT}?",
    "hidden": "a\u202eb\x07c\u2028d 🙂\tend <|end|> <image placeholder>",
    "broken": "Is it whole?",
}
"""Of records by their ids, questions; the answer is "it is ID". The image of "broken" is cut short."""


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> DataConfig:
    """Conversations about photographs at the sizes of the released models: views of 384 pixels, any resolution."""
    folder = tmp_path_factory.mktemp("photographs")
    entries = []
    sizes = ((640, 480), (300, 1000), (1000, 300), (200, 200))
    for number in range(12):
        width, height = sizes[number % len(sizes)]
        across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        pixels = np.stack([across, down, np.full_like(across, 20 * number)], -1).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
        id_ = list(ASKED)[number] if number < len(ASKED) else f"r{number}"
        asked = ASKED.get(id_, f"How wide is it, {number}?")
        turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": f"it is {id_}"}]
        entries.append({"id": id_, "image": f"{number}.png", "conversations": turns})
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    entries.append({"id": "gone", "image": "none.png", "conversations": entries[-1]["conversations"]})
    (folder / "mine.json").write_text(json.dumps(entries))
    train_tokenizer(["What is it? How wide is it, it is whole script"] * 9, folder / "words.model", pieces=400)
    return DataConfig(
        mixture=((LlavaJson(str(folder / "mine.json"), str(folder)), 1.0),),
        tokenizer=str(folder / "words.model"),
        row=RowConfig(length=300, crops=16, images=8, vision_tokens=8, too_long="drop"),
        anyres=AnyRes(grids=GRIDS_RELEASED, view_px=384),
        batch_rows=2,
        window=13,
        chat=ChatStyle(system=None),
    )
