"""Arrays of images in files: NumPy's `.npy` and `.npz`, with labels where they have some, and IDX, as MNIST comes."""

import functools
import gzip
import math
import re
import threading
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anogan_tf.data.pictures import ImageInfo, check_decoded, file_stamp

ARRAY_SUFFIXES = (".npy", ".npz")
IMAGE_NAMES = ("images", "x", "train")  # of an .npz file of several arrays, the one with the images
LABEL_NAMES = ("labels", "label", "y")
# Images and labels of the parts of a set: MedMNIST's names, and Keras's.
PAIRS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))
PARTS = ("train", "val", "test")
IDX_NAME = re.compile(r"images[-.]idx3-ubyte(\.gz)?$")
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_lock = threading.Lock()  # two threads that want the same array shall not both read it


class Part(NamedTuple):
    """One array of images in a file, or in a file of its own.

    Attributes:
        key: the array's name in an `.npz` file, else "".
        count: images in it.
        split: "train", "val", "test" or "".
        labels: `[count]` strings, or None.
    """

    key: str
    count: int  # type: ignore[assignment]  # a tuple's method otherwise
    split: str
    labels: list | None


def is_array(file):
    """Whether a file's name says that it is one of these."""
    return file.lower().endswith(ARRAY_SUFFIXES) or bool(IDX_NAME.search(file))


def list_parts(file):
    """The `Part`s of a file. Raises a ValueError for a file that holds no images, and other errors for a damaged one."""
    if IDX_NAME.search(file):
        return [_idx_part(file)]
    if file.lower().endswith(".npy"):
        return [Part("", len(_array(file, "")), "", None)]
    with np.load(file, allow_pickle=False) as arrays:
        names = arrays.files
        parts = [
            _part(file, arrays, images.format(part), part, labels.format(part))
            for images, labels in PAIRS
            for part in PARTS
            if images.format(part) in names
        ]
        if parts:
            return parts
        known = [name for name in IMAGE_NAMES if name in names] or (names if len(names) == 1 else [])
        if not known:
            raise ValueError(f"holds the arrays {', '.join(names)}; name the one with the images {IMAGE_NAMES[0]!r}")
        labels = next((name for name in LABEL_NAMES if name in names), "")
        return [_part(file, arrays, known[0], "", labels)]


def _part(file, arrays, key, split, labels):
    labels = _as_labels(arrays, labels)
    count = _length(file, key, _are_several(arrays.files, labels))
    if not count:
        raise ValueError("holds no images")
    if labels is not None and len(labels) != count:
        raise ValueError(f"{count} images in {key}, but {len(labels)} labels")
    return Part(key, count, split, labels)


def _are_several(names, labels):
    """Whether a file's names and labels say that the first axis of its images is that of images."""
    return (labels is not None and len(labels) > 1) or any(images.format(part) in names for images, _ in PAIRS for part in PARTS)


def read_row(file, key, row):
    """One image `[h, w, c]` of an array, a copy: the array stays in memory for the next, or on disk."""
    return np.array(_array(file, key)[row])


def array_info(file, key):
    """The `ImageInfo` of an array's images."""
    images = _array(file, key)
    return ImageInfo(images.shape[-1], deep=images.dtype != np.uint8)


def as_images(images, several=False):
    """An array of images as `[N, h, w, c]`; one image becomes a set of one, transparency goes.

    Args:
        images: `[N, h, w]`, `[N, h, w, c]`, or one image `[h, w]` or `[h, w, c]`, c 1, 3 or 4.
        several: whether it is known that the first axis is that of images.

    Raises:
        ValueError: for another shape, and for one that can be understood in two ways, naming both.
    """
    if images.ndim == 2 or (images.ndim == 3 and _count(images.shape, several) != len(images)):
        images = images[np.newaxis]
    images = images[..., np.newaxis] if images.ndim == 3 else images
    return images[..., :3] if images.shape[-1] == 4 else images


def _count(shape, several=False):
    """How many images an array of a shape holds, as `as_images` understands it."""
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"shape {shape}; expected [N, height, width] or [N, height, width, channels]")
    if len(shape) == 4:
        if shape[-1] not in (1, 3, 4) and shape[1] in (1, 3, 4):
            raise ValueError(f"shape {shape}, with its channels first; save it as [N, height, width, channels]")
        return shape[0]
    if several and len(shape) == 3:
        return shape[0]
    if len(shape) == 2 or shape[-1] in (1, 3, 4):
        return 1
    if shape[0] in (3, 4):
        raise ValueError(
            f"shape {shape}: {shape[0]} grey images, or one in colour with its channels first? Save it as {(*shape, 1)} or "
            f"{(*shape[1:], shape[0])}"
        )
    return shape[0]


def _length(file, key, several):
    """How long an array of an `.npz` file is, by its head alone."""
    with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        stored = archive.getinfo(f"{key}.npy").file_size
    if dtype.hasobject:
        raise ValueError("pickled objects, which are not read (allow_pickle=False)")
    count = _count(shape, several)
    if math.prod(shape) * dtype.itemsize > stored:
        raise ValueError(f"an array of shape {shape} that ends after {stored} bytes")
    check_decoded(file, stored)
    return count if math.prod(shape) else 0


def _as_labels(arrays, name):
    if name not in arrays.files:
        return None
    labels = arrays[name]
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels)
    if labels.size != len(labels):
        raise ValueError(f"{name} has shape {labels.shape}; expected one label for each image")
    if labels.dtype.kind == "f" and (labels == labels.round()).all():
        labels = labels.astype(np.int64)  # 0.0 is called 0
    return [str(label) for label in labels.ravel()]


def _array(file, key):
    with _lock:
        return _read_array(file, key, file_stamp(file))


@functools.lru_cache(maxsize=2)  # one after another
def _read_array(file, key, stamp):
    """Images `[N, h, w, c]`; pickled objects are refused. `stamp`: so that a file that changed is read anew."""
    several = False
    if IDX_NAME.search(file):
        images, several = _read_idx(file), True
    elif key:
        with np.load(file, allow_pickle=False) as arrays:
            labels = next((name for name in LABEL_NAMES if name in arrays.files), "")
            images, several = arrays[key], _are_several(arrays.files, _as_labels(arrays, labels))
    else:
        images = np.load(file, allow_pickle=False, mmap_mode="r")  # read where it is looked at
    _count(images.shape, several)
    if not images.size:  # a side of 0 with billions of images among them, which no byte of the file would belie
        raise ValueError("holds no images")
    return as_images(images, several)


def _idx_part(file):
    """An IDX file of images, with the labels of the file beside it that is named like it."""
    path = Path(file)
    count, beside = len(_array(file, "")), path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside.is_symlink():
        raise ValueError(f"{beside.name} is a link, not followed")
    name = path.name.lower()
    split = "train" if name.startswith("train") else "test" if name.startswith(("t10k", "test")) else ""
    if not beside.exists():
        return Part("", count, split, None)
    labels = _read_idx(str(beside))
    if labels.shape != (count,):
        raise ValueError(f"{count} images, but labels of shape {labels.shape} in {beside.name}")
    return Part("", count, split, [str(label) for label in labels])


def _read_idx(file):
    """An IDX file, gzipped or not: http://yann.lecun.com/exdb/mnist, two zeros, type, number of axes, sides, values."""
    with (gzip.open if file.endswith(".gz") else open)(file, "rb") as opened:
        zeros, (kind, axes) = opened.read(2), opened.read(2)
        if zeros != b"\0\0" or kind not in _IDX_TYPES:
            raise ValueError("not an IDX file")
        shape = tuple(np.frombuffer(opened.read(4 * axes), ">u4").tolist())
        dtype = np.dtype(_IDX_TYPES[kind])
        wanted = math.prod(shape) * dtype.itemsize
        check_decoded(file, wanted)
        values = opened.read(wanted)
    if len(values) < wanted:
        raise ValueError(f"an IDX file of shape {shape} that ends after {len(values)} of {wanted} bytes")
    return np.frombuffer(values, dtype).reshape(shape)
