"""Makes xgenmm_jax/nano/world/embedded/sprites.png and sprites.json: small drawings in four styles on one sheet.

The drawings come from three npm packages; pack, unpack and name their folders:

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 fluentui-emoji@1.3.0
    for f in *.tgz; do mkdir "${f%.tgz}" && tar xzf "$f" -C "${f%.tgz}" --strip-components=1; done
    pip install pillow resvg_py==0.5.0
    python tools/make_sprites.py emoji-datasource-google-16.0.0 emoji-datasource-twitter-16.0.0 fluentui-emoji-1.3.0

The first two hold PNGs of 64 px named by code point, the last SVGs named in words. Every drawing is cropped
to what is visible, scaled so that its longer side fills the cell, and centered, so that a style cannot be told
by its margins and a box drawn around a cell is tight along one axis. Licenses: embedded/LICENSES.md.
"""

import argparse
import io
import json
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import resvg_py

from xgenmm_jax import files

CELL_PX = 48
COLUMNS = 16
RENDER_PX = 384  # of SVGs, before they are cropped and reduced
OUTPUT = Path(__file__).parents[1] / "xgenmm_jax" / "nano" / "world" / "embedded"


class Source(NamedTuple):
    """name: what we call it; code_point: PNG file stem; words: SVG file stem; category: of danger, or None."""

    name: str
    code_point: str
    words: str
    category: str | None = None


# One short word each, no word within another, clear at 28 px in all four styles, no color or shape of `splits`.
# Left out for that: gun (a water pistol everywhere), bird (another bird in each style), lion and tiger (too
# near to cat), truck (to bus), hammer (to axe), star and heart (shapes), carrot (holds car), lock (clock), balloon.
SOURCES = (
    # animals
    Source("cat", "1f431", "cat-face"),
    Source("dog", "1f436", "dog-face"),
    Source("fish", "1f41f", "fish"),
    Source("frog", "1f438", "frog"),
    Source("pig", "1f437", "pig-face"),
    Source("elephant", "1f418", "elephant"),
    Source("panda", "1f43c", "panda"),
    Source("penguin", "1f427", "penguin"),
    Source("turtle", "1f422", "turtle"),
    Source("bee", "1f41d", "honeybee"),
    Source("butterfly", "1f98b", "butterfly"),
    Source("crab", "1f980", "crab"),
    Source("owl", "1f989", "owl"),
    # vehicles
    Source("car", "1f697", "automobile"),
    Source("bus", "1f68c", "bus"),
    Source("bike", "1f6b2", "bicycle"),
    Source("rocket", "1f680", "rocket"),
    Source("plane", "2708-fe0f", "airplane"),
    Source("boat", "26f5", "sailboat"),
    Source("tractor", "1f69c", "tractor"),
    Source("helicopter", "1f681", "helicopter"),
    # food
    Source("apple", "1f34e", "red-apple"),
    Source("banana", "1f34c", "banana"),
    Source("pizza", "1f355", "pizza"),
    Source("cake", "1f370", "shortcake"),
    Source("mushroom", "1f344", "mushroom"),
    Source("lemon", "1f34b", "lemon"),
    Source("donut", "1f369", "doughnut"),
    # things
    Source("key", "1f511", "key"),
    Source("ball", "26bd", "soccer-ball"),
    Source("book", "1f4d5", "closed-book"),
    Source("chair", "1fa91", "chair"),
    Source("clock", "23f0", "alarm-clock"),
    Source("cup", "2615", "hot-beverage"),
    Source("umbrella", "2602-fe0f", "umbrella"),
    Source("hat", "1f3a9", "top-hat"),
    Source("shoe", "1f45f", "running-shoe"),
    Source("bell", "1f514", "bell"),
    Source("guitar", "1f3b8", "guitar"),
    Source("camera", "1f4f7", "camera"),
    Source("house", "1f3e0", "house"),
    Source("tree", "1f333", "deciduous-tree"),
    Source("cactus", "1f335", "cactus"),
    Source("robot", "1f916", "robot"),
    Source("crown", "1f451", "crown"),
    Source("anchor", "2693", "anchor"),
    # dangers
    Source("knife", "1f52a", "kitchen-knife", "weapon"),
    Source("dagger", "1f5e1-fe0f", "dagger", "weapon"),
    Source("axe", "1fa93", "axe", "weapon"),
    Source("bomb", "1f4a3", "bomb", "explosive"),
    Source("dynamite", "1f9e8", "firecracker", "explosive"),
    Source("fire", "1f525", "fire", "fire"),
    Source("volcano", "1f30b", "volcano", "fire"),
    Source("skull", "2620-fe0f", "skull-and-crossbones", "poison"),
    Source("biohazard", "2623-fe0f", "biohazard", "poison"),
    Source("syringe", "1f489", "syringe", "drug"),
    Source("pill", "1f48a", "pill", "drug"),
    Source("cigarette", "1f6ac", "cigarette", "drug"),
    Source("snake", "1f40d", "snake", "venom"),
    Source("scorpion", "1f982", "scorpion", "venom"),
)


def render_svg(path: Path) -> PIL.Image.Image:
    png = resvg_py.svg_to_bytes(svg_string=files.read_text(path), width=RENDER_PX, height=RENDER_PX)
    return PIL.Image.open(io.BytesIO(png)).convert("RGBA")


def fit(image: PIL.Image.Image) -> PIL.Image.Image:
    """The visible part (alpha over 8 of 255) of an RGBA image, its longer side CELL_PX, centered in a cell."""
    visible = image.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    cropped = image.crop(visible)
    scale = CELL_PX / max(cropped.size)
    size = tuple(max(1, round(side * scale)) for side in cropped.size)
    cell = PIL.Image.new("RGBA", (CELL_PX, CELL_PX))
    # pillow premultiplies alpha while it resizes RGBA, so no dark fringe
    cell.paste(cropped.resize(size, PIL.Image.Resampling.LANCZOS), tuple((CELL_PX - side) // 2 for side in size))
    return cell


def version(package: Path) -> str:
    facts = files.read_json(package / "package.json")
    return f"{facts['name']} {facts['version']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("google", type=Path, help="unpacked emoji-datasource-google")
    parser.add_argument("twitter", type=Path, help="unpacked emoji-datasource-twitter")
    parser.add_argument("fluent", type=Path, help="unpacked fluentui-emoji")
    args = parser.parse_args()

    packages = {
        "noto": version(args.google),
        "twemoji": version(args.twitter),
        "fluent_flat": version(args.fluent),
        "fluent_color": version(args.fluent),
    }
    count = len(SOURCES) * len(packages)
    sheet = PIL.Image.new("RGBA", (COLUMNS * CELL_PX, -(-count // COLUMNS) * CELL_PX))
    sprites = []
    for source in SOURCES:
        # Microsoft's name for the style with gradients is Color; the package's folder says modern.
        images = {
            "noto": PIL.Image.open(args.google / f"img/google/64/{source.code_point}.png").convert("RGBA"),
            "twemoji": PIL.Image.open(args.twitter / f"img/twitter/64/{source.code_point}.png").convert("RGBA"),
            "fluent_flat": render_svg(args.fluent / f"icons/flat/{source.words}.svg"),
            "fluent_color": render_svg(args.fluent / f"icons/modern/{source.words}.svg"),
        }
        for style in packages:
            left, top = len(sprites) % COLUMNS * CELL_PX, len(sprites) // COLUMNS * CELL_PX
            sheet.paste(fit(images[style]), (left, top))
            box = [left, top, left + CELL_PX, top + CELL_PX]
            sprites.append({"name": source.name, "style": style, "box": box, "category": source.category})

    OUTPUT.mkdir(exist_ok=True)
    sheet.save(OUTPUT / "sprites.png", optimize=True)
    rows = ",\n".join("    " + json.dumps(sprite) for sprite in sprites)
    text = f'{{\n  "packages": {json.dumps(packages)},\n  "sprites": [\n{rows}\n  ]\n}}\n'
    files.write_whole(OUTPUT / "sprites.json", text)
    print(f"{len(SOURCES)} drawings, {count} sprites, {(OUTPUT / 'sprites.png').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
