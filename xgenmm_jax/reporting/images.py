"""Images inside a page: data URIs, so that the page loads nothing."""

import base64
import io

import PIL.Image

JPEG_QUALITY = 86


def png_uri(image: PIL.Image.Image) -> str:
    """Exact pixels, for drawings and small images."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _uri(file.getvalue(), "png")


def jpeg_uri(image: PIL.Image.Image) -> str:
    """A third of the bytes, for photographs and heat maps; transparency is dropped."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
    return _uri(file.getvalue(), "jpeg")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
