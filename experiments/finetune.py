"""Fine-tuning of one's own: what does a model answer after a user's conversations about their pictures?

Paper: none; rates are those that are usual. Its own stages are sft_single.py and sft_multi.py.
Command: xgenmm train experiments/finetune.py --initialize.run RUN --data.json my.json --data.images pictures/
         xgenmm train experiments/finetune.py:lora ...      low-rank updates of the language model alone
Starts from: RUN, a run of this package or of `xgenmm convert RELEASED RUN`: its model, tokenizer, grids and prompt; of
a run that draws, those of what understands.
Hardware: what holds the run (`--for h200` sets what fits); `lora` has no optimizer state of its base.
Hours: by the data; no 4B model was fine-tuned here.
Expected: the held-out loss (held_out/loss in metrics.jsonl) falls until it rises again.

my.json has LLaVA's form, a list of {"id": "1", "image": "cat.jpg", "conversations": [{"from": "human", "value":
"<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]}, or such lines (.jsonl), or these columns (.parquet); a
table may hold the picture itself under "image", as the datasets library's {bytes, path}. A part of the rows is kept
from training (--data.held-out-one-in). Every field is an option: --steps, --optimizer.peak-lr, --lora.rank,
--lora.targets decoder/layers connector, --freeze.
"""

from dataclasses import fields, replace
import re

from xgenmm_jax.data.readers.llava import Llava
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.json_files import JsonFiles
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.text import tokenizer_files
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.paths import user_path
from xgenmm_jax.training.config import CheckpointConfig, HeldOut, Initialize, TrainConfig, load_config
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.optimizer import OptimizerConfig

STEPS, WARMUP = 400, 20
BATCH_ROWS = 8
CHUNK = 1024
"""Positions of a row that go through the head at once, at most."""
IMAGES = 3
"""Room in a row for so many of the most crops, in half of its positions."""
HELD_OUT_ONE_IN = 50
FEW_ROWS = 500
"""Of fewer rows one in ten is held out; of fewer than ten none."""


def config(initialize_run: str, data_json: str, data_images: str | None = None) -> TrainConfig:
    """Connector and language model train whole.

    --initialize.run: a run folder, of released weights what `xgenmm convert` makes of them. --data.json: a file, or a
    pattern of files. --data.images: the folder of pictures, if the rows name any.
    """
    return _fine_tuning(initialize_run, data_json, data_images, 1e-5)


def lora(initialize_run: str, data_json: str, data_images: str | None = None) -> TrainConfig:
    """Updates of rank 16 of the language model's linear maps train, the rest stays.

    --initialize.run: a run folder, of released weights what `xgenmm convert` makes of them. --data.json: a file, or a
    pattern of files. --data.images: the folder of pictures, if the rows name any.
    """
    return replace(_fine_tuning(initialize_run, data_json, data_images, 2e-4), lora=LoRA(rank=16, alpha=32.0))


def _fine_tuning(run: str, json: str, images: str | None, peak_lr: float) -> TrainConfig:
    folder = user_path(run, "--initialize.run")
    base = load_config(folder)
    if not isinstance(base.data, DataConfig):
        raise ValueError(f"--initialize.run: '{run}' holds a part of a model alone; give a run of a whole one.")
    storage = (Parquet if json.endswith(".parquet") else JsonFiles)(json, images)
    records = sum(storage.locate(shard).records for shard in storage.shards())
    file = user_path(json, "--data.json")
    name = re.sub(r"[^\w.-]", "_", file.stem)
    # Files of one folder have an index each, my.json and my.parquet too.
    source = name if file.suffix == ".json" else name + file.suffix
    # A run that draws has rows of captions to draw; what it understands is asked in other views and words.
    asking, row = base.data.asking, base.data.row
    most = asking.anyres.max_crops
    if base.data.target_px:
        row = _row_to_understand(row, most)
    # As many crops as fill half of a row's positions, some three images of the released grids.
    crops = max(most, min(4 * most, row.length // (2 * row.vision_tokens)))
    data = replace(
        base.data,
        mixture=((ShardedSource(storage, Llava(), name=source), 1.0),),
        tokenizer=str(tokenizer_files.beside(folder) or folder / tokenizer_files.MODEL_FILE),
        row=replace(row, crops=crops, images=crops, too_long="drop"),
        anyres=asking.anyres,
        chat=asking.chat,
        target_px=0,
        asked=None,
        phases=(),
        batch_rows=BATCH_ROWS,
        held_out_one_in=HELD_OUT_ONE_IN if records >= FEW_ROWS else 10 if records >= 10 else 0,
    )
    return TrainConfig(
        name=f"{folder.name}-{name}",
        model=VLMConfig(**{field.name: getattr(base.model, field.name) for field in fields(VLMConfig)}),
        data=data,
        objective=NextToken(min(CHUNK, row.length)),
        steps=STEPS,
        optimizer=OptimizerConfig(peak_lr=peak_lr, warmup_steps=WARMUP),
        initialize=Initialize(run=run),
        prompt=base.prompt,
        checkpoint=CheckpointConfig(every_steps=100),
        held_out=HeldOut(every_steps=50 if data.held_out_one_in else 0, samples=min(256, max(1, records // 10))),
    )


def _row_to_understand(row: RowConfig, most: int) -> RowConfig:
    """Of a power of two of positions, half of which hold IMAGES images of `most` crops: 4096 of the released grids."""
    tokens = row.vision_tokens * (most if row.vision_tokens_per == "crop" else 1)
    length = 1 << (2 * IMAGES * tokens - 1).bit_length()
    return RowConfig(max(length, row.length), row.crops, row.images, row.vision_tokens, row.vision_tokens_per)
