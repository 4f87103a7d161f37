"""tensorflow-datasets: reading any labelled set of images, and preparing one from files on disk."""

import functools
import re
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from anogan_tf.data.entries import DecodedImage, ImageRef, read_entry
from anogan_tf.data.layouts import check_known, divide
from anogan_tf.data.masks import as_mask, read_mask
from anogan_tf.data.pictures import ImageInfo
from anogan_tf.data.sources import FileSource
from anogan_tf.runtime.remarks import remark
from anogan_tf.runtime.types import PathLike

SPLIT_SIDES = {"train": "train", "test": "test", "validation": "val", "val": "val"}  # tfds's names and ours
_TFDS_SPLIT = {"train": "train", "test": "test", "val": "validation"}
NORMAL = "normal"  # the feature by which the sets that are prepared here say what is
UNLABELLED = "unlabelled"


def open_set(name, data_dir=None):
    """The builder of a set of labelled images, prepared; for the arguments and errors see `TfdsSource`."""
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:  # its message lists the thousand that there are
        where = data_dir or tfds.core.constants.DATA_DIR
        raise ValueError(
            f"{name}: tensorflow-datasets knows no such set, and none is prepared in {where}. Its page lists those that "
            "there are: https://www.tensorflow.org/datasets/catalog"
        ) from None
    builder.download_and_prepare()
    features = dict(builder.info.features)
    for key, kind in (("image", tfds.features.Image), ("label", tfds.features.ClassLabel)):
        if not isinstance(features.get(key), kind):
            raise ValueError(f"{name} has no feature {key!r} of kind {kind.__name__}; it has {', '.join(features)}.")
    return builder


class TfdsSource:
    """The images of a set that tensorflow-datasets knows, or has prepared already.

    Args:
        name: `NAME`, `NAME/CONFIG`, with `:VERSION` or without.
        normal_class: the label of what is normal, its name or its number.
        data_dir: where prepared sets lie; by default `~/tensorflow_datasets`.

    Attributes:
        entries: list of `ImageRef`; a row of the source is a number of this list.

    Raises:
        ValueError: if the set has no images, no labels, or none of that name.
    """

    def __init__(self, name: str, normal_class: str | int | None = None, data_dir: PathLike | None = None) -> None:
        self._builder = open_set(name, data_dir)
        features = dict(self._builder.info.features)
        self._image, self.name = features["image"], self._builder.info.full_name
        self._splits = [split for split in SPLIT_SIDES if split in self._builder.info.splits]
        self.entries = divide(self._list_entries(features, normal_class))

    def _list_entries(self, features, normal_class):
        labels = features["label"]
        known = NORMAL in features  # a set that was prepared here
        if normal_class is None and not known:
            raise ValueError(f"{self.name}: name the label that is normal (--normal-class): {', '.join(labels.names[:20])}.")
        if normal_class is not None and str(normal_class) not in labels.names:
            raise ValueError(f"{self.name} has no label {normal_class!r}; it has {', '.join(labels.names[:20])}.")
        entries = []
        for split in self._splits:
            dataset = self._builder.as_dataset(split=split, decoders=self._without_images(), read_config=_in_order())
            for row, example in enumerate(tfds.as_numpy(dataset)):
                label = labels.int2str(example["label"])
                normal = bool(example[NORMAL]) if normal_class is None else label == str(normal_class)
                group = example["group"].decode() if known else ""
                side = SPLIT_SIDES[split] if self._splits != ["train"] else ""
                entries.append(ImageRef(f"tfds:{self.name}", split, row, label, normal, split=side, group=group))
        return entries

    def _without_images(self):
        names = [key for key in self._builder.info.features if key in ("label", "group", NORMAL)]
        return tfds.decode.PartialDecoding(dict.fromkeys(names, True))

    def elements(self, rows):
        """What `read` needs for each of some rows, as a `tf.data.Dataset` of tuples that begin with the row."""
        return self._examples(rows, ("image",)).map(lambda row, example: (row, example["image"]))

    def masks(self, rows):
        """Yield the mask of each of some rows, `[h, w]` bool, or None. Only sets that were prepared here have any."""
        if "has_mask" not in self._builder.info.features:
            yield from (None for _ in rows)
            return
        for _, example in self._examples(rows, ("mask", "has_mask")).as_numpy_iterator():
            yield as_mask(example["mask"]) if example["has_mask"] else None

    def _examples(self, rows, features):
        """`(row, those features)` of some rows, in their order."""
        rows = np.asarray(rows, np.int64)
        wanted = np.zeros(len(self.entries), bool)
        wanted[rows] = True
        if not (np.diff(rows) > 0).all():
            raise ValueError("Rows of a tfds set are read in their order; sort them.")
        decoders = tfds.decode.PartialDecoding(dict.fromkeys(features, True))
        options = {"decoders": decoders, "read_config": _in_order()}
        first, *others = (self._builder.as_dataset(split=split, **options) for split in self._splits)
        wanted = tf.constant(wanted)
        return functools.reduce(tf.data.Dataset.concatenate, others, first).enumerate().filter(lambda row, example: wanted[row])

    def read(self, row, image):
        """The `DecodedImage` of an element; transparency is dropped."""
        return _picture(self.entries[row], image)

    def info(self, row):
        """The `ImageInfo` of a row."""
        return ImageInfo(1 if self._image.shape[-1] in (1, 2) else 3, deep=self._image.np_dtype != np.uint8)


def splits_of(builder, side):
    """Names of a set's splits on a side of ours, "train", "val" or "test"; for "all" all of them.

    Raises:
        ValueError: if there are none.
    """
    splits = [split for split in SPLIT_SIDES if split in builder.info.splits and side in (SPLIT_SIDES[split], "all")]
    if not splits:
        raise ValueError(f"{builder.info.full_name} has no split {side!r}; it has {', '.join(builder.info.splits)} (--split).")
    return splits


def read_shard(builder, split, shard, first):
    """Yield the `ImageRef` and the `DecodedImage` of each image of one record file, as `TfdsSource` would.

    Args:
        builder: see `open_set`.
        split: the name of a split.
        shard: the number of one of its files.
        first: how many images are in the files before it.
    """
    name, label = f"tfds:{builder.info.full_name}", builder.info.features["label"]
    decoders = tfds.decode.PartialDecoding(dict.fromkeys(("image", "label"), True))
    dataset = builder.as_dataset(split=f"{split}[{shard}shard]", decoders=decoders, read_config=_in_order())
    for row, example in enumerate(tfds.as_numpy(dataset), first):
        entry = ImageRef(name, split, row, label.int2str(example["label"]))
        yield entry, _picture(entry, example["image"])


def _picture(entry, image):
    channels = image.shape[-1]
    return DecodedImage(entry.name, image[..., : channels - (1 - channels % 2)])


def _in_order():
    return tfds.ReadConfig(interleave_cycle_length=1)


def prepare_set(source: FileSource, name: str, data_dir: PathLike | None = None, version: str = "1.0.0") -> Path:
    """Write the images of files as a set of tensorflow-datasets: record files, read in place of the many.

    >>> prepare_set(FileSource.of("mvtec/bottle"), "mvtec/bottle")
    >>> TfdsSource("mvtec/bottle")                                     # or tfds.load("mvtec/bottle", split="test")

    Each example has `image` (uint8, or uint16 where any file has more bits), `label`, `normal`, `mask` with `has_mask`, `group`
    and `name`. Floats can't be stored, and nothing is skipped: a file that can't be read is an error.

    Args:
        source: a `FileSource`.
        name: `NAME` or `NAME/CONFIG`.
        data_dir: where prepared sets lie; by default `~/tensorflow_datasets`.
        version: three numbers.

    Returns:
        The folder that was written.

    Raises:
        ValueError: for an image that can't be stored, by name; for labels of which none is known to be normal.
        FileExistsError: if there is such a set already.
    """
    entries = source.entries
    check_known(entries)
    if not re.fullmatch(r"[a-z][a-z0-9_]*(/[A-Za-z0-9_.-]*[A-Za-z0-9_])?", name):
        raise ValueError(f"name={name!r}: small letters, digits and _, and after a / perhaps another name, such as mvtec/bottle.")
    if broken := [entry.label for entry in entries if len(entry.label.splitlines()) > 1]:
        raise ValueError(f"{broken[0]!r} has a line break; a label can't.")
    heads = [head for head in map(source.info, range(len(entries))) if head is not None]
    channels, deep = max((head.channels for head in heads), default=1), any(head.deep for head in heads)
    kind = np.uint16 if deep else np.uint8
    if shallow := [
        entry.name for entry, head in zip(entries, map(source.info, range(len(entries)))) if head and deep > head.deep
    ]:
        remark(f"{len(shallow)} images have 8 bits ({shallow[0]}); kept in 16 they fit the others where those use all of these.")
    features = {
        "image": tfds.features.Image(shape=(None, None, channels), dtype=kind, encoding_format="png"),
        "label": tfds.features.ClassLabel(names=sorted({entry.label or UNLABELLED for entry in entries})),
        NORMAL: np.bool_,
        "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        "has_mask": np.bool_,
        "group": tfds.features.Text(),
        "name": tfds.features.Text(),
    }
    by_split: dict[str, list[int]] = {}
    for row, entry in enumerate(entries):
        by_split.setdefault(_TFDS_SPLIT.get(entry.split, "train"), []).append(row)
    set_name, _, config = name.partition("/")
    builder = tfds.dataset_builders.AdhocBuilder(
        name=set_name,
        config=config or None,
        version=version,
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: _Examples(source, rows, channels, kind) for split, rows in by_split.items()},
        data_dir=data_dir,
        description="Images from files, with what their layout says of them.",
        disable_shuffling=True,
    )
    if builder.is_prepared():
        raise FileExistsError(f"{builder.data_dir} exists; remove it, or choose another name (in Python also a version).")
    builder.download_and_prepare()
    return Path(builder.data_dir)


class _Examples:
    """Numbered examples, read as they are written."""

    def __init__(self, source, rows, channels, kind):
        self._source, self._rows, self._channels, self._kind = source, rows, channels, kind

    def __iter__(self):
        for row in self._rows:
            entry = self._source.entries[row]
            pixels = _stored(_required(entry), self._channels, self._kind)
            mask = read_mask(entry)
            mask = np.zeros(pixels.shape[:2], bool) if mask is None else mask
            yield (
                row,
                {
                    "image": pixels,
                    "label": entry.label or UNLABELLED,
                    NORMAL: entry.normal is not False,
                    "mask": mask[..., np.newaxis].astype(np.uint8) * 255,
                    "has_mask": bool(entry.masks),
                    "group": entry.group,
                    "name": entry.name,
                },
            )


def _required(entry):
    picture = read_entry(entry)
    if picture.pixels is None:
        raise ValueError(f"{entry.name}: {picture.reason}")
    return picture


def _stored(picture, channels, kind):
    pixels = picture.pixels
    if pixels.dtype.kind == "f":
        raise ValueError(f"{picture.name} holds floats; tensorflow-datasets keeps pixels of 8 and 16 bits.")
    if pixels.dtype == np.uint8 and kind == np.uint16:
        pixels = pixels.astype(np.uint16) * 257
    if pixels.shape[-1] != channels:
        pixels = np.repeat(pixels, 3, axis=-1) if channels == 3 else pixels[..., :1]
    return pixels
