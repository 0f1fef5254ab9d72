"""The one translation from `xgenmm plan`'s names to Cloud's."""

from pathlib import Path
import subprocess

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"


def translated(function: str, topology: str) -> subprocess.CompletedProcess:
    script = f'source {LAUNCH}/lib.sh; {function} "$1"'
    return subprocess.run(["bash", "-c", script, "bash", topology], capture_output=True, text=True)


@pytest.mark.parametrize(
    "topology, kind, flags, runtime, one_host",
    [
        ("v5e:1x1", "v5litepod-1", "--accelerator-type=v5litepod-1", "v2-alpha-tpuv5-lite", True),
        ("v5e:2x4", "v5litepod-8", "--accelerator-type=v5litepod-8", "v2-alpha-tpuv5-lite", True),
        ("v5e:4x4", "v5litepod-16", "--accelerator-type=v5litepod-16", "v2-alpha-tpuv5-lite", False),
        ("v5e:16x16", "v5litepod-256", "--accelerator-type=v5litepod-256", "v2-alpha-tpuv5-lite", False),
        ("v6e:16x16", "v6e-256", "--accelerator-type=v6e-256", "v2-alpha-tpuv6e", False),
        ("v4:2x2x1", "v4-8", "--type=v4\n--topology=2x2x1", "tpu-ubuntu2204-base", True),
        ("v4:4x4x4", "v4-128", "--type=v4\n--topology=4x4x4", "tpu-ubuntu2204-base", False),
        ("v5p:4x4x8", "v5p-256", "--accelerator-type=v5p-256", "v2-alpha-tpuv5", False),
    ],
)
def test_planned_topologies_have_clouds_names(topology, kind, flags, runtime, one_host):
    assert translated("accelerator_type", topology).stdout.strip() == kind
    assert translated("accelerator_flags", topology).stdout.strip() == flags
    assert translated("runtime_version", topology).stdout.strip() == runtime
    assert (translated("has_one_host", topology).returncode == 0) == one_host


@pytest.mark.parametrize(
    "topology, sentence",
    [
        ("v5e:2x8", "a v5e slice has one of the shapes 1x1 2x2 2x4 4x4"),  # v5litepod-16 would be 4x4
        ("v5p:2x2x16", "a v5p slice has one of the shapes 2x2x1"),
        ("v4:4x4", "wanted three sides, as in v4:4x4x4"),
        ("v5litepod-256", "wanted CHIP:AxB or CHIP:AxBxC"),
        ("v7:4x4", "wanted CHIP:AxB or CHIP:AxBxC"),
        ("tpu7x:4x4x4", "use GKE"),
        ("", "wanted CHIP:AxB"),
    ],
)
def test_what_cloud_would_take_for_another_shape_is_refused(topology, sentence):
    done = translated("accelerator_flags", topology)
    assert done.returncode == 2 and sentence in done.stderr and done.stdout == ""
