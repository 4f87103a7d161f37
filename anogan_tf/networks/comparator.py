"""The comparator: which pixels of an image don't belong to a normal one, a small U-Net (Ronneberger et al. 2015).

It is told to look for that by defects drawn on normal images, as DRAEM is (Zavrtanik et al. 2021, arXiv 2108.07610).
"""

import tensorflow as tf

from anogan_tf.networks.architectures import _check_positive, check_image_shape
from anogan_tf.runtime.backend import keras

layers = keras.layers

WIDTHS = (1.0, 1.5, 2.0, 2.0)  # filters at strides 2, 4, 8 and 16, in `base_filters`
STRIDE = 2 ** len(WIDTHS)
RARE = -3.0  # the logit that it begins with: few pixels are of a defect


def build_comparator(
    image_shape: tuple[int, int, int], base_filters: int = 32, *, with_reconstruction: bool = True, seed: int = 0
) -> keras.Model:
    """From an image, and what the generator makes of it, to one logit for each pixel: is it of a defect?

    There is no batch normalization: statistics of tiles would not be those of whole images.

    Args:
        image_shape: `(height, width, channels)`, as in `build_generator`. The network has no fixed size: it takes all images
            whose sides differ from these by multiples of 16. What was trained on tiles is better applied to tiles all the same:
            it has learned where these end.
        base_filters: filters at half of the image's size; 32 make about 0.4 million weights.
        with_reconstruction: whether it sees `[x, G(z), abs(x - G(z))]` along the channels, or x alone.
        seed: seeds the initial weights.

    Returns:
        A functional `keras.Model` named "comparator", `[N, H, W, 3 C]`, or `[N, H, W, C]` without a reconstruction, x in [-1, 1],
        to `[N, H, W, 1]` float32 logits.
    """
    height, width, channels = check_image_shape(image_shape)
    widths = [round(share * _check_positive("base_filters", base_filters)) for share in WIDTHS]
    pads = [_split(-side % STRIDE) for side in (height, width)]
    initial = _initializers(seed)

    inputs = layers.Input((None, None, (3 if with_reconstruction else 1) * channels), name="comparison")
    # Zeros beyond the image are grey; a channel of ones says where it ends.
    x = layers.Concatenate(name="within")([inputs, keras.ops.ones_like(inputs[..., :1])])
    if any(map(any, pads)):
        x = layers.ZeroPadding2D(pads, name="pad")(x)
    skips = []
    for level, filters in enumerate(widths):
        x = layers.AveragePooling2D(2, name=f"down{level}")(x) if level else x
        # The first has the stride itself: it sees every pixel, and nothing has to be calculated at full size.
        x = _convolution(x, filters, f"down{level}a", initial, **({} if level else {"kernel_size": 6, "strides": 2}))
        x = _convolution(x, filters, f"down{level}b", initial)
        skips.append(x)
    for level in reversed(range(len(widths) - 1)):
        # Nearest and smoothed: nearly bilinear, which Keras has for known sizes only.
        x = layers.UpSampling2D(2, name=f"up{level}")(x)
        x = layers.AveragePooling2D(3, strides=1, padding="same", name=f"smooth{level}")(x)
        x = layers.Concatenate(name=f"join{level}")([x, skips[level]])
        x = _convolution(x, widths[level], f"up{level}a", initial)
        x = _convolution(x, widths[level], f"up{level}b", initial)
    rare = keras.initializers.Constant(RARE)
    options = {"strides": 2, "kernel_initializer": next(initial), "bias_initializer": rare, "dtype": "float32"}
    logits = layers.Conv2DTranspose(1, 2, name="logits", **options)(x)
    if any(map(any, pads)):
        logits = layers.Cropping2D(pads, dtype="float32", name="crop")(logits)
    return keras.Model(inputs, logits, name="comparator")


def comparator_input(images, reconstructions=None):
    """What a comparator sees: `[N, H, W, 3 C]`, or the images alone where there is no reconstruction.

    Args:
        images: `[N, H, W, C]`, x in [-1, 1].
        reconstructions: `[N, H, W, C]`, G(z), or None.
    """
    if reconstructions is None:
        return images
    reconstructions = tf.cast(reconstructions, images.dtype)
    return tf.concat([images, reconstructions, tf.abs(images - reconstructions)], axis=-1)


def check_comparator(comparator, image_shape, with_reconstruction):
    """Raise a ValueError unless a comparator gives a logit for each pixel of what it is to be shown."""
    *sides, channels = image_shape
    wanted, found = (3 if with_reconstruction else 1) * channels, comparator.input_shape[-1]
    if found != wanted:
        shown = "x, G(z) and their difference, a generator and an encoder being given" if with_reconstruction else "x alone"
        raise ValueError(
            f"The comparator takes {found} channels, it would be shown {wanted}: {shown}. "
            f"Build it with_reconstruction={with_reconstruction}, or give it {'no' if with_reconstruction else 'both'} networks."
        )
    given = comparator.compute_output_shape((None, *sides, wanted))
    if tuple(given[1:]) != (*sides, 1):
        raise ValueError(f"The comparator gives {given}; it must give one logit for each pixel, {(None, *sides, 1)}.")


def _initializers(seed):
    """Endless initializers for ReLUs (He et al. 2015), each with a seed of its own."""
    number = 1000 * (seed + 4)
    while True:
        number += 1
        yield keras.initializers.HeNormal(seed=number)


def _convolution(x, filters, name, initial, kernel_size=3, **options):
    return layers.Conv2D(
        filters, kernel_size, padding="same", activation="relu", kernel_initializer=next(initial), name=name, **options
    )(x)


def _split(surplus):
    return surplus // 2, surplus - surplus // 2
