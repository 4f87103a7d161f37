"""The comparator: which pixels of an image don't belong to a normal one, a small U-Net (Ronneberger et al. 2015).

It is told to look for that by defects drawn on normal images, as DRAEM is (Zavrtanik et al. 2021, arXiv 2108.07610).
"""

import tensorflow as tf

from anogan_tf.networks.architectures import _check_positive, check_image_shape
from anogan_tf.runtime.backend import keras

layers = keras.layers

WIDTHS = (1.0, 1.5, 2.0, 2.0)  # filters at strides 2, 4, 8 and 16, in `base_filters`
STRIDE = 2 ** len(WIDTHS)
MARGIN = 16  # pixels beyond an image that tiles may show: the network learns what an image's end is
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
        with_reconstruction: whether it sees G(z) and `abs(x - G(z))` beside x.
        seed: seeds the initial weights.

    Returns:
        A functional `keras.Model` named "comparator", from what `comparator_input` makes, `[N, H, W, 3 C + 1]`, or
        `[N, H, W, C + 1]` without a reconstruction, to `[N, H, W, 1]` float32 logits.
    """
    height, width, channels = check_image_shape(image_shape)
    widths = [round(share * _check_positive("base_filters", base_filters)) for share in WIDTHS]
    pads = [_split(-side % STRIDE) for side in (height, width)]
    initial = _initializers(seed)

    x = inputs = layers.Input((None, None, _count_channels(channels, with_reconstruction)), name="comparison")
    if any(map(any, pads)):
        x = layers.ZeroPadding2D(pads, name="pad")(x)  # as `comparator_input` has it: all 0 beyond the image
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
    """What a comparator sees: x, where there is a reconstruction G(z) and |x - G(z)|, and 1 within the image.

    Args:
        images: `[N, H, W, C]`, x in [-1, 1]; NaN beyond the image, where it ends within the tile. There all is 0.
        reconstructions: `[N, H, W, C]`, G(z), or None.

    Returns:
        `[N, H, W, 3 C + 1]`, or `[N, H, W, C + 1]` without reconstructions.
    """
    beyond = tf.math.is_nan(images)
    x = tf.where(beyond, 0.0, images)
    within = tf.cast(~beyond[..., :1], x.dtype)
    if reconstructions is None:
        return tf.concat([x, within], axis=-1)
    reconstructions = tf.where(beyond, 0.0, tf.cast(reconstructions, x.dtype))
    return tf.concat([x, reconstructions, tf.abs(x - reconstructions), within], axis=-1)


def sees_reconstruction(comparator, channels):
    """Whether a comparator is to be shown G(z) beside images of so many channels."""
    return comparator.input_shape[-1] == _count_channels(channels, True)


def check_comparator(comparator, image_shape, with_reconstruction):
    """Raise a ValueError unless a comparator gives a logit for each pixel of what it is to be shown."""
    *sides, channels = image_shape
    wanted, found = _count_channels(channels, with_reconstruction), comparator.input_shape[-1]
    if found != wanted:
        shown = "x, G(z) and their difference, a generator and an encoder being given" if with_reconstruction else "x alone"
        raise ValueError(
            f"The comparator takes {found} channels, it would be shown {wanted}: {shown}, and where the image is. "
            f"Build it with_reconstruction={with_reconstruction}, or give it {'no' if with_reconstruction else 'both'} networks."
        )
    given = comparator.compute_output_shape((None, *sides, wanted))
    if tuple(given[1:]) != (*sides, 1):
        raise ValueError(f"The comparator gives {given}; it must give one logit for each pixel, {(None, *sides, 1)}.")


def patch_features(comparator):
    """From what a comparator sees `[N, H, W, ...]` to how it describes each patch, `[N, H / 8, W / 8, F]`.

    Sides of the input are multiples of `STRIDE`, once padded. What the network calculates at strides 4 and 8 on its way down is
    taken together, each the mean of its neighbourhood (PatchCore, Roth et al. 2022, does so with a pretrained network).
    """
    fine, coarse = (comparator.get_layer(f"down{level}b").output for level in (1, 2))
    pool = layers.AveragePooling2D
    joined = layers.Concatenate(name="patches")([pool(2, name="patches_fine", dtype="float32")(fine), coarse])
    around = pool(3, strides=1, padding="same", dtype="float32", name="patches_around")(joined)
    return keras.Model(comparator.input, [comparator.output, around], name="comparator_and_patches")


def _count_channels(channels, with_reconstruction):
    """How many channels a comparator takes: of x, or of x, G(z) and their difference, and whether a pixel is of the image."""
    return (3 if with_reconstruction else 1) * channels + 1


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
