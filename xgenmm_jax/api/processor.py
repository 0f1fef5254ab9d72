"""From images and text to prompts of a model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import pathlib
from typing import Any

import PIL.Image

from xgenmm_jax.api import image_inputs
from xgenmm_jax.api.image_inputs import Image
from xgenmm_jax.data import anyres
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.images import image_from_bytes, image_from_pil, open_image
from xgenmm_jax.data.records import Crops, LazyImage, Turn
from xgenmm_jax.data.text import chat, prompts
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import DECOUPLED, DROPS_SPACE, PHI3_SPECIALS, STRIPS_RIGHT, Tokenizer
from xgenmm_jax.files import without_surrogates
from xgenmm_jax.generation.arguments import shown


@dataclass(frozen=True)
class Processor:
    """How a model's inputs are made.

    anyres: how images are cut into views. chat: how conversations are written. pixel_mean, pixel_std: of pixels in
    0..1, those of the tower's config. official_images: read images as the released code does, without the rotation
    in a photo's EXIF and with transparency dropped; by default a photo is rotated upright and transparency is blended
    with white.
    """

    tokenizer: Tokenizer
    anyres: AnyRes
    chat: ChatStyle = ChatStyle()
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    official_images: bool = False

    def crops(self, image: Image) -> Crops:
        """The views of an image as the official tensors: global view first, then the grid's crops row by row."""
        opened = self.image(image)
        if isinstance(opened, Crops):
            return opened
        views = anyres.crops(opened.load(), self.anyres)
        return Crops(anyres.normalized(views, self.pixel_mean, self.pixel_std), opened.size_px)

    def image(self, image: Image) -> LazyImage | Crops:
        """The image in a file, its bytes, a PIL image or an array, not cut yet; what is cut already stays as it is.

        A PIL image is read at its current frame. Raises ValueError where it is no image
        (`image_inputs.readable`).
        """
        image = image_inputs.readable(image)
        if isinstance(image, LazyImage | Crops):
            return image
        if isinstance(image, pathlib.Path):
            return open_image(image, official=self.official_images)
        if isinstance(image, bytes):
            return image_from_bytes(image, "in bytes", official=self.official_images)
        if isinstance(image, PIL.Image.Image):
            return image_from_pil(image, f"the {image.format or 'PIL'} image", official=self.official_images)
        return image_from_bytes(image_inputs.object_bytes(image), f"'{image}'", official=self.official_images)

    def images(self, images: Sequence[Image] | Image | None) -> tuple[LazyImage | Crops, ...]:
        """Those of one prompt: of a list, of one image alone, or of None, which is none."""
        return tuple(map(self.image, image_inputs.as_list(images)))

    def prompt(
        self, text: str | object, images: Sequence[Image] | Image | None = (), chat_template: bool = True
    ) -> Prompt:
        """A question about images, for `generate`.

        chat_template: the text is a user's turn that the model answers; False: the model continues the text. Where the
        text has no `<image>`, all images come first.

        Raises ValueError where `<image>` and images differ in number.
        """
        text, shown_images = _text(text), self.images(images)
        if chat.IMAGE not in text:
            marker = f"{chat.IMAGE}\n" if chat_template else chat.IMAGE
            text = marker * len(shown_images) + text
        if chat_template:
            return prompts.chat_prompt([Turn("user", text)], shown_images, self.tokenizer, self.chat)
        return Prompt(tuple(self.tokenizer.encode(text)), shown_images)

    def question_prompt(self, question: str | object, images: Sequence[Image] | Image | None = ()) -> Prompt:
        """A question as the evaluation suite asks a base model, `prompts.few_shot_prompt` without demonstrations.

        "<image>Question:how many? Short answer:", with an `<image>` for each image.
        """
        shown_images = self.images(images)
        parts = (*(chat.IMAGE for _ in shown_images), *prompts.query(_text(question)))
        return Prompt(tuple(self.tokenizer.encode_parts(parts)), shown_images)


def _text(question: Any) -> str:
    """A question, with U+FFFD for bytes that were no UTF-8 on a command line. Raises ValueError where it is no text."""
    if not isinstance(question, str):
        raise ValueError(f"prompt: got {shown(question)}; give a question, as text.")
    return without_surrogates(question)


class IdsOnly(Tokenizer):
    """In place of the tokenizer of a folder that has none: special ids by their order, and no text.

    num_text_tokens: ids before the decoupled ones; above them the order is Phi-3's (`data/text/tokenizer.py`).
    """

    def __init__(self, num_text_tokens: int):
        names = (*PHI3_SPECIALS, "<pad>", *DECOUPLED)
        first = num_text_tokens - len(PHI3_SPECIALS) - 1
        self.special_ids = {name: first + offset for offset, name in enumerate(names)}
        self._set_rules(STRIPS_RIGHT, frozenset(), DROPS_SPACE, "<|endoftext|>", "<|end|>")

    def encode_parts(self, parts: Iterable[str], starts: bool = True) -> list[int]:
        text = "".join(parts)
        raise ValueError(f"tokenizer: the folder has no tokenizer.model, so {text[:30]!r} has no ids; {_REMEDY}.")

    def decode(self, ids, keep_special: bool = True) -> str:
        raise ValueError(f"tokenizer: the folder has no tokenizer.model, so ids have no text; {_REMEDY}.")

    def piece(self, id_: int) -> str:
        return f"#{id_}"


_REMEDY = "put it beside the weights, give load(..., tokenizer=FILE), or use ids"
