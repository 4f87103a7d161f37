"""One picture file, PNG to TIFF, to pixels as they are stored: with all their bits, upright, without transparency."""

import functools
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk")
# Of formats that may hold several pictures; of JPEG what follows the first is a preview or a map of brightness.
PAGED_SUFFIXES = (".gif", ".webp", ".png", ".apng", ".avif", *TIFF_SUFFIXES)
PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
    ".bmp", ".dib", ".pgm", ".ppm", ".pbm", ".pnm", ".pfm", ".tga", ".icb", ".vda", ".vst", ".pcx", ".dcx", ".qoi",
    ".sgi", ".bw", ".rgb", ".rgba", ".ras", ".dds", ".ico", ".psd", *PAGED_SUFFIXES,
)  # fmt: skip
# Those are read by Pillow; of its others some start programs (EPS) or hold no picture (MPEG).
Image.init()
_KNOWN = [
    "AVIF", "BMP", "DCX", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN",
    "TGA", "TIFF", "WEBP",
]  # fmt: skip
FORMATS = [name for name in _KNOWN if name in Image.OPEN]
_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What tifffile reads of TIFF as Pillow does: compressions (none, deflate), kinds of colour, dtypes.
_PLAIN, _ALIKE = (1, 8, 32946), ("uint8", "uint16", "float32")
_PHOTOMETRICS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
# How files of the commonest formats begin, whatever they are called.
_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51", *_TIFF_BEGINNINGS,
)  # fmt: skip
_LEFTOVERS = (
    ".bak",
    ".tmp",
    ".part",
    ".crdownload",
    ".orig",
    ".old",
)  # of files that are there under their own name, or not whole
_FILM = "a film; take its pictures out, such as with: ffmpeg -i FILE picture-%06d.png"
_RAW = "a camera's raw file; develop it to a TIFF or PNG of 16 bits first"
_PHONE = "is not read here; save it as PNG or JPEG"
_SCIENCE = "is not read here; export it as OME-TIFF"
# Pictures that nothing here reads: why, and the remedy.
ELSEWHERE = {
    **dict.fromkeys((".heic", ".heif", ".hif"), f"HEIC {_PHONE}"),
    **dict.fromkeys((".jxl",), f"JPEG XL {_PHONE}"),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), f"JPEG XR {_PHONE}"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f"),
        _RAW,
    ),
    **dict.fromkeys((".exr", ".hdr"), "a picture of floats; save it as TIFF of floats"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg"), _FILM),
    **dict.fromkeys((".czi", ".nd2", ".lif", ".oib", ".oif", ".vsi"), f"a microscope's own format {_SCIENCE}"),
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".mnc"), "a volume that is not read here; save it as NIfTI"),
    ".fits": "FITS is not read here; save it as TIFF or .npy",
}
ORIENTATION, PHOTOMETRIC = 0x0112, 0x0106  # EXIF and TIFF tags
LARGE, MAX_COMPRESSION = 2**28, 200  # bytes; times
LONGEST_SIDE = 1_000_000  # pixels: what libpng takes, in TensorFlow too
EXACT = 2**24  # below it every integer is a float32
GREY_MODES = ("1", "L", "LA", "I", "F")


class ImageInfo(NamedTuple):
    """What is known of a picture before its pixels are read: 1 or 3 channels, and whether it has more than 8 bits."""

    channels: int
    deep: bool


def begins_as_picture(file):
    """Whether a file that is not called like a picture is one, by its first bytes."""
    if str(file).lower().endswith(_LEFTOVERS) or str(file).endswith("~"):
        return False
    try:
        with open(file, "rb") as opened:
            head = opened.read(16)
    except OSError:
        return False
    return head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:12] == b"ftypavif"


def list_pages(file):
    """Numbers of the pages or frames of a picture file that are images of their own, not smaller copies or masks of others."""
    name = str(file).lower()
    if name.endswith(PICTURE_SUFFIXES) and not name.endswith(PAGED_SUFFIXES):
        return [0]
    if _is_tiff(file):
        try:
            with tifffile.TiffFile(file) as tiff:
                kinds = [int(page.subfiletype) if isinstance(page, tifffile.TiffPage) else 0 for page in tiff.pages]
        except tifffile.TiffFileError:
            return [0]  # Pillow says what is wrong with it
        return [number for number, kind in enumerate(kinds) if not kind & 0b101] or [0]
    with _open(file) as image:
        return list(range(getattr(image, "n_frames", 1)))


def read_pixels(file, number=0):
    """Pixels `[h, w, c]` of a picture file, uint8, uint16 or float32, c 1 or 3. Decoders raise many kinds of errors.

    Args:
        file: its path.
        number: of the page or frame, from 0.
    """
    if _is_for_tifffile(file, number):
        return _read_tiff(file, number)
    with _open(file) as image:
        check_size(image.width, image.height)
        image.seek(number)
        if _is_cut_png(image):
            image.load()  # what is damaged is Pillow's to find
            pixels = tf.io.decode_png(Path(file).read_bytes(), dtype=tf.uint16).numpy()
            return _upright(pixels, image.getexif().get(ORIENTATION, 1))
        pixels = _to_array(ImageOps.exif_transpose(image))
        inverted = isinstance(image, TiffImageFile) and image.mode.startswith("I;16") and image.tag_v2.get(PHOTOMETRIC) == 0
        return 65535 - pixels if inverted else pixels  # Pillow turns white being 0 in 8 bits only


def _open(file):
    return Image.open(file, formats=FORMATS)


def check_size(width, height):
    """Raise a ValueError for a picture that is too large to be decoded."""
    check_pixel_count(width * height)
    if max(width, height) > LONGEST_SIDE:
        raise ValueError(f"{width}x{height} pixels; no side may be longer than {LONGEST_SIDE}")


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


def read_info(file, number=0):
    """The `ImageInfo` of a picture file, from its header."""
    if _is_for_tifffile(file, number):
        with tifffile.TiffFile(file) as tiff:
            page = _page(tiff, file, number)
            return ImageInfo(1 if page.samplesperpixel < 3 else 3, deep=page.dtype.itemsize > 1 or page.dtype.kind == "i")
    with _open(file) as image:
        if image.format == "TIFF":
            image.seek(number)  # of a film all frames have the first one's colours
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
        pixels = _fewest_bits(np.asarray(image))
    elif image.mode == "F":
        pixels = np.asarray(image)
    elif image.mode in ("1", "L", "LA"):
        pixels = np.asarray(image.convert("L"))
    else:
        pixels = np.asarray(image.convert("RGB"))
        # A palette of greys; a film's later frames come in colour whatever they show.
        if (image.mode == "P" or getattr(image, "is_animated", False)) and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., :1]
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _fewest_bits(values):
    """Integers as uint16 where they fit, else as the same float32; a ValueError where there is none."""
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 65535 and values.dtype.itemsize > 2:
        return values.astype(np.uint16)
    if max(-low, high) > EXACT:
        raise ValueError(f"integers from {low} to {high}, of which not all can be kept apart; save them as 16 bits")
    return values.astype(np.float32)


def _is_cut_png(image):
    """Whether it is a PNG of 16 bits of which Pillow keeps 8: all but plain grey."""
    return image.format == "PNG" and image.mode[:2] != "I;" and str(image.tile[0][-1]).endswith(";16B")


def _is_tiff(file):
    with open(file, "rb") as opened:
        return opened.read(4) in _TIFF_BEGINNINGS


def _page(tiff, file, number):
    """A page of an open TIFF, found at once: going to each from the first, time would grow with the square of their number."""
    if not number:
        return tiff.pages.first
    tiff.filehandle.seek(_page_offsets(str(file), file_stamp(file))[number])
    return tifffile.TiffPage(tiff, index=number)


@functools.lru_cache(maxsize=4)
def _page_offsets(file, stamp):
    with tifffile.TiffFile(file) as tiff:
        return [page.offset for page in tiff.pages]


def _is_for_tifffile(file, number):
    """Whether it is a TIFF that Pillow would cut or misread, all but 8 bits, and 16 bits and float32 of grey; or a later page,
    which both read alike, and to which Pillow would go through all before it."""
    if not _is_tiff(file):
        return False
    try:
        with tifffile.TiffFile(file) as tiff:
            page = _page(tiff, file, number)
            if page.dtype is None:
                return False
            if number and page.compression in _PLAIN and page.photometric in _PHOTOMETRICS and page.dtype.name in _ALIKE:
                return True
            pillows = ("bool", "uint8", "uint16", "float32") if page.samplesperpixel == 1 else ("bool", "uint8")
            return page.dtype.name not in pillows or (page.tags.valueof("ImageDepth") or 1) > 1
    except tifffile.TiffFileError:
        return False  # Pillow says what is wrong with it


def _read_tiff(file, number):
    with tifffile.TiffFile(file) as tiff:
        page = _page(tiff, file, number)
        check_size(page.imagewidth, page.imagelength)
        photometric = tifffile.PHOTOMETRIC(page.photometric)
        if photometric not in _PHOTOMETRICS or page.samplesperpixel > 4:
            found = f"{page.samplesperpixel} channels of {page.dtype}, {photometric.name}"
            raise ValueError(f"a TIFF of {found}: beyond 8 bits only grey and RGB")
        pixels = np.moveaxis(page.asarray(), 0, -1) if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else page.asarray()
        orientation = page.tags.valueof(ORIENTATION, 1)
    pixels = pixels if pixels.ndim > 2 else pixels[..., np.newaxis]
    if pixels.ndim > 3:
        raise ValueError(f"a TIFF whose page is a volume of shape {pixels.shape}; save its slices as pages")
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
    elif pixels.dtype.kind not in "iu":
        raise ValueError(f"a TIFF of {pixels.dtype}; integers and floats can be read")
    elif pixels.dtype.name not in ("uint8", "uint16"):
        pixels = _fewest_bits(pixels)
    return _upright(pixels, int(orientation))


def _upright(pixels, orientation):
    """Pixels `[h, w, c]` without transparency, turned as an EXIF orientation says."""
    height, width, channels = pixels.shape
    places = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    places.getexif()[ORIENTATION] = orientation
    turned = np.asarray(ImageOps.exif_transpose(places))
    return pixels.reshape(-1, channels)[..., : 1 if channels < 3 else 3][turned]
