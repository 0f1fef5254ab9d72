"""Steps and guidance that a user types, and what is refused before anything runs."""

import numpy as np
import pytest

from xgenmm_jax.generation.images.sampling import Sampling

pytestmark = pytest.mark.usefixtures("unchecked_signatures")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 2.5}, "got steps 2.5; give a whole number"),
        ({"steps": "3"}, "got steps '3'; give a whole number"),
        ({"steps": True}, "got steps True; give a whole number"),
        ({"steps": 0}, "got steps 0, wanted 1 to 1000"),
        ({"guidance": "3"}, "got guidance '3'; give a number"),
        ({"guidance": None}, "got guidance None; give a number"),
        ({"guidance": float("nan")}, "got guidance nan, wanted 0 to 100"),
    ],
)
def test_what_is_no_number_or_out_of_range_is_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampling(**options)


def test_numbers_of_numpy_are_numbers():
    assert Sampling(steps=np.int64(4), guidance=np.float32(2)) == Sampling(4, 2.0)
