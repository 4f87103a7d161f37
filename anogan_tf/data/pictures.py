"""One picture file, PNG to TIFF, to pixels as they are stored: with all their bits, upright, without transparency."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA", "I", "F")


class Head(NamedTuple):
    """What is known of a picture before its pixels are read: 1 or 3 channels, and whether it has more than 8 bits."""

    channels: int
    deep: bool


def read_pixels(file):
    """Pixels `[h, w, c]` of a picture file, uint8, uint16 or float32, c 1 or 3. Decoders raise many kinds of errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            if _is_cut_tiff(image):
                return _turned(_read_tiff(file), image)
            if _is_cut_png(image):
                image.load()  # what is damaged is Pillow's to find
                return _turned(tf.io.decode_png(Path(file).read_bytes(), dtype=tf.uint16).numpy(), image)
            return _to_array(ImageOps.exif_transpose(image))


def read_head(file):
    """The `Head` of a picture file, from its header."""
    with Image.open(file) as image:
        if _is_cut_tiff(image):
            return Head(1 if image.tag_v2.get(277, 1) < 3 else 3, deep=True)
        grey = image.mode in GREY_MODES or image.mode.startswith("I;16")
        return Head(1 if grey else 3, deep=_is_cut_png(image) or image.mode[0] in "IF")


def _to_array(image):
    """Pixels `[h, w, c]` of a Pillow image."""
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
    elif image.mode == "I":
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("32-bit integers beyond 16 bits")
        pixels = pixels.astype(np.uint16)
    elif image.mode == "F":
        pixels = np.asarray(image)
    elif image.mode in ("1", "L", "LA"):
        pixels = np.asarray(image.convert("L"))
    else:
        pixels = np.asarray(image.convert("RGB"))
        if image.mode == "P" and (pixels == pixels[..., :1]).all():  # a palette of greys
            pixels = pixels[..., :1]
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _is_cut_png(image):
    """Whether it is a PNG of 16 bits of which Pillow keeps 8: all but plain grey."""
    return image.format == "PNG" and image.mode[:2] != "I;" and str(image.tile[0][-1]).endswith(";16B")


def _is_cut_tiff(image):
    """Whether it is a TIFF of 16 bits or more of which Pillow keeps 8: colour, or grey with transparency."""
    return image.format == "TIFF" and max(image.tag_v2.get(258, (1,))) > 8 and image.tag_v2.get(277, 1) > 1


def _read_tiff(file):
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        pixels = page.asarray()
        if page.planarconfig == 2:  # channels one after another
            pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    if pixels.dtype != np.uint16:
        raise ValueError(f"a TIFF of {pixels.dtype} in colour; 8 and 16 bits and floats can be read")
    return pixels


def _turned(pixels, image):
    """Pixels `[h, w, c]` without transparency, upright by the EXIF orientation of their Pillow image."""
    height, width, channels = pixels.shape
    places = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    places.getexif()[0x0112] = image.getexif().get(0x0112, 1)
    turned = np.asarray(ImageOps.exif_transpose(places))
    return pixels.reshape(-1, channels)[..., : 1 if channels < 3 else 3][turned]
