"""Transforms that a discriminator may learn to tell apart: turns and shifts (Golan and El-Yaniv 2018, arXiv 1805.10917)."""

import numpy as np
import tensorflow as tf

SHIFT = 0.25  # of a side


def transform_tables(height, width):
    """Which pixel of an image each pixel of a transformed one shows.

    Quarter turns, or half turns where the image isn't square, each with nine shifts by a quarter of a side or none, down and to
    the right; what is shifted in is mirrored. The first transform leaves an image as it is.

    Returns:
        `[T, H * W]` int32, T = 36, or 18 where the image isn't square.
    """
    pixels, tables = np.arange(height * width, dtype=np.int32).reshape(height, width), []
    down, right = (round(SHIFT * side) for side in (height, width))
    for turns in range(4) if height == width else (0, 2):
        padded = np.pad(np.rot90(pixels, turns), [(down, down), (right, right)], mode="reflect")
        for row in (down, 0, 2 * down):
            tables += [padded[row : row + height, column : column + width].ravel() for column in (right, 0, 2 * right)]
    return np.stack(tables)


def transform(images, tables, numbers):
    """Images `[N, H, W, C]`, each put through the transform of its number `[N]`. TensorFlow ops only."""
    _, height, width, channels = images.shape
    flat = tf.reshape(images, (-1, height * width, channels))
    return tf.reshape(tf.gather(flat, tf.gather(tables, numbers), batch_dims=1), (-1, height, width, channels))
