"""Large images to overlapping tiles of the networks' size, and what was found in the tiles to maps and scores of images.

TensorFlow operations only, for images of differing sizes in one batch: they are filled up with anything at the bottom and on
the right to one size, and `sizes` `[N, 2]` says how much of each is image.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from anogan_tf.data.batching import within

CONTEXT = 96


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a detector cuts images and puts the answers together.

    Attributes:
        stride: pixels between neighbouring tiles; half the networks' side lets each pixel be seen by four.
        top: an image's score is the mean of its `top` highest tile scores; 1 takes the highest.
        context: side in pixels of the tiles that a comparator sees; they have a grid of their own.
    """

    stride: int
    top: int = 1
    context: int = CONTEXT

    def check(self, side: int) -> None:
        """Raise a ValueError unless tiles of this side (the shorter one) cover an image."""
        if int(self.stride) != self.stride or int(self.top) != self.top:
            raise ValueError(f"stride={self.stride} and top={self.top} must be whole numbers.")
        if not 1 <= self.stride <= side:
            raise ValueError(f"stride={self.stride} must lie between 1 and the tiles' side, {side}; larger would leave gaps.")
        if self.top < 1:
            raise ValueError(f"top={self.top} must be 1 or more.")
        if int(self.context) != self.context or self.context < 32 or self.context % 16:
            raise ValueError(f"context={self.context} must be a multiple of 16 from 32 on.")


class TileGrid(NamedTuple):
    """Where the tiles of a batch lie: T tiles of p x q in N images that are filled up to H x W.

    Attributes:
        segment_ids: `[T]` int32, ascending: which image a tile is of.
        places: `[T, p, q]` int32: which pixel of the batch, of all its N * H * W, a tile shows. At the image's edge they are
            mirrored, where it is smaller than a tile.
        weights: `[T, p, q]` float32: how much a tile counts in the map at its pixels; 0 where mirrored.
        borders: `[T]` int32: the sum of 1, 2, 4 and 8 for the image's top, bottom, left and right side that a tile touches.
        shape: `(N, H, W)`.
    """

    segment_ids: tf.Tensor
    places: tf.Tensor
    weights: tf.Tensor
    borders: tf.Tensor
    shape: tuple


def tile_grid(sizes, shape, tile, stride):
    """Lay tiles over images: every `stride` pixels, and the last of each row and column at the image's edge.

    Args:
        sizes: `[N, 2]` int32, height and width of each image.
        shape: `(N, H, W)`, what they are filled up to.
        tile: `(p, q)`.
        stride: pixels.

    Returns:
        `TileGrid`.
    """
    beyond = tf.maximum(sizes - tile, 0)
    grid = 1 + (beyond + stride - 1) // stride
    counts = grid[:, 0] * grid[:, 1]
    segment_ids = tf.repeat(tf.range(shape[0]), counts)
    number = tf.range(tf.size(segment_ids)) - tf.gather(tf.cumsum(counts, exclusive=True), segment_ids)
    columns = tf.gather(grid[:, 1], segment_ids)
    last = tf.gather(beyond, segment_ids)
    first = tf.minimum(tf.stack([number // columns, number % columns], axis=1) * stride, last)
    touched = tf.concat([first == 0, first == last], axis=1)  # top, left, bottom, right
    borders = tf.reduce_sum(tf.cast(touched, tf.int32) * [1, 4, 2, 8], axis=1)
    rows, columns = (first[:, axis, tf.newaxis] + tf.range(tile[axis]) for axis in (0, 1))
    height, width = (tf.gather(sizes[:, axis, tf.newaxis], segment_ids) for axis in (0, 1))
    places = _mirrored(rows, height)[:, :, tf.newaxis] * shape[2] + _mirrored(columns, width)[:, tf.newaxis]
    places += (segment_ids * shape[1] * shape[2])[:, tf.newaxis, tf.newaxis]
    window = tf.constant(np.multiply.outer(*map(_taper, tile)), tf.float32)
    inside = (rows < height)[:, :, tf.newaxis] & (columns < width)[:, tf.newaxis]
    return TileGrid(segment_ids, places, window * tf.cast(inside, tf.float32), borders, tuple(shape))


def _mirrored(numbers, count):
    return tf.where(numbers < count, numbers, tf.maximum(2 * count - 1 - numbers, 0))


def _taper(side):
    """Weights that fall to the tile's edges, where it sees least of the surroundings: so maps show no seams."""
    return np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)) / (side // 2)


def cover(images, sizes, margin):
    """Images `[N, H, W, C]` with a margin on all sides, NaN there and beyond each image's size: `[N, H + 2 m, W + 2 m, C]`."""
    known = tf.where(within(sizes, tf.shape(images))[..., tf.newaxis], images, np.nan)
    return tf.pad(known, [(0, 0), (margin, margin), (margin, margin), (0, 0)], constant_values=np.nan)


def extract_tiles(images, grid):
    """The tiles, `[T, p, q, C]`, of images `[N, H, W, C]`."""
    return tf.gather(tf.reshape(images, (-1, images.shape[-1])), grid.places)


def stitch(values, grid):
    """Values of tiles `[T, p, q, C]` as maps `[N, H, W, C]`: weighted means where tiles overlap, 0 beyond an image's size."""
    count, channels = tf.reduce_prod(grid.shape), values.shape[-1]
    places, weights = tf.reshape(grid.places, (-1,)), tf.reshape(grid.weights, (-1, 1))
    total = tf.math.unsorted_segment_sum(tf.reshape(values, (-1, channels)) * weights, places, count)
    maps = tf.math.divide_no_nan(total, tf.math.unsorted_segment_sum(weights, places, count))
    return tf.reshape(maps, (*grid.shape, channels))


def top_k_weights(scores, segment_ids, top):
    """Which tiles an image's score is the mean of, `[T]` float32: 1 / k for its k = `top` highest scores `[T]`, 0 for others.

    An image of fewer tiles counts them all. Feed it to `pool`.
    """
    order = tf.argsort(scores, direction="DESCENDING", stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(segment_ids, order), stable=True))  # by image, then by score
    counts = tf.math.segment_sum(tf.ones_like(segment_ids), segment_ids)
    rank = tf.range(tf.size(order)) - tf.gather(tf.cumsum(counts, exclusive=True), segment_ids)
    # Looked up, not divided: a graph's reciprocal can be a last bit off.
    parts = tf.constant(1.0 / np.arange(1, top + 1), tf.float32)
    weight = tf.gather(tf.gather(parts, tf.minimum(counts, top) - 1), segment_ids)
    return tf.scatter_nd(order[:, tf.newaxis], tf.where(rank < top, weight, 0.0), tf.shape(order))


def pool(values, weights, segment_ids):
    """Values of tiles `[T]` as values of images `[N]`: sums weighted by `weights`."""
    return tf.math.segment_sum(tf.where(weights > 0.0, values * weights, 0.0), segment_ids)


def random_scenes(image: np.ndarray, side: int, margin: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cut squares at random places out of one image and what lies around it, NaN, `margin` pixels and as many as a square needs.

    Args:
        image: NumPy `[H, W, C]`.
        side: of a square.
        margin: pixels.
        count: how many.
        rng: a NumPy generator.

    Returns:
        `[count, side, side, C]`.
    """
    height, width = image.shape[:2]
    room = [max(side, length + 2 * margin) for length in (height, width)]
    covered = np.full((*room, image.shape[2]), np.nan, np.float32)
    covered[margin : margin + height, margin : margin + width] = image
    rows, columns = (rng.integers(0, length - side + 1, count) for length in room)
    return np.stack([covered[row : row + side, column : column + side] for row, column in zip(rows, columns)])


def random_tiles(image: np.ndarray, tile: tuple[int, int], count: int, rng: np.random.Generator) -> np.ndarray:
    """Cut tiles at random places out of one image; an image smaller than a tile is mirrored at its edge.

    Args:
        image: NumPy `[H, W, C]`.
        tile: `(p, q)`.
        count: how many.
        rng: a NumPy generator.

    Returns:
        `[count, p, q, C]`.
    """
    first = [rng.integers(0, max(side - length, 0) + 1, count) for side, length in zip(image.shape, tile)]
    rows, columns = (
        np.asarray(_mirrored(start[:, np.newaxis] + np.arange(length), side))
        for start, length, side in zip(first, tile, image.shape)
    )
    return image[rows[:, :, np.newaxis], columns[:, np.newaxis]]
