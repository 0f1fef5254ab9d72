"""The paper's tables as data: columns, published rows, domain averages.

Sources: Table 1 of "xGen-MM (BLIP-3)" (arXiv 2408.08872) for the rows named PAPER; the model card of
xgen-mm-phi3-mini-instruct-interleave-r-v1.5 for MM1-3B-Chat; the model card of xgen-mm-phi3-mini-base-r-v1 for few-shot
rows; Tables 2 and 3 as far as they are known here; of BLIP-2 (arXiv 2301.12597) its zero-shot table. A cell that is not
known is empty, never guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PAPER, MODEL_CARD, BLIP2_PAPER = "paper", "model card", "BLIP-2's paper"


@dataclass(frozen=True)
class Column:
    """A column of a table. task: the benchmark's name. title: as the paper writes it."""

    task: str
    title: str


@dataclass(frozen=True)
class Published:
    """A row of other's numbers. scores: by task, in [0, 100]. openness: whether weights, data and code are public.

    average: as printed; None where none is. note: what a reader must know.
    """

    model: str
    scores: Mapping[str, float]
    source: str = PAPER
    openness: tuple[bool, bool, bool] | None = None
    average: float | None = None
    note: str = ""


@dataclass(frozen=True)
class PaperTable:
    """columns: in the paper's order. has_average: whether it ends with the mean of all columns."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Published, ...]
    has_average: bool = False
    has_openness: bool = False
    notes: tuple[str, ...] = field(default=())


_TABLE1 = tuple(
    Column(task, title)
    for task, title in (
        ("seed_image", "SEED-IMG"), ("mmbench", "MMB(dev)"), ("mmstar", "MMStar"), ("mme", "MME(norm)"),
        ("realworldqa", "RWQA"), ("mmvet", "MMVet"), ("mmmu", "MMMU(val)"), ("mathvista", "MathVista"),
        ("textvqa", "TextVQA"), ("ocrbench", "OCRBench"), ("pope", "POPE"), ("hallusionbench", "HalBench"),
    )
)  # fmt: skip


def _row(
    model: str, scores: tuple[float, ...], openness: tuple[bool, bool, bool], average: float, note: str = ""
) -> Published:
    by_task = {column.task: score for column, score in zip(_TABLE1, scores, strict=True)}
    return Published(model, by_task, PAPER, openness, average, note)


TABLE1 = PaperTable(
    "table1",
    "Table 1: single-image benchmarks",
    _TABLE1,
    (
        _row("GPT-4V", (72.0, 80.8, 49.7, 63.3, 61.4, 49.0, 53.8, 48.2, 78.0, 67.8, 81.8, 39.3), (False,) * 3, 62.1),
        Published(
            "MM1-3B-Chat", {"seed_image": 68.8, "mmbench": 67.8, "mme": 62.9, "mmmu": 33.9, "pope": 87.4}, MODEL_CARD,
            (False,) * 3,
        ),
        _row(
            "VILA-1.5-3B", (67.9, 62.4, 40.3, 58.5, 53.3, 38.5, 34.1, 30.6, 58.1, 43.7, 86.9, 31.2), (True, True, True),
            50.5,
        ),
        _row(
            "Phi-3.5-vision", (69.6, 81.9, 47.3, 65.6, 53.5, 43.2, 43.0, 43.9, 72.0, 59.9, 86.1, 39.6),
            (True, False, False), 58.8,
        ),
        _row(
            "Pixtral-12B", (71.5, 77.9, 54.5, 68.6, 65.4, 58.5, 51.1, 56.3, 75.7, 72.2, 84.2, 47.0),
            (True, False, False), 64.9, "the paper prints 64.9; the mean of its twelve columns is 65.2",
        ),
        _row(
            "VILA-1.5-13B", (68.0, 74.4, 44.2, 61.4, 53.3, 45.0, 41.1, 42.3, 61.1, 45.7, 85.0, 39.3),
            (True, True, True), 55.1,
        ),
        _row(
            "BLIP-3-14B", (73.4, 77.5, 48.7, 68.1, 64.4, 44.5, 47.0, 45.4, 79.0, 71.1, 86.0, 38.7), (True, True, True),
            62.0,
        ),
    ),
    has_average=True,
    has_openness=True,
    notes=(
        "Rows of the paper that are not known here to the digit, BLIP-3-4B's among them, are left out.",
        "Open weights, data and code are facts of the models' releases, not the paper's marks.",
    ),
)  # fmt: skip

TABLE2 = PaperTable(
    "table2",
    "Table 2: multi-image benchmarks",
    (
        Column("blink", "BLINK"), Column("qbench2", "Q-Bench2"), Column("muirbench", "MuirBench"),
        Column("mantis", "Mantis-Eval"),
    ),
    (
        Published(
            "BLIP-3-4B, single-image", {"blink": 42.9, "qbench2": 51.9, "muirbench": 35.0, "mantis": 49.3},
            openness=(True, True, True),
        ),
        Published(
            "BLIP-3-4B, multi-image", {"blink": 47.1, "qbench2": 69.6, "muirbench": 38.0, "mantis": 56.2},
            openness=(True, True, True),
        ),
    ),
    has_openness=True,
    notes=("Q-Bench is taken for Q-Bench2's pairs (A1, dev), the set of the paper's first version.",),
)  # fmt: skip

_FEW_SHOT_SETS = ("coco", "nocaps", "textcaps", "okvqa", "textvqa", "vqav2")
_FEW_SHOT_TITLES = ("COCO", "NoCaps", "TextCaps", "OK-VQA", "TextVQA", "VQAv2")


def _few_shot(model: str, shots: int, scores: tuple[float | None, ...], source: str = MODEL_CARD) -> Published:
    named = {f"{name}_{shots}": score for name, score in zip(_FEW_SHOT_SETS, scores, strict=True) if score is not None}
    return Published(f"{model}, {shots} shots", named, source)


def few_shot_table(shots: int) -> PaperTable:
    """The few-shot sets behind so many demonstrations: CIDEr of captions, accuracy of questions."""
    rows = {
        4: (
            _few_shot("MM1-3B", 4, (112.3, 99.7, 84.1, 48.6, 45.3, 57.9)),
            _few_shot("xgen-mm base r-v1", 4, (110.5, 101.7, 84.6, 49.2, 46.1, 63.9)),
            _few_shot("BLIP-3 after 10B tokens, SigLIP", 4, (108.7, None, 84.7, 48.4, 49.1, None), PAPER),
            _few_shot("BLIP-3 after 10B tokens, DFN", 4, (107.2, None, 78.2, 48.4, 41.1, None), PAPER),
        ),
        8: (
            _few_shot("MM1-3B", 8, (114.6, 104.7, 88.8, 48.4, 44.6, 63.6)),
            _few_shot("xgen-mm base r-v1", 8, (112.1, 104.4, 87.7, 49.1, 46.4, 63.8)),
            _few_shot("BLIP-3 after 10B tokens, SigLIP", 8, (110.2, None, 88.6, 48.9, 50.5, None), PAPER),
            _few_shot("BLIP-3 after 10B tokens, DFN", 8, (109.4, None, 79.9, 49.5, 41.9, None), PAPER),
        ),
    }.get(shots, ())
    columns = tuple(
        Column(f"{name}_{shots}", title) for name, title in zip(_FEW_SHOT_SETS, _FEW_SHOT_TITLES, strict=True)
    )
    notes = ("MM1 and r-v1 report VQAv2 on testdev; here its validation set is asked.",)
    return PaperTable(f"fewshot_{shots}", f"Few-shot, {shots} demonstrations", columns, rows, notes=notes)


DOMAINS: dict[str, tuple[str, ...]] = {
    "General VQA": ("seed_image", "mmbench", "mmstar", "mme", "realworldqa"),
    "Science and maths": ("mmmu", "mathvista"),
    "Hallucination": ("pope", "hallusionbench"),
    "OCR": ("textvqa", "ocrbench"),
}
"""Of Tables 4 and 5 and Figure 7: means of the normalized scores. MM-Vet, which needs a judge, is in none."""

ABLATIONS = PaperTable(
    "ablation",
    "Tables 4 and 5: means by domain",
    tuple(Column(domain, domain) for domain in DOMAINS),
    (
        Published("Table 4: no stage 2", {"General VQA": 63.5, "OCR": 64.6}),
        Published("Table 4: stage 2, grids to 2x2, 1x3, 3x1", {"General VQA": 63.2, "OCR": 65.3}),
        Published("Table 4: stage 2, grids to 3x4, 4x3", {"General VQA": 63.3, "OCR": 67.2}),
        Published(
            "Table 5: perceiver resampler",
            {"General VQA": 63.1, "OCR": 70.4, "Science and maths": 43.4, "Hallucination": 62.2},
        ),
        Published(
            "Table 5: MLP", {"General VQA": 61.7, "OCR": 72.2, "Science and maths": 41.8, "Hallucination": 62.7}
        ),
    ),
    notes=("The paper's ablations are tuned on fewer samples than Table 1's models and not comparable with it.",),
)  # fmt: skip

_BLIP2 = tuple(
    Column(f"{name}_blip2", title)
    for name, title in (
        ("vqav2", "VQAv2(val)"), ("okvqa", "OK-VQA"), ("gqa", "GQA"), ("nocaps", "NoCaps"), ("coco", "COCO"),
    )
)  # fmt: skip


def _blip2(model: str, *scores: float) -> Published:
    """scores: in the columns' order; those behind the last are not known."""
    by_task = {column.task: score for column, score in zip(_BLIP2, scores, strict=False)}
    return Published(f"BLIP-2, {model}", by_task, BLIP2_PAPER)


BLIP2 = PaperTable(
    "blip2",
    "BLIP-2: zero-shot questions and captions",
    _BLIP2,
    (
        _blip2("ViT-L, OPT-2.7B", 50.1, 30.2, 33.9),
        _blip2("ViT-g, OPT-2.7B", 53.5, 31.7, 34.6, 119.7, 145.8),
        _blip2("ViT-g, OPT-6.7B", 54.3, 36.4, 36.4, 121.0, 145.2),
        _blip2("ViT-L, T5-XL", 62.6, 39.4, 44.4),
        _blip2("ViT-g, T5-XL", 63.1, 40.7, 44.2, 121.6, 144.5),
        _blip2("ViT-g, T5-XXL", 65.2, 45.9, 44.7),
    ),
    notes=(
        "Captions: CIDEr. The published ones are of models that were tuned on COCO's captions.",
        "The published rows of T5 are asked with 'Short answer:' in place of 'Answer:'.",
    ),
)
"""Source: docs/reference/blip2.md#results."""

TABLES = {"table1": TABLE1, "table2": TABLE2, "ablation": ABLATIONS, "blip2": BLIP2}
"""By name; "fewshot" is `few_shot_table` of each number of shots."""
