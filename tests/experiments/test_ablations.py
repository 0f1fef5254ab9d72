"""The ablations: a file for each question, whose arms differ in what is asked about and in nothing else."""

import dataclasses

from experiment_runs import FILES, runs
import pytest

QUERIES = {"model.connector", "data.row.vision_tokens"}
LATENTS = {
    "model.drawing.head.channels", "model.drawing.head.patch", "model.drawing.target", "model.drawing.pixels",
}  # fmt: skip
DOCUMENTS = {
    "": {"data.mixture", "data.anyres.grids", "data.row.length", "data.row.crops", "data.row.segments"},
    "nano_": {"data.mixture", "data.anyres.grids", "data.anyres.single_view_up_to_px"},
}
CONNECTORS = ("resampler", "queries_half", "queries_as_mlp", "queries_double", "mlp")
STAGES = ("before", "single", "multi", "nano_before", "nano_single", "nano_multi")
ARMS = {
    "data_scale": [
        ("percent_2 percent_10 percent_20 percent_40 percent_60 percent_100", {"steps"}),
        ("config percent_100", {"checkpoint"}),
        (" ".join(f"nano_percent_{percent}" for percent in (2, 10, 20, 40, 60, 100)), {"steps"}),
        ("nano_config nano_percent_100", {"checkpoint", "optimizer"}),
    ],
    "vision_backbone": [
        ("config siglip dfn", {"model.vision", "model.connector", "data.anyres.view_px", "initialize.vision"}),
        ("tower_sigmoid tower_softmax", {"objective.contrast"}),
        ("sigmoid softmax", {"initialize.vision"}),
    ],
    "stage2_resolution": [
        ("config stage2_fewer stage2_all", {"data.anyres.grids"}),
        ("sft_none sft_fewer sft_all", {"initialize.run"}),
        ("nano_stage2_fewer nano_stage2_all", {"data.anyres.grids"}),
        ("nano_sft_none nano_sft_fewer nano_sft_all", {"initialize.run"}),
    ],
    "connector": [(" ".join(f"{size}{arm}" for arm in CONNECTORS), QUERIES) for size in ("", "nano_")]
    + [
        (
            " ".join(f"{size}{arm}_sft" for arm in CONNECTORS),
            {*QUERIES, "initialize.run"},
        )
        for size in ("", "nano_")
    ]
    + [("config resampler", set())],
    "token_sampling": [
        (
            f"{prefix}crops {prefix}strips {prefix}fixed_sampling {prefix}fixed_resolution",
            {"model.token_sampling", "data.row.vision_tokens_per", "data.anyres.grids", "data.anyres.global_view"},
        )
        for prefix in ("", "nano_")
    ]
    + [("config crops", set())],
    "instruction_aware": [
        ("config without with_instruction", {"model.connector", "initialize.fresh"}),
        ("nano_without nano_with_instruction", {"model.connector", "initialize.fresh"}),
    ],
    "ocr_filler": [("config removed kept", {"data.mixture"}), ("nano_removed nano_kept", {"data.mixture"})],
    "blip3o_objective": [
        ("config flow regression", {"model.drawing.head", "objective"}),
        ("nano_flow nano_regression", {"model.drawing.head", "objective"}),
    ],
    "blip3o_target": [
        ("features latents", LATENTS | {"initialize.run", "freeze"}),
        ("nano_features nano_latents", LATENTS | {"initialize.run", "initialize.pixels", "freeze"}),
    ]
    + [
        (f"{prefix}autoencoder {prefix}latents", {"objective", "initialize.run", "initialize.fresh", "freeze"})
        for prefix in ("", "nano_")
    ]
    + [("config features", set())],
    "blip3o_strategy": [
        (f"{prefix}sequential {prefix}joint", {"data.mixture", "data.batch_rows", "objective.text_weight", "freeze"})
        for prefix in ("", "nano_")
    ]
    + [("config sequential", set())],
    "blip2": [
        (" ".join(f"{size}{arm}" for arm in arms.split()), allowed)
        for size in ("", "nano_")
        for arms, allowed in {
            "queries": set(),
            "blip2 qformer": {"initialize.connector", "initialize.fresh"},
            "qformer resampler": {"model.connector"},
            "resampler blip3": {"freeze"},
            "blip2 qformer_trained": {"freeze"},
            "blip3 blip3_documents": DOCUMENTS[size],
        }.items()
    ]
    + [("config blip3", set())],
    "multi_image": [("config multi multi_alone", {"data.mixture"}), ("nano_multi nano_multi_alone", {"data.mixture"})],
}
"""The arms of each question, and the fields in which they may differ beside the name."""


def differences(a, b, path: str = "") -> set[str]:
    """Dotted names of the fields that differ; the first two levels below data, model and initialize."""
    if type(a) is type(b) and dataclasses.is_dataclass(a) and path not in ("model.connector", "model.vision"):
        fields = [f.name for f in dataclasses.fields(a)]
        return set().union(*(differences(getattr(a, f), getattr(b, f), f"{path}.{f}".lstrip(".")) for f in fields))
    return set() if a == b else {path}


@pytest.mark.parametrize("question", ARMS)
def test_arms_differ_in_one_thing(question):
    """Whatever else differed would be the answer to the question as well."""
    arms = runs(f"ablations/{question}.py")
    asked = set()
    for names, allowed in ARMS[question]:
        first, *others = names.split()
        asked |= {first, *others}
        differing = set().union(*(differences(arms[first], arms[other]) for other in others))
        differing = {"checkpoint" if field.startswith("checkpoint") else field for field in differing}
        differing = {"optimizer" if field.startswith("optimizer") else field for field in differing}
        assert differing - {"name"} == allowed, names
    assert set(arms) - asked <= {"nano_config", *(STAGES if question == "multi_image" else ())}


def test_every_question_of_the_paper_has_a_file():
    assert {f"ablations/{question}.py" for question in ARMS} == {f for f in FILES if f.startswith("ablations/")}


def test_ocr_filler_changes_captions_and_nothing_else():
    arms = runs("ablations/ocr_filler.py")
    without_filler, with_filler = (dict(arms[name].data.mixture) for name in ("nano_removed", "nano_kept"))
    assert sorted(without_filler.values()) == sorted(with_filler.values())
    assert [source.filler for source in without_filler] == [False] * len(without_filler)
    assert [source.family for source in with_filler if source.filler] == ["ocr"]
