"""Pillow's own test images, broken ones among them: each is read or refused with one sentence, none fatal, none slow.

They are in Pillow's source package alone, 47 MB:

    pip download --no-binary pillow --no-deps pillow==13.0.0
    tar xf pillow-13.0.0.tar.gz
    PILLOW_IMAGES=pillow-13.0.0/Tests/images python -m pytest -m slow -s tests/data/test_pillow_images.py

-s shows how many were read, how many refused and why, and the slowest.
"""

from collections import Counter
import json
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

LEAST_FILES, MOST_SECONDS, TIMEOUT_SECONDS = 1000, 10.0, 300
FOLDER = os.environ.get("PILLOW_IMAGES")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="PILLOW_IMAGES=PATH names no folder of Pillow's test images"),
]

# A line for each file: the seconds it took, and what was said of it. Official pixels of 8 bits are what the released
# code's `Image.open(...).convert("RGB")` gives.
READER = """
import json, sys, time
import numpy as np, PIL.Image
from xgenmm_jax.data.images import open_image
official = sys.argv[1] == "official"

def released(path):
    try:
        with PIL.Image.open(path) as image:
            if image.mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr"):
                return np.asarray(image.convert("RGB"))
    except Exception:
        return None

for path in sys.stdin.read().splitlines():
    begin = time.perf_counter()
    try:
        image = open_image(path, official=official)
        pixels = image.load()
        seconds, said = time.perf_counter() - begin, "read"
        assert pixels.size == image.size_px and pixels.mode == "RGB", (pixels.size, image.size_px, pixels.mode)
        if official:
            want = released(path)
            assert want is None or np.array_equal(want, pixels), "other pixels than the released code's"
            said += "" if want is None else " as released"
    except ValueError as error:
        seconds, said = time.perf_counter() - begin, str(error)
    except BaseException as error:
        seconds, said = time.perf_counter() - begin, f"FATAL {type(error).__name__}: {error}"
    print(json.dumps([seconds, said]), flush=True)
"""


@pytest.mark.parametrize("way", ["official", "as seen"])
def test_every_image_is_read_or_refused_in_one_sentence(way):
    paths = sorted(path for path in Path(FOLDER).rglob("*") if path.is_file())
    assert len(paths) >= LEAST_FILES, f"{len(paths)} files in {FOLDER}"
    results = read_all(paths, way)
    fatal = [f"{path.name}: {said}" for path, (_, said) in zip(paths, results, strict=True) if said.startswith("FATAL")]
    assert not fatal
    refused = [(path, said) for path, (_, said) in zip(paths, results, strict=True) if not said.startswith("read")]
    reasons = Counter(reason(said, path) for path, said in refused)
    slowest = sorted(((seconds, path.name) for path, (seconds, _) in zip(paths, results, strict=True)), reverse=True)
    read = Counter(said for _, said in results if said.startswith("read"))
    print(f"\n{way}: {len(paths)} files, {dict(read)}, {len(refused)} refused; slowest:")
    print(", ".join(f"{name} {seconds:.2f} s" for seconds, name in slowest[:3]))
    print("\n".join(f"{count:5} {words}" for words, count in reasons.most_common()))
    assert slowest[0][0] < MOST_SECONDS
    assert len(refused) < len(paths) / 2


def read_all(paths: list[Path], way: str) -> list[tuple[float, str]]:
    """Of each file the seconds and what was said. One that ends its process or does not end is FATAL, and reading goes
    on behind it."""
    results: list[tuple[float, str]] = []
    while len(results) < len(paths):
        left = "\n".join(map(str, paths[len(results) :]))
        command = [sys.executable, "-W", "ignore", "-c", READER, way]
        try:
            done = subprocess.run(command, input=left.encode(), stdout=subprocess.PIPE, timeout=TIMEOUT_SECONDS)
            out, end = done.stdout, f"its process ended with {done.returncode}"
        except subprocess.TimeoutExpired as error:
            out, end = error.stdout or b"", f"nothing for up to {TIMEOUT_SECONDS} s"
        results += [tuple(json.loads(line)) for line in out.splitlines() if line.endswith(b"]")]
        if len(results) < len(paths):
            results.append((0.0, f"FATAL {end}"))
    return results


def reason(said: str, path: Path) -> str:
    """What a sentence says of any file; it must be one line that names this one."""
    start = f"image: '{path}' "
    assert said.startswith(start) and "\n" not in said and len(said) < len(start) + 300, said
    return re.sub(r"\d+", "N", said.removeprefix(start))
