"""Real pages and photographs of Debian's packages, where they are installed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from xgenmm_jax.data.errors import FEW_IMAGES, LeftOut
from xgenmm_jax.data.readers.html import Html
from xgenmm_jax.data.readers.tux_paint import Stamps
from xgenmm_jax.data.records import images_of
from xgenmm_jax.data.sharded import ShardedSource
from xgenmm_jax.data.storage.folder import Folder

PAGES = "/usr/share/gimp/2.0/help/en/*.html"
STAMPS = "/usr/share/tuxpaint/stamps/**/*.[ps][nv]g"

pytestmark = pytest.mark.slow


def read(storage: Folder, reader: Html | Stamps, index: Path, package: str) -> tuple[list, Counter, dict]:
    if not Path(storage.pattern.partition("*")[0]).is_dir():
        pytest.skip(f"Debian's {package} is not installed")
    records = ShardedSource(storage, reader, index=str(index)).open()
    found, reasons = [], Counter()
    for number in range(len(records)):
        try:
            found.append(records.record(number, np.random.default_rng(0)))
        except LeftOut as error:
            reasons[error.reason] += 1
    assert all(image.load().size == image.size_px for one in found for image in images_of(one))
    return found, reasons, {skip.reason: skip.count for skip in records.left_out}


def test_every_page_of_gimps_manual_is_a_document_or_has_no_image(tmp_path):
    reader = Html(least_side_px=40, without_classes=("navheader", "navfooter"))
    documents, reasons, refused = read(Folder(PAGES), reader, tmp_path, "gimp-help-en")
    assert len(documents) > 500 and set(reasons) == {FEW_IMAGES} and not refused
    assert len(documents) + reasons[FEW_IMAGES] == len(list(Path(PAGES).parent.glob("*.html")))
    assert sum(len(images_of(one)) for one in documents) > 1500


def test_every_stamp_with_pixels_and_a_text_is_a_caption(tmp_path):
    captions, reasons, refused = read(Folder(STAMPS, ("txt",)), Stamps(), tmp_path, "tuxpaint-stamps-default")
    assert len(captions) > 700 and not reasons
    assert set(refused) == {"a vector graphic, which has no pixels", "no file of .txt beside it"}
