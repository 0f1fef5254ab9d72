"""What lmms-eval's tasks and VLMEvalKit ask, turned into parts, images and decodings."""

import pytest

from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.integrations import toolkit_requests
from xgenmm_jax.integrations.toolkit_requests import UserTurn, answer_settings, chat_message, vlmevalkit_message


@pytest.mark.parametrize(
    ("arguments", "decoding", "until"),
    [
        # As POPE, MuirBench and SEED-Bench of lmms-eval 0.7.3 write them.
        (
            {"max_new_tokens": 128, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False,
             "until": ["\n\n"]},
            Decoding(max_new_tokens=128),
            ("\n\n",),
        ),
        ({"max_new_tokens": 16, "temperature": 0, "do_sample": False}, Decoding(max_new_tokens=16), ()),
        ({"until": ["ASSISTANT:"], "image_aspect_ratio": "original"}, Decoding(max_new_tokens=1024), ("ASSISTANT:",)),
        ({"until": "stop", "max_new_tokens": 8}, Decoding(max_new_tokens=8), ("stop",)),
        ({"until": ["", "\n"], "max_new_tokens": 8}, Decoding(max_new_tokens=8), ("\n",)),
        (
            {"max_new_tokens": 8, "do_sample": True, "temperature": 0.7, "top_p": 0.9},
            Decoding(max_new_tokens=8, temperature=0.7, top_p=0.9),
            (),
        ),
        ({"max_new_tokens": 8, "temperature": 0.2}, Decoding(max_new_tokens=8, temperature=0.2), ()),
        ({"max_new_tokens": 8, "do_sample": True}, Decoding(max_new_tokens=8, temperature=1.0), ()),
        # Greedy: what only sampling reads is passed over.
        ({"max_new_tokens": 8, "do_sample": False, "temperature": 0.7, "top_p": 0.9}, Decoding(max_new_tokens=8), ()),
        ({"max_new_tokens": 8, "do_sample": True, "temperature": 0, "top_p": None}, Decoding(max_new_tokens=8), ()),
        ({"max_new_tokens": 8, "num_beams": 3}, Decoding(max_new_tokens=8, num_beams=3), ()),
    ],
)  # fmt: skip
def test_generation_arguments_mean_what_they_mean_to_hugging_face(arguments, decoding, until):
    assert answer_settings(arguments) == toolkit_requests.AnswerSettings(decoding, until)


def test_a_longer_answer_than_there_is_room_for_is_shortened_and_said():
    wanted = answer_settings({"max_new_tokens": 32768})
    assert wanted.decoding == Decoding(max_new_tokens=1024)
    assert wanted.remarks == ("max_new_tokens: got 32768; answers end after 1024 tokens.",)


def test_an_argument_that_is_not_known_is_said_and_left_out():
    wanted = answer_settings({"max_new_tokens": 4, "repetition_penalty": 1.2})
    assert wanted.decoding == Decoding(max_new_tokens=4)
    assert wanted.remarks == ("repetition_penalty: not known to this model and left out.",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 2}, "n: got 2; wanted 1"),
        ({"num_return_sequences": 4}, "num_return_sequences: got 4"),
        ({"max_new_tokens": 0}, "got max_new_tokens 0"),
        ({"until": [3]}, "until: got 3"),
        ({"temperature": 0.5, "top_p": 2}, "got top_p 2"),
    ],
)
def test_generation_arguments_that_mean_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        answer_settings(arguments)


def test_images_stand_where_the_message_has_them_and_text_stays_text():
    content = [
        {"type": "text", "text": "Here is <image> one "},
        {"type": "image", "url": "a"},
        {"type": "text", "text": " and another "},
        {"type": "image", "url": "b"},
        {"type": "text", "text": "?"},
    ]
    parts = ("Here is <image> one ", 0, " and another ", 1, "?")
    assert chat_message([{"role": "user", "content": content}]) == UserTurn(parts, ("a", "b"))


def test_a_system_turn_is_kept_and_user_turns_are_joined():
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "image", "url": "a"}]},
        {"role": "user", "content": "What is it?"},
    ]
    assert chat_message(messages) == UserTurn((0, "What is it?"), ("a",), "Be brief.")


def test_vlmevalkits_message_keeps_the_order_of_its_items():
    items = [
        {"type": "text", "value": "A. "},
        {"type": "image", "value": "1.png"},
        {"type": "text", "value": "\nB. "},
        {"type": "image", "value": "2.png"},
    ]
    assert vlmevalkit_message(items) == UserTurn(("A. ", 0, "\nB. ", 1), ("1.png", "2.png"))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}], "a turn of the assistant"),
        ([{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}], "content of type 'video'"),
        ([], "no user turn"),
    ],
)
def test_what_this_model_cannot_be_asked_is_refused(messages, message):
    with pytest.raises(ValueError, match=message):
        chat_message(messages)


def test_the_batch_size_is_a_text_and_its_default_leaves_it_to_the_model():
    assert [toolkit_requests.batch_rows(size) for size in (1, "1", "auto", "auto:4", "4", 16)] == [
        None, None, None, None, 4, 16,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="batch_size: got 'many'"):
        toolkit_requests.batch_rows("many")


def test_another_device_than_jaxs_is_refused():
    for device, backend in ((None, "tpu"), ("cpu", "cpu"), ("cuda:0", "gpu"), ("gpu", "gpu")):
        toolkit_requests.check_device(device, backend)
    with pytest.raises(ValueError, match="got 'cuda', JAX computes on cpu"):
        toolkit_requests.check_device("cuda", "cpu")
