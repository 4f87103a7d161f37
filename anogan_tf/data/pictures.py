"""One picture file, PNG to TIFF, to pixels as they are stored: with all their bits, upright, without transparency."""

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TIFF_SUFFIXES = (".tif", ".tiff")
ORIENTATION, PHOTOMETRIC = 0x0112, 0x0106  # EXIF and TIFF tags
LARGE, MAX_COMPRESSION = 2**28, 200  # bytes; times
GREY_MODES = ("1", "L", "LA", "I", "F")


class ImageInfo(NamedTuple):
    """What is known of a picture before its pixels are read: 1 or 3 channels, and whether it has more than 8 bits."""

    channels: int
    deep: bool


def read_pixels(file):
    """Pixels `[h, w, c]` of a picture file, uint8, uint16 or float32, c 1 or 3. Decoders raise many kinds of errors."""
    if _is_deep_tiff(file):
        return _read_tiff(file)
    with Image.open(file) as image:
        check_pixel_count(image.width * image.height)
        if _is_cut_png(image):
            image.load()  # what is damaged is Pillow's to find
            pixels = tf.io.decode_png(Path(file).read_bytes(), dtype=tf.uint16).numpy()
            return _upright(pixels, image.getexif().get(ORIENTATION, 1))
        pixels = _to_array(ImageOps.exif_transpose(image))
        inverted = isinstance(image, TiffImageFile) and image.mode.startswith("I;16") and image.tag_v2.get(PHOTOMETRIC) == 0
        return 65535 - pixels if inverted else pixels  # Pillow turns white being 0 in 8 bits only


def check_pixel_count(count):
    """Raise a ValueError for an image so large that it could be a decompression bomb: what Pillow warns of."""
    if count > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise ValueError(f"{count} pixels exceed the limit of {Image.MAX_IMAGE_PIXELS}, could be a decompression bomb")


def check_decoded(file, size):
    """Raise a ValueError where a file of many images claims to be far larger than any compression would explain."""
    if size > LARGE and size > MAX_COMPRESSION * os.path.getsize(file):
        raise ValueError(f"{size} bytes in a file of {os.path.getsize(file)}, could be a decompression bomb")


def file_stamp(file):
    """What changes when a file does."""
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_info(file):
    """The `ImageInfo` of a picture file, from its header."""
    if _is_deep_tiff(file):
        with tifffile.TiffFile(file) as tiff:
            return ImageInfo(1 if tiff.pages.first.samplesperpixel < 3 else 3, deep=True)
    with Image.open(file) as image:
        grey = image.mode in GREY_MODES or image.mode.startswith("I;16") or _has_grey_palette(image)
        return ImageInfo(1 if grey else 3, deep=_is_cut_png(image) or image.mode[0] in "IF")


def _has_grey_palette(image):
    if image.mode != "P":
        return False
    kind, colours = image.palette.getdata()  # `getpalette` would decode the picture
    colours = np.frombuffer(bytes(colours), np.uint8)
    return kind == "RGB" and len(colours) % 3 == 0 and bool((colours.reshape(-1, 3) == colours[::3, np.newaxis]).all())


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


def _is_deep_tiff(file):
    """Whether it is a TIFF of which Pillow keeps 8 bits, or nothing: more bits in colour, or with transparency."""
    if Path(file).suffix.lower() not in TIFF_SUFFIXES:
        return False
    try:
        with tifffile.TiffFile(file) as tiff:
            return tiff.pages.first.samplesperpixel > 1 and tiff.pages.first.bitspersample > 8
    except tifffile.TiffFileError:
        return False  # Pillow says what is wrong with it


def _read_tiff(file):
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first  # of a stack
        check_pixel_count(page.imagewidth * page.imagelength)
        photometric = tifffile.PHOTOMETRIC(page.photometric)
        if photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB) or page.samplesperpixel > 4:
            found = f"{page.samplesperpixel} channels, {photometric.name}"
            raise ValueError(f"a TIFF of more than 8 bits, {found}: only grey and RGB")
        pixels = np.moveaxis(page.asarray(), 0, -1) if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else page.asarray()
        orientation = page.tags.valueof(ORIENTATION, 1)
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
    elif pixels.dtype != np.uint16:
        raise ValueError(f"a TIFF of {pixels.dtype} in colour; 8 and 16 bits and floats can be read")
    return _upright(pixels, int(orientation))


def _upright(pixels, orientation):
    """Pixels `[h, w, c]` without transparency, turned as an EXIF orientation says."""
    height, width, channels = pixels.shape
    places = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    places.getexif()[ORIENTATION] = orientation
    turned = np.asarray(ImageOps.exif_transpose(places))
    return pixels.reshape(-1, channels)[..., : 1 if channels < 3 else 3][turned]
