"""Ids, stop ids and limits that generation takes, and the errors for everything else."""

import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.generation import arguments
from xgenmm_jax.generation.text.schedule import Limits


@pytest.mark.parametrize(
    "given", [[1, 2, 9], (1, 2, 9), np.array([1, 2, 9], np.uint8), jnp.array([1, 2, 9]), [np.int64(1), 2, np.uint16(9)],
              np.array([1, 2, 9], object)],
)  # fmt: skip
def test_ids_of_every_kind_are_a_row(given):
    row = arguments.token_ids(given, 10, "row 0")
    assert row.dtype == np.int32 and row.tolist() == [1, 2, 9]


@pytest.mark.parametrize(
    "given, sentence",
    [
        ([], "row 3 is empty"),
        (np.zeros(0, np.int32), "row 3 is empty"),
        ([1, 10], "row 3 has the id 10 at 1; the model's ids are 0 to 9"),
        ([-1], "row 3 has the id -1 at 0; the model's ids are 0 to 9"),
        ([0, 2**40], "row 3 has the id 1099511627776 at 1"),
        ([2**31], "row 3 has the id 2147483648 at 0"),
        ([0, 10**30], "row 3 has the id 1000000000000000000000000000000 at 1"),
        (np.array([200, 1], np.uint8), "row 3 has the id 200 at 0"),
        ([1.0, 2], "row 3 holds 1.0; give a list of ids, whole numbers from 0 to 9"),
        ([1, None], "row 3 holds None"),
        ([True], "row 3 holds True"),
        (["a", "b"], "row 3 holds 'a'"),
        ([b"a"], "row 3 holds b'a'"),
        ([1, "a"], "row 3 holds '1'"),
        ([[1, 2]], "row 3 is a list that begins with a list that begins with 1"),
        ([[1], [2, 3]], "row 3 is a list that begins with a list that begins with 1"),
        (np.zeros((1, 2), int), r"row 3 is an array of shape \(1, 2\)"),
        (5, "row 3 is 5"),
        (np.int64(5), "row 3 is "),
        (None, "row 3 is None"),
        ("text", "row 3 is 'text'"),
        (b"text", "row 3 is b'text'"),
        ({1, 2}, "row 3 is a set"),
        ({"ids": 1}, "row 3 is a dict"),
        ((number for number in [1]), "row 3 is a generator"),
    ],
)
def test_what_is_no_row_of_the_models_ids_is_refused(given, sentence):
    """Ids above the vocabulary were read as its last, floats were cut, a batch of rows was one long row."""
    with pytest.raises(ValueError, match=f"^{sentence}") as error:
        arguments.token_ids(given, 10, "row 3")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given, ids",
    [(3, (3,)), (np.int32(3), (3,)), ([3, 1, 3], (3, 1)), ((), ()), ([], ()), ({4}, (4,)), (np.array([2, 1]), (2, 1)),
     (jnp.array(6), (6,)), (frozenset(), ())],
)  # fmt: skip
def test_stop_ids_are_one_or_several(given, ids):
    assert arguments.stop_ids(given, 10) == ids


@pytest.mark.parametrize(
    "given", [10, -1, [3, 10], "<|end|>", ["<|end|>"], 2.0, [[1]], {"a": 1}, True, np.ones((2, 2))]
)
def test_stop_ids_that_no_token_has_are_refused(given):
    """They ended nothing; a list ended in an unhashable type."""
    with pytest.raises(ValueError, match="generation: stop_ids "):
        arguments.stop_ids(given, 10)


@pytest.mark.parametrize(
    "limits, name", [({"rows": 0}, "rows"), ({"rows": -4}, "rows"), ({"cache_mib": -1}, "cache_mib"),
                     ({"vision_mib": -1}, "vision_mib"), ({"prefill_positions": 0}, "prefill_positions")],
)  # fmt: skip
def test_limits_below_anything_are_refused(limits, name):
    with pytest.raises(ValueError, match=f"got limits.{name} -?[014]; give [01] or more"):
        Limits(**limits)
    assert Limits(vision_mib=0, cache_mib=0).rows == 64
