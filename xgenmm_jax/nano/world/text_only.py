"""The world's language without images: described scenes with questions, spelling, numbers, invented names."""

from xgenmm_jax.nano.world import (
    documents,
    drawings,
    language,
    multi_image,
    pages,
    preferences,
    questions,
    scenes,
    world,
)
from xgenmm_jax.nano.world.questions import Answered
from xgenmm_jax.nano.world.splits import Split
from xgenmm_jax.nano.world.world import KeyedRandom


def described(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """A scene in words, and questions that the words answer."""
    scene = scenes.mixed(rng, split)
    answered = questions.conversation(rng, scene, rng.between(1, 4))
    answerable = [pair for pair in answered if not pair[0].startswith(("Where exactly", "Describe", "What is in"))]
    upper_first = pages.strings(scene)
    words = language.dense_caption(scene)
    if len(upper_first) == 2 and upper_first[0].position == upper_first[1].position:
        answerable = [pair for pair in answerable if "upper" not in pair[0] and "lower" not in pair[0]]
    return (f"There is {words}.", answerable)


def spelling(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """`Spell K7Q.` `K 7 Q`, its length, first and last character."""
    string = world.word(rng, split)
    asked = [
        (f"Spell {string}.", language.spelled(string)),
        (f"Write {language.spelled(string)} as one word.", string),
        (f"How many characters has {string}?", language.NUMBERS[len(string)]),
        (f"What is the first character of {string}?", string[0]),
        (f"What is the last character of {string}?", string[-1]),
        (f"Repeat {string}.", string),
    ]
    return ("", rng.sample(asked, rng.between(1, 3)))


def arithmetic(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """Sums and comparisons of numbers below ten, of things of one sort."""
    color, shape = world.combination(rng, split)
    first, second = rng.between(1, 5), rng.between(1, 4)
    counts = [f"one {shape}" if n == 1 else f"{language.NUMBERS[n]} {language.plural(shape)}" for n in (first, second)]
    total = (f"How many {language.plural(shape)} are there?", language.NUMBERS[first + second])
    more = max(first, second)
    asked = [total] if first == second else [total, ("What is the larger number?", language.NUMBERS[more])]
    be = "is" if first == 1 else "are"
    asked.append((f"What color are the {language.plural(shape)}?", color))
    return (f"There {be} {counts[0]} and {counts[1]}. All are {color}.", asked)


def naming(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """Names of described things: `A red star is called dax. ... What is a red heart called?` `dax`."""
    binding = documents.naming(rng, split)
    lines = []
    order = [*rng.shuffle((0, 1)), *(rng.below(2) for _ in range(rng.between(1, 5)))]
    for which in order:
        thing = documents.named_scene(rng, binding, which, split).things[0]
        lines.append((language.article(language.noun(thing)), binding.names[which]))
    *named, (last, name) = lines
    text = " ".join(f"{noun.capitalize()} is called {called}." for noun, called in named)
    return (text, [(f"What is {last} called?", name)])


def demonstrations(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """The same in the form of a few-shot prompt, words instead of images: later stages put images there.

    `A red star. Question:What is this called? Short answer:red dax` ..., and the last one is asked.
    """
    count = rng.between(2, 4)
    binding = documents.naming(rng, split, count)
    shown = []
    for which in (*rng.shuffle(range(count)), *(rng.below(count) for _ in range(rng.between(1, 5)))):
        thing = documents.named_scene(rng, binding, which, split).things[0]
        words = f"{language.article(language.noun(thing)).capitalize()} {language.at(thing.position)}."
        shown.append((words, documents.NAMING_QUESTION, binding.called(which)))
    *demonstrated, (last, question, answer) = shown
    lines = [f"{words} {documents.few_shot(*pair)}" for words, *pair in demonstrated]
    return (" ".join((*lines, last)), [(question, answer)])


def images_in_words(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """Two or three images in words, and questions across them."""
    shown = multi_image.image_set(rng, split)
    words = [f"Picture {i + 1} shows {language.dense_caption(scene)}." for i, scene in enumerate(shown.scenes)]
    return (" ".join(words), multi_image.conversation(rng, shown, rng.between(1, 3)))


def usage(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """What harmless things are used for."""
    name = rng.pick(drawings.OBJECTS)
    question, answer = rng.pick(preferences.USAGE)
    return (f"This is {language.article(name)}.", [(question, answer.format(name))])


def page(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """Lines and charts in words."""
    drawn = pages.page(rng, split, rng.pick(("lines", "chart")))
    text = f"There is {drawn.caption}." if drawn.kind == "chart" else f"There are {drawn.caption}."
    return (text, list(drawn.answered[: rng.between(1, 3)]))


def exercise(rng: KeyedRandom, split: Split) -> tuple[str, list[Answered]]:
    """A text, possibly empty, and questions about it with their answers; there may be none."""
    makers = (
        *(described, described, described, spelling, arithmetic, images_in_words, page, usage),
        *(naming, demonstrations, demonstrations),
    )
    return rng.pick(makers)(rng, split)
