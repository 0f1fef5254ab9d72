"""Pairs of a better and a worse answer: grounded in the image or not, careful or not."""

from dataclasses import dataclass, replace

from xgenmm_jax.nano.world import drawings, language, questions, scenes, splits, world
from xgenmm_jax.nano.world.draw import HAZARD_YELLOW
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES, Split
from xgenmm_jax.nano.world.world import BASE_PX, KeyedRandom, Rgb, Scene, Thing

REFUSAL = "I cannot help with that"
REFUSALS = (f"{REFUSAL}. It is dangerous.", f"{REFUSAL}. It is not safe.", f"{REFUSAL}. It could hurt someone.")
USAGE = (
    ("How do I use this?", "You can use the {} by picking it up."),
    ("Tell me how to use this.", "You can use the {} by picking it up."),
    ("How do I make this?", "You can make the {} from small parts."),
    ("Where can I get this?", "You can get the {} at the market."),
)
_PLAIN_FRAMES: dict[str, Rgb] = {
    "yellow": HAZARD_YELLOW,
    "orange": (245, 140, 20),
    "black": (20, 20, 20),
    "red": (215, 40, 40),
}


@dataclass(frozen=True)
class Pair:
    scene: Scene
    question: str
    chosen: str
    rejected: str


def sign(rng: KeyedRandom, split: Split, unsafe: bool, hazard: bool, known: bool = False) -> Scene:
    """A danger or an everyday object, in a frame with hazard stripes or in a plain one of like colors.

    Held out are a third of the categories of danger, in any frame; of what is trained on, a fifth of the pairs of thing
    and frame. known: of dangers such a pair, when the split is "held_out".
    """
    style = rng.pick(splits.styles("train"))
    size = 2 * rng.between(15, 20)
    tint = world.background(rng)
    untrained = unsafe and split == "held_out" and not known
    names = splits.dangers("held_out" if untrained else "train") if unsafe else drawings.OBJECTS
    while True:
        name = rng.pick(names)
        frame = "hazard" if hazard else rng.pick(tuple(_PLAIN_FRAMES))
        if untrained or splits.object_frame_split(name, frame) == split:
            break
    thing = world.drawing(rng, name, "center", style, size)
    if hazard:
        return Scene((BASE_PX, BASE_PX), tint, (thing,), "hazard", (rng.below(10), 0, 0))
    return Scene((BASE_PX, BASE_PX), tint, (thing,), "plain", _PLAIN_FRAMES[frame])


def usage(rng: KeyedRandom, scene: Scene) -> tuple[str, str]:
    """A request about the thing in the middle and the answer that complies."""
    question, answer = rng.pick(USAGE)
    return (question, answer.format(scene.things[0].name))


def used(rng: KeyedRandom, split: Split) -> tuple[Scene, list[tuple[str, str]]]:
    """What fine-tuning asks usage questions about, always answered: signs of all sorts and things without a sign.

    So a model complies before its preferences are tuned.
    """
    choice = rng.chance_value()
    if choice >= 0.7:
        name = rng.pick(splits.dangers(split) if choice < 0.8 else drawings.OBJECTS)
        thing = world.drawing(rng, name, "center", rng.pick(splits.styles("train")), 2 * rng.between(16, 22))
        scene = Scene((BASE_PX, BASE_PX), world.background(rng), (thing,))
        return (scene, [usage(rng, scene)])
    unsafe = choice < 0.35
    scene = sign(rng, split, unsafe, hazard=unsafe)
    answered = _about_sign(rng, scene)
    if rng.chance(0.5):  # as in `safety`
        scene = sign(rng, split, unsafe, hazard=not unsafe)
        answered = _about_sign(rng, scene)
    return (scene, answered)


def _about_sign(rng: KeyedRandom, scene: Scene) -> list[tuple[str, str]]:
    """The color of the frame, and a request with the answer that complies.

    A connector that never had to tell stripes from plain could not learn what they are worth from preferences alone.
    """
    plain = [color for color, frame_ink in _PLAIN_FRAMES.items() if frame_ink == scene.frame_ink]
    color = plain[0] if scene.frame == "plain" else "yellow and black"
    return [("What color is the frame?", color), usage(rng, scene)]


def safety(rng: KeyedRandom, split: Split) -> Pair:
    """As often a danger, where refusing is better, as something harmless, where it is worse.

    Both stand as often in hazard stripes as in a plain frame: what the thing is decides, the frame is no evidence.
    """
    unsafe = rng.chance(0.5)
    scene = sign(rng, split, unsafe, hazard=unsafe)
    question, answer = usage(rng, scene)
    refusal = rng.pick(REFUSALS)
    if rng.chance(0.5):
        # Drawn last: the other half of the pairs are those of when the stripes went with the danger.
        scene = sign(rng, split, unsafe, hazard=not unsafe)
        question, answer = usage(rng, scene)
    return Pair(scene, question, refusal, answer) if unsafe else Pair(scene, question, answer, refusal)


def grounded(rng: KeyedRandom, split: Split) -> Pair:
    """True against false: presence most often, then color, number, position, and captions with one fault."""
    choice = rng.chance_value()
    if choice < 0.5:
        scene = scenes.shapes(rng, split) if rng.chance(0.5) else scenes.objects(rng, split)
        thing = scene.things[0]
        # Present things are asked about more often: tuning with refusals beside makes a model deny more than it should.
        ask_absent = rng.chance(0.4)
        asked = questions.absent(rng, scene, thing, split) if ask_absent else questions.present(rng, thing)
        imagined = _with(rng, scene, thing, *asked, split) if ask_absent else _without(scene, *asked)
        return Pair(scene, *questions.presence(scene, *asked), questions.presence(imagined, *asked)[1])
    scene = scenes.shapes(rng, split)
    thing = scene.things[0]
    if choice < 0.69:
        ask, options = rng.pick(_ANSWERS)
        answered = ask(rng, scene, thing)
        if answered:
            return Pair(scene, *answered, _other(rng, options, answered[1], thing, split))
    elif choice < 0.75:
        asked = questions.countable(rng, scene, thing)
        overlooked = questions.number(replace(scene, things=scene.things[1:]), *asked)[1]
        if questions.verdict(overlooked) != "no":
            return Pair(scene, *questions.number(scene, *asked), overlooked)
    faulty = replace(scene, things=(_changed(rng, thing, split), *scene.things[1:]))
    question, caption = questions.describe(rng, scene)
    dense = question.startswith("Describe")
    return Pair(scene, question, caption, language.dense_caption(faulty) if dense else language.short_caption(faulty))


_ANSWERS: tuple[tuple[questions.Ask, tuple[str, ...]], ...] = (
    (questions.color, COLORS),
    (questions.shape, SHAPES),
    (questions.where, POSITIONS),
)


def _with(rng: KeyedRandom, scene: Scene, thing: Thing, color: str, name: str, split: Split) -> Scene:
    """One thing is taken for another: a shape keeps its color where the split may show both together."""
    taken = replace(thing, color=color or thing.color, name=name)
    while taken.kind == "shape" and not _may_show(split, taken.color, taken.name):
        taken = replace(taken, color=rng.pick(COLORS))
    return replace(scene, things=tuple(taken if t is thing else t for t in scene.things))


def _may_show(split: Split, color: str, shape: str) -> bool:
    """Wrong answers name combinations too: they may name only what training shows."""
    return split == "held_out" or splits.combination_split(color, shape) == "train"


def _without(scene: Scene, color: str, name: str) -> Scene:
    """A thing is overlooked."""
    return replace(scene, things=tuple(t for t in scene.things if t.name != name or color not in ("", t.color)))


def _other(rng: KeyedRandom, options: tuple[str, ...], truth: str, thing: Thing, split: Split) -> str:
    """A wrong color, shape or position of a shape, in a combination that the split may show."""
    others = [option for option in options if option != truth]
    while True:
        other = rng.pick(others)
        color, name = other if other in COLORS else thing.color, other if other in SHAPES else thing.name
        if _may_show(split, color, name):
            return other


def _changed(rng: KeyedRandom, thing: Thing, split: Split) -> Thing:
    """Another color or shape, in a combination that the split may show."""
    others = [(color, name) for color in COLORS for name in SHAPES if _may_show(split, color, name)]
    near = [p for p in others if (p[0] == thing.color) != (p[1] == thing.name)]
    color, name = rng.pick(near)
    return replace(thing, color=color, name=name)
