"""How sets of images lie on disk: a folder of images, folders by label, the layout of MVTec AD, a table in a CSV file.

Nothing outside a named folder is followed: links that lead out, and paths in a table that do, are refused by name.
"""

import csv
import os
from pathlib import Path

import numpy as np

from anogan_tf.data.entries import SUFFIXES, Entry, entries_of, is_image_name

NORMAL_LABELS = ("good", "normal", "ok", "0")  # what is normal, unless the user names another label
MASKS = "ground_truth"  # a folder of masks, in folders by label
TEST_SHARE = 0.2  # of the normals, where a set has anomalies and nothing says what to test on
# Columns of a table and the names they may have.
COLUMNS = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class"),
    "mask": ("mask",),
    "split": ("split",),
    "group": ("group",),
}


def list_images(paths, normal_class=None, root=None):
    """The images below some paths, in the order of the paths and of the names.

    - a file of an image, an array or a volume, or several
    - a folder of them, searched to any depth
    - a folder with a folder `good` (or `normal`, `ok`, or `normal_class`) in it: the folders' names are labels
    - the layout of MVTec AD: `train/good`, `test/<label>`, `ground_truth/<label>/<name>_mask.png`
    - a CSV file with a column path, and any of label, mask, split, group; paths are relative to `root`

    Where a set has anomalies and nothing says what to test on, all groups with anomalies and a fifth of the others are "test".

    Args:
        paths: one or a list.
        normal_class: the label of what is normal; by default one of `NORMAL_LABELS`.
        root: the folder that all paths in a table lie below; by default the one that the table lies in.

    Returns:
        A list of `Entry`.

    Raises:
        FileNotFoundError: if a path doesn't exist.
        ValueError: if there is no image below a folder, none of `normal_class`, or a group on both sides of a split.
    """
    found = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(path)
        if path.is_dir():
            found += _list_folder(path, normal_class)
        elif not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder.")
        elif path.suffix.lower() == ".csv":
            found += _list_table(path, Path(root or path.parent))
        else:
            found += entries_of(path)
    if not found:
        raise ValueError("No paths given; name a folder or image files.")
    return divide(_with_normal(found, normal_class))


def divide(entries):
    """Say what to train and to test on, where a set has anomalies and says neither; check that no group is on both sides.

    Args:
        entries: a list of `Entry`.

    Returns:
        Another list; `split` is changed where no entry had one.

    Raises:
        ValueError: naming a group that is on both sides.
    """
    if any(entry.split for entry in entries):
        _check_groups(entries)
        return entries
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
    sides = {}
    for entry in entries:
        if entry.group and entry.split and sides.setdefault(entry.group, entry.split) != entry.split:
            raise ValueError(
                f"Group {entry.group!r} has images in both {sides[entry.group]!r} and {entry.split!r} ({entry.name}); "
                "a group must be on one side of a split."
            )


def _with_normal(entries, normal_class):
    """Entries that know whether they are normal, where they have a label and one of the labels is known to be normal."""
    labels = {entry.label for entry in entries} - {""}
    normal = labels & ({normal_class} if normal_class is not None else set(NORMAL_LABELS))
    if normal_class is not None and not normal:
        raise ValueError(f"No image is labelled {normal_class!r}; the labels are {name_labels(labels) or 'none'}.")
    if not normal:
        return entries
    return [entry._replace(normal=entry.label in normal) if entry.label else entry for entry in entries]


def name_labels(labels):
    """Labels for an error message."""
    return ", ".join(sorted(labels)[:20])


def _list_folder(folder, normal_class):
    names = NORMAL_LABELS if normal_class is None else (normal_class,)
    if any((folder / "train" / name).is_dir() for name in names):
        found = _list_benchmark(folder)
    elif any((folder / name).is_dir() for name in names):
        found = _list_labels(folder, folder)
    else:
        found = _list_files(folder, folder)
    if not found:
        raise ValueError(f"{folder} holds no images; looked for {', '.join(SUFFIXES)} at any depth.")
    return found


def _list_benchmark(folder):
    splits = [split for split in ("train", "val", "test") if (folder / split).is_dir()]
    return [entry for split in splits for entry in _list_labels(folder / split, folder, split=split)]


def _list_labels(folder, root, **known):
    """The entries of a folder of folders, each named by its label."""
    found = []
    for label in sorted(inside.name for inside in os.scandir(folder) if inside.is_dir(follow_symlinks=False)):
        if label == MASKS:
            continue
        masks = _masks(root / MASKS / label)
        entries = _list_files(folder / label, root, label=label, **known)
        found += [entry._replace(mask=masks.get(Path(entry.path).stem, "")) for entry in entries]
    return found


def _masks(folder):
    """Masks by the name of the picture they belong to."""
    if not folder.is_dir():
        return {}
    return {Path(entry.path).stem.removesuffix("_mask"): entry.path for entry in _list_files(folder, folder) if not entry.refused}


def _list_files(folder, root, **known):
    """The entries below a folder, by name; a link that leads out of the root has one that says so."""
    inside, found = os.path.realpath(root) + os.sep, []
    for parent, folders, files in os.walk(folder):
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):
                found.append((os.path.join(parent, name), "a link to a folder, not followed"))
        for name in files:
            file = os.path.join(parent, name)
            if not is_image_name(file) or not os.path.isfile(file):
                continue
            outside = os.path.islink(file) and not os.path.realpath(file).startswith(inside)
            found.append((file, f"a link out of {root}, not followed" if outside else ""))
    found.sort(key=lambda file: file[0].split(os.sep))
    return [
        entry
        for file, refused in found
        for entry in ([Entry(file, refused=refused, **known)] if refused else entries_of(file, **known))
    ]


def _list_table(path, root):
    with open(path, newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        file.seek(0)
        rows = list(csv.DictReader(file, delimiter=";" if ";" in head and "," not in head else ","))
    if not rows:
        raise ValueError(f"{path} has no rows.")
    columns = {field: name for field, names in COLUMNS.items() for name in rows[0] if name and name.strip().lower() in names}
    if "path" not in columns:
        raise ValueError(f"{path} has no column path; it has {', '.join(map(str, rows[0]))}.")
    cells = [{field: (row[name] or "").strip() for field, name in columns.items()} for row in rows]
    return [entry for row in cells if row["path"] for entry in _row_entries(root, row)]


def _row_entries(root, row):
    inside, known = os.path.realpath(root) + os.sep, {field: row.get(field, "") for field in ("label", "split", "group")}
    for field in ("path", "mask"):
        file = row.get(field)
        if file and not os.path.realpath(root / file).startswith(inside):
            return [Entry(str(root / row["path"]), refused=f"{field} {file} lies outside {root}, not followed", **known)]
    if row.get("mask"):
        known["mask"] = str(root / row["mask"])
    return entries_of(root / row["path"], **known)
