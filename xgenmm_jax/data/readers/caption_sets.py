"""How the paper's sets of captions are read, each in the form in which it is published or downloaded.

Source: docs/reference/data.md#blip3-kale, docs/reference/data.md#datacomp-1b,
docs/reference/data.md#img2dataset-output, docs/reference/data.md#small-caption-sets,
docs/reference/blip3o.md#data
"""

from xgenmm_jax.data.readers.image_captions import ImageCaptions

DOWNLOADED = ImageCaptions()
"""Tars of img2dataset, as CC3M, CC12M, SBU, DataComp-1B and KALE become images: `Tars("cc12m/{00000..01242}.tar")`."""

DOWNLOADED_TABLE = ImageCaptions(caption="caption")
"""Tables of img2dataset with the images inside, output_format="parquet"."""

KALE = ImageCaptions(image=(), image_name="url", caption="caption")
"""KALE's own rows: the caption with world knowledge. The images lie in a folder by the hash of their URL,
`Parquet(pattern, images=folder)`. With other_captions=("cogvlm_caption",) the plain one is drawn as often."""

DATACOMP = ImageCaptions(image=(), image_name="url", caption="text")
"""DataComp-1B's own rows: the alt text. Images as those of KALE."""

LAVIS = ImageCaptions(image=(), image_name="image", caption="caption")
"""A JSON list in LAVIS' form, {image, caption, image_id}: `JsonFiles("sbu.json", images=folder)`."""

BLIP3O = ImageCaptions()
"""BLIP3-o's pairs for text-to-image, tars of KEY.jpg and KEY.txt: `Tars("blip3o/*.tar")`."""
