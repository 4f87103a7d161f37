"""A set of images as a table: a CSV file with a column path, and any of label, mask, split, group."""

import csv
import os
import unicodedata

from anogan_tf.data.entries import ImageRef, entries_of
from anogan_tf.data.names import SPLITS, is_inside, label_of

# Columns and the names they may have, the first of them that there is.
COLUMN_NAMES = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class"),
    "mask": ("mask",),
    "split": ("split",),
    "group": ("group",),
}


def list_table(path, root):
    """The entries of a table, of which all paths lie below a root."""
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
            if head.lower().startswith("sep="):  # as Excel is told
                delimiter = head.rstrip("\r\n")[4:] or ","
            else:
                file.seek(0)
                delimiter = max(",;\t", key=head.count)
            rows = list(csv.DictReader(file, delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} can't be read as a table in UTF-8: {error}. Save it again as CSV UTF-8.") from None
    if not rows:
        raise ValueError(f"{path} has no rows.")
    if any(None in row for row in rows):
        raise ValueError(
            f"{path} has rows with more cells than columns; put names with commas in quotes, or use another separator."
        )
    return rows


def _row_entries(path, root, row):
    known = {field: row.get(field, "") for field in ("split", "group")} | {"label": label_of(row.get("label", ""))}
    if known["split"]:
        if known["split"].lower() not in SPLITS:
            raise ValueError(f"{path}: the split of {row['path']} is {known['split']!r}; it can be train, val, test or empty.")
        known["split"] = SPLITS[known["split"].lower()]
    files = {field: _find(root, row[field]) for field in ("path", "mask") if row.get(field)}
    for field, file in files.items():
        if not is_inside(file, root):
            return [ImageRef(str(files["path"]), refused=f"{field} {row[field]} lies outside {root}, not followed", **known)]
    if "mask" in files:
        known["masks"] = (str(files["mask"]),)
    if not os.path.isfile(files["path"]):
        reason = f"no such file below {root}; is that the table's root (--root)?"
        return [ImageRef(str(files["path"]), refused=reason, **known)]
    return entries_of(files["path"], **known)


def _find(root, text):
    """The file that a table names: as it stands, or with the slashes of Windows, or with letters composed in another way."""
    ways = [text, text.replace("\\", "/")]
    ways += [unicodedata.normalize(form, way) for form in ("NFC", "NFD") for way in ways]
    return next((root / way for way in ways if os.path.lexists(root / way)), root / ways[1 if "/" not in text else 0])
