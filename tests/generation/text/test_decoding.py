"""Decoding options: any kind of number that means something, one sentence for everything else."""

from dataclasses import astuple
import math

import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.generation.text.decoding import Decoding

pytestmark = pytest.mark.usefixtures("unchecked_signatures")


def test_numbers_of_every_kind_are_pythons():
    decoding = Decoding(np.int64(5), np.uint8(1), np.float32(0.5), jnp.float32(0.7), np.int8(3), 1, jnp.int32(9))
    assert decoding == Decoding(5, 1, 0.5, float(np.float32(0.7)), 3, 1.0, 9)
    assert [type(value) for value in astuple(decoding)] == [int, int, float, float, int, float, int, int]
    assert Decoding(np.array(7)) == Decoding(max_new_tokens=7)
    assert Decoding(seed=-(2**90)).seed == -(2**90)


def test_files_of_answers_from_before_a_least_length_are_still_of_the_same_decoding():
    """Their heads hold this text."""
    before = "Decoding(max_new_tokens=9, num_beams=3, length_penalty=0.0, temperature=0.0, top_k=0, top_p=1.0, seed=0)"
    assert repr(Decoding(9, 3, 0.0)) == before
    assert repr(Decoding(9, 3, 0.0, min_new_tokens=8)) == f"{before[:-1]}, min_new_tokens=8)"


@pytest.mark.parametrize("value", [0, -1, -(10**30), np.int32(0)])
def test_no_tokens_are_not_asked_for(value):
    """0 and fewer gave one token."""
    with pytest.raises(ValueError, match=f"got max_new_tokens {int(value)}; give 1 or more"):
        Decoding(value)


@pytest.mark.parametrize(
    "value", [1.0, 2.5, "3", b"3", None, True, [4], {}, math.nan, np.float64(2), np.array([1]), 1j]
)
@pytest.mark.parametrize("name", ["max_new_tokens", "num_beams", "top_k", "seed"])
def test_what_is_no_whole_number_is_refused(name, value):
    """A float of tokens ended in jax, a None in a comparison."""
    with pytest.raises(ValueError, match=f"generation: got {name} .*; give a whole number") as error:
        Decoding(**{name: value})
    assert "\n" not in str(error.value) and len(str(error.value)) < 120


@pytest.mark.parametrize("value", ["1", b"1", None, True, [1.0], {}, 1j, np.ones(1), math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["temperature", "top_p", "length_penalty"])
def test_what_is_no_finite_number_is_refused(name, value):
    with pytest.raises(ValueError, match=f"generation: got {name} .*; give a (finite )?number"):
        Decoding(**{name: value})


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"num_beams": 0}, "num_beams 0; give 1 or more"),
        ({"num_beams": -2}, "num_beams -2; give 1 or more"),
        ({"num_beams": 3, "temperature": 0.5}, "num_beams 3 and temperature 0.5"),
        ({"min_new_tokens": -1}, "min_new_tokens -1; give 0 or more"),
        ({"min_new_tokens": 8, "max_new_tokens": 5}, "min_new_tokens 8 above max_new_tokens 5; give at most as many"),
        ({"top_k": -1}, "top_k -1; give 0 or more"),
        ({"top_k": 4}, "top_k 4 and top_p 1.0 at temperature 0"),
        ({"top_p": 0.5}, "top_k 0 and top_p 0.5 at temperature 0"),
        ({"temperature": -0.1}, "temperature -0.1"),
        ({"temperature": 1e-45}, "temperature 1e-45, by which float32 cannot divide; give 1e-30 or more, or 0"),
        ({"temperature": 1, "top_p": 0}, "top_p 0.0; give more than 0 and at most 1"),
        ({"temperature": 1, "top_p": 1.001}, "top_p 1.001; give more than 0 and at most 1"),
        ({"temperature": 1, "top_p": -1}, "top_p -1.0; give more than 0 and at most 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Decoding(**settings)


def test_programs_are_shared_by_limits_and_seeds():
    decoding = Decoding(9, temperature=0.7, top_k=5, top_p=0.9, seed=3)
    assert decoding.static() == Decoding(70, temperature=0.7, top_k=5, top_p=0.9, seed=4).static()
    assert decoding.static() != Decoding(9, temperature=0.8, top_k=5, top_p=0.9, seed=3).static()
