"""The map of an image that says where it is anomalous, and what the map comes to as one number. TensorFlow operations only.

Without a comparator the map is the smoothed residual. With one it is a sum, each summand in deviations of held-out normal pixels:
the comparator's logit, the distance of the patch around a pixel to the nearest that is remembered, and the residual relative to
how much the image varies around the pixel.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from anogan_tf.data.batching import map_to_images
from anogan_tf.detection.maps import blur, local_mean, smooth
from anogan_tf.detection.tiling import cover, extract_tiles, stitch, tile_grid
from anogan_tf.networks.comparator import MARGIN, STRIDE, comparator_input, patch_features, sees_reconstruction
from anogan_tf.networks.inference import for_inference
from anogan_tf.search.blocks import map_blocks

TERMS = ("logits", "patches", "relative_residual")  # of a map, in the order of its channels
TOP = 20  # pixels whose mean is in a map's number; a defect of a few pixels is to count
SHARE = 0.25  # of the pixels, whose mean is in it too: what is wrong all over, but nowhere much
FINE, BROAD = 1.0, 8.0  # deviations in pixels: of the residual's blur, and of the surroundings whose variation it is relative to
EXPLAINED = 0.7  # share of the variation's logarithm that a residual's is expected to follow
LEAST = 4e-5  # of squares in network units, so that there is a logarithm
PIXELS_FOR_SCALE = 2**23  # of normal images, from which the scale is taken: as many as are kept in memory


def map_each(function, rows, sizes, tiling, block, channels):
    """Run a function on images so that none's result depends on its company: in blocks, or with a tiling each in its own size.

    Args:
        function: from tensors `[B, h, w, ...]` to `(maps [B, h, w, channels], numbers [B])`.
        rows: a tuple of tensors `[N, H, W, ...]`.
        sizes: `[N, 2]`, how much of each is image.
        tiling: a `Tiling`, or None for images that are whole.
        block: as in `ExecutionSettings`.
        channels: of the maps.

    Returns:
        `(maps [N, H, W, channels], numbers [N])`; 0 beyond an image's size.
    """
    if tiling is None:
        return map_blocks(function, rows, block)

    def one(row):
        *images, size = row
        maps, numbers = function(*(image[tf.newaxis, : size[0], : size[1]] for image in images))
        return maps[0], size, numbers[0]

    each = [tf.TensorSpec((2,), tf.int32), tf.TensorSpec((), tf.float32)]
    maps, _, numbers = map_to_images(one, (*rows, sizes), channels, each)
    return maps, numbers


def smoothed_residual(residual):
    """The map of a detector without a comparator: residuals `[B, h, w, C]` to `(maps [B, h, w, 1], their peaks [B])`."""
    maps = smooth(residual)[..., tf.newaxis]
    return maps, tf.reduce_max(maps, axis=(1, 2, 3))


def relative_residual(images, residual):
    """How large residuals are for images that vary so much there, `[B, h, w, 1]`.

    log of the squared residual around a pixel - 0.7 * log of the squared slope of the image in a wider neighbourhood. Edges and
    texture are hard to generate, normal or not; `Complexity` says the same of whole images.

    Args:
        images: `[B, h, w, C]` in [-1, 1].
        residual: `[B, h, w, C]`, `|x - G(z)|`.
    """
    around = tf.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="SYMMETRIC")
    down, across = around[:, 2:, 1:-1] - around[:, :-2, 1:-1], around[:, 1:-1, 2:] - around[:, 1:-1, :-2]
    slopes = tf.reduce_mean(tf.square(down) + tf.square(across), axis=-1, keepdims=True) * 0.25
    squares = tf.reduce_mean(tf.square(residual), axis=-1, keepdims=True)
    varied = local_mean(slopes, BROAD)
    return tf.math.log(blur(squares, FINE) + LEAST) - EXPLAINED * tf.math.log(varied + LEAST)


@dataclasses.dataclass(frozen=True)
class MapScale:
    """What maps of normal images are like, and so what a map comes to.

    Attributes:
        means, deviations: of each of `TERMS`, over pixels of held-out normal images.
        weights: of each.
    """

    means: list
    deviations: list
    weights: list

    @classmethod
    def fit(cls, terms, weights):
        """Learn from pixels of normal images: `[P, 3]`, and a dict of the weights of `TERMS`."""
        terms = np.asarray(terms, np.float64)
        deviations = np.maximum(terms.std(axis=0), 1e-6)
        return cls(terms.mean(axis=0).tolist(), deviations.tolist(), [float(weights[name]) for name in TERMS])

    def combine(self, terms):
        """`(maps [B, h, w, 1], numbers [B])` of terms `[B, h, w, 3]`.

        The map is the sum. The number is the mean of its `TOP` highest pixels + the mean of the highest `SHARE` of its pixels.
        """
        standard = (terms - tf.constant(self.means, tf.float32)) * tf.constant(1.0 / np.asarray(self.deviations), tf.float32)
        # How sure the comparator is that a pixel is normal says little.
        summands = tf.concat([0.5 * tf.math.softplus(2.0 * standard[..., :1]), standard[..., 1:]], axis=-1)
        maps = tf.reduce_sum(summands * tf.constant(self.weights, tf.float32), axis=-1, keepdims=True)
        count = tf.reduce_prod(tf.shape(maps)[1:])
        few, many = tf.minimum(TOP, count), tf.maximum(1, tf.cast(SHARE * tf.cast(count, tf.float32), tf.int32))
        highest = tf.math.top_k(tf.reshape(maps, (-1, count)), tf.maximum(few, many)).values
        return maps, tf.reduce_mean(highest[:, :few], axis=1) + tf.reduce_mean(highest[:, :many], axis=1)


class TermMaps:
    """From prepared images, and what a search left of them, to the terms of their maps.

    Args:
        comparator: as `ComparatorTrainer` trains it; it is copied.
        patch_memory: a `PatchMemory` of its descriptions, or None.
        tiling: a `Tiling`, or None.
        image_shape: `(H, W, C)` of the networks.
        execution: `ExecutionSettings`.
        reconstruct: from images `[B, H, W, C]` to G(E(x)), for a comparator that sees it.
    """

    def __init__(self, comparator, patch_memory, tiling, image_shape, execution, reconstruct=None):
        self._network = patch_features(for_inference(comparator, execution.precision))
        self._patch_memory, self._tiling, self._block = patch_memory, tiling, execution.block
        self._side = image_shape[:2] if tiling is None else (tiling.context, tiling.context)
        self._reconstruct = reconstruct if sees_reconstruction(comparator, image_shape[-1]) else None

    def __call__(self, images, sizes, residual):
        """Terms `[N, H, W, 3]` of images `[N, H, W, C]` of these `sizes` with their residuals."""
        found = map_blocks(self._look, (images,), self._block) if self._tiling is None else self._of_tiles(images, sizes)

        def join(images, residual, found):
            terms = tf.concat([found, relative_residual(images, residual)], axis=-1)
            return terms, tf.zeros(tf.shape(terms)[:1])

        return map_each(join, (images, residual, found), sizes, self._tiling, self._block, len(TERMS))[0]

    def _of_tiles(self, images, sizes):
        """What `_look` gives, of images that are larger than what the comparator sees at once."""
        images = cover(images, sizes, MARGIN)
        shape = tuple(tf.unstack(tf.shape(images)[:3]))
        grid = tile_grid(sizes + 2 * MARGIN, shape, self._side, self._tiling.context // 2)
        tiles = extract_tiles(images, grid)
        tiles = tf.where(grid.weights[..., tf.newaxis] > 0.0, tiles, np.nan)  # not mirrored: there is nothing
        found = stitch(map_blocks(self._look, (tiles,), self._block), grid)
        return found[:, MARGIN:-MARGIN, MARGIN:-MARGIN]

    def _look(self, images):
        """The comparator's logits and the patches' distances, `[B, h, w, 2]`, of images or tiles."""
        shown = comparator_input(images, self._reconstruct and self._reconstruct(images))
        logits, descriptions = self._network(shown, training=False)
        if self._patch_memory is None:
            return tf.concat([logits, tf.zeros_like(logits)], axis=-1)
        distances = self._patch_memory(descriptions)[..., tf.newaxis]
        return tf.concat([logits, _to_pixels(distances, self._side)], axis=-1)


def _to_pixels(values, side):
    """Values of patches `[B, h, w, 1]` as those of pixels, `[B, *side, 1]`."""
    padded = [-(-length // STRIDE) * STRIDE for length in side]
    first = [(long - length) // 2 for long, length in zip(padded, side)]
    values = tf.image.resize(values, padded)
    return values[:, first[0] : first[0] + side[0], first[1] : first[1] + side[1]]
