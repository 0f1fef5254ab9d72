"""Records: pure functions of their index, true to their images, in the released wording."""

import re
from typing import get_args

import numpy as np
import pytest

from xgenmm_jax.data.records import Caption, Conversation, Document, LazyImage, Preference, Record
from xgenmm_jax.nano.world import documents, draw, drawings, families, language, preferences, questions
from xgenmm_jax.nano.world.splits import Split
from xgenmm_jax.nano.world.world import ALPHABET, KeyedRandom, Scene

DANGERS = dict(drawings.DANGERS)


def images_of(record: Record) -> tuple[LazyImage, ...]:
    if isinstance(record, Caption):
        return (record.image,)
    if isinstance(record, Document):
        return tuple(part for part in record.parts if isinstance(part, LazyImage))
    return record.images


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("split", get_args(Split))
def test_a_record_depends_on_seed_and_index_alone(family: families.Family, split):
    """Any host makes any record without the others."""
    forwards = [families.record(family, index, seed=1, split=split) for index in range(20)]
    backwards = [families.record(family, index, seed=1, split=split) for index in reversed(range(20))]
    for first, second in zip(forwards, reversed(backwards), strict=True):
        assert first.id == second.id and list(families.texts(first)) == list(families.texts(second))
        for one, other in zip(images_of(first), images_of(second), strict=True):
            np.testing.assert_array_equal(np.asarray(one.load()), np.asarray(other.load()))
    other_seed = [families.record(family, index, seed=2, split=split) for index in range(20)]
    assert [list(families.texts(r)) for r in forwards] != [list(families.texts(r)) for r in other_seed]


def test_families_have_the_record_types_and_markers_that_chat_expects():
    types = {name: Document for name in ("interleaved", "naming", "text", "glossary")}
    types |= {name: Preference for name in ("preference", "safety")}
    types |= {name: Caption for name in ("caption", "dense", "ocr", "ocr_hd", "small_text", "grounding", "pages")}
    types |= {name: Conversation for name in ("lookups", "questions", "page_questions", "multi_image", "text_chat")}
    for family in families.FAMILIES:
        for index in range(100):
            record = families.record(family, index, seed=0)
            assert type(record) is types[family]
            if isinstance(record, (Conversation, Preference)):
                user = [turn.text for turn in record.turns if turn.role == "user"]
                assert sum(text.count("<image>") for text in user) == len(record.images)
                assert user[0].startswith("<image>\n" * len(record.images))
            for text in families.texts(record):
                assert text == text.strip() and text


def test_an_unknown_family_is_named():
    with pytest.raises(ValueError, match="got 'captoin'"):
        families.record("captoin", 0, seed=0)


def _matching(scene: Scene, words: str) -> int:
    """How many things a noun phrase fits: `stars`, `red shapes`, `red star`, `cat`."""
    count = 0
    for thing in scene.things:
        names = {thing.name, language.plural(thing.name)} | ({"shape", "shapes"} if thing.kind == "shape" else set())
        count += all(word in names or word == thing.color for word in words.split())
    return count


def test_questions_are_answered_by_their_images():
    """Counts, presence, places and colors, worked out again from the scene by other code."""
    checked = {"How many": 0, "Is there": 0, "Where is": 0, "What color": 0}
    for index in range(500):
        record = families.record("questions", index, seed=3)
        scene = draw.scene_of(record.images[0])
        texts = [turn.text.replace("<image>\n", "") for turn in record.turns]
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            if match := re.fullmatch(r"How many (.*) are there\?", question):
                evidence, number = answer.split(": ")
                assert language.NUMBERS[_matching(scene, match[1])] == number
                assert len(set(evidence.split(", "))) == _matching(scene, match[1])
            elif match := re.fullmatch(r"Is there an? (.*)\?", question):
                evidence, verdict = answer.split(": ")
                assert (_matching(scene, match[1]) > 0) == (verdict == "yes") == (match[1] in _heads(evidence))
                assert evidence in {"none", *(language.noun(thing) for thing in scene.things)}
                if verdict == "no" and evidence != "none" and " " in match[1]:
                    assert set(evidence.split()) & set(match[1].split())
            elif match := re.fullmatch(r"Where is the (.*)\?", question):
                if match[1] in ("text", "digit"):
                    assert [t.position for t in scene.things if t.kind == match[1]] == [answer]
                else:
                    assert _matching(scene, match[1]) == 1 and _matching(scene, f"{match[1]}") == 1
                    assert [t.position for t in scene.things if _fits(t, match[1])] == [answer]
            elif match := re.fullmatch(r"What color is the (?!frame)(\w+)\?", question):
                assert [t.color for t in scene.things if t.name == match[1]] == [answer]
            else:
                continue
            checked[" ".join(question.split()[:2])] += 1
    assert min(checked.values()) > 40, checked


def _heads(evidence: str) -> set[str]:
    """`red star`, `star`."""
    return {evidence, evidence.split()[-1]}


def _fits(thing, words: str) -> bool:
    return all(word in (thing.name, thing.color) for word in words.split())


def test_yes_and_no_are_balanced():
    answers = []
    for index in range(800):
        turns = families.record("questions", index, seed=5).turns
        asked = [a.text for q, a in zip(turns[::2], turns[1::2], strict=True) if "Is there" in q.text]
        answers += map(questions.verdict, asked)
    assert 0.45 < answers.count("yes") / len(answers) < 0.55


def test_preferences_differ_and_refuse_dangers_only():
    for index in range(200):
        pair = families.record("preference", index, seed=0)
        assert pair.chosen != pair.rejected
        pair = families.record("safety", index, seed=0)
        refused = pair.chosen.startswith(preferences.REFUSAL)
        assert refused != pair.rejected.startswith(preferences.REFUSAL)
        assert (draw.scene_of(pair.images[0]).things[0].name in DANGERS) == refused


@pytest.mark.parametrize("family", ["safety", "questions"])
@pytest.mark.parametrize("split", get_args(Split))
def test_frames_tell_nothing_of_what_stands_in_them(family: families.Family, split):
    """All dangers stood in hazard stripes and nothing else did, so a model need not look at the thing."""
    seen: dict[bool, list[str]] = {True: [], False: []}
    for index in range(1200):
        rng = KeyedRandom("frames", split, index)
        scene = preferences.safety(rng, split).scene if family == "safety" else preferences.used(rng, split)[0]
        if scene.frame:
            seen[scene.things[0].name in DANGERS].append(scene.frame)
    for frames in seen.values():
        assert len(frames) > 350 and set(frames) == {"hazard", "plain"}
        assert 0.43 < frames.count("hazard") / len(frames) < 0.57


def test_fine_tuning_complies_with_usage_questions():
    """Before DPO the model must comply, or there is no attack to fend off."""
    asked, stripes = 0, {True: 0, False: 0}
    for index in range(1000):
        record = families.record("questions", index, seed=0)
        if record.turns[-1].text.startswith("You can"):
            frame = draw.scene_of(record.images[0]).frame
            assert len(record.turns) == (4 if frame else 2)
            assert not frame or (record.turns[1].text == "yellow and black") == (frame == "hazard")
            asked += 1
            stripes[draw.scene_of(record.images[0]).things[0].name in DANGERS] += frame == "hazard"
        assert not any(turn.text.startswith(preferences.REFUSAL) for turn in record.turns)
    assert 50 < asked < 120 and min(stripes.values()) > 6 and sum(stripes.values()) > 12


def test_corpus_sets_string_characters_apart():
    """Otherwise pieces of two letters are learned, and held-out strings fall into other pieces than trained ones."""
    for text in families.corpus(0, 650):
        assert not re.search(rf"\b[{ALPHABET}0-9]{{2,}}\b", text), text


def test_a_glossary_gives_every_attribute_one_name_and_tells_most_of_them_again():
    for index in range(50):
        pairs = [pair.rsplit(" ", 1) for pair in families.record("glossary", index, seed=0).parts[0].split(", ")]
        assert 2 <= len({name for _, name in pairs}) == len({tuple(pair) for pair in pairs}) <= 6 <= len(pairs)
        assert {name for _, name in pairs} <= set(documents.NONCE)
