"""How sets of images lie on disk: a folder of images, folders by label, the layout of MVTec AD, a table in a CSV file.

Nothing outside a named folder is followed: links that lead out, and paths in a table that do, are refused by name.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anogan_tf.data import masks
from anogan_tf.data.entries import SUFFIXES, ImageRef, entries_of, is_image_name
from anogan_tf.data.names import is_inside, is_normal, label_of, name_some, split_of
from anogan_tf.data.tables import list_table
from anogan_tf.runtime.remarks import remark
from anogan_tf.runtime.types import PathLike

TEST_SHARE = 0.2  # of the normals, where a set has anomalies and nothing says what to test on
BINARY = {"0", "1"}  # labels of which 0 is what is normal
BY_MASK = {True: "good", False: "defect"}  # labels of images of which only masks say what they show
ANOMALOUS = ("bad", "defect", "defects", "defective", "anomaly", "anomalous", "abnormal", "ng", "nok", "ko", "not_good", "1")


def list_images(
    paths: PathLike | Sequence[PathLike], normal_class: str | int | None = None, root: PathLike | None = None
) -> list[ImageRef]:
    """The images below some paths, in the order of the paths and of the names.

    - a file of an image, an array or a volume, or several
    - a folder of them, searched to any depth but for hidden folders; where they lie in several sub-folders of which none is known
      to be normal, `ImageRef.folder` says in which, and whoever trains on them asks
    - a folder with a folder `good` (or `normal`, `ok`, or `normal_class`) in it: the folders' names are labels
    - the layout of MVTec AD: `train/good`, `test/<label>`, `ground_truth/<label>/<name>_mask.png`, perhaps `validation/good`
    - masks beside any of these: in a folder `masks`, `ground_truth`, `gt`, `Label` or the like, or `7_mask.png` beside `7.png`;
      of images without labels those with a mask that isn't empty are anomalous
    - a CSV file with a column path, and any of label, mask, split, group; paths are relative to `root`

    Where a path has anomalies and nothing says what to test on, all groups with anomalies and a fifth of the others are "test".

    Args:
        paths: one or a list.
        normal_class: the label of what is normal; by default `good`, `normal` or `ok`, and of labels 0 and 1 in a file 0.
        root: the folder that all paths in a table lie below; by default the one that the table lies in.

    Returns:
        A list of `ImageRef`.

    Raises:
        FileNotFoundError: if a path doesn't exist.
        ValueError: if there is no image below a folder, none of `normal_class`, or a group on both sides of a split.
    """
    found = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        found.append(divide(_with_normal(_list_path(Path(path), normal_class, root), normal_class)))
    if not found:
        raise ValueError("No paths given; name a folder or image files.")
    if normal_class is not None and not any(entry.normal for entries in found for entry in entries):
        labels = {entry.label or entry.folder for entries in found for entry in entries} - {""}
        raise ValueError(f"No image is labelled {normal_class!r}; the labels are {name_some(labels) or 'none'}.")
    # An image that is named twice counts once.
    found = list({(entry.path, entry.key, entry.row, entry.refused): entry for entries in found for entry in entries}.values())
    _check_groups(found)
    return found


def _list_path(path, normal_class, root):
    if path.is_dir():
        return _list_folder(path, normal_class)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    if path.suffix.lower() == ".csv":
        return list_table(path, Path(root or path.parent))
    return entries_of(path)


def divide(entries):
    """Say what to train and to test on, where a set has anomalies and says neither.

    Args:
        entries: a list of `ImageRef`, a set.

    Returns:
        Another list, with a `split` for each image where the set has anomalies or says it of any.
    """
    if any(entry.split for entry in entries):
        return [entry._replace(split=entry.split or ("test" if entry.normal is False else "train")) for entry in entries]
    if not any(entry.normal is False for entry in entries):
        return entries
    groups = _groups(entries)
    tested = {group for entry, group in zip(entries, groups) if entry.normal is False}
    others = sorted(set(groups) - tested)
    # The same for the same set, whatever seed it is trained with: what is tested on must never have been trained on.
    order = np.random.default_rng(0).permutation(len(others))
    tested |= {others[row] for row in order[: round(TEST_SHARE * len(others))]}
    return [entry._replace(split="test" if group in tested else "train") for entry, group in zip(entries, groups)]


def _groups(entries):
    return [entry.group or f"\0{row}" for row, entry in enumerate(entries)]


def _check_groups(entries):
    sides: dict[str, str] = {}
    for entry in entries:
        if entry.group and entry.split and sides.setdefault(entry.group, entry.split) != entry.split:
            raise ValueError(
                f"Group {entry.group!r} has images in both {sides[entry.group]!r} and {entry.split!r} ({entry.name}); "
                "a group must be on one side of a split."
            )


def _with_normal(entries, normal_class):
    """Entries that know whether they are normal, where they have a label and one of the labels is known to be normal."""
    labels = {entry.label for entry in entries if entry.normal is None} - {""}
    normal = {label for label in labels if is_normal(label, normal_class)}
    if normal_class is None and labels <= BINARY:
        normal |= labels & {"0"}
    if not normal and normal_class is None:
        return entries
    return [entry._replace(normal=entry.label in normal) if entry.label and entry.normal is None else entry for entry in entries]


def check_labels(entries):
    """Raise a ValueError unless of each image with a label it is known whether it is normal."""
    if unknown := {entry.label for entry in entries if entry.label and entry.normal is None}:
        raise ValueError(
            f"The images have labels; name the one that is normal (--normal-class, as in training): {name_some(unknown)}."
        )


def check_known(entries):
    """`check_labels`, and a ValueError too where folders may say what images show: for whoever needs to know what is normal."""
    check_labels(entries)
    if folders := {entry.folder for entry in entries if entry.folder}:
        raise ValueError(
            f"The images lie in folders that may say what they show: {name_some(folders)}. Name the one that is normal "
            "(--normal-class); where all are, name each folder itself (such as parts/*)."
        )


class _Found(NamedTuple):
    """A file below a folder: the parts of its path there, why it isn't to be read, and what the folders say of it."""

    parts: tuple[str, ...]
    refused: str = ""
    label: str = ""
    split: str = ""
    folder: str = ""


BESIDE = "lies beside the folders that say what images show ({}); move it into one"


def _list_folder(folder, normal_class):
    found = _find_files(folder)
    images, of_masks = masks.separate([file.parts for file in found if not file.refused], folder)
    if not images and not any(file.refused for file in found):
        if of_masks:
            raise ValueError(
                f"{folder} holds nothing but masks ({'/'.join(of_masks[0])}, ...); if they are images, name their folder."
            )
        raise ValueError(f"{folder} holds no images; looked for {', '.join(sorted(SUFFIXES))}, IDX and DICOM at any depth.")
    left_out = set(of_masks)
    files = _describe([file for file in found if file.parts not in left_out], folder, normal_class)
    files.sort(key=lambda file: (file.split == "test", file.split == "val", file.parts))
    matched, alone = masks.match([f.parts for f in files], of_masks, [is_normal(f.label, normal_class) for f in files])
    entries = [entry for file, its in zip(files, matched) for entry in _entries(folder, file, its, normal_class)]
    if not of_masks or any(file.folder for file in files):  # whose they are isn't known before the question is answered
        return entries
    if any(its for its in matched) and not any(file.label or file.folder for file in files):
        return _by_mask(entries, folder, alone)
    anomalous = [entry for entry in entries if entry.normal is False and not entry.refused]
    masks.say_unmatched(folder, alone, [entry.name for entry in anomalous if not entry.masks], len(anomalous))
    return entries


def _entries(folder, file, its_masks, normal_class):
    path, known = str(folder.joinpath(*file.parts)), {"label": file.label, "split": file.split, "folder": file.folder}
    known["masks"] = tuple(str(folder.joinpath(*parts)) for parts in its_masks)
    entries = [ImageRef(path, refused=file.refused, **known)] if file.refused else entries_of(path, **known)
    normal = is_normal(file.label, normal_class) if file.label else None  # a file's own labels count before its folder's
    return [entry._replace(normal=normal) if file.label and entry.label == file.label else entry for entry in entries]


def _by_mask(entries, folder, alone):
    """Images that have no labels but masks: which of these is empty says which are normal."""
    entries = [
        entry if entry.label else entry._replace(label=BY_MASK[empty], normal=empty)
        for entry, empty in zip(entries, masks.empty_masks(entries))
    ]
    count = sum(entry.normal is False for entry in entries)
    remark(
        f"{folder}: {count} images have a mask that isn't empty, so they are anomalous; the other {len(entries) - count} normal."
    )
    masks.say_unmatched(folder, alone, [], 0)
    return entries


def _describe(found, folder, normal_class):
    """What the folders say of each of some files."""
    base = _only_folder([file.parts for file in found], normal_class)
    inner = [file.parts[len(base) :] for file in found]
    names = {parts[0] for parts in inner if len(parts) > 1}
    sides = {name: split_of(name) for name in names if split_of(name)}
    deeper = {parts[1] for parts in inner if len(parts) > 2 and parts[0] in sides}
    if "train" in sides.values() and (len(sides) > 1 or any(is_normal(name, normal_class) for name in deeper)):
        return [_in_split(*pair, sides, deeper, normal_class) for pair in zip(found, inner)]
    if any(is_normal(name, normal_class) for name in names):
        return [_in_label(*pair, names) for pair in zip(found, inner)]
    inside = next((parts for parts in inner if any(is_normal(name, None) for name in parts[1:-1])), None)
    if inside:
        raise ValueError(
            f"{folder} holds sets of labelled images ({'/'.join((*base, *inside[:-1]))}). "
            "Name the folder of one set, or that of the images alone."
        )
    if len({parts[0] if len(parts) > 1 else "" for parts in inner}) > 1:
        return [file._replace(folder=parts[0] if len(parts) > 1 else ".") for file, parts in zip(found, inner)]
    if base and label_of(base[-1]).casefold() in ANOMALOUS:
        return [file._replace(folder=base[-1]) for file in found]
    return found


def _only_folder(files, normal_class):
    """The folders from the top down that all files lie in, as long as none of them says anything."""
    base: tuple[str, ...] = ()
    while files and len(names := {parts[len(base)] if len(parts) > len(base) + 1 else "" for parts in files}) == 1:
        (name,) = names
        if not name or is_normal(name, normal_class) or split_of(name):
            break
        base += (name,)
    return base


def _in_split(file, parts, sides, deeper, normal_class):
    """A file below a folder with the folders train and test: which side it is on, and its label where one is normal."""
    if len(parts) == 1 or parts[0] not in sides:
        return file._replace(refused=file.refused or BESIDE.format(name_some(sides)))
    file = file._replace(split=sides[parts[0]])
    if len(parts) == 2:
        return file._replace(refused=file.refused or BESIDE.format(name_some(deeper))) if deeper else file
    if any(is_normal(name, normal_class) for name in deeper):
        return file._replace(label=label_of(parts[1]))
    return file._replace(folder=parts[1]) if len(deeper) > 1 else file


def _in_label(file, parts, names):
    """A file below a folder of folders that are called by their labels."""
    if len(parts) == 1:
        return file._replace(refused=file.refused or BESIDE.format(name_some(names)), label="")
    return file._replace(label=label_of(parts[0]))


def _find_files(folder):
    """The images below a folder, masks too, by name; a link that leads out of it, or to a folder, is there with what that is."""
    found = []
    for parent, folders, files in os.walk(folder):
        above = Path(parent).relative_to(folder).parts
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):
                found.append(_Found((*above, name), "a link to a folder, not followed"))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            file = os.path.join(parent, name)
            if not os.path.isfile(file):
                continue
            if os.path.islink(file) and not is_inside(file, folder):
                found.append(_Found((*above, name), f"a link out of {folder}, not followed"))
            elif is_image_name(file):
                found.append(_Found((*above, name)))
    return sorted(found, key=lambda file: file.parts)
