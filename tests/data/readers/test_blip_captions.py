"""Captions as BLIP cleans them."""

import pytest

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.blip_captions import BlipCaptions
from xgenmm_jax.data.records import Caption, Document, LazyImage

IMAGE = LazyImage((2, 2), lambda: None)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A dog (brown)... runs!", "a dog brown runs"),
        ('He said: "Stop", it\'s 5;', "he said stop , it's 5"),
        ("  one\n\ntwo \n", "one two"),
        (" ".join(["word"] * 60), " ".join(["word"] * 50)),
    ],
)
def test_marks_become_spaces_and_the_rest_lower_case(text, cleaned):
    assert BlipCaptions()(Caption("a", IMAGE, text)).text == cleaned


def test_what_is_no_caption_is_told():
    with pytest.raises(RecordError, match="a Document, wanted a Caption"):
        BlipCaptions()(Document("a", ("text",)))
    with pytest.raises(ValueError, match="words 0"):
        BlipCaptions(0)
