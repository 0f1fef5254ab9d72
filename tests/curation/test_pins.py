"""The pins of the extra `curation` are those of requirements.txt but for what Beam holds back."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
HELD_BACK = {"beartype", "numpy", "pillow", "protobuf", "pyarrow"}


def pins(name: str) -> set[str]:
    return {line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"}


def test_no_other_version_differs():
    """Else what was tested with one file would run with another."""
    missing = pins("requirements.txt") - pins("requirements-curation.txt")
    assert {line.partition("==")[0] for line in missing} == HELD_BACK
