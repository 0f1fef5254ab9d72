"""The contract between data and model, and the alphabet of dimensions.

B batch rows, T positions, S key positions, D decoder width, F hidden width, N heads, K key-value heads,
G = N / K, H head width, L layers, V vocabulary, I images of a row, C crops of a row, P patches of a crop,
Q queries (vision tokens) of a crop, M vision tokens of a row, E vision width; pixels are `h w 3`.
Of drawing: J target images of a row, R queries that carry a caption's meaning out.
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float32, Int32, UInt8, UInt32
import numpy as np
from numpy.typing import DTypeLike

ArrayLike = Array | np.ndarray


class Batch(NamedTuple):
    """Packed rows of images and text at static shapes.

    Example, Q = 2 vision tokens a crop, a row of two samples, `<image>` a b and c `<image>`, and one padded position:

        token_ids    [ 9  9  a  b | c  9  9 | 0]     9 is `<image>`, repeated over its vision tokens
        segment_ids  [ 1  1  1  1 | 2  2  2 | 0]
        positions    [ 0  1  2  3 | 0  1  2 | 0]
        slot         [ 0  1 -1 -1 |-1  2  3 |-1]     vision token q of crop c is c * Q + q
        loss_mask    [ 0  0  1  1 | 0  0  0 | 0]     this position's token is a target
        crop_image   [0 1 -1 -1]                     C = 4: crop c shows image crop_image[c] of this row
    """

    token_ids: Int32[ArrayLike, "B T"]
    segment_ids: Int32[ArrayLike, "B T"]
    """0 is padding; samples of a row count from 1, without the number of one that could not be decoded."""
    positions: Int32[ArrayLike, "B T"]
    loss_mask: Bool[ArrayLike, "B T"]
    slot: Int32[ArrayLike, "B T"]
    pixels: UInt8[ArrayLike, "B C h w 3"] | Float32[ArrayLike, "B C h w 3"]
    """Bytes, normalised on the device; or floats that are normalised already. Padding crops are zeros."""
    crop_image: Int32[ArrayLike, "B C"]
    """The image of the row that a crop belongs to, -1 for a padding crop. Crops of an image: global view first."""
    crop_segment: Int32[ArrayLike, "B C"]
    """The segment that a crop belongs to (the chosen one where a pair shares it), 0 for a padding crop."""
    image_grid: Int32[ArrayLike, "B I 2"]
    """(columns, rows) of crops beside the global view; (0, 0): global view alone, or no image."""
    image_size_px: Int32[ArrayLike, "B I 2"]
    """(width, height) of the image before resizing; (0, 0): no image."""
    image_valid: Int32[ArrayLike, "B I 4"]
    """(top, bottom, left, right): canvas cells in [top, bottom) x [left, right) are image, the rest padding."""

    @classmethod
    def empty(
        cls,
        rows: int,
        length: int,
        crops: int,
        images: int,
        size_px: int,
        pad_id: int = 0,
        pixel_dtype: DTypeLike = np.uint8,
    ) -> "Batch":
        """Rows of nothing but padding, as numpy arrays; `data/rows/build.py` writes samples into them.

        length: T. crops: C, of size_px x size_px pixels. images: I.
        """
        return cls(
            token_ids=np.full((rows, length), pad_id, np.int32),
            segment_ids=np.zeros((rows, length), np.int32),
            positions=np.zeros((rows, length), np.int32),
            loss_mask=np.zeros((rows, length), bool),
            slot=np.full((rows, length), -1, np.int32),
            pixels=np.zeros((rows, crops, size_px, size_px, 3), pixel_dtype),
            crop_image=np.full((rows, crops), -1, np.int32),
            crop_segment=np.zeros((rows, crops), np.int32),
            image_grid=np.zeros((rows, images, 2), np.int32),
            image_size_px=np.zeros((rows, images, 2), np.int32),
            image_valid=np.zeros((rows, images, 4), np.int32),
        )


class DrawingBatch(NamedTuple):
    """Packed rows, some of whose segments are captions to draw; beside them what is to be drawn.

    Example, R = 2 queries, a row of two captions a b and c, and one padded position:

        token_ids       [ a  b  0  0  0  c  0  0  0  0]     what lies at a query's position is not read
        segment_ids     [ 1  1  1  1  1  2  2  2  2  0]
        query           [-1 -1  0  1  2 -1  0  1  2 -1]
        target_segment  [ 1  2 0]                           J = 3: the third place is not used
    """

    batch: Batch
    query: Int32[ArrayLike, "B T"]
    """What stands at a position in place of a token: 0 the vector that begins an image, r + 1 query r; -1: a token."""
    target_pixels: UInt8[ArrayLike, "B J h w 3"]
    """The image of each caption, squared. Zeros where there is none."""
    target_segment: Int32[ArrayLike, "B J"]
    """The segment whose image it is, 0 where there is none."""
    target_seed: UInt32[ArrayLike, "B J 2"]
    """Key of the random draws about this image: a function of run, source, record and epoch, not of the row."""

    @property
    def segment_ids(self) -> Int32[ArrayLike, "B T"]:
        return self.batch.segment_ids

    @classmethod
    def around(cls, batch: Batch, targets: int, size_px: int) -> "DrawingBatch":
        """Rows without any target yet, as numpy arrays. targets: J, of size_px x size_px pixels."""
        rows = batch.token_ids.shape[0]
        return cls(
            batch=batch,
            query=np.full(batch.token_ids.shape, -1, np.int32),
            target_pixels=np.zeros((rows, targets, size_px, size_px, 3), np.uint8),
            target_segment=np.zeros((rows, targets), np.int32),
            target_seed=np.zeros((rows, targets, 2), np.uint32),
        )
