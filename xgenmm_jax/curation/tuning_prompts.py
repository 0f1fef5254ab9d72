"""Prompts from templates in the categories of BLIP3o-60k that templates can give (docs/reference/blip3o.md#data).

Its other categories (dalle3, journeyDB, mscoco_human) are captions of those sets: give them as files.
"""

from collections.abc import Callable, Collection, Iterable
import itertools
import random
from typing import NamedTuple

NUMBERS = ("two", "three", "four")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
OBJECTS = (
    "apple", "armchair", "backpack", "balloon", "banana", "basket", "bell", "bench", "bicycle", "blanket", "bottle",
    "bowl", "broom", "bucket", "bus", "candle", "car", "carrot", "cat", "chair", "clock", "cow", "cup", "dog", "door",
    "drum", "elephant", "fan", "fork", "giraffe", "guitar", "hammer", "hat", "horse", "kettle", "key", "kite", "ladder",
    "lamp", "laptop", "lemon", "motorcycle", "orange", "pear", "pencil", "piano", "pillow", "pizza", "plate", "rabbit",
    "sailboat", "sandwich", "sheep", "shovel", "skateboard", "sofa", "spoon", "suitcase", "surfboard", "table",
    "teapot", "telephone", "toothbrush", "tractor", "train", "truck", "umbrella", "vase", "violin", "wheelbarrow",
    "zebra",
)  # fmt: skip
"""Each has a regular plural."""
PEOPLE = (
    "a young woman", "an old man", "a boy", "a girl", "a man with a beard", "a woman in a red coat", "a teenager",
    "a grandmother", "a man in a suit", "a woman with curly hair", "a child in a raincoat", "a tall man with glasses",
)  # fmt: skip
GESTURES = (
    "waving with the right hand", "giving a thumbs up", "making a peace sign", "clapping", "pointing at the sky",
    "shrugging", "folding both hands", "crossing the arms", "holding up three fingers", "holding up an open palm",
    "putting a finger to the lips", "covering both eyes", "shaking hands with a friend", "making an OK sign",
    "making a heart with both hands", "blowing a kiss", "saluting", "scratching the head", "snapping the fingers",
    "raising a fist", "bowing", "stretching both arms out", "holding a cup with both hands", "tying a shoe",
)  # fmt: skip
OCCUPATIONS = (
    "baker", "barber", "beekeeper", "blacksmith", "bricklayer", "bus driver", "butcher", "carpenter", "cashier", "chef",
    "dentist", "diver", "doctor", "electrician", "farmer", "firefighter", "fisherman", "florist", "gardener",
    "glassblower", "goldsmith", "hairdresser", "judge", "librarian", "lifeguard", "mechanic", "miner", "musician",
    "nurse", "painter", "photographer", "pilot", "plumber", "police officer", "postman", "potter", "scientist",
    "shoemaker", "surgeon", "tailor", "teacher", "veterinarian", "waiter", "watchmaker", "weaver", "welder",
)  # fmt: skip
LANDMARKS = (
    "the Eiffel Tower", "the Colosseum", "the Taj Mahal", "the Great Wall of China", "Machu Picchu", "Big Ben",
    "the Statue of Liberty", "the Sydney Opera House", "the Golden Gate Bridge", "Mount Fuji", "Stonehenge",
    "the Brandenburg Gate", "the Sagrada Familia", "the Acropolis", "the Pyramids of Giza", "Petra", "Angkor Wat",
    "the Leaning Tower of Pisa", "Neuschwanstein Castle", "the Burj Khalifa", "Christ the Redeemer", "Tower Bridge",
    "Saint Basil's Cathedral", "the Forbidden City", "Mont-Saint-Michel", "the Alhambra", "Niagara Falls",
    "the Grand Canyon", "Mount Rushmore", "the Hagia Sophia", "the Louvre Pyramid", "Table Mountain",
)  # fmt: skip
WORDS = (
    "OPEN", "CLOSED", "WELCOME", "EXIT", "CAFE", "BAKERY", "LIBRARY", "SALE", "HELLO", "THANK YOU", "GOOD MORNING",
    "STOP", "SLOW DOWN", "FRESH BREAD", "NO PARKING", "HAPPY BIRTHDAY", "LOST AND FOUND", "DREAM BIG", "KEEP OUT",
    "BOOKS", "MUSIC", "COFFEE", "ICE CREAM", "TICKETS", "MUSEUM", "PLATFORM 9", "ROOM 12", "EST. 1987", "50% OFF",
)  # fmt: skip
SURFACES = (
    "a wooden sign", "a neon sign", "a chalkboard", "a white T-shirt", "the cover of a book", "a coffee mug",
    "a street sign", "a birthday cake", "a brick wall in graffiti", "a shop window", "a paper note", "a banner",
)  # fmt: skip
SCENES = (
    "in a park", "on a beach", "in a kitchen", "on a busy street", "in front of a brick wall", "in the rain",
    "at night", "in a meadow", "in a classroom", "on a mountain", "in the snow", "at a market", "in a workshop",
    "by a lake",
)  # fmt: skip
LIGHTS = (
    "at sunrise", "at sunset", "under a clear blue sky", "in thick fog", "in winter", "at night with lights on",
    "seen from a boat", "seen from the air", "with people walking by", "in spring with trees in bloom",
)  # fmt: skip
STYLES = ("", "", "", ", watercolor", ", oil painting", ", pencil sketch", ", pixel art", ", studio photograph")


class Excluded(NamedTuple):
    """Prompts of a category, and how often a template gave one that is kept for tests."""

    prompts: list[str]
    kept_out: int


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _geneval(rng: random.Random) -> str:
    """GenEval's six kinds."""
    one, other = rng.sample(OBJECTS, 2)
    colors = rng.sample(COLORS, 2)
    kinds = (
        f"a photo of {_a(one)}",
        f"a photo of {_a(one)} and {_a(other)}",
        f"a photo of {rng.choice(NUMBERS)} {_plural(one)}",
        f"a photo of {_a(f'{colors[0]} {one}')}",
        f"a photo of {_a(one)} {rng.choice(RELATIONS)} {_a(other)}",
        f"a photo of {_a(f'{colors[0]} {one}')} and {_a(f'{colors[1]} {other}')}",
    )
    return rng.choice(kinds)


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def _gesture(rng: random.Random) -> str:
    return f"{rng.choice(PEOPLE)} {rng.choice(GESTURES)} {rng.choice(SCENES)}{rng.choice(STYLES)}"


def _object(rng: random.Random) -> str:
    return f"{_a(f'{rng.choice(COLORS)} {rng.choice(OBJECTS)}')} {rng.choice(SCENES)}{rng.choice(STYLES)}"


def _occupation(rng: random.Random) -> str:
    return f"{_a(rng.choice(OCCUPATIONS))} at work {rng.choice(SCENES)}{rng.choice(STYLES)}"


def _text(rng: random.Random) -> str:
    return f'{rng.choice(SURFACES)} that says "{rng.choice(WORDS)}" {rng.choice(SCENES)}'


def _landmark(rng: random.Random) -> str:
    return f"{rng.choice(LANDMARKS)} {rng.choice(LIGHTS)}{rng.choice(STYLES)}"


CATEGORIES: dict[str, Callable[[random.Random], str]] = {
    "geneval_train": _geneval, "human_gestures": _gesture, "object": _object, "occupation": _occupation, "text": _text,
    "landmark": _landmark,
}  # fmt: skip
TRIES = 500
"""Prompts that are made in a row without a new one, before a category counts as used up."""


def from_templates(category: str, count: int, seed: int, kept_out: Collection[str] = ()) -> Excluded:
    """At most `count` different prompts of a category: fewer where its templates give no more. kept_out: `plain`.

    Raises ValueError where there is no such category.
    """
    if category not in CATEGORIES:
        raise ValueError(f"tuning-set: got the category '{category}', wanted one of {', '.join(CATEGORIES)}.")
    rng, make = random.Random(f"tuning set/{category}/{seed}"), CATEGORIES[category]
    return chosen((make(rng) for _ in itertools.count()), count, kept_out)


def chosen(prompts: Iterable[str], count: int, kept_out: Collection[str]) -> Excluded:
    """The first `count` different prompts that are not kept for tests."""
    selected: dict[str, str] = {}
    excluded: set[str] = set()
    in_vain = 0
    for prompt in prompts:
        if len(selected) >= count or in_vain >= TRIES:
            break
        name = plain(prompt)
        in_vain += 1
        if name in kept_out:
            excluded.add(name)
        elif name and name not in selected:
            selected[name] = " ".join(prompt.split())
            in_vain = 0
    return Excluded(list(selected.values()), len(excluded))


def plain(prompt: str) -> str:
    """What two spellings of a prompt have in common: case, white space and a full stop are left away."""
    return " ".join(prompt.split()).rstrip(".").casefold()
