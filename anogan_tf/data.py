"""Images from files, arrays and the built-in set to pixels as they come."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA", "I", "F")
ARRAY_SUFFIXES = (".npy", ".npz")
# A file of several arrays has its images under one of these names.
ARRAY_NAMES = ("images", "x", "train")

EMBEDDED = Path(__file__).parent / "embedded" / "fashion_ankle-boot.npz"
EMBEDDED_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class EmbeddedSet(NamedTuple):
    """The built-in set: real photographs of ankle boots (normal) and other garments, from Fashion-MNIST.

    Attributes:
        train: `[2000, 28, 28]` uint8, boots.
        test: `[606, 28, 28]` uint8.
        test_label: `[606]`, 0 boot, 1 anything else.
        test_class: `[606]`, index into `EMBEDDED_CLASSES`.
    """

    train: np.ndarray
    test: np.ndarray
    test_label: np.ndarray
    test_class: np.ndarray


class Picture(NamedTuple):
    """One image of a file or array: `pixels` `[h, w, c]` as stored, or None and the reason why it can't be read."""

    name: str
    pixels: np.ndarray | None
    reason: str = ""


class Images(NamedTuple):
    """Images prepared alike: `pixels` float32 `[N, H, W, C]` in [0, 1], their names, and what was skipped."""

    pixels: np.ndarray
    names: list[str]
    skipped: list[Picture]


def load_embedded():
    """The built-in set, as `EmbeddedSet`."""
    with np.load(EMBEDDED) as arrays:
        return EmbeddedSet(*(arrays[name] for name in EmbeddedSet._fields))


def load_images(paths, prepare, advance=lambda: None):
    """Read all images below `paths` at one size.

    Args:
        paths: a folder, a file or a list of them, as in `iterate_pictures`.
        prepare: pixels `[h, w, c]` to float32 `[H, W, C]` in [0, 1], such as `Preparation.read`.
        advance: called after each image, for a progress display.

    Returns:
        `Images`. Unreadable files are skipped and listed.

    Raises:
        FileNotFoundError: if a path doesn't exist.
        ValueError: if no image can be read.
    """
    pixels, names, skipped = [], [], []
    for picture in iterate_pictures(paths):
        picture, image = prepare_picture(picture, prepare)
        if image is None:
            skipped.append(picture)
        else:
            pixels.append(image)
            names.append(picture.name)
        advance()
    if not pixels:
        raise ValueError(f"None of {len(skipped)} images can be read; the first, {skipped[0].name}: {skipped[0].reason}")
    return Images(np.stack(pixels), names, skipped)


def prepare_picture(picture, prepare):
    """`(picture, prepared pixels)`; None for the pixels and a reason in the picture where they can't be prepared."""
    if picture.pixels is None:
        return picture, None
    try:
        return picture, prepare(picture.pixels)
    except ValueError as error:
        return Picture(picture.name, None, str(error)), None


def iterate_pictures(paths):
    """Yield a `Picture` for each image below `paths`, in the order of the paths and of the names.

    Args:
        paths: folders (searched to any depth), image files (PNG, JPEG, BMP, GIF, TIFF, WebP), or `.npy` and `.npz` files of
            arrays `[N, h, w]` or `[N, h, w, c]`; one or a list.

    Raises:
        FileNotFoundError: if a path doesn't exist.
        ValueError: if there is no image file below a folder.
    """
    for file in find_files(paths):
        if file.suffix.lower() in ARRAY_SUFFIXES:
            yield from _array_pictures(file)
        else:
            yield read_picture(file)


def count_pictures(paths):
    """How many `Picture`s `iterate_pictures` will yield. Of image files only the names are looked at; `.npz` files are read."""
    return sum(_count_arrays(file) if file.suffix.lower() in ARRAY_SUFFIXES else 1 for file in find_files(paths))


def count_channels(paths):
    """3 where any image below `paths` is in colour, else 1. Of image files only the heads are read."""
    return 3 if any(_is_colour(file) for file in find_files(paths)) else 1


def _is_colour(file):
    try:
        if file.suffix.lower() in ARRAY_SUFFIXES:
            return _read_array(file).shape[-1] == 3
        with Image.open(file) as image:
            return image.mode not in GREY_MODES and not image.mode.startswith("I;16")
    except Exception:  # reading it says why
        return False


def find_files(paths):
    """The image and array files below `paths`, see `iterate_pictures`."""
    found = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(path)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _is_image_name(file) and file.is_file())
            if not inside:
                raise ValueError(f"{path} holds no images; looked for {', '.join(SUFFIXES + ARRAY_SUFFIXES)} at any depth.")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder.")
    if not found:
        raise ValueError("No paths given; name a folder or image files.")
    return found


def _is_image_name(file):
    return file.suffix.lower() in SUFFIXES + ARRAY_SUFFIXES and not file.name.startswith(".")


def read_picture(file):
    """Read one image file, turned upright by its EXIF orientation; never raises for what the file holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                pixels = _deep_colour(image, file) if _is_deep_colour(image) else _to_array(ImageOps.exif_transpose(image))
                return Picture(str(file), pixels)
    except Exception as error:  # decoders raise many kinds for a damaged file
        return Picture(str(file), None, f"not a readable image ({_reason(error)})")


def _reason(error):
    # Pillow's "cannot identify image file" repeats the path.
    return "unknown format" if type(error).__name__ == "UnidentifiedImageError" else str(error) or type(error).__name__


def _to_array(image):
    """Pixels `[h, w, c]`: uint8, or uint16 and float32 where the file has them; transparency is dropped."""
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


def _is_deep_colour(image):
    """Whether it is a PNG of 16 bits of which Pillow keeps 8: all but plain grey."""
    return image.format == "PNG" and image.mode[:2] != "I;" and str(image.tile[0][-1]).endswith(";16B")


def _deep_colour(image, file):
    image.load()  # what is damaged is Pillow's to find
    pixels = tf.io.decode_png(Path(file).read_bytes(), dtype=tf.uint16).numpy()
    height, width, channels = pixels.shape
    places = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    places.info["exif"] = image.info.get("exif", b"")
    turned = np.asarray(ImageOps.exif_transpose(places))
    return pixels.reshape(-1, channels)[..., : 1 if channels < 3 else 3][turned]


def _array_pictures(file):
    try:
        images = _read_array(file)
    except Exception as error:  # NumPy raises many kinds for a damaged file
        yield Picture(str(file), None, f"not a readable array ({error or type(error).__name__})")
        return
    if not len(images):
        yield Picture(str(file), None, "holds no images")
    for index, pixels in enumerate(images):
        yield Picture(f"{file}[{index}]", pixels)


def _read_array(file):
    """Images `[N, h, w, c]` of a `.npy` or `.npz` file; pickled objects are refused."""
    if file.suffix.lower() == ".npy":
        images = np.load(file, allow_pickle=False, mmap_mode="r")  # read where it is looked at
    else:
        with np.load(file, allow_pickle=False) as arrays:
            images = arrays[_array_name(arrays.files)]
    if images.ndim not in (3, 4):
        raise ValueError(f"shape {images.shape}; expected [N, height, width] or [N, height, width, channels]")
    return images[..., np.newaxis] if images.ndim == 3 else images


def _array_name(names):
    known = [name for name in ARRAY_NAMES if name in names] or (names if len(names) == 1 else [])
    if not known:
        raise ValueError(f"holds the arrays {', '.join(names)}; name the one with the images {ARRAY_NAMES[0]!r}")
    return known[0]


def _count_arrays(file):
    try:
        return len(_read_array(file)) or 1
    except Exception:  # reading it says why
        return 1
