"""Cached, batched, bucketed generation against running the whole model again for every token."""

from dataclasses import replace

import pytest
from tiny_generator import BASE, GREEDY, GRIDS, by_the_whole_model, image, model_config, parameters, prompts

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.generation import buckets, vision_tokens
from xgenmm_jax.generation.text import beam, decode, schedule
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.token_sampling import TokenSampling


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    return tokenizer.train_tokenizer(["the red circle"] * 3, tmp_path_factory.mktemp("words") / "tokenizer.model", 400)


@pytest.mark.parametrize(
    ("token_sampling", "instruction_tokens", "views"),
    [
        (TokenSampling.CROPS, 0, GRIDS),
        (TokenSampling.STRIPS, 0, GRIDS),
        (TokenSampling.FIXED_SAMPLING, 0, GRIDS),
        (TokenSampling.CROPS, 4, BASE),
    ],
)
def test_generated_is_the_argmax_of_the_whole_model(words, token_sampling, instruction_tokens, views):
    config = model_config(words, token_sampling, instruction_tokens)
    generator = Generator(config, parameters(config), words, views)
    got = generator.generate(prompts(words), GREEDY)
    assert got == reference(config, prompts(words), words, views)
    assert len(set(got)) > 2  # prompts matter


def reference(config: VLMConfig, asked: list[Prompt], words: tokenizer.Tokenizer, views: AnyRes = GRIDS) -> list[str]:
    ids = [by_the_whole_model(config, prompt, words, views) for prompt in asked]
    return [words.decode(answer, keep_special=False).strip() for answer in ids]


@pytest.fixture(scope="module")
def config(words) -> VLMConfig:
    return model_config(words, TokenSampling.CROPS)


def test_a_prompt_alone_is_answered_as_in_a_batch(words, config):
    """Padding that is seen, or positions that count it, change answers with the batch."""
    generator = Generator(config, parameters(config), words, GRIDS)
    asked = prompts(words)[2:4]
    assert [generator.generate([prompt], GREEDY)[0] for prompt in asked] == reference(config, asked, words)


def test_answers_depend_on_no_bucket_nor_on_how_many_are_asked_together(words, config, monkeypatch):
    expected = reference(config, prompts(words), words)
    small = Generator(config, parameters(config), words, GRIDS, limits=Limits(rows=2))
    assert small.generate(prompts(words), GREEDY) == expected
    monkeypatch.setattr(buckets, "PROMPT_BUCKETS", (72,))
    monkeypatch.setattr(buckets, "NEW_TOKEN_BUCKETS", (20,))
    large = Generator(config, parameters(config), words, GRIDS, limits=Limits(rows=16, prefill_positions=300))
    assert large.generate(prompts(words) * 3, GREEDY) == expected * 3


def test_few_shapes_change_no_answer_and_compile_less(words, config, monkeypatch):
    shapes = set()
    generate_rows = decode.generate_rows

    def noted(*args, **kwargs):
        shapes.add(args[2].token_ids.shape)
        return generate_rows(*args, **kwargs)

    monkeypatch.setattr(decode, "generate_rows", noted)
    for few, expected in ((True, {(4, 32), (4, 64)}), (False, {(1, 16), (1, 32), (1, 48)})):
        shapes.clear()
        limits = Limits(rows=4, few_shapes=few)
        generator = Generator(config, parameters(config), words, GRIDS, limits=limits)
        for prompt in prompts(words):
            assert generator.generate([prompt], GREEDY) == reference(config, [prompt], words)
        assert shapes == expected


def test_a_shared_prefix_changes_nothing(words, config):
    """The system prompt is computed once; its keys must stand at the same positions as in each prompt."""
    generator = Generator(config, parameters(config), words, GRIDS)
    start = words.encode("the red circle " * 6)
    several = [Prompt((*start, *prompt.token_ids), prompt.images) for prompt in prompts(words)[:3]]
    assert schedule.common_prefix([prompt.token_ids for prompt in several], (words.image_id,)) >= 16
    assert generator.generate(several, GREEDY) == reference(config, several, words)


def test_a_table_too_small_for_all_images_grows_or_is_filled_again(words, config):
    many = [Prompt(tuple(words.encode("<image>red")), (image(seed),)) for seed in range(5)]
    expected = reference(config, many, words, BASE)
    small = Generator(config, parameters(config), words, BASE, limits=Limits(rows=2, vision_mib=0))
    assert small._vision.slots == 1
    assert small.generate(many, GREEDY) == expected
    assert small._vision.slots == 2
    assert small.generate(many, GREEDY) == expected


def test_one_view_of_an_image_is_another_than_its_crops(words, config):
    generator = Generator(config, parameters(config), words, GRIDS)
    wide = [Prompt(tuple(words.encode("<image>red")), (image(1, (32, 16)),))]
    held_to_base = Generator(config, parameters(config), words, BASE).generate(wide, GREEDY)
    cut = generator.generate(wide, GREEDY)
    assert generator.generate(wide, GREEDY, anyres=BASE) == held_to_base
    assert generator.generate(wide, GREEDY) == cut


def test_a_limit_is_kept_and_a_stop_id_ends_an_answer(words, config):
    params = parameters(config)
    never = Generator(config, params, words, BASE, stop_ids=(words.pad_id,))
    token = never.generate([Prompt(tuple(words.encode("the")), ())], Decoding(max_new_tokens=1))
    five = never.generate([Prompt(tuple(words.encode("the")), ())], Decoding(max_new_tokens=5))[0]
    assert token == [five[: len(token[0])]]
    biased = dict(params["decoder"], head_bias=params["decoder"]["head_bias"].at[words.end_id].add(1e6))
    stopping = Generator(config, params | {"decoder": biased}, words, BASE)
    assert stopping.generate([Prompt(tuple(words.encode("the")), ())], GREEDY) == [""]


@pytest.mark.parametrize(
    "decoding", [Decoding(8), Decoding(8, 3, length_penalty=-1.0), Decoding(8, 3, min_new_tokens=4)]
)
def test_further_stops_end_the_answers_of_a_call(words, config, decoding):
    """A line break was cut off what was written: beams ran on behind it and were ranked by what was thrown away."""
    params, line_break = parameters(config), words.id_of("\n")
    bias = params["decoder"]["head_bias"].at[line_break].add(3.0)
    params = params | {"decoder": dict(params["decoder"], head_bias=bias)}
    asked = prompts(words)
    ends = (words.end_id, words.end_of_chunk_id, words.eos_id)
    expected = Generator(config, params, words, GRIDS, stop_ids=(*ends, line_break)).generate_ids(asked, decoding)
    generator = Generator(config, params, words, GRIDS)
    answers = generator.generate_ids(asked, decoding, more_stops=(line_break,))
    assert answers == expected and any(len(ids) < 8 for ids in answers)
    assert all(line_break not in ids and len(ids) >= decoding.min_new_tokens for ids in answers)
    # They are those of the call alone.
    without = generator.generate_ids(asked, decoding)
    cut = [ids[: ids.index(line_break)] if line_break in ids else ids for ids in without]
    assert without != expected and (decoding.num_beams == 1) == (cut == expected)


def test_images_and_marks_must_agree_in_number(words, config):
    generator = Generator(config, parameters(config), words, BASE)
    with pytest.raises(ValueError, match="prompt 0 has 1 <image> and 0 images"):
        generator.generate([Prompt((words.image_id,), ())], GREEDY)


def test_a_prompt_longer_than_every_bucket_is_refused(words, config):
    generator = Generator(config, parameters(config), words, BASE)
    with pytest.raises(ValueError, match="5000 tokens of a prompt exceed the largest bucket, 4096"):
        generator.generate([Prompt((5,) * 5000, ())], GREEDY)


def test_generating_nothing_gives_nothing(words, config):
    assert Generator(config, parameters(config), words, BASE).generate([], GREEDY) == []


@pytest.mark.slow
def test_draws_depend_on_seed_and_prompt_and_not_on_the_batch(words, config):
    generator = Generator(config, parameters(config), words, GRIDS)
    sampled = replace(GREEDY, temperature=1.5, top_k=50, top_p=0.9, seed=1)
    first = generator.generate(prompts(words), sampled)
    assert first == generator.generate(prompts(words), sampled)
    small = Generator(config, parameters(config), words, GRIDS, limits=Limits(rows=2))
    assert first == small.generate(prompts(words), sampled)
    assert first != generator.generate(prompts(words), replace(sampled, seed=2))
    assert len(set(generator.generate(prompts(words)[:1] * 4, sampled))) > 1
    one = generator.generate(prompts(words), replace(GREEDY, temperature=3.0, top_k=1))
    assert one == generator.generate(prompts(words), GREEDY)


@pytest.mark.slow
def test_beams_do_not_depend_on_the_batch(words, config):
    """A shared prefix, filling rows and rows of other lengths beside; and more beams find likelier answers or equal."""
    start = words.encode("the red circle " * 6)
    several = [Prompt((*start, *prompt.token_ids), prompt.images) for prompt in prompts(words)[:3]]
    generator, beams = Generator(config, parameters(config), words, GRIDS), replace(GREEDY, num_beams=3)
    together = generator.generate_ids(several, beams)
    assert together == [generator.generate_ids([prompt], beams)[0] for prompt in several]
    small = Generator(config, parameters(config), words, GRIDS, limits=Limits(rows=4, prefill_positions=100))
    assert together == small.generate_ids(several, beams)
    assert together != generator.generate_ids(several, GREEDY)


@pytest.mark.parametrize(
    "decoding",
    [GREEDY, pytest.param(Decoding(temperature=1.0, seed=3), marks=pytest.mark.slow)],
    ids=["greedy", "sampled"],
)
def test_a_stream_is_the_answer_in_pieces(words, config, decoding):
    generator = Generator(config, parameters(config), words, GRIDS)
    for prompt in prompts(words)[1:4]:
        for most in (1, 15):
            limited = replace(decoding, max_new_tokens=most)
            pieces = list(generator.stream(prompt, limited))
            assert "".join(pieces) == generator.generate([prompt], limited)[0]
            assert all(pieces) and (most == 1 or len(pieces) > 1)


def test_nothing_is_compiled_for_prompts_of_known_buckets(words, config):
    """Other lengths, images, limits and seeds; a question asked again and again must not wait for the compiler."""
    loops = (decode.generate_rows, decode.begin_rows, decode.continue_rows, beam.beam_rows)
    compiled = (*loops, vision_tokens._encode_into)

    def ask(length: int, images: int, limit: int, seed: int):
        ids = (words.image_id,) * images + (5,) * length
        prompt = Prompt(ids, tuple(image(seed + n) for n in range(images)))
        sampled = Decoding(limit, temperature=0.7, top_p=0.5, seed=seed)
        for decoding in (Decoding(limit), Decoding(limit, num_beams=2), sampled):
            generator.generate([prompt], decoding)
        "".join(generator.stream(prompt, sampled))

    generator = Generator(config, parameters(config), words, BASE)
    ask(20, 1, 6, 0)
    before = [function._cache_size() for function in compiled]
    for length, images, limit, seed in ((23, 1, 9, 1), (14, 1, 2, 2), (28, 1, 16, 3)):
        ask(length, images, limit, seed)
    assert [function._cache_size() for function in compiled] == before


def test_equal_images_are_encoded_once(words, config, monkeypatch):
    """Within a call and across calls, wherever they were read from; not where they are cut in another way."""
    encoded = []
    encode_into = vision_tokens._encode_into
    monkeypatch.setattr(
        vision_tokens,
        "_encode_into",
        lambda *arguments: encoded.append(len(arguments[2].pixels)) or encode_into(*arguments),
    )
    generator = Generator(config, parameters(config), words, BASE)
    asked = [Prompt(tuple(words.encode("<image>red")), (image(seed),)) for seed in (0, 0, 1, 0)]
    answers = generator.generate(asked, GREEDY)
    assert encoded == [2]
    assert answers[0] == answers[1] == answers[3]
    again = [Prompt(tuple(words.encode("<image>red")), (image(seed),)) for seed in (1, 0)]
    assert generator.generate(again, GREEDY) == [answers[2], answers[0]]
    assert encoded == [2]
    generator.generate([Prompt(tuple(words.encode("<image>red")), (image(2),))], GREEDY)
    assert encoded == [2, 1]


@pytest.mark.parametrize(
    ("grids", "size", "crops"), [(((2, 2),), (32, 32), 5), (((1, 3), (2, 1)), (8, 90), 4), (((3, 3),), (60, 50), 10)]
)
def test_crops_that_fixed_sampling_would_lose_are_refused(words, grids, size, crops):
    """Only images that lose some: one that needs three crops is answered by the same model."""
    config = model_config(words, TokenSampling.FIXED_SAMPLING)
    views = replace(BASE, grids=grids)
    generator = Generator(config, parameters(config), words, views)
    asked = [Prompt(tuple(words.encode("<image>red")), (image(0, size),))]
    sentence = rf"max_image_crops: got 3, and an image of {size[0]} x {size[1]} px takes {crops} crops.*raise it to"
    with pytest.raises(ValueError, match=sentence):
        generator.generate(asked, GREEDY)
    assert generator.generate(asked, GREEDY, anyres=replace(views, grids=((1, 2),)))


def test_beams_have_no_stream(words, config):
    """Beam search knows its answer at the end alone; a stream of one beam would be another answer."""
    generator = Generator(config, parameters(config), words, BASE)
    with pytest.raises(ValueError, match="got a stream with num_beams 2; give 1 beam"):
        generator.stream(prompts(words)[0], replace(GREEDY, num_beams=2))
