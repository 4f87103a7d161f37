"""Where an image is anomalous: residual image, smoothed map, heatmap, overlay."""

import functools

import numpy as np
import tensorflow as tf

SMOOTHING = 1.0  # pixels, standard deviation
OPACITY = 0.7  # of a heatmap over its image, where it is hottest
COLOURS = "turbo"  # its hot end shows on black and on white alike


def residual_image(images, reconstructions):
    """|x - G(z)|, `[N, H, W, C]`, in the units of its arguments (Schlegl et al. 2017, section 2.3)."""
    return tf.abs(images - reconstructions)


def smooth(residual, sigma=SMOOTHING):
    """Mean over channels, blurred with a Gaussian; the border is mirrored.

    Args:
        residual: `[N, H, W, C]`.
        sigma: standard deviation in pixels; 0 leaves the mean as it is.

    Returns:
        `[N, H, W]` float32.
    """
    maps = tf.reduce_mean(tf.cast(residual, tf.float32), axis=-1, keepdims=True)
    return (blur(maps, sigma) if sigma else maps)[..., 0]


def blur(images, sigma):
    """Images `[N, H, W, C]` blurred with a Gaussian of this standard deviation in pixels; the border is mirrored."""
    kernel = _gaussian(sigma, largest=min((side for side in images.shape[1:3] if side), default=np.inf))
    reach = len(kernel) // 2
    images = tf.pad(images, [(0, 0), (reach, reach), (reach, reach), (0, 0)], mode="SYMMETRIC")
    return _convolved(images, kernel, "VALID")


def local_mean(images, sigma):
    """The mean of `[N, H, W, C]` around each pixel, weighted by a Gaussian; what lies beyond the border doesn't count.

    The same as `blur` but at the border, and for a deviation of any size.
    """
    kernel = _gaussian(sigma, largest=np.inf)
    return _convolved(images, kernel, "SAME") / _convolved(tf.ones_like(images), kernel, "SAME")


def _convolved(images, kernel, padding):
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        each = tf.tile(tf.reshape(kernel, shape), (1, 1, images.shape[-1], 1))
        images = tf.nn.depthwise_conv2d(images, each, strides=(1, 1, 1, 1), padding=padding)
    return images


def peak(images, reconstructions):
    """The highest value of the smoothed residual image, `[N]`, in the units of its arguments."""
    return tf.reduce_max(smooth(residual_image(images, reconstructions)), axis=(1, 2))


def _gaussian(sigma, largest):
    reach = int(min(np.ceil(3 * sigma), largest))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def heatmap(smoothed, low, high):
    """Scale smoothed residuals so that `low` and less is 0, `high` and more is 1. Returns `[N, H, W]` in [0, 1]."""
    # Not a division: graphs turn one into this product, eager code doesn't, and the last bit differs.
    return tf.clip_by_value((smoothed - low) * (1.0 / max(high - low, 1e-6)), 0.0, 1.0)


def overlay(pixels, heat, opacity=OPACITY):
    """Lay a heatmap over its image: the hotter, the more opaque, and where it is 0 the image itself.

    Args:
        pixels: `[H, W, C]` uint8, or float in [0, 1]; grey or RGB.
        heat: `[h, w]` in [0, 1]; resized to the image where it is smaller.
        opacity: share of colour where heat is 1.

    Returns:
        `[H, W, 3]` uint8.
    """
    pixels = np.asarray(pixels, np.float32) / (255.0 if np.asarray(pixels).dtype == np.uint8 else 1.0)
    heat = np.asarray(tf.image.resize(np.asarray(heat)[..., np.newaxis], pixels.shape[:2]))
    blended = (1.0 - opacity * heat) * pixels + opacity * heat * colours()(heat[..., 0])[..., :3]
    return np.uint8(np.round(np.clip(blended, 0.0, 1.0) * 255.0))


def as_rgb(values):
    """Pixels `[h, w, c]` in [0, 1], grey or RGB, as `[h, w, 3]` uint8."""
    return np.broadcast_to(np.uint8(np.round(np.clip(values, 0.0, 1.0) * 255.0)), (*np.shape(values)[:2], 3))


@functools.cache
def colours():
    """The colour map of every heatmap."""
    import matplotlib

    return matplotlib.colormaps[COLOURS]
