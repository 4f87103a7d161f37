"""From pixels of any size to network input, the same TensorFlow ops in `fit`, `predict` and an exported graph."""

import numpy as np
import tensorflow as tf

from anogan_tf.backend import keras

SMALLEST_SIDE = 4
# The dtype says the range: the largest value of each dtype that pixels may have.
_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}


@keras.saving.register_keras_serializable("anogan_tf")
class Preparation(keras.layers.Layer):
    """Pixels `[N, h, w, c]` (or `[N, h, w]`) to float32 `[N, H, W, C]` in [-1, 1].

    Pixels are uint8 (0-255), uint16 (0-65535) or float ([0, 1]). Other sizes are resized (bilinear, antialiased);
    colour becomes grey by luma, grey becomes colour by repetition.

    Args:
        image_shape: `(H, W, C)` of the network.
    """

    def __init__(self, image_shape, **kwargs):
        # Keras would round float pixels to the compute dtype before `call` sees them.
        super().__init__(autocast=False, trainable=False, dtype="float32", **kwargs)
        self.image_shape = tuple(int(side) for side in image_shape)
        self.built = True

    def call(self, pixels):
        """Network input in [-1, 1], float32 `[N, H, W, C]`."""
        return self.resize(pixels) * 2.0 - 1.0

    def resize(self, pixels):
        """Pixels at the network's size and channels: float32 `[N, H, W, C]` in [0, 1]. Idempotent."""
        pixels = tf.convert_to_tensor(pixels)
        if pixels.shape.rank == 3:
            pixels = pixels[..., tf.newaxis]
        _check_kind(pixels.dtype.name, pixels.shape)
        pixels = self._convert_channels(to_unit_range(pixels))
        height, width, _ = self.image_shape
        if tuple(pixels.shape[1:3]) != (height, width):
            # Antialiased resizing can overshoot [0, 1] by a rounding.
            pixels = tf.clip_by_value(tf.image.resize(pixels, (height, width), antialias=True), 0.0, 1.0)
        return tf.ensure_shape(pixels, (None, *self.image_shape))

    def read(self, pixels):
        """One image `[h, w]` or `[h, w, c]` of any size to NumPy float32 `[H, W, C]` in [0, 1]; ValueError if unusable."""
        return np.asarray(self.resize(check_pixels(np.asarray(pixels)[np.newaxis], "image")))[0]

    def _convert_channels(self, pixels):
        given, wanted = pixels.shape[-1], self.image_shape[-1]
        if given is None:
            return self._convert_unknown_channels(pixels)
        if given == wanted:
            return pixels
        return tf.image.rgb_to_grayscale(pixels) if wanted == 1 else tf.image.grayscale_to_rgb(pixels)

    def _convert_unknown_channels(self, pixels):
        """In a graph for pixels of any size and channels: what can't be used is an InvalidArgumentError when it runs."""
        height, width, given = (tf.shape(pixels)[axis] for axis in (1, 2, 3))
        large = (height >= SMALLEST_SIDE) & (width >= SMALLEST_SIDE)
        checks = [
            tf.debugging.Assert((given == 1) | (given == 3), ["images with", given, "channels; expected 1 (grey) or 3 (RGB)."]),
            tf.debugging.Assert(large, ["images of", height, "x", width, f"pixels; each side needs at least {SMALLEST_SIDE}."]),
        ]

        def convert(channels):
            return lambda: self._convert_channels(tf.ensure_shape(pixels, (None, None, None, channels)))

        with tf.control_dependencies(checks):
            return tf.cond(given == 1, convert(1), convert(3))

    def copy(self):
        """Another with the same settings."""
        return type(self).from_config(self.get_config())

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.image_shape)

    def get_config(self):
        return {**super().get_config(), "image_shape": list(self.image_shape)}

    @classmethod
    def from_config(cls, config):
        # Fixed by the constructor, and written by the base class nevertheless.
        return cls(**{key: value for key, value in config.items() if key not in ("dtype", "trainable", "autocast")})


def to_unit_range(pixels):
    """Pixels of any of their dtypes to float32 in [0, 1]."""
    # Not a division: TensorFlow turns one into this product in graphs, not in eager code, and the last bit differs.
    return tf.cast(pixels, tf.float32) * (1.0 / _FULL_SCALE[pixels.dtype.name])


def to_pixels(images):
    """Network units [-1, 1] back to pixels in [0, 1]."""
    return (images + 1.0) / 2.0


def valid_rows(pixels):
    """Which images hold only finite values within their dtype's range: bool `[N]`. TensorFlow ops only."""
    pixels = tf.convert_to_tensor(pixels)
    axes = tf.range(1, tf.rank(pixels))
    if not pixels.dtype.is_floating:
        return tf.ones(tf.shape(pixels)[:1], tf.bool)
    return tf.reduce_all((pixels >= 0.0) & (pixels <= 1.0), axis=axes)  # false for NaN


def require_valid(pixels):
    """The same pixels, or an InvalidArgumentError when the graph runs where `valid_rows` finds an image wanting."""
    assertion = tf.debugging.Assert(
        tf.reduce_all(valid_rows(pixels)),
        ["Pixels hold NaN or floats outside [0, 1]; divide by the largest possible value, or pass uint8."],
    )
    with tf.control_dependencies([assertion]):
        return tf.identity(pixels)


def check_pixels(pixels, name="pixels"):
    """Check an array of images on its way in.

    Args:
        pixels: array `[N, h, w]` or `[N, h, w, c]`; uint8, uint16 or float in [0, 1].
        name: what to call it in an error.

    Returns:
        A NumPy array `[N, h, w, c]`.

    Raises:
        ValueError: naming the array, what is wrong with it and the remedy.
    """
    if not hasattr(pixels, "__array__") and not isinstance(pixels, (list, tuple)):
        raise ValueError(f"{name} is a {type(pixels).__name__}; expected an array of pixels or a batched tf.data.Dataset.")
    pixels = np.asarray(pixels)
    if pixels.dtype == object:
        raise ValueError(f"{name}: the images differ in size; resize them first, or read them with `load_images`.")
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (1, 3)):
        raise ValueError(f"{name} has shape {pixels.shape}, a single image; add the batch axis: {name}[None].")
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4:
        raise ValueError(f"{name} has shape {pixels.shape}; expected [N, height, width] or [N, height, width, channels].")
    if not len(pixels):
        raise ValueError(f"{name} holds no images.")
    try:
        _check_kind(pixels.dtype.name, pixels.shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if pixels.dtype.kind == "f":
        _check_floats(pixels, name)
    return pixels


def _check_floats(pixels, name):
    low, high = float(pixels.min()), float(pixels.max())
    if np.isnan(low):
        row = int(np.flatnonzero(np.isnan(pixels).any(axis=(1, 2, 3)))[0])
        raise ValueError(f"{name}: image {row} holds NaN; remove it or fill its gaps first.")
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{name}: float pixels must lie in [0, 1], these span [{low:g}, {high:g}]. Divide by the largest possible value "
            "(255 for 8-bit images), or pass the original uint8 or uint16 pixels."
        )


def _check_kind(dtype, shape):
    """Raise a ValueError unless dtype, channels and sides are ones a network input can be made of."""
    if dtype not in _FULL_SCALE:
        raise ValueError(f"pixels of dtype {dtype}; expected uint8 (0-255), uint16 (0-65535) or float in [0, 1].")
    if shape[-1] not in (1, 3, None):
        raise ValueError(f"images with {shape[-1]} channels; expected 1 (grey) or 3 (RGB).")
    if any(side is not None and side < SMALLEST_SIDE for side in shape[1:3]):
        raise ValueError(f"images of {shape[1]}x{shape[2]} pixels; each side must have at least {SMALLEST_SIDE}.")
