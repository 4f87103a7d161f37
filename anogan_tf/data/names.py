"""What names of folders and labels say, whoever wrote them: sides of a split, what is normal, what lies inside a folder."""

import os
import unicodedata

NORMAL_LABELS = ("good", "normal", "ok")  # what is normal, unless the user names another label
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def label_of(name):
    """A name as a label: without blanks at its ends, letters composed in one way."""
    return unicodedata.normalize("NFC", str(name)).strip()


def is_normal(label, normal_class=None):
    """Whether a label says normal: the one that was named, or one of `NORMAL_LABELS`, written large or small."""
    if normal_class is not None:
        return label_of(label) == label_of(normal_class)
    return label_of(label).casefold() in NORMAL_LABELS


def split_of(name):
    """The side of a split that a folder's name says, or ""."""
    return SPLITS.get(label_of(name).casefold(), "")


def is_inside(path, root):
    """Whether a path lies in a folder, links followed."""
    return os.path.join(os.path.realpath(path), "").startswith(os.path.join(os.path.realpath(root), ""))


def name_some(names, most=20):
    """Names for a message, in their order, no more than so many."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
