"""How further published sets of conversations are read: of several images, of marked objects, of text alone.

Source: docs/reference/data.md#fine-tuning-records
"""

from xgenmm_jax.data.readers.instructions import Instructions, TextTurns
from xgenmm_jax.data.readers.llava import Llava

SOM_LLAVA = Llava()
"""`som_qa_coco20k`, `som_listing_coco10k` and `som_llava_mix695k`, JSON lists; the folder of images is the one that
holds `coco/som_train2017`."""

CAMBRIAN = Llava()
"""`Cambrian7M_withsystemprompt.jsonl`: `JsonFiles` reads its gigabytes by line, and `source` is passed over."""

OPEN_ORCA = Instructions()
ORCA_MATH = Instructions(system="", answer="answer")

GSM8K = Instructions(system="", answer="answer")
"""The hub's tables of `main`, and the authors' lines: the answer with its steps and "#### 72" at the end."""

SLIM_ORCA = Llava()
"""Lines of {"conversations"}, with a system turn in most; a turn's `weight` is passed over."""

PYTHON_CODE_23K = Llava()
"""A JSON list of {"id", "conversations"}."""

LIMA = TextTurns()
"""Lines of {"conversations", "source"}, each a list of texts."""
