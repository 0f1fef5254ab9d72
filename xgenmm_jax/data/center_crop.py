"""The square in the middle of an image, at a tower's size, equal to the bit with torchvision's Resize and CenterCrop.

Source: docs/reference/blip3o.md#target-features.
"""

from jaxtyping import UInt8
import numpy as np
import PIL.Image

from xgenmm_jax.data.images import MAX_PIXELS


def center_crop(image: PIL.Image.Image, size_px: int) -> UInt8[np.ndarray, "S S 3"]:
    """The middle of an RGB image whose shorter side becomes size_px, the longer int(size_px * long / short); bicubic.

    Example at 448 px: 640 x 480 becomes 597 x 448, of which columns 74 to 522 are kept; a border of an odd width is
    halved to the even of its neighbours.

    Raises ValueError where so long an image would become more than MAX_PIXELS.
    """
    short, long = sorted(image.size)
    longer = size_px * long // short
    if size_px * longer > MAX_PIXELS:
        raise ValueError(
            f"image: {image.size[0]} x {image.size[1]} px would become {size_px} x {longer} before it is cropped; "
            f"wanted at most {MAX_PIXELS:,} pixels: cut it to a less narrow one."
        )
    width, height = (size_px if side == short else longer for side in image.size)
    resized = image.convert("RGB").resize((width, height), PIL.Image.Resampling.BICUBIC)
    left, top = round((width - size_px) / 2), round((height - size_px) / 2)
    return np.asarray(resized.crop((left, top, left + size_px, top + size_px)))
