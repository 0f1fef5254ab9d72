"""The data mixtures of the paper's stages, by name, with the tables that they come from.

Data. SOURCES says of each name which files are read, in the form in which their authors publish them or img2dataset
brings them, in a folder of that name below DATA_ROOT; docs/data.md says how they come there. OBELICS and MINT-1T's web
pages name images by URL, so they are packed together with their images first. BLIP3-OCR-HD-30M was never released: it
is read as OCR-200M is.
"""

from collections.abc import Mapping

from xgenmm_jax.data.readers import caption_sets, conversation_sets, vqa_sets
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.readers.dialogues import Cauldron, VLGuard
from xgenmm_jax.data.readers.grounding import Grounding
from xgenmm_jax.data.readers.idl import Idl
from xgenmm_jax.data.readers.llava import Llava, LlavaJson
from xgenmm_jax.data.readers.mint import MintArxiv, MintPdf
from xgenmm_jax.data.readers.multi_image import Mantis, Mmdu
from xgenmm_jax.data.readers.multiple_choice import ProVision
from xgenmm_jax.data.readers.ocr import Ocr
from xgenmm_jax.data.readers.preferences import Preferences, VlFeedback
from xgenmm_jax.data.readers.records import ProjectRecords
from xgenmm_jax.data.readers.visual_genome import VisualGenome
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.source import Source
from xgenmm_jax.data.storage.base import Storage
from xgenmm_jax.data.storage.json_files import JsonFiles, JsonObject
from xgenmm_jax.data.storage.parquet import Parquet
from xgenmm_jax.data.storage.record_shards import ArrayRecords
from xgenmm_jax.data.storage.tars import Tars
from xgenmm_jax.data.to_draw import ToDraw

Mixture = tuple[tuple[Source, float], ...]

DATA_ROOT = "data"
"""Where all of the paper's data lie, relative to where the command is typed."""

SOURCES: dict[str, tuple[Storage, Reader]] = {
    "obelics": (ArrayRecords(f"{DATA_ROOT}/obelics/*.array_record"), ProjectRecords()),
    "mint1t_html": (ArrayRecords(f"{DATA_ROOT}/mint1t_html/*.array_record"), ProjectRecords()),
    "mint1t_pdf": (Tars(f"{DATA_ROOT}/mint1t_pdf/*/*.tar"), MintPdf()),
    "mint1t_arxiv": (Tars(f"{DATA_ROOT}/mint1t_arxiv/*.tar"), MintArxiv()),
    # img2dataset's tars and, beside each, its table: texts and sizes come from there when they are measured.
    "blip3_kale": (Tars(f"{DATA_ROOT}/blip3_kale/*.tar", table=True), caption_sets.DOWNLOADED),
    "datacomp_1b": (Tars(f"{DATA_ROOT}/datacomp_1b/*.tar", table=True), caption_sets.DOWNLOADED),
    "cc12m": (Tars(f"{DATA_ROOT}/cc12m/*.tar", table=True), caption_sets.DOWNLOADED),
    "cc3m": (Tars(f"{DATA_ROOT}/cc3m/*.tar", table=True), caption_sets.DOWNLOADED),
    "sbu": (Tars(f"{DATA_ROOT}/sbu/*.tar", table=True), caption_sets.DOWNLOADED),
    "visual_genome": (
        JsonFiles(f"{DATA_ROOT}/visual_genome/region_descriptions.json", images=f"{DATA_ROOT}/visual_genome"),
        VisualGenome(),
    ),
    # BLIP-2's: COCO's captions in LAVIS' list, and the part of LAION400M whose captions BLIP wrote or kept.
    "coco_captions": (
        JsonFiles(f"{DATA_ROOT}/coco_captions/coco_karpathy_train.json", images=f"{DATA_ROOT}/coco_captions"),
        caption_sets.LAVIS,
    ),
    "laion_115m": (Tars(f"{DATA_ROOT}/laion_115m/*.tar", table=True), caption_sets.DOWNLOADED),
    # Texts without boxes and places by a word: the paper's choice for OCR, ours for GROUNDING.
    "blip3_grounding_50m": (Tars(f"{DATA_ROOT}/blip3_grounding_50m/*.tar", table=True), Grounding()),
    "blip3_ocr_200m": (Tars(f"{DATA_ROOT}/blip3_ocr_200m/*.tar", table=True), Ocr()),
    "blip3_ocr_hd_30m": (Tars(f"{DATA_ROOT}/blip3_ocr_hd_30m/*.tar", table=True), Ocr()),
    "idl": (Tars(f"{DATA_ROOT}/idl/*.tar"), Idl()),
    # Fine-tuning. COCO's, GQA's, VG's, ... images lie in `sft/images`, in the folders that ShareGPT4V names.
    "sharegpt4v": (JsonFiles(f"{DATA_ROOT}/sharegpt4v/*.json", images=f"{DATA_ROOT}/sft/images"), Llava()),
    "som_llava": (JsonFiles(f"{DATA_ROOT}/som_llava/*.json", images=f"{DATA_ROOT}/sft/images"), Llava()),
    "chartqa": (Parquet(f"{DATA_ROOT}/chartqa/train-*.parquet"), vqa_sets.CHARTQA),
    "docvqa": (
        JsonObject(f"{DATA_ROOT}/docvqa/train_v1.0.json", images=f"{DATA_ROOT}/docvqa", member="data"),
        vqa_sets.DOCVQA_JSON,
    ),
    # Of the Cauldron: the hub's other AI2D is the test split.
    "ai2d": (Parquet(f"{DATA_ROOT}/ai2d/train-*.parquet"), Cauldron()),
    "textvqa": (Parquet(f"{DATA_ROOT}/textvqa/train-*.parquet"), vqa_sets.TEXTVQA),
    "ocr_vqa": (
        JsonObject(f"{DATA_ROOT}/ocr_vqa/dataset.json", images=f"{DATA_ROOT}/ocr_vqa/images", only=("split", 1)),
        vqa_sets.OCR_VQA,
    ),
    "gqa": (
        JsonObject(f"{DATA_ROOT}/gqa/train_balanced_questions.json", images=f"{DATA_ROOT}/gqa/images"),
        vqa_sets.GQA,
    ),
    "science_qa": (Parquet(f"{DATA_ROOT}/science_qa/train-*.parquet"), vqa_sets.SCIENCE_QA),
    "aokvqa": (Parquet(f"{DATA_ROOT}/aokvqa/train-*.parquet"), vqa_sets.AOKVQA),
    "dvqa": (JsonFiles(f"{DATA_ROOT}/dvqa/train_qa.json", images=f"{DATA_ROOT}/dvqa/images"), vqa_sets.DVQA),
    "clevr": (
        JsonObject(
            f"{DATA_ROOT}/clevr/questions/CLEVR_train_questions.json",
            images=f"{DATA_ROOT}/clevr/images/train",
            member="questions",
        ),
        vqa_sets.CLEVR_JSON,
    ),
    "provision": (Parquet(f"{DATA_ROOT}/provision/vgs_*.parquet", images=f"{DATA_ROOT}/provision"), ProVision()),
    "open_orca": (Parquet(f"{DATA_ROOT}/open_orca/*.parquet"), conversation_sets.OPEN_ORCA),
    "orca_math": (Parquet(f"{DATA_ROOT}/orca_math/train-*.parquet"), conversation_sets.ORCA_MATH),
    "mantis": (Parquet(f"{DATA_ROOT}/mantis/*/train-*.parquet", images=f"{DATA_ROOT}/mantis/images"), Mantis()),
    "mmdu": (JsonFiles(f"{DATA_ROOT}/mmdu/mmdu-45k.json", images=f"{DATA_ROOT}/mmdu/mmdu-45k_pics"), Mmdu()),
    "vlfeedback": (
        JsonFiles(f"{DATA_ROOT}/vlfeedback/vlfeedback_80k.jsonl", images=f"{DATA_ROOT}/vlfeedback"),
        VlFeedback(),
    ),
    # Written by hand: {"image", "prompt", "chosen", "rejected"} a line.
    "vlfeedback_noised": (
        JsonFiles(f"{DATA_ROOT}/vlfeedback_noised/*.jsonl", images=f"{DATA_ROOT}/vlfeedback"),
        Preferences(),
    ),
    "vlguard": (JsonFiles(f"{DATA_ROOT}/vlguard/train.json", images=f"{DATA_ROOT}/vlguard/train"), VLGuard()),
    # To draw: tars of KEY.jpg and KEY.txt. `xgenmm curate tuning-set` makes sets of the last one's form.
    "blip3o_long_caption": (Tars(f"{DATA_ROOT}/blip3o_long_caption/*.tar"), ToDraw(caption_sets.BLIP3O)),
    "blip3o_short_caption": (Tars(f"{DATA_ROOT}/blip3o_short_caption/*.tar"), ToDraw(caption_sets.BLIP3O)),
    "blip3o_journeydb": (Tars(f"{DATA_ROOT}/blip3o_journeydb/*.tar"), ToDraw(caption_sets.BLIP3O)),
    "blip3o_60k": (Tars(f"{DATA_ROOT}/blip3o_60k/*.tar"), ToDraw(caption_sets.BLIP3O)),
}
"""Files and reader of each name."""

# Pre-training. Percent of samples: the paper says "sampling ratios" and not of what (figure 3;
# docs/reference/training.md#stage-1-mixture).
INTERLEAVED = {"obelics": 17.5, "mint1t_html": 17.5, "mint1t_pdf": 12.5, "mint1t_arxiv": 2.5}
WEB_CAPTIONS = {"cc12m": 1.25, "cc3m": 1.25, "sbu": 1.25, "visual_genome": 1.25}
STAGE1 = {
    **INTERLEAVED,
    "blip3_kale": 25.0,
    "datacomp_1b": 10.0,
    "blip3_grounding_50m": 5.0,
    "blip3_ocr_200m": 5.0,
    **WEB_CAPTIONS,
}
STAGE2_NEW = {"blip3_ocr_hd_30m": 10.0, "idl": 10.0}
STAGE2_KEPT = {**INTERLEAVED, "blip3_kale": 10.0, "datacomp_1b": 2.5, "blip3_grounding_50m": 2.5, **WEB_CAPTIONS}
"""With STAGE2_NEW the paper's numbers of section 5.1, which sum to 90."""


BLIP2 = {
    "coco_captions": 113_000.0,
    "visual_genome": 100_000.0,
    "sbu": 860_000.0,
    "cc3m": 3_000_000.0,
    "cc12m": 10_000_000.0,
    "laion_115m": 115_000_000.0,
}
"""Images of BLIP-2's mixture, 129M, as BLIP counted those of each set: docs/reference/blip2.md#recipe says by what
each count is known."""

MOST_OF_A_SOURCE = 350_000
"""Cambrian-1's cap, which curates as the paper says it does (docs/reference/training.md#fine-tuning-data)."""

SINGLE_IMAGE = {
    "sharegpt4v": 665_058,
    "som_llava": 30_160,
    "chartqa": 28_299,
    "docvqa": 39_463,
    "ai2d": 2_434,
    "textvqa": 34_602,
    "ocr_vqa": 166_000,
    "gqa": 943_000,
    "science_qa": 12_726,
    "aokvqa": 17_056,
    "dvqa": 2_325_316,
    "clevr": 699_989,
    "provision": 3_075_260,
    "open_orca": 4_233_923,
    "orca_math": 200_035,
}
"""The sets of section 5.2 and how many records each publishes. The paper tells no counts; those of science_qa, gqa,
clevr and open_orca are not confirmed by a source (docs/reference/training.md#fine-tuning-sets)."""

EXAMPLE = {
    "sharegpt4v_mix665k": 665_058,
    "som_qa_coco20k": 20_160,
    "som_listing_coco10k": 10_000,
    "python_code_23k": 10_000,
    "gsm8k": 7_473,
    "slimorca": 10_000,
    "orca_math": 10_000,
    "lima": 5_000,  # of 1030: drawn with replacement
    "ai2d": 10_000,  # of 2482: the same
    "dvqa": 20_000,
    "docvqa": 20_649,
    "chartqa_augmented": 20_901,
    "chartqa_human": 7_398,
}
"""Files of the released example_data_config.yaml, and how many samples of each."""

MULTI_IMAGE = {"mantis": 721_000, "mmdu": 45_000}
"""Conversations of Mantis-Instruct and MMDU-45k, from their names and papers."""

DRAWING = {"blip3o_long_caption": 27.2, "blip3o_short_caption": 4.8, "blip3o_journeydb": 4.3}
"""Millions of captions that BLIP3-o is pre-trained to draw (docs/reference/blip3o.md#recipe)."""

PAIRS = {"vlfeedback": 1.0}
PAIRS_AND_NOISED = {"vlfeedback": 1.0, "vlfeedback_noised": 1.0}
"""As many pairs again, whose rejected answer was generated from a noised image."""


def source(name: str) -> ShardedSource:
    """One of SOURCES."""
    storage, reader = SOURCES[name]
    return ShardedSource(storage, reader, name=name)


def mixture(weights: Mapping[str, float]) -> Mixture:
    """Sources with relative weights; they need not sum to 100."""
    return tuple((source(name), weight) for name, weight in weights.items())


def stage1() -> Mixture:
    return mixture(STAGE1)


def stage2_normalized() -> Mixture:
    """The paper's 90 percent as relative weights: each source grows by 100 / 90, OCR-HD and IDL to 11.1 percent."""
    return mixture({**STAGE2_KEPT, **STAGE2_NEW})


def stage2_new_at_10() -> Mixture:
    """OCR-HD and IDL "each making up 10 percent of the total", the rest scaled by 80 / 70."""
    return mixture({**{name: weight * 80 / 70 for name, weight in STAGE2_KEPT.items()}, **STAGE2_NEW})


def single_image_3m() -> Mixture:
    """Each set of section 5.2 by its records, at most MOST_OF_A_SOURCE of them: 2.6M, and the paper says 3M.

    The paper publishes no counts. Which records of a larger set are seen, the order draws, none of them twice.
    """
    return mixture({name: float(min(count, MOST_OF_A_SOURCE)) for name, count in SINGLE_IMAGE.items()})


def samples_of(single: Mixture) -> int:
    """Samples of one pass over a mixture whose weights count them."""
    return round(sum(weight for _, weight in single))


def example() -> Mixture:
    """The mixture of the released code: each file's draw, seen in proportion to its size."""
    return tuple(
        (LlavaJson(f"{DATA_ROOT}/sft/{name}.json", f"{DATA_ROOT}/sft/images", samples=count), float(count))
        for name, count in EXAMPLE.items()
    )


def multi_image(single_share: float = 0.5) -> Mixture:
    """Multi-image conversations, and the single-image mixture at `single_share` of the samples."""
    single, multi = single_image_3m(), mixture(MULTI_IMAGE)
    parts = ((single, single_share), (multi, 1 - single_share))
    return tuple(
        (source, weight / sum(w for _, w in part) * share) for part, share in parts if share for source, weight in part
    )


def safety(guarded: int, replayed: int) -> Mixture:
    """`guarded` samples of VLGuard to `replayed` of the single-image mixture."""
    single = single_image_3m()
    total = sum(weight for _, weight in single)
    return (*mixture({"vlguard": float(guarded)}), *((source, weight / total * replayed) for source, weight in single))
