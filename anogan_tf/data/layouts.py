"""How sets of images lie on disk: a folder of images, folders by label, the layout of MVTec AD, a table in a CSV file.

Nothing outside a named folder is followed: links that lead out, and paths in a table that do, are refused by name.
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anogan_tf.data.entries import SUFFIXES, ImageRef, entries_of, is_image_name
from anogan_tf.runtime.types import PathLike

NORMAL_LABELS = ("good", "normal", "ok", "0")  # what is normal, unless the user names another label
MASKS = "ground_truth"  # a folder of masks, in folders by label
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
TEST_SHARE = 0.2  # of the normals, where a set has anomalies and nothing says what to test on
# Columns of a table and the names they may have, the first of them that there is.
COLUMN_NAMES = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class"),
    "mask": ("mask",),
    "split": ("split",),
    "group": ("group",),
}


def list_images(
    paths: PathLike | Sequence[PathLike], normal_class: str | int | None = None, root: PathLike | None = None
) -> list[ImageRef]:
    """The images below some paths, in the order of the paths and of the names.

    - a file of an image, an array or a volume, or several
    - a folder of them, searched to any depth but for hidden folders
    - a folder with a folder `good` (or `normal`, `ok`, or `normal_class`) in it: the folders' names are labels
    - the layout of MVTec AD: `train/good`, `test/<label>`, `ground_truth/<label>/<name>_mask.png`, perhaps `validation/good`
    - a CSV file with a column path, and any of label, mask, split, group; paths are relative to `root`

    Where a path has anomalies and nothing says what to test on, all groups with anomalies and a fifth of the others are "test".

    Args:
        paths: one or a list.
        normal_class: the label of what is normal; by default one of `NORMAL_LABELS`.
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
        labels = {entry.label for entries in found for entry in entries} - {""}
        raise ValueError(f"No image is labelled {normal_class!r}; the labels are {name_labels(labels) or 'none'}.")
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
        return _list_table(path, Path(root or path.parent))
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
    labels = {entry.label for entry in entries} - {""}
    normal = {label for label in labels if _is_normal(label, normal_class)}
    if not normal and normal_class is None:
        return entries
    return [entry._replace(normal=entry.label in normal) if entry.label else entry for entry in entries]


def _is_normal(label, normal_class):
    return label == normal_class if normal_class is not None else label.casefold() in NORMAL_LABELS


def check_labels(entries):
    """Raise a ValueError unless of each image with a label it is known whether it is normal."""
    unknown = {entry.label for entry in entries if entry.label and entry.normal is None}
    if unknown:
        raise ValueError(
            f"The images have labels; name the one that is normal (--normal-class, as in training): {name_labels(unknown)}."
        )


def name_labels(labels):
    """Labels for an error message."""
    return ", ".join(sorted(labels)[:20])


def _list_folder(folder, normal_class):
    names = _folders(folder)
    splits = {name: split for name, split in SPLITS.items() if name in names}
    if "train" in splits and _has_normal(folder / "train", normal_class):
        found = [entry for name, split in splits.items() for entry in _list_labels(folder / name, folder, split=split)]
    elif _has_normal(folder, normal_class):
        found = _list_labels(folder, folder)
    else:
        found = _list_files(folder, folder)
        for entry in found:
            _check_plain(entry, folder)
    if not found:
        raise ValueError(f"{folder} holds no images; looked for {', '.join(SUFFIXES)}, IDX and DICOM at any depth.")
    return found


def _folders(folder):
    return sorted(inside.name for inside in os.scandir(folder) if inside.is_dir() and not inside.name.startswith("."))


def _has_normal(folder, normal_class):
    return any(_is_normal_folder(name, normal_class) for name in _folders(folder))


def _is_normal_folder(name, normal_class):
    return _is_normal(name, normal_class) and (normal_class is not None or name != "0")  # which may as well be a number


def _check_plain(entry, folder):
    """Raise a ValueError if a folder of images turns out to hold whole sets, with anomalies and masks."""
    inside = Path(entry.path).parent.relative_to(folder).parts
    if MASKS in inside or any(_is_normal_folder(name, None) for name in inside):
        raise ValueError(
            f"{folder} holds sets of labelled images ({Path(*inside)}). Name the folder of one set, or that of the images alone."
        )


def _list_labels(folder, root, **known):
    """The entries of a folder of folders, each named by its label."""
    found = []
    for label in _folders(folder):
        if label == MASKS:
            continue
        masks = _masks(root / MASKS / label)
        for entry in _list_files(folder / label, root, label=label, **known):
            found.append(entry._replace(mask=masks.get(_stem(entry.path, folder / label), "")))
    return found


def _masks(folder):
    """Masks by the path, below the folder of their label, of the picture they belong to."""
    if not folder.is_dir():
        return {}
    entries = [entry for entry in _list_files(folder, folder.parent.parent) if not entry.refused]
    return {_stem(entry.path, folder).removesuffix("_mask"): entry.path for entry in entries}


def _stem(path, folder):
    """A path below a folder, without its suffix."""
    return os.path.splitext(os.path.relpath(path, folder))[0]


def _list_files(folder, root, **known):
    """The entries below a folder, by name; a link that leads out of the root, or to a folder, has one that says so."""
    if not _is_inside(folder, root) or (os.path.islink(folder) and folder != root):
        return [ImageRef(str(folder), refused="a link to a folder, not followed", **known)]
    found = []
    for parent, folders, files in os.walk(folder):
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):
                found.append((os.path.join(parent, name), "a link to a folder, not followed"))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            file = os.path.join(parent, name)
            if not os.path.isfile(file):
                continue
            if os.path.islink(file) and not _is_inside(file, root):
                found.append((file, f"a link out of {root}, not followed"))
            elif is_image_name(file):
                found.append((file, ""))
    found.sort(key=lambda file: file[0].split(os.sep))
    return [
        entry
        for file, refused in found
        for entry in ([ImageRef(file, refused=refused, **known)] if refused else entries_of(file, **known))
    ]


def _is_inside(path, root):
    return os.path.join(os.path.realpath(path), "").startswith(os.path.join(os.path.realpath(root), ""))


def _list_table(path, root):
    rows = _read_table(path)
    names = {name.strip().lower(): name for name in reversed(rows[0]) if name}
    columns = {
        field: names[known[0]] for field, all_ in COLUMN_NAMES.items() if (known := [name for name in all_ if name in names])
    }
    if "path" not in columns:
        raise ValueError(f"{path} has no column path; it has {', '.join(map(str, rows[0]))}.")
    cells = [{field: (row[name] or "").strip() for field, name in columns.items()} for row in rows]
    found = [entry for row in cells if row["path"] for entry in _row_entries(path, root, row)]
    if not found:
        raise ValueError(f"{path}: no row has a path.")
    return found


def _read_table(path):
    """The rows of a CSV file with commas, semicolons or tabs, as dicts."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=max(",;\t", key=head.count)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} can't be read as a table in UTF-8: {error}. Save it again as CSV UTF-8.") from None
    if not rows:
        raise ValueError(f"{path} has no rows.")
    return rows


def _row_entries(path, root, row):
    known = {field: row.get(field, "") for field in ("label", "split", "group")}
    if known["split"]:
        if known["split"].lower() not in SPLITS:
            raise ValueError(f"{path}: the split of {row['path']} is {known['split']!r}; it can be train, val, test or empty.")
        known["split"] = SPLITS[known["split"].lower()]
    for field in ("path", "mask"):
        file = row.get(field)
        if file and not _is_inside(root / file, root):
            return [ImageRef(str(root / row["path"]), refused=f"{field} {file} lies outside {root}, not followed", **known)]
    if row.get("mask"):
        known["mask"] = str(root / row["mask"])
    if not os.path.isfile(root / row["path"]):
        return [
            ImageRef(str(root / row["path"]), refused=f"no such file below {root}; is that the table's root (--root)?", **known)
        ]
    return entries_of(root / row["path"], **known)
