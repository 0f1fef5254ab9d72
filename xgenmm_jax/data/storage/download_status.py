"""Which rows of img2dataset's tables have an image: there is a row for each key that was tried, `status` tells the end.

Rows that failed are no records. They are counted by reason, as everything else that a storage does not read.

Source: docs/reference/data.md#img2dataset-output
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int64
import numpy as np

from xgenmm_jax.data.storage.base import Refused

KEY, STATUS = "key", "status"
COLUMNS = (KEY, STATUS, "error_message", "width", "height")
"""By which a table is known to be img2dataset's."""

REASONS = {"failed_to_download": "not downloaded", "failed_to_resize": "downloaded, and no image that can be resized"}
"""Status -> the reason by which rows are counted."""
OTHER_REASON = "without the status of an image"


def has_status(columns: Sequence[str]) -> bool:
    """Whether these are the columns of a table of img2dataset."""
    return set(COLUMNS) <= set(columns)


def with_image(keys: Sequence[Any], statuses: Sequence[Any]) -> tuple[Int64[np.ndarray, " n"], tuple[Refused, ...]]:
    """The numbers of the rows that have an image, and the others by their keys."""
    numbers, refused = [], []
    for number, (key, status) in enumerate(zip(keys, statuses, strict=True)):
        if status == "success":
            numbers.append(number)
        else:
            refused.append(Refused(str(key)[:300], REASONS.get(str(status), OTHER_REASON)))
    return np.array(numbers, np.int64), tuple(refused)
