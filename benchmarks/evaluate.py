"""Questions about images that come again: what is computed for a benchmark of POPE's shape, and how long it takes.

    python -m benchmarks.evaluate                    # 8,910 questions about 500 drawn images
    python -m benchmarks.evaluate --images 50

A random model of nano's size with 128 vision tokens an image is asked in one call, as `xgenmm evaluate` asks. Beside
it: the same prompts one at a time, as the public toolkits ask, by a generator that keeps nothing between calls.
Exits with 1 where an image goes through the tower twice, or more than 0.35 of the one-at-a-time positions are computed.
"""

import argparse
from dataclasses import replace
import functools
import json
from pathlib import Path
import time

from flax import linen as nn
import jax
from jaxtyping import PyTree
import numpy as np

from benchmarks.prompts import anyres_of, tokenizer_of
from benchmarks.report import print_table, show
from benchmarks.workloads import random_image
from xgenmm_jax import files
from xgenmm_jax.data.text.prompts import Prompt, message_prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Computed, Generator
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.models import blip3, sizes
from xgenmm_jax.models.blip3 import VLMConfig

QUESTIONS, IMAGES = 8910, 500
"""POPE's: three splits of 3,000 questions, some shared, about 500 of COCO's images."""
VISION_TOKENS = 128
MOST_POSITIONS = 0.35
"""Of those computed where each question is asked by itself."""
ANSWER = Decoding(max_new_tokens=4)
OBJECTS = "person car dog chair dining table traffic light bird bottle cup bench backpack sports ball".split()


def model(tokenizer: Tokenizer) -> VLMConfig:
    """Nano with as many vision tokens an image as the paper's models."""
    nano = sizes.nano(tokenizer.vocab_size, tokenizer.num_text_tokens)
    return replace(nano, connector=replace(nano.connector, queries=VISION_TOKENS))


def questions(count: int, images: int, tokenizer: Tokenizer, config: VLMConfig) -> list[Prompt]:
    """POPE's questions in VLMEvalKit's order: an image's stand together. Their lengths differ as its objects' do."""
    rng = np.random.default_rng(0)
    size = (config.vision.image_size_px,) * 2
    drawn = [random_image(size, number) for number in range(images)]
    prompts = []
    for number in range(count):
        words = " ".join(rng.choice(OBJECTS, rng.integers(1, 3)))
        parts = (0, f"Is there a {words} in the image?")
        prompts.append(message_prompt(parts, (drawn[number * images // count],), tokenizer))
    return prompts


class Asked:
    """A generator and how it is asked: all prompts in one call, or each in a call of its own."""

    def __init__(self, config: VLMConfig, params: PyTree, tokenizer: Tokenizer, one_by_one: bool):
        limits = Limits(rows=1) if one_by_one else Limits()
        self._make = functools.partial(
            Generator, config, params, tokenizer, anyres_of(config), limits=limits, stop_ids=()
        )
        self._one_by_one = one_by_one
        self._total = Computed(0, 0, 0)

    def ask(self, prompts: list[Prompt]) -> list[list[int]]:
        if not self._one_by_one:
            generator = self._make()
            answers = generator.generate_ids(prompts, ANSWER)
            self._add(generator.computed)
            return answers
        answers = []
        for prompt in prompts:
            generator = self._make()  # nothing of the last question is kept
            answers += generator.generate_ids([prompt], ANSWER)
            self._add(generator.computed)
        return answers

    def computed(self) -> Computed:
        """Since the last call of this."""
        total, self._total = self._total, Computed(0, 0, 0)
        return total

    def _add(self, computed: Computed) -> None:
        self._total = Computed(*(a + b for a, b in zip(self._total, computed, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--timed-images", type=int, default=6, help="whose questions are asked one by one too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    if min(arguments.images, arguments.timed_images, arguments.rounds) < 1:
        parser.error("--images, --timed-images and --rounds must be 1 or more")
    tokenizer = tokenizer_of(sizes.nano())
    config = model(tokenizer)
    params = nn.unbox(blip3.initialize(config, jax.random.key(0)))
    together, alone = (Asked(config, params, tokenizer, one_by_one) for one_by_one in (False, True))

    # A part, both ways, in turns; the first round compiles and is not counted.
    timed = questions(arguments.timed_images * QUESTIONS // IMAGES, arguments.timed_images, tokenizer, config)
    seconds: dict[str, list[float]] = {"together": [], "one by one": []}
    equal = 0
    for number in range(arguments.rounds + 1):
        answers = {}
        for name, side in (("together", together), ("one by one", alone)):
            started = time.perf_counter()
            answers[name] = side.ask(timed)
            if number:
                seconds[name].append(time.perf_counter() - started)
        equal = sum(a == b for a, b in zip(*answers.values(), strict=True))
    part = {"together": together.computed(), "one by one": alone.computed()}
    ratio = float(np.median(np.array(seconds["one by one"]) / np.array(seconds["together"])))
    positions_alone = part["one by one"].positions / (arguments.rounds + 1) / len(timed)

    # The whole, in one call.
    count = arguments.images * QUESTIONS // IMAGES
    prompts = questions(count, arguments.images, tokenizer, config)
    together.ask(prompts)
    computed = together.computed()
    share = computed.positions / (positions_alone * count)
    print_table(
        f"{count:,} questions about {arguments.images:,} images, {VISION_TOKENS} vision tokens each",
        ("", "together", "one by one"),
        [
            ("images through the tower", f"{computed.images:,}", f"{count:,}"),
            ("positions of prompts", f"{computed.positions:,}", f"{positions_alone * count:,.0f}"),
            ("share of positions", f"{share:.3f}", "1"),
        ],
    )
    show(
        f"{len(timed)} questions about {arguments.timed_images} images, both ways in turns: together {ratio:.1f} times "
        f"as fast (median of {arguments.rounds} rounds), {equal} answers equal"
    )
    if arguments.json:
        figures = {"questions": count, "images": arguments.images, **computed._asdict(), "share": share, "ratio": ratio}
        files.write_whole(arguments.json, json.dumps(figures, indent=2) + "\n")
    missed = []
    if computed.images > arguments.images:
        missed.append(f"MISSED: {computed.images} images through the tower, wanted at most {arguments.images}")
    if share > MOST_POSITIONS:
        missed.append(f"MISSED: {share:.3f} of the positions, wanted at most {MOST_POSITIONS}")
    if missed:
        raise SystemExit("\n".join(missed))


if __name__ == "__main__":
    main()
