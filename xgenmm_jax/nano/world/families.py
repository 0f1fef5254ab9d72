"""The families of records: `record(family, index, seed=...)` makes any record without the others."""

from collections.abc import Iterator, Sequence
import re
from typing import Literal, cast, get_args

from xgenmm_jax.data.captions import ocr
from xgenmm_jax.data.records import Caption, Conversation, Document, LazyImage, Preference, Record, Turn
from xgenmm_jax.nano.world import (
    annotation,
    documents,
    draw,
    language,
    multi_image,
    pages,
    preferences,
    questions,
    scenes,
    text_only,
)
from xgenmm_jax.nano.world.splits import Split
from xgenmm_jax.nano.world.world import KeyedRandom

Family = Literal[
    "caption", "dense", "lookups", "naming", "ocr", "ocr_hd", "grounding", "interleaved", "pages", "questions",
    "page_questions", "multi_image", "text", "text_chat", "preference", "safety", "small_text", "glossary",
]  # fmt: skip
FAMILIES: tuple[Family, ...] = get_args(Family)
SPOKEN = tuple(family for family in FAMILIES if family not in ("small_text", "glossary"))
"""Families whose words a tokenizer learns; the rest has no word that these do not have."""


def record(
    family: str,
    index: int,
    *,
    seed: int,
    split: Split = "train",
    filler: bool = False,
    granularity: ocr.Granularity = 0,
) -> Record:
    """Record `index` of one of FAMILIES, a pure function of its arguments.

    Describing takes tenths of a millisecond; images are painted when their `load` is called.
    filler, granularity: of the families ocr, ocr_hd and small_text. Without filler granularity 0 is `"NY", "BURGER"`,
    what the paper's loader trains on.

    caption, dense, ocr, grounding: Caption, 64 x 64; dense names every position and shows text more often, for a tower.
    small_text: Caption, 64 x 64, for a tower: lines as small as a page's.
    ocr_hd, pages: Caption, 128 x 128 or strips. interleaved, naming, text, glossary: Document. lookups, questions,
    page_questions: Conversation about one image; multi_image: about 2 or 3; text_chat: about none.
    preference, safety: Preference.

    Raises:
        ValueError: no such family.
    """
    rng = KeyedRandom(seed, family, split, index)
    id = f"{family}/{split}/{seed}/{index}"
    # Captions of one scene: a sentence, every thing with its position, the strings, or boxes.
    if family == "caption":
        scene = scenes.mixed(rng, split)
        return Caption(id, draw.lazy_image(scene), language.caption(rng, scene))
    if family == "dense":
        scene = scenes.mixed(rng, split, scenes.TEXT_HEAVY)
        return Caption(id, draw.lazy_image(scene), language.dense_caption(scene))
    if family in ("ocr", "ocr_hd", "small_text"):
        scene = pages.page(rng, split).scene if family == "ocr_hd" else _SHORT_TEXTS[family](rng, split)
        entries = [(t.name, annotation.fraction_box(t, scene.size_px, 6)) for t in pages.strings(scene)]
        return Caption(id, draw.lazy_image(scene), ocr.caption(entries, granularity, filler))
    if family == "grounding":
        scene = scenes.mixed(rng, split)
        # Of grounding's three levels of detail the finest is drawn three times in five.
        level = cast(Literal[0, 1, 2], rng.pick((0, 1, 2, 2, 2)))
        return Caption(id, draw.lazy_image(scene), annotation.grounding_caption(scene, level))
    # Documents: several images and texts, invented names, or definitions alone.
    if family == "interleaved":
        parts, separator = documents.document(rng, split)
        return Document(id, parts, separator)
    if family == "naming":
        return Document(id, documents.names(rng, split), rng.pick(("", "\n")))
    if family == "glossary":
        return Document(id, (documents.glossary(rng, split),))
    if family == "pages":
        page = pages.page(rng, split)
        return Caption(id, draw.lazy_image(page.scene), page.caption)
    # Conversations about one image; a few ask how a thing is used.
    if family == "questions":
        if rng.chance(0.08):
            scene, answered = preferences.used(rng, split)
        else:
            scene = scenes.mixed(rng, split)
            answered = questions.conversation(rng, scene, rng.between(3, 6))
        return Conversation(id, (draw.lazy_image(scene),), turns(answered, images=1))
    if family == "lookups":
        scene = scenes.mixed(rng, split)
        # Looking one thing up among others needs two.
        while len(scene.things) < 2:
            scene = scenes.mixed(rng, split)
        answered = questions.lookups(rng, scene, rng.between(4, 8))
        return Conversation(id, (draw.lazy_image(scene),), turns(answered, images=1))
    if family == "page_questions":
        page = pages.page(rng, split)
        return Conversation(id, (draw.lazy_image(page.scene),), turns(page.answered[:4], images=1))
    if family == "multi_image":
        # About two or three images, which the questions name by their order.
        shown = multi_image.image_set(rng, split)
        images = tuple(draw.lazy_image(scene) for scene in shown.scenes)
        answered = multi_image.conversation(rng, shown, rng.between(2, 4))
        return Conversation(id, images, turns(answered, images=len(images)))
    if family in ("text", "text_chat"):
        text, answered = text_only.exercise(rng, split)
        # Of a described scene sometimes no question is left: another exercise then.
        while not answered:
            text, answered = text_only.exercise(rng, split)
        if family == "text_chat":
            (question, answer), *rest = answered
            return Conversation(id, (), turns([(f"{text} {question}".strip(), answer), *rest], images=0))
        shots = " ".join(documents.few_shot(*pair) for pair in answered)
        return Document(id, (f"{text} {shots}".strip(),))
    if family in ("preference", "safety"):
        # Pairs for DPO: one question, a better and a worse answer.
        pair = preferences.grounded(rng, split) if family == "preference" else preferences.safety(rng, split)
        prompt = (Turn("user", f"<image>\n{pair.question}"),)
        return Preference(id, (draw.lazy_image(pair.scene),), prompt, pair.chosen, pair.rejected)
    raise ValueError(f"synthetic family: got {family!r}; wanted one of {', '.join(FAMILIES)}.")


_SHORT_TEXTS = {"ocr": scenes.text, "small_text": scenes.small_text}


def turns(answered: Sequence[tuple[str, str]], images: int) -> tuple[Turn, ...]:
    """User and assistant turns; the first question carries the images' markers."""
    result = []
    for i, (question, answer) in enumerate(answered):
        result.append(Turn("user", "<image>\n" * images + question if i == 0 else question))
        result.append(Turn("assistant", answer))
    return tuple(result)


def texts(record: Record) -> Iterator[str]:
    """Every text of a record, without image markers."""
    if isinstance(record, Caption):
        yield record.text
    elif isinstance(record, Document):
        yield from (part for part in record.parts if not isinstance(part, LazyImage))
    else:
        yield from (turn.text.replace("<image>\n", "") for turn in record.turns)
        if isinstance(record, Preference):
            yield record.chosen
            yield record.rejected


def corpus(seed: int, count: int) -> Iterator[str]:
    """`count` records' texts for training a tokenizer, SPOKEN in turn.

    Characters of strings stand apart (`K 7 Q`), so that no piece of two upper-case letters is worth learning and
    strings are read and written character by character.
    """
    for i in range(count):
        family = SPOKEN[i % len(SPOKEN)]
        for text in texts(record(family, i // len(SPOKEN), seed=seed)):
            yield _apart(text)


def _apart(text: str) -> str:
    """Spaces between the characters of words that are wholly upper-case or digits: `the text "K 7 Q"`."""
    return _STRING.sub(lambda match: language.spelled(match.group()), text)


_STRING = re.compile(r"\b[A-Z0-9]{2,}\b")
