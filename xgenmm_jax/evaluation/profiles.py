"""Whose rules a score follows: the public implementations differ, so every number says which one it is of."""

from typing import Literal, get_args

Profile = Literal["paper", "fork", "latest", "lmms", "official"]
"""A public implementation.

paper: VLMEvalKit eda4a62 (28 February 2025), the era of the paper's tables. fork: ms-vlmeval 0.0.20, the only
VLMEvalKit on the package index. latest: VLMEvalKit e8e78f0 (18 August 2026). lmms: lmms-eval 0.7.3. official: the
benchmark's own script.
"""
PROFILES: tuple[Profile, ...] = get_args(Profile)

VLMEVALKIT: tuple[Profile, ...] = ("paper", "fork", "latest")
"""Profiles that ask as VLMEvalKit does."""

Reading = Literal["careful", "as_published"]
"""How files and answers are read. as_published: with the toolkit's faults, for numbers that it printed: cells such as
"None" and "NA" vanish, numbers are reformatted, answers go through a spreadsheet. careful: every cell as it is written.
"""

Reencode = Literal["none", "jpeg75"]
"""jpeg75: pictures of rows with one picture are encoded again as JPEG of quality 75, as VLMEvalKit did from July 2024
to February 2026 whatever their format."""


def refuse_profile(what: str, profile: str, known: tuple[str, ...]) -> ValueError:
    """The error of a rule that a profile does not have."""
    return ValueError(f"{what}: no rule of the profile '{profile}'; wanted one of {', '.join(known)}.")
