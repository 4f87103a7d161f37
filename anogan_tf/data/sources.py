"""Sets of images as a stream: from names to prepared images, in parallel, in order, in bounded memory."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from anogan_tf.data.disk import DiskArray
from anogan_tf.data.entries import DecodedImage, ImageRef, info_of, read_entry
from anogan_tf.data.layouts import check_known, check_labels, list_images
from anogan_tf.data.masks import read_mask
from anogan_tf.data.names import name_some
from anogan_tf.data.pictures import ImageInfo
from anogan_tf.data.preprocessing import Preprocessing, to_network, to_pixels
from anogan_tf.runtime.remarks import remark
from anogan_tf.runtime.types import Array, PathLike, PixelArrays, Source

READERS = min(os.cpu_count() or 1, 8)  # images that are read in parallel; each may be large
DEPTHS = (9, 10, 12, 14, 16)  # bits that cameras and scanners have
QUANTILES = (0.001, 0.999)  # of an image's values, what its range is taken from: a hot pixel shall not decide it


class FileSource:
    """Images in files.

    Attributes:
        entries: list of `ImageRef`; a row of the source is a number of this list.
    """

    def __init__(self, entries: list[ImageRef]) -> None:
        self.entries = entries

    @classmethod
    def of(
        cls, paths: PathLike | Sequence[PathLike], normal_class: str | int | None = None, root: PathLike | None = None
    ) -> "FileSource":
        """The images below some paths, see `list_images`."""
        return cls(list_images(paths, normal_class, root))

    def elements(self, rows):
        """What `read` needs for each of some rows, as a `tf.data.Dataset` of tuples that begin with the row."""
        return tf.data.Dataset.from_tensor_slices((np.asarray(rows, np.int64),))

    def read(self, row):
        """The `DecodedImage` of an element."""
        return read_entry(self.entries[row])

    def masks(self, rows):
        """Yield the mask of each of some rows: `[h, w]` bool, None where it has none, or the ValueError why it can't be read."""
        for row in rows:
            try:
                yield read_mask(self.entries[row])
            except ValueError as error:
                yield error

    def info(self, row):
        """The `ImageInfo` of a row, or None where it can't be read."""
        return info_of(self.entries[row])


class ArraySource:
    """Images in memory, with what is known of each: what `evaluate` and `image_dataset` take in place of files.

    Attributes:
        entries: list of `ImageRef`; a row of the source is a number of this list.

    Args:
        pixels: `[N, h, w]` or `[N, h, w, c]`, or a list of images of any sizes.
        labels: `[N]`, 0 normal, 1 anomalous; or names of what they show, of which `normal_class` is normal.
        normal_class: see labels.
        masks: `[N]`, for each a `[h, w]` array, true where the anomaly is, or None.
        splits: `[N]`, "train", "val", "test" or ""; one string for all of them.
        name: what errors and reports call it.
    """

    def __init__(
        self,
        pixels: PixelArrays,
        labels: Array,
        normal_class: str | int | None = None,
        masks: Sequence[Array | None] | None = None,
        splits: str | Sequence[str] = "",
        name: str = "images",
    ) -> None:
        splits = [splits] * len(pixels) if isinstance(splits, str) else [str(split) for split in splits]
        counts = {"labels": labels, "splits": splits, **({} if masks is None else {"masks": masks})}
        for what, values in counts.items():
            if len(values) != len(pixels):
                raise ValueError(f"{len(pixels)} images, but {len(values)} {what}; each image needs one.")
        if normal_class is None and not {*np.unique(np.asarray(labels)).tolist()} <= {0, 1}:
            raise ValueError("labels are neither 0 (normal) nor 1 (anomalous); name what is normal: normal_class=...")
        if unknown := sorted({*splits} - {"train", "val", "test", ""}):
            raise ValueError(f"splits hold {', '.join(map(repr, unknown))}; there are 'train', 'val', 'test' and ''.")
        self._pixels, self._masks = pixels, masks
        self.entries = [
            ImageRef(
                name,
                row=row,
                label="" if normal_class is None else str(label),
                normal=str(label) == str(normal_class) if normal_class is not None else not label,
                split=split,
            )
            for row, (label, split) in enumerate(zip(labels, splits))
        ]

    def elements(self, rows):
        """What `read` needs for each of some rows, as a `tf.data.Dataset` of tuples that begin with the row."""
        return tf.data.Dataset.from_tensor_slices((np.asarray(rows, np.int64),))

    def read(self, row):
        """The `DecodedImage` of an element."""
        pixels = np.asarray(self._pixels[row])
        return DecodedImage(self.entries[row].name, pixels if pixels.ndim == 3 else pixels[..., np.newaxis])

    def masks(self, rows):
        """Yield the mask of each of some rows, `[h, w]` bool, or None."""
        for row in rows:
            mask = None if self._masks is None else self._masks[row]
            yield None if mask is None else np.asarray(mask, bool)

    def info(self, row):
        """The `ImageInfo` of a row."""
        pixels = self.read(row).pixels
        return ImageInfo(pixels.shape[-1], deep=pixels.dtype != np.uint8)


class Sample(NamedTuple):
    """An image of a stream.

    Attributes:
        row: its number in the source.
        entry: its `ImageRef`.
        image: `[H, W, C]` float32 in [-1, 1], or None where it can't be read.
        display: `[h, w, c]` uint8, as it was stored but no larger than was asked for; empty if nothing was.
        size: height and width as it was stored.
        reason: why it can't be read, or "".
    """

    row: int
    entry: ImageRef
    image: np.ndarray | None
    display: np.ndarray
    size: tuple
    reason: str


def image_dataset(
    source: Source, preprocessing: Preprocessing, rows: Sequence[int] | np.ndarray | None = None, display_side: int = 0
) -> tf.data.Dataset:
    """Images of a source, read and prepared in parallel, in the order of the rows.

    Args:
        source: a `FileSource` or `TfdsSource`.
        preprocessing: a `Preprocessing`.
        rows: which of the source; by default all.
        display_side: give a picture for display too, with sides no longer than this.

    Returns:
        A `tf.data.Dataset` of dicts, for `AnoGAN.predict_prepared` or networks of your own: `row`, `name`, `label` (scalars),
        `image` `[H, W, C]` float32 in [-1, 1], `display` `[h, w, c]` uint8, `size` `[2]`, the height and width
        as it was stored, and `reason`, which isn't empty where an image
        can't be read; `image` is then of no use.
    """
    rows = range(len(source.entries)) if rows is None else rows
    *sides, channels = preprocessing.image_shape
    nothing = tf.zeros([side or 1 for side in sides] + [channels])
    said: list[str] = []

    def say_of(name):
        """How to say a line of an image: once, of the first of many."""

        def say(line):
            if not said:
                said.append(name)
                remark(f"{name}: {line}")

        return say

    def read(*element):
        picture, display = source.read(*element), np.zeros((0, 0, 1), np.uint8)
        values, reason, size = np.zeros((1, 1, 1), np.float32), picture.reason, (0, 0)
        if picture.pixels is not None:
            try:
                pixels = preprocessing.check(picture.pixels[np.newaxis], "image", say_of(picture.name))
                values = np.asarray(preprocessing.to_unit(pixels))[0]
                display, size = for_display(values, display_side), values.shape[:2]
            except ValueError as error:
                reason = str(error)
        entry = source.entries[element[0]]
        return (
            values,
            display,
            np.array(size, np.int32),
            *(_encoded(text) for text in (reason, entry.name, entry.label)),
        )

    def load(*element):
        kinds = (tf.float32, tf.uint8, tf.int32, tf.string, tf.string, tf.string)
        values, display, size, reason, name, label = tf.numpy_function(read, element, kinds, stateful=False)
        values = tf.ensure_shape(values, (None, None, None))
        image = tf.cond(reason == b"", lambda: to_network(preprocessing.arrange(values[tf.newaxis])[0]), lambda: nothing)
        image, display = tf.ensure_shape(image, preprocessing.image_shape), tf.ensure_shape(display, (None, None, None))
        texts = {name: tf.ensure_shape(text, ()) for name, text in (("name", name), ("label", label), ("reason", reason))}
        return {"row": element[0], "image": image, "display": display, "size": tf.ensure_shape(size, (2,)), **texts}

    return source.elements(rows).map(load, num_parallel_calls=READERS, deterministic=True).prefetch(READERS)


def _encoded(text):
    return text.encode("utf-8", "backslashreplace")


def read_samples(
    source: Source,
    preprocessing: Preprocessing,
    rows: Sequence[int] | np.ndarray | None = None,
    display_side: int = 0,
    strict: bool = False,
) -> Iterator[Sample]:
    """Yield the `Sample`s of `image_dataset`.

    Raises:
        ValueError: with `strict`, naming the first image that can't be read.
    """
    for element in image_dataset(source, preprocessing, rows, display_side).as_numpy_iterator():
        entry, reason = source.entries[element["row"]], element["reason"].decode()
        if reason and strict:
            raise ValueError(f"{entry.name}: {reason}")
        image, size = None if reason else element["image"], tuple(int(side) for side in element["size"])
        yield Sample(int(element["row"]), entry, image, element["display"], size, reason)


def readable(samples, skipped, on_progress):
    """Yield the samples that could be read; of the others add a `DecodedImage` to `skipped`, and `on_progress()`."""
    for sample in samples:
        if sample.image is not None:
            yield sample
            continue
        skipped.append(DecodedImage(sample.entry.name, None, sample.reason))
        on_progress()


def for_display(values, side):
    """Pixels `[h, w, c]` in [0, 1] as uint8 with sides no longer than `side`."""
    if not side:
        return np.zeros((0, 0, 1), np.uint8)
    levels = np.round(values * 255.0).astype(np.uint8)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    image.thumbnail((side, side))
    display = np.asarray(image)
    return display if display.ndim == 3 else display[..., np.newaxis]


class Images(NamedTuple):
    """Images as they are stored: a list of `[h, w, c]`, their entries, and the `DecodedImage`s that can't be read."""

    pixels: list
    entries: list[ImageRef]
    skipped: list[DecodedImage]

    @property
    def names(self):
        return [entry.name for entry in self.entries]


def load_images(
    paths: PathLike | Sequence[PathLike], normal_class: str | int | None = None, root: PathLike | None = None
) -> Images:
    """All images below some paths, in memory: a list as `GAN.fit`, `calibrate` and `predict` take it.

    Of a set with labels all images are read; `Images.entries` says which are normal.

    Args:
        paths, normal_class, root: as for `list_images`.

    Returns:
        `Images`. Unreadable files are skipped and listed.

    Raises:
        FileNotFoundError: if a path doesn't exist.
        ValueError: if no image can be read.
    """
    pixels, entries, skipped = [], [], []
    found = list_images(paths, normal_class, root)
    _say_what_is_among(found)
    for entry in found:
        picture = read_entry(entry)
        if picture.pixels is None:
            skipped.append(picture)
        else:
            pixels.append(picture.pixels)
            entries.append(entry)
    if not pixels:
        raise ValueError(none_readable(skipped))
    return Images(pixels, entries, skipped)


def _say_what_is_among(entries):
    """A line where not all of some images are known to be normal: who trains on them has to choose."""
    if folders := {entry.folder for entry in entries if entry.folder}:
        remark(f"The images lie in folders ({name_some(folders)}), none known to be normal: `entries[i].folder` says where.")
    if anomalous := sum(entry.normal is False for entry in entries):
        remark(f"{anomalous} of {len(entries)} images are anomalous: `entries[i].normal` says which.")


def none_readable(skipped):
    """What to say where all of some images were skipped."""
    return f"None of {len(skipped)} images can be read; the first, {skipped[0].name}: {skipped[0].reason}"


class Pool(NamedTuple):
    """Prepared images, or tiles of them, on disk, to train on.

    Attributes:
        pixels: `DiskArray` `[N, H, W, C]` in [0, 1].
        rows: `[N]`, the source's row that each is of.
        skipped: the `DecodedImage`s that can't be read.
        fingerprint: a digest of the pixels in their order.
    """

    pixels: DiskArray
    rows: np.ndarray
    skipped: list[DecodedImage]
    fingerprint: str


def fill_pool(
    source,
    preprocessing,
    rows,
    shape,
    cut=lambda row, image: image[np.newaxis],
    folder=None,
    strict=False,
    on_progress=lambda: None,
):
    """Read images once and keep what is trained on.

    Args:
        source, preprocessing, rows, strict: as for `read_samples`.
        shape: `(H, W, C)` of what is kept.
        cut: from a row and its image to what is kept of it, `[n, H, W, C]`.
        folder: where the file lies.
        on_progress: called after each image, for a progress display.

    Returns:
        `Pool`.
    """
    pixels, source_rows, digest = DiskArray(shape, folder), [], hashlib.sha256()
    skipped: list[DecodedImage] = []
    for sample in readable(read_samples(source, preprocessing, rows, strict=strict), skipped, on_progress):
        kept = cut(sample.row, to_pixels(sample.image))
        pixels.append(kept)
        digest.update(np.ascontiguousarray(kept, np.float32).data)
        source_rows.append(np.full(len(kept), sample.row))
        on_progress()
    if not source_rows:
        raise ValueError(none_readable(skipped))
    return Pool(pixels, np.concatenate(source_rows), skipped, digest.hexdigest())


def read_infos(source, rows):
    """The `ImageInfo` of each row that can be read, by row. Of files only the heads are read."""
    return {row: head for row in rows if (head := source.info(row)) is not None}


def count_channels(source, heads):
    """3 where any of some images shows a colour, else 1: grey pictures are often kept as RGB. Those are read until one does."""
    stored = [row for row, head in heads.items() if head.channels == 3]
    for element in source.elements(stored).as_numpy_iterator() if stored else ():
        pixels = source.read(*element).pixels
        if pixels is not None and (pixels != pixels[..., :1]).any():
            return 3
    if stored:
        remark(
            f"{len(stored)} images are kept as RGB and show no colour, such as {source.entries[stored[0]].name}: taken as grey."
        )
    return 1


def value_range(source, heads):
    """The `value_range` of a `Preprocessing` for some images, None for the whole range of what they are stored in.

    That is what images get that are all floats in [0, 1], or of 8 bits. Else it is the least and the largest of all images'
    `QUANTILES`, for which those with more bits are read. Where some have 8 bits, the others are taken by the bits that they use,
    from 0, and a line says so.

    Raises:
        ValueError: for DICOM files of which some have a window and others none.
    """
    deep, shallow = ([row for row, head in heads.items() if head.deep == is_deep] for is_deep in (True, False))
    low, high, top, whole = np.inf, -np.inf, 0, True
    for element in source.elements(deep).as_numpy_iterator() if deep else ():
        pixels = source.read(*element).pixels
        if pixels is None or pixels.dtype.kind not in "fu" or not np.isfinite(pixels).all():
            continue
        whole &= pixels.dtype.kind == "f" and pixels.min() >= 0.0 and pixels.max() <= 1.0
        least, largest = np.quantile(pixels, QUANTILES)
        low, high, top = min(low, least), max(high, largest), max(top, pixels.max())
    if whole or not low < high:
        return None
    return _beside_8_bits(source, shallow, deep, low, top) if shallow else (float(low), float(high))


def _beside_8_bits(source, shallow, deep, low, top):
    """The range of images with more bits that use them up to `top`, where others have 8."""
    element = next(iter(source.elements(shallow[:1]).as_numpy_iterator()))
    pixels, name = source.read(*element).pixels, source.entries[shallow[0]].name
    if pixels is not None and pixels.dtype.kind == "f":
        raise ValueError(
            f"{name} comes in [0, 1], by its window if it is DICOM, and {source.entries[deep[0]].name} in values up to {top:g}; "
            "train on one kind alone."
        )
    bits = next((bits for bits in DEPTHS if top < 2**bits), None) if low >= 0 else None
    if bits is None:
        remark(
            f"{name} has 8 bits, and {len(deep)} images hold values from {low:g} to {top:g}, black and white to them (--range)."
        )
        return float(low), float(top)
    if bits == DEPTHS[-1]:
        return None
    remark(f"{name} has 8 bits and {len(deep)} images have {bits}; white is 255 in the one kind, {2**bits - 1} in the others.")
    return 0.0, float(2**bits - 1)


def normal_rows(source, split="train"):
    """Rows of a source to train on (or of "val", to calibrate on): all that is not known to be anomalous or for another use."""
    check_known(source.entries)
    splits = ("", split) if split == "train" else (split,)
    return [row for row, entry in enumerate(source.entries) if entry.normal is not False and entry.split in splits]


def rows_to_score(source, split="test"):
    """Rows of a source on one side of its splits, or of no split; for "all" all.

    Raises:
        ValueError: if there are none; or if images have labels and it isn't known which is normal, so not what was trained on.
    """
    if split != "all" and not any(entry.split for entry in source.entries):
        check_labels(source.entries)
    rows = [row for row, entry in enumerate(source.entries) if split == "all" or entry.split in ("", split)]
    if not rows:
        sides = sorted({entry.split for entry in source.entries})
        raise ValueError(f"No image is on the side {split!r} of the split; there are {', '.join(sides)}, and all (--split).")
    return rows
