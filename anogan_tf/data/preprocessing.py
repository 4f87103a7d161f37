"""From pixels of any size and range to network input, the same TensorFlow ops in `fit`, `predict` and an exported graph."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.data.augmentation import AUGMENTATIONS
from anogan_tf.data.pixel_checks import _FULL_SCALE, MIN_SIDE, _check_kind, check_pixels
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.remarks import remark
from anogan_tf.runtime.types import Array

FITS = ("stretch", "pad", "crop")
LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue in grey
CONTRAST = 3.0  # deviations from the mean that a normalized image shows; what lies further out is cut
OUT_OF_RANGE = "Pixels hold NaN or floats outside [0, 1]; divide by the largest possible value (255), or pass uint8."
BITS = 12  # of most cameras and scanners with more than 8
MIN_DEVIATION = 1.0 / 255.0  # an image that varies less than a grey level of 8 bits isn't stretched further


@keras.saving.register_keras_serializable("anogan_tf")
class Preprocessing(keras.layers.Layer):
    """Pixels `[N, h, w, c]` (or `[N, h, w]`) of any size to float32 `[N, H, W, C]` in [-1, 1].

    Pixels are uint8 (0-255), uint16 (0-65535) or float ([0, 1]), or lie in a range of their own, see `value_range`. Colour
    becomes grey by luma, grey becomes colour by repetition; then the size changes; then, if wanted, each image's contrast.

    Args:
        image_shape: `(H, W, C)` of what comes out; `(None, None, C)` leaves each image its own size, times `scale`, for a
            detector that cuts it into tiles.
        fit: how another aspect ratio becomes H:W: "stretch" changes it, "pad" keeps it and repeats the edge beside the
            image, "crop" keeps it and cuts the middle out. Resizing is bilinear, antialiased.
        scale: of images that keep their own size: 0.5 halves their sides.
        value_range: `(low, high)`, the values of uint16 and float pixels that become 0 and 1; what lies beyond is cut. None
            takes the whole range of the dtype. uint8 always means 0-255.
        normalize: whether each image gets mean 0 and deviation 1: `CONTRAST` deviations above the mean are 1, below it -1.
        augment: any of `AUGMENTATIONS`, which change images at random in training, never when they are scored:
            "mirror" (left and right), "flip" (up and down), "rotate" (by quarter turns), "shift" (up to 1/16 of a side, the
            edge repeated), "brightness" (up to 0.1 of the range).
    """

    def __init__(
        self,
        image_shape: tuple[int | None, int | None, int],
        *,
        fit: str = "stretch",
        scale: float = 1.0,
        value_range: tuple[float, float] | None = None,
        normalize: bool = False,
        augment: str | Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        # Keras would round float pixels to the compute dtype before `call` sees them.
        super().__init__(autocast=False, trainable=False, dtype="float32", **kwargs)
        self.image_shape = tuple(side and int(side) for side in image_shape)
        self.fit = fit
        self.scale = float(scale)
        self.value_range = None if value_range is None else tuple(float(value) for value in value_range)
        self.normalize = bool(normalize)
        self.augment = (augment,) if isinstance(augment, str) else tuple(augment)
        _check_settings(self)
        self.built = True

    @property
    def keeps_size(self):
        """Whether images keep their own size, times `scale`."""
        return None in self.image_shape[:2]

    def call(self, pixels: tf.Tensor) -> tf.Tensor:
        """Network input in [-1, 1], float32 `[N, H, W, C]`."""
        return to_network(self.prepare(pixels))

    def prepare(self, pixels: tf.Tensor | Array) -> tf.Tensor:
        """What `call` gives, as pixels in [0, 1]."""
        pixels = tf.convert_to_tensor(pixels)
        if pixels.shape.rank == 3:
            pixels = pixels[..., tf.newaxis]
        _check_kind(pixels.dtype.name, pixels.shape)
        return self.arrange(self.to_unit(pixels))

    def to_unit(self, pixels):
        """The first half of `prepare`: values as they are stored, a tensor or an array, to the same float32 in [0, 1]."""
        if self.value_range is None or pixels.dtype.name == "uint8":
            return to_unit_range(pixels)
        low, high = self.value_range
        return tf.clip_by_value((tf.cast(pixels, tf.float32) - low) * (1.0 / (high - low)), 0.0, 1.0)

    def arrange(self, pixels):
        """The second half of `prepare`: channels, size and contrast of float32 `[N, h, w, c]` in [0, 1]."""
        pixels = self._convert_channels(pixels)
        if self.keeps_size:
            pixels = self._rescale(pixels)
        elif tuple(pixels.shape[1:3]) != self.image_shape[:2]:
            pixels = {"stretch": _resize, "pad": _pad, "crop": _crop}[self.fit](pixels, *self.image_shape[:2])
        pixels = tf.ensure_shape(pixels, (None, *self.image_shape))
        return _normalize(pixels) if self.normalize else pixels

    def read(self, pixels: Array, name: str = "image") -> np.ndarray:
        """One image `[h, w]` or `[h, w, c]` prepared: NumPy float32 `[H, W, C]` in [0, 1]; ValueError if unusable."""
        return np.asarray(self.prepare(self.check(np.asarray(pixels)[np.newaxis], name)))[0]

    def check(self, pixels: Array, name: str = "pixels", say: Callable[[str], Any] | None = None) -> np.ndarray:
        """`check_pixels`, with the values that this preprocessing takes; a remark, or `say`, where they are all but black."""
        checked = check_pixels(pixels, name, bounded=self.value_range is None)
        if found := self._all_but_black(checked):
            (say or (lambda line: remark(f"{name}: {line}")))(found)
        return checked

    def _all_but_black(self, pixels):
        """What to say of values that seem to be scaled otherwise than those that were trained on, or ""."""
        if pixels.dtype == np.uint16 and self.value_range is None and 255 < pixels.max() < 2**BITS:
            most = 2**BITS - 1
            return f"16 bits and no value above {most}, nearly black where 65535 is white; of {BITS} bits: --range 0:{most}."
        if pixels.dtype.kind == "f" and self.value_range is not None:
            low, high = self.value_range
            if high - low > 2**8 and 0.0 <= pixels.min() < pixels.max() <= 1.0 and (pixels % 1.0 != 0.0).any():
                return f"all values lie in [0, 1], nearly black where {low:g} to {high:g} is expected; pass them as stored."
        return ""

    def valid_rows(self, pixels):
        """Which images hold only finite values, and within [0, 1] unless there is a `value_range`: bool `[N]`."""
        pixels = tf.convert_to_tensor(pixels)
        axes = tf.range(1, tf.rank(pixels))
        if not pixels.dtype.is_floating:
            return tf.ones(tf.shape(pixels)[:1], tf.bool)
        if self.value_range is not None:
            return tf.reduce_all(tf.math.is_finite(pixels), axis=axes)
        return tf.reduce_all((pixels >= 0.0) & (pixels <= 1.0), axis=axes)  # false for NaN

    def require_valid(self, pixels):
        """The same pixels, or an InvalidArgumentError when the graph runs where `valid_rows` finds an image wanting."""
        assertion = tf.debugging.Assert(
            tf.reduce_all(self.valid_rows(pixels)),
            [OUT_OF_RANGE],
        )
        with tf.control_dependencies([assertion]):
            return tf.identity(pixels)

    def restore(self, maps: tf.Tensor | Array, shape: tuple[int, int]) -> tf.Tensor:
        """Maps of prepared images as maps of the images themselves.

        Args:
            maps: `[N, H, W]` float32.
            shape: `(h, w)` of the images that were prepared.

        Returns:
            `[N, h, w]`, resized; without what "pad" added, and 0 where "crop" cut.
        """
        height, width = shape
        maps, size = tf.convert_to_tensor(maps)[..., tf.newaxis], self.image_shape[:2]
        if self.keeps_size or self.fit == "stretch":
            return tf.image.resize(maps, shape)[..., 0]
        if self.fit == "pad":
            (top, left), (inner_height, inner_width) = _padded(height, width, *size)
            inner = maps[:, top : top + inner_height, left : left + inner_width]
            return tf.image.resize(inner, shape)[..., 0]
        (top, left), inner = _cropped(height, width, *size)
        maps = tf.image.resize(maps, inner)[..., 0]
        return tf.pad(maps, [(0, 0), (top, height - top - inner[0]), (left, width - left - inner[1])])

    def window(self, sizes: tf.Tensor | Array) -> tf.Tensor:
        """Where maps of prepared images lie on the images themselves.

        Args:
            sizes: `[N, 2]` int32, height and width of the images before they were prepared.

        Returns:
            `[N, 4]` float32: top, left, bottom and right of the map, where the image is 0 to 1. "pad" reaches beyond it.
        """
        sizes = tf.convert_to_tensor(sizes, tf.int32)
        height, width = tf.unstack(sizes, axis=1)
        corners = [0.0, 0.0, 1.0, 1.0] * tf.ones((tf.shape(sizes)[0], 1))
        if self.keeps_size or self.fit == "stretch":
            return corners
        size = self.image_shape[:2]
        first, inner = (_padded if self.fit == "pad" else _cropped)(height, width, *size)
        first, inner = (tf.cast(tf.stack(pair, axis=1), tf.float32) for pair in (first, inner))
        if self.fit == "pad":
            return tf.concat([-first / inner, (tf.constant(size, tf.float32) - first) / inner], axis=1)
        sizes = tf.cast(sizes, tf.float32)
        return tf.concat([first / sizes, (first + inner) / sizes], axis=1)

    def _rescale(self, pixels):
        if self.scale == 1.0:
            return pixels
        sides = tf.cast(tf.round(tf.cast(tf.shape(pixels)[1:3], tf.float32) * self.scale), tf.int32)
        return _resize(pixels, *tf.unstack(tf.maximum(sides, MIN_SIDE)))

    def _convert_channels(self, pixels):
        given, wanted = pixels.shape[-1], self.image_shape[-1]
        if given is None:
            return self._convert_unknown_channels(pixels)
        if given == wanted:
            return pixels
        return _to_grey(pixels) if wanted == 1 else tf.image.grayscale_to_rgb(pixels)

    def _convert_unknown_channels(self, pixels):
        """In a graph for pixels of any size and channels: what can't be used is an InvalidArgumentError when it runs."""
        height, width, given = (tf.shape(pixels)[axis] for axis in (1, 2, 3))
        large = (height >= MIN_SIDE) & (width >= MIN_SIDE)
        checks = [
            tf.debugging.Assert((given == 1) | (given == 3), ["images with", given, "channels; expected 1 (grey) or 3 (RGB)."]),
            tf.debugging.Assert(large, ["images of", height, "x", width, f"pixels; each side needs at least {MIN_SIDE}."]),
        ]

        def convert(channels):
            return lambda: self._convert_channels(tf.ensure_shape(pixels, (None, None, None, channels)))

        with tf.control_dependencies(checks):
            return tf.cond(given == 1, convert(1), convert(3))

    def copy(self, own_size=False):
        """Another with the same settings; with `own_size` for images of their own size."""
        config = self.get_config()
        if own_size:
            config["image_shape"] = (None, None, self.image_shape[-1])
        return type(self).from_config(config)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.image_shape)

    def get_settings(self):
        """What decides the outcome, ready for JSON: the layer's configuration without its name."""
        settings = {name: getattr(self, name) for name in ("fit", "scale", "normalize")}
        sequences = {name: getattr(self, name) for name in ("image_shape", "value_range", "augment")}
        return {**settings, **{name: value and list(value) for name, value in sequences.items()}}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.get_settings()}

    @classmethod
    def from_config(cls, config):
        # Fixed by the constructor, and written by the base class nevertheless.
        return cls(**{key: value for key, value in config.items() if key not in ("dtype", "trainable", "autocast")})


@contextlib.contextmanager
def in_one_line():
    """Around what runs a graph with `require_valid` in it: its error as a ValueError, without the graph's pages about itself."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if OUT_OF_RANGE not in str(error):
            raise
        raise ValueError(OUT_OF_RANGE) from None


def _check_settings(preprocessing):
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Keras is set to channels_first; images here are [N, H, W, C]: keras.config.set_image_data_format('channels_last')."
        )
    shape, value_range = preprocessing.image_shape, preprocessing.value_range
    if len(shape) != 3 or (shape[0] is None) != (shape[1] is None) or shape[2] not in (1, 3):
        raise ValueError(f"image_shape={shape} must be (H, W, C), or (None, None, C) for images of their own size; C is 1 or 3.")
    if preprocessing.fit not in FITS:
        raise ValueError(f"fit={preprocessing.fit!r} is not one of {list(FITS)}.")
    if not 0.0 < preprocessing.scale <= 1.0:
        raise ValueError(f"scale={preprocessing.scale} must lie above 0, and be 1 at most.")
    if preprocessing.scale != 1.0 and not preprocessing.keeps_size:
        raise ValueError(f"scale={preprocessing.scale} is for images of their own size; here image_shape={shape} says the size.")
    if value_range is not None and not (
        np.isfinite(value_range).all() and len(value_range) == 2 and value_range[0] < value_range[1]
    ):
        raise ValueError(f"value_range={value_range} must be two numbers, the lower first.")
    if "rotate" in preprocessing.augment and shape[0] != shape[1]:
        raise ValueError(
            f"augment: 'rotate' turns by quarters, which images of {shape[0]}x{shape[1]} can't; they must be square."
        )
    if unknown := set(preprocessing.augment) - set(AUGMENTATIONS):
        raise ValueError(f"augment: {', '.join(map(repr, sorted(unknown)))} not among {list(AUGMENTATIONS)}.")


def _to_grey(pixels):
    """Luma (ITU-R BT.601); what is grey already is taken as it is, which no weights would give to the last bit."""
    red, green, blue = (pixels[..., channel : channel + 1] for channel in range(3))
    luma = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]
    return tf.where((red == green) & (green == blue), red, luma)


def _resize(pixels, height, width):
    # Antialiased resizing can overshoot [0, 1] by a rounding.
    return tf.clip_by_value(tf.image.resize(pixels, (height, width), antialias=True), 0.0, 1.0)


def _pad(pixels, height, width):
    """Resize so that all of it fits, and repeat the edge on both sides."""
    h, w = _sides(pixels)
    (top, left), inner = _padded(h, w, height, width)
    pixels = _resize(pixels, *inner)
    for axis, (side, before, size) in enumerate(zip((height, width), (top, left), inner), start=1):
        pixels = tf.gather(pixels, tf.clip_by_value(tf.range(side) - before, 0, size - 1), axis=axis)
    return pixels


def _crop(pixels, height, width):
    """Cut out the largest part of the middle that has the aspect ratio, and resize it."""
    h, w = _sides(pixels)
    (top, left), inner = _cropped(h, w, height, width)
    return _resize(pixels[:, top : top + inner[0], left : left + inner[1]], height, width)


def _sides(pixels):
    return (pixels.shape[axis] or tf.shape(pixels)[axis] for axis in (1, 2))


def _padded(h, w, height, width):
    """Where "pad" puts an image of h x w: its first row and column, its height and width. Integers, so that graphs agree."""
    inner_height = _at_most(height, (2 * h * width + w) // (2 * w))
    inner_width = _at_most(width, (2 * w * height + h) // (2 * h))
    return ((height - inner_height) // 2, (width - inner_width) // 2), (inner_height, inner_width)


def _cropped(h, w, height, width):
    """Which part of an image of h x w "crop" keeps: its first row and column, its height and width."""
    inner_height = _at_most(h, (2 * w * height + width) // (2 * width))
    inner_width = _at_most(w, (2 * h * width + height) // (2 * height))
    return ((h - inner_height) // 2, (w - inner_width) // 2), (inner_height, inner_width)


def _at_most(most, value):
    if tf.is_tensor(most) or tf.is_tensor(value):
        return tf.minimum(most, tf.maximum(value, 1))
    return min(most, max(value, 1))


def _normalize(pixels):
    """Mean 0 and deviation 1 for each image, and that on the scale of pixels: the mean is at 1/2."""
    centred = pixels - tf.reduce_mean(pixels, axis=(1, 2, 3), keepdims=True)
    deviation = tf.sqrt(tf.reduce_mean(tf.square(centred), axis=(1, 2, 3), keepdims=True))
    return tf.clip_by_value(centred / (2.0 * CONTRAST * tf.maximum(deviation, MIN_DEVIATION)) + 0.5, 0.0, 1.0)


def to_unit_range(pixels):
    """Pixels of any of their dtypes to float32 in [0, 1]: a level k of n is k / n, correctly rounded.

    So a picture is the same bits as uint8, as uint16 (257 times that) and as floats that a client has divided by 255 itself.
    """
    if isinstance(pixels, np.ndarray):  # eager TensorFlow would keep every step of a large picture in memory
        return np.divide(pixels, np.float32(_FULL_SCALE[pixels.dtype.name]), dtype=np.float32, casting="unsafe")
    if pixels.dtype.is_floating:
        return tf.cast(pixels, tf.float32)
    # k / n = k / (n + 1) * (1 + 1 / n), where k / (n + 1) is exact: so the sum is rounded once, to the quotient of every level.
    # Of a division TensorFlow makes a product with a rounded 1 / n, in graphs alone.
    most = _FULL_SCALE[pixels.dtype.name]
    share = tf.cast(pixels, tf.float32) * (1.0 / (most + 1.0))
    return share + share * (1.0 / most)


def to_network(pixels):
    """Pixels in [0, 1] to network units [-1, 1]."""
    return pixels * 2.0 - 1.0


def to_pixels(images):
    """Network units [-1, 1] back to pixels in [0, 1]."""
    return (images + 1.0) / 2.0
