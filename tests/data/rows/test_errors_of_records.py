"""Which errors of reading cost a record, and which end the run."""

import errno
import json

import numpy as np
import PIL.Image
import pytest
from sharded_data import data

from xgenmm_jax.data.errors import UNREADABLE, RecordError, SourceError
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.rows.window import measurer_of, plan_window
from xgenmm_jax.nano.sources import Synthetic


class Broken:
    """A source whose record 5 raises."""

    def __init__(self, error: Exception):
        self.name, self._error = "broken", error

    def __len__(self) -> int:
        return 20

    def record(self, index: int, rng: np.random.Generator) -> Conversation:
        if index == 5:
            raise self._error
        return Conversation(f"b{index}", (), (Turn("user", "Hi"), Turn("assistant", "Yes.")))


def of_machine(number: int) -> OSError:
    return OSError(number, "no")


def wrapped(number: int) -> RecordError:
    error = RecordError("b5", "cannot be read")
    error.__cause__ = ValueError("inside")
    error.__cause__.__cause__ = of_machine(number)
    return error


@pytest.mark.parametrize(
    "error",
    [ValueError("a"), RecordError("b5", "b"), of_machine(errno.ENOENT), of_machine(errno.EACCES), UnicodeError("x"),
     wrapped(errno.ENAMETOOLONG), PIL.UnidentifiedImageError("x"), of_machine(errno.EISDIR),
     json.JSONDecodeError("x", "", 0)],
)  # fmt: skip
def test_errors_of_a_record_leave_it_out(words, error):
    config = data(words, Synthetic("caption"), window=32)
    window = plan_window(config, [Broken(error)], measurer_of(config), 7, 0)
    assert {skip.reason for skip in window.skipped} == {UNREADABLE} and 0 < len(window.skipped) < 4
    assert {skip.record for skip in window.skipped} <= {"b5", "record 5"}


@pytest.mark.parametrize(
    "error",
    [SourceError("gone"), of_machine(errno.EMFILE), of_machine(errno.EIO), wrapped(errno.ENFILE), KeyError("x"),
     MemoryError(), TypeError("x"), wrapped(errno.ESTALE)],
)  # fmt: skip
def test_errors_that_no_record_is_to_blame_for_pass_and_name_it(words, error):
    """Rows must not depend on whether a host ran out of descriptors just then."""
    config = data(words, Synthetic("caption"), window=32)
    with pytest.raises(type(error)) as raised:
        plan_window(config, [Broken(error)], measurer_of(config), 7, 0)
    assert raised.value.__notes__ == ["Raised at record 5 of broken."]
