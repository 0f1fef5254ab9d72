"""The photographs that the report shows."""

from xgenmm_jax.nano.report.photographs import photographs


def test_the_photographs_are_in_the_wheels():
    installed = photographs()
    assert {photograph.name for photograph in installed} >= {"chelsea", "coffee", "page", "china", "flower"}
    assert installed[0].image.load().mode == "RGB"
