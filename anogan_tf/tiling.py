"""Large images to overlapping tiles of the networks' size, and what was found in the tiles to maps and scores of images.

TensorFlow operations only, for images of differing sizes in one batch: they are filled up with anything at the bottom and on
the right to one size, and `sizes` `[N, 2]` says how much of each is image.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

PIXELS_AT_ONCE = 2**22  # of a batch of images that are cut into tiles; all their tiles are in memory together


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a detector cuts images and puts the answers together.

    Attributes:
        stride: pixels between neighbouring tiles; half the networks' side lets each pixel be seen by four.
        top: an image's score is the mean of its `top` highest tile scores; 1 takes the highest.
    """

    stride: int
    top: int = 1

    def check(self, side: int) -> None:
        """Raise a ValueError unless tiles of this side (the shorter one) cover an image."""
        if int(self.stride) != self.stride or int(self.top) != self.top:
            raise ValueError(f"stride={self.stride} and top={self.top} must be whole numbers.")
        if not 1 <= self.stride <= side:
            raise ValueError(f"stride={self.stride} must lie between 1 and the tiles' side, {side}; larger would leave gaps.")
        if self.top < 1:
            raise ValueError(f"top={self.top} must be 1 or more.")


class Layout(NamedTuple):
    """Where the tiles of a batch lie: T tiles of p x q in N images that are filled up to H x W.

    Attributes:
        owners: `[T]` int32, ascending: which image a tile is of.
        places: `[T, p, q]` int32: which pixel of the batch, of all its N * H * W, a tile shows. At the image's edge they are
            mirrored, where it is smaller than a tile.
        weights: `[T, p, q]` float32: how much a tile counts in the map at its pixels; 0 where mirrored.
        sides: `[T]` int32: the sum of 1, 2, 4 and 8 for the image's top, bottom, left and right side that a tile touches.
        shape: `(N, H, W)`.
    """

    owners: tf.Tensor
    places: tf.Tensor
    weights: tf.Tensor
    sides: tf.Tensor
    shape: tuple


def lay_out(sizes, shape, tile, stride):
    """Lay tiles over images: every `stride` pixels, and the last of each row and column at the image's edge.

    Args:
        sizes: `[N, 2]` int32, height and width of each image.
        shape: `(N, H, W)`, what they are filled up to.
        tile: `(p, q)`.
        stride: pixels.

    Returns:
        `Layout`.
    """
    beyond = tf.maximum(sizes - tile, 0)
    grid = 1 + (beyond + stride - 1) // stride
    counts = grid[:, 0] * grid[:, 1]
    owners = tf.repeat(tf.range(shape[0]), counts)
    number = tf.range(tf.size(owners)) - tf.gather(tf.cumsum(counts, exclusive=True), owners)
    columns = tf.gather(grid[:, 1], owners)
    last = tf.gather(beyond, owners)
    first = tf.minimum(tf.stack([number // columns, number % columns], axis=1) * stride, last)
    touched = tf.concat([first == 0, first == last], axis=1)  # top, left, bottom, right
    sides = tf.reduce_sum(tf.cast(touched, tf.int32) * [1, 4, 2, 8], axis=1)
    rows, columns = (first[:, axis, tf.newaxis] + tf.range(tile[axis]) for axis in (0, 1))
    height, width = (tf.gather(sizes[:, axis, tf.newaxis], owners) for axis in (0, 1))
    places = _mirrored(rows, height)[:, :, tf.newaxis] * shape[2] + _mirrored(columns, width)[:, tf.newaxis]
    places += (owners * shape[1] * shape[2])[:, tf.newaxis, tf.newaxis]
    window = tf.constant(np.multiply.outer(*map(_taper, tile)), tf.float32)
    inside = (rows < height)[:, :, tf.newaxis] & (columns < width)[:, tf.newaxis]
    return Layout(owners, places, window * tf.cast(inside, tf.float32), sides, tuple(shape))


def _mirrored(numbers, count):
    return tf.where(numbers < count, numbers, tf.maximum(2 * count - 1 - numbers, 0))


def _taper(side):
    """Weights that fall to the tile's edges, where it sees least of the surroundings: so maps show no seams."""
    return np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)) / (side // 2)


def cut(images, layout):
    """The tiles, `[T, p, q, C]`, of images `[N, H, W, C]`."""
    return tf.gather(tf.reshape(images, (-1, images.shape[-1])), layout.places)


def stitch(values, layout):
    """Values of tiles `[T, p, q, C]` as maps `[N, H, W, C]`: weighted means where tiles overlap, 0 beyond an image's size."""
    count, channels = tf.reduce_prod(layout.shape), values.shape[-1]
    places, weights = tf.reshape(layout.places, (-1,)), tf.reshape(layout.weights, (-1, 1))
    total = tf.math.unsorted_segment_sum(tf.reshape(values, (-1, channels)) * weights, places, count)
    maps = tf.math.divide_no_nan(total, tf.math.unsorted_segment_sum(weights, places, count))
    return tf.reshape(maps, (*layout.shape, channels))


def highest(scores, owners, top):
    """Which tiles an image's score is the mean of, `[T]` float32: 1 / k for its k = `top` highest scores `[T]`, 0 for others.

    An image of fewer tiles counts them all. Feed it to `pool`.
    """
    order = tf.argsort(scores, direction="DESCENDING", stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(owners, order), stable=True))  # by image, then by score
    counts = tf.math.segment_sum(tf.ones_like(owners), owners)
    rank = tf.range(tf.size(order)) - tf.gather(tf.cumsum(counts, exclusive=True), owners)
    # Looked up, not divided: a graph's reciprocal can be a last bit off.
    parts = tf.constant(1.0 / np.arange(1, top + 1), tf.float32)
    share = tf.gather(tf.gather(parts, tf.minimum(counts, top) - 1), owners)
    return tf.scatter_nd(order[:, tf.newaxis], tf.where(rank < top, share, 0.0), tf.shape(order))


def pool(values, shares, owners):
    """Values of tiles `[T]` as values of images `[N]`: sums weighted by `shares`."""
    return tf.math.segment_sum(tf.where(shares > 0.0, values * shares, 0.0), owners)


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


def grouped(items, most, image=lambda item: item, pixels=PIXELS_AT_ONCE):
    """Yield lists of items: `most` of them, fewer where their images `[h, w, C]` would fill up to more than so many pixels."""
    group: list = []
    larger = np.zeros(2, int)
    for item in items:
        with_it = np.maximum(larger, image(item).shape[:2])
        if group and (len(group) == most or (len(group) + 1) * with_it.prod() > pixels):
            yield group
            group, with_it = [], np.array(image(item).shape[:2])
        group.append(item)
        larger = with_it
    if group:
        yield group


def fill_up(images):
    """`(images [N, H, W, C], sizes [N, 2])` of images `[h, w, C]`, filled up with 0 to the largest height and width."""
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    filled = np.zeros((len(images), *sizes.max(axis=0), images[0].shape[-1]), np.float32)
    for into, image in zip(filled, images):
        into[: image.shape[0], : image.shape[1]] = image
    return filled, sizes


def images_of(filled, sizes):
    """The images or maps `[h, w, ...]` that `fill_up` made a batch of, as a list."""
    return [image[:height, :width] for image, (height, width) in zip(filled, np.asarray(sizes))]


def map_to_images(function, rows, channels, outputs):
    """`tf.map_fn` where the rows give images of differing sizes: it fills them up. There may be no rows.

    Args:
        function: from a row to `(image [h, w, channels], its size [2], ...)`.
        rows: tensors `[N, ...]`.
        channels: an integer.
        outputs: the `tf.TensorSpec`s of what follows the image.

    Returns:
        `(images [N, H, W, channels], sizes [N, 2], ...)`.
    """

    def flatten(row):
        image, *others = function(row)
        return tf.reshape(image, (-1, channels)), *others

    spec = tf.RaggedTensorSpec((None, channels), tf.float32, ragged_rank=0)
    flat, sizes, *others = tf.map_fn(flatten, rows, fn_output_signature=(spec, *outputs))
    pixels = tf.reshape(flat.values, (-1, channels))  # of no rows its shape would be none
    height, width = tf.unstack(tf.reduce_max(tf.pad(sizes, [(0, 1), (0, 0)]), axis=0))
    down, right = tf.range(height)[:, tf.newaxis], tf.range(width)
    heights, widths = (sizes[:, axis, tf.newaxis, tf.newaxis] for axis in (0, 1))
    first = tf.cumsum(sizes[:, 0] * sizes[:, 1], exclusive=True)[:, tf.newaxis, tf.newaxis]
    places = tf.where((down < heights) & (right < widths), first + down * widths + right, tf.shape(pixels)[0])
    return tf.gather(tf.pad(pixels, [(0, 1), (0, 0)]), places), sizes, *others  # beyond an image the row of 0 after the last
