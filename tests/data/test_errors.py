"""What errors of data say, and whose fault they are."""

import errno

from xgenmm_jax.data.errors import RecordError, is_of_a_record, shown


def test_an_error_that_is_its_own_cause_is_judged_by_what_it_is():
    """`raise error from error` made the search for a cause go round for ever, in the loader's thread."""
    error = RecordError("1", "no image")
    error.__cause__ = error
    assert is_of_a_record(error)
    other, machine = RecordError("2", "x"), OSError(errno.EIO, "input/output error")
    other.__cause__, machine.__cause__ = machine, other
    assert not is_of_a_record(other)


def test_a_value_is_shown_by_its_first_characters():
    assert (shown([1, "a"]), shown("abc", 2), shown(None)) == ("[1, 'a']", "ab", "None")


def test_a_value_that_nests_too_deeply_is_not_written_out():
    """Python's repr of one ended the run with a RecursionError, in the middle of an error's sentence."""
    value: list = []
    for _ in range(100_000):
        value = [value]
    assert shown(value) == "a list that nests too deeply to be shown"
