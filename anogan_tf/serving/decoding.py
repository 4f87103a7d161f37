"""Encoded pictures to pixels inside a graph: the same numbers that the library reads from the same files."""

from typing import NamedTuple

import tensorflow as tf
from PIL import Image

from anogan_tf.data.batching import map_to_images
from anogan_tf.data.pictures import LONGEST_SIDE
from anogan_tf.data.pixel_checks import MIN_SIDE
from anogan_tf.data.preprocessing import to_network

_HEAD = 54 + 4 * 256  # bytes looked at: a BMP's headers and its palette
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS = (
    [(bits, 0) for bits in (1, 2, 4, 8, 16)] + [(bits, 3) for bits in (1, 2, 4, 8)] + [(b, k) for b in (8, 16) for k in (2, 4, 6)]
)


class Rows(NamedTuple):
    """The rows of a request, prepared.

    Attributes:
        images: `[N, H, W, C]` float32 in [-1, 1] as `Preprocessing` gives them; where those keep their own sizes, filled up.
        sizes: `[N, 2]` int32, how much of each is image.
        valid: `[N]` bool, whether the row was an image at all.
        given: `[N, 2]` int32, height and width before the preprocessing.
    """

    images: tf.Tensor
    sizes: tf.Tensor
    valid: tf.Tensor
    given: tf.Tensor


def decode_rows(encoded, preprocessing, max_pixels):
    """Decode and prepare a batch of pictures, PNG, JPEG, GIF or BMP, of any size, grey or colour.

    PNG keeps its 16 bits, JPEG is decoded by the exact integer transform (as Pillow does), of a GIF the first picture counts,
    transparency is dropped (of a GIF it becomes black). EXIF orientation is not followed: nothing in TensorFlow reads it.

    Args:
        encoded: `[N]` strings, the files' bytes.
        preprocessing: a `Preprocessing`.
        max_pixels: that the pictures may have together; in their order, those that go beyond it are not decoded.

    Returns:
        `Rows`. Not valid, with images of 0, are bytes that by their header are no picture of these formats, or one that is too
        small or too large, or one too many.

    Raises:
        InvalidArgumentError: when the graph runs on a picture that is damaged behind its header.
    """
    *sides, channels = preprocessing.image_shape
    blank = tf.zeros([side or MIN_SIDE for side in sides] + [channels])

    def decode_row(row):
        bytes_, kind = row
        decoders = [lambda decode=decode: decode(bytes_, preprocessing.to_unit) for decode in _DECODERS]
        pixels = tf.switch_case(kind, decoders)
        valid = tf.reduce_all(tf.shape(pixels)[:2] >= MIN_SIDE)
        image = tf.cond(valid, lambda: to_network(preprocessing.arrange(pixels[tf.newaxis])[0]), lambda: blank)
        return image, tf.shape(image)[:2], valid, tf.shape(pixels)[:2]

    size = tf.TensorSpec((2,), tf.int32)
    rows = Rows(
        *map_to_images(decode_row, (encoded, _kinds(encoded, max_pixels)), channels, (size, tf.TensorSpec((), tf.bool), size))
    )
    if preprocessing.keeps_size:
        return rows
    return rows._replace(images=tf.reshape(rows.images, (-1, *preprocessing.image_shape)))  # as it is, but known


def _kinds(encoded, max_pixels):
    """Which of `_DECODERS` reads each row, `[N]` int32; 0 where none does, or too many pixels have come before."""
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD), tf.int32)

    def starts(magic):
        return tf.reduce_all(head[:, : len(magic)] == list(magic), axis=1)

    def number(first, size=4, big=False):
        powers = [256**power for power in range(size)]  # a list: for a reversed tensor graphs are optimized less, and differ
        weights = tf.constant(powers[::-1] if big else powers, tf.int64)
        return tf.reduce_sum(tf.cast(head[:, first : first + size], tf.int64) * weights, axis=1)

    def small(width, height):
        counts.append(width * height)
        return (width > 0) & (height > 0) & (tf.maximum(width, height) <= LONGEST_SIDE) & (width * height <= _most_pixels())

    counts: list[tf.Tensor] = []
    png = starts(_PNG + b"\0\0\0\x0dIHDR") & small(number(16, big=True), number(20, big=True))
    gif = (starts(b"GIF87a") | starts(b"GIF89a")) & small(number(6, 2), number(8, 2))
    height = tf.bitcast(tf.cast(number(22), tf.uint32), tf.int32)  # negative: rows from top to bottom
    bmp = starts(b"BM") & small(number(18), tf.abs(tf.cast(height, tf.int64))) & _plain_bmp(head, number)
    deep, palette = head[:, 24] == 16, head[:, 25] == 3
    # Bits of a channel and kind of colour together: those that there are.
    png &= tf.reduce_any(tf.reduce_all(head[:, tf.newaxis, 24:26] == _PNG_KINDS, axis=2), axis=1)
    jpeg = starts(b"\xff\xd8\xff")
    kinds = [jpeg, png & ~deep & ~palette, png & deep, gif | (png & palette), bmp]
    kind = sum(tf.cast(found, tf.int32) * kind for kind, found in enumerate(kinds, start=1))
    pixels = sum(tf.where(found, count, 0) for found, count in zip((png, gif, bmp), counts)) + _jpeg_pixels(encoded, jpeg)
    return tf.where(tf.cumsum(pixels) <= max_pixels, kind, 0)


def _jpeg_pixels(encoded, jpeg):
    """How many pixels each row has that is a JPEG, `[N]` int64; 0 for the others."""

    def count(row):
        sides = tf.cast(tf.image.extract_jpeg_shape(row[0])[:2], tf.int64)
        pixels = tf.reduce_prod(sides)
        return tf.where(pixels <= _most_pixels(), pixels, 0)  # else it isn't decoded

    zero = tf.zeros((), tf.int64)
    return tf.map_fn(lambda row: tf.cond(row[1], lambda: count(row), lambda: zero), (encoded, jpeg), fn_output_signature=tf.int64)


def _most_pixels():
    """What Pillow warns of, and the library skips, as a decompression bomb is larger; by Pillow's own default if that is off."""
    return Image.MAX_IMAGE_PIXELS or 2**30 // 12


def _plain_bmp(head, number):
    """Uncompressed, 24 or 32 bits, or 8 bits of grey: what TensorFlow reads right. It takes any palette for grey."""
    bits, palette = number(28, 2), tf.reshape(head[:, 54:_HEAD], (-1, 256, 4))[..., :3]
    grey = tf.reduce_all(palette == tf.range(256)[:, tf.newaxis], axis=(1, 2)) & (number(10) == _HEAD)
    return (number(14) >= 40) & (number(30) == 0) & ((bits == 24) | (bits == 32) | ((bits == 8) & grey))


# Each decodes, drops transparency, and has `to_unit` scale the values to [0, 1].


def _opaque(pixels):
    channels = tf.shape(pixels)[-1]
    return pixels[..., : channels - (1 - channels % 2)]


def _nothing(encoded, to_unit):
    return tf.zeros((0, 0, 1))


def _decode_jpeg(encoded, to_unit):
    height, width, channels = tf.unstack(tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64))

    def decode(channels):
        return lambda: to_unit(tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE"))

    # Of grey only, so that it isn't weighted as if it were colour; CMYK becomes RGB.
    decoded = [(height * width > _most_pixels(), lambda: _nothing(encoded, to_unit)), (channels == 1, decode(1))]
    return tf.case(decoded, default=decode(3), exclusive=False)


def _decode_png(encoded, to_unit):
    return to_unit(_opaque(tf.io.decode_png(encoded)))


def _decode_png_16(encoded, to_unit):
    return to_unit(_opaque(tf.io.decode_png(encoded, dtype=tf.uint16)))


def _decode_palette(encoded, to_unit):
    pixels = to_unit(tf.io.decode_image(encoded, channels=3, expand_animations=False))
    grey = tf.reduce_all((pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2]))
    return tf.cond(grey, lambda: pixels[..., :1], lambda: pixels)


def _decode_bmp(encoded, to_unit):
    return to_unit(_opaque(tf.io.decode_bmp(encoded)))


_DECODERS = (_nothing, _decode_jpeg, _decode_png, _decode_png_16, _decode_palette, _decode_bmp)
