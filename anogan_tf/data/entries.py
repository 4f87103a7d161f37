"""One image of a set: where it lies, what is known of it, and how it is read, whatever kind of file it is in."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import features

from anogan_tf.data import arrays, medical, pictures
from anogan_tf.data.pictures import ImageInfo
from anogan_tf.runtime.remarks import remark

SUFFIXES = pictures.PICTURE_SUFFIXES + arrays.ARRAY_SUFFIXES + medical.DICOM_SUFFIXES + medical.NIFTI_SUFFIXES


class ImageRef(NamedTuple):
    """An image that is not read yet.

    Attributes:
        path: its file.
        key, row: where in a file of many: the array's name, the image's number.
        label: what it shows, such as "good" or "crack"; "" where nothing says so.
        normal: whether that is what is normal; None where nothing says so.
        masks: files that show where the anomaly is, joined where there are several.
        split: "train", "val", "test", or "".
        group: images of one group, such as one part under several lamps, stay on one side of every split; "" where it is its own.
        folder: the sub-folder it lies in, where several might say what their images show and none is known to; else "".
        refused: why it is not to be read, or "".
    """

    path: str
    key: str = ""
    row: int | None = None
    label: str = ""
    normal: bool | None = None
    masks: tuple[str, ...] = ()
    split: str = ""
    group: str = ""
    folder: str = ""
    refused: str = ""

    @property
    def name(self):
        """What to call it: `path`, `path[row]`, `path:key[row]`, and `path#1` for the first page of a picture that has several.
        Names of files needn't be UTF-8; this is."""
        path = self.path.encode("utf-8", "backslashreplace").decode()
        number = "" if self.row is None else f"#{self.number}" if self._is_page else f"[{self.number}]"
        return f"{path}{self.key and f':{self.key}'}{number}"

    @property
    def number(self):
        """What it is called by in a file of many: pages are counted from 1, rows of arrays from 0; None in a file of one."""
        return self.row if self.row is None or not self._is_page else self.row + 1

    @property
    def _is_page(self):
        return self.path.lower().endswith(pictures.PAGED_SUFFIXES)

    @property
    def mask_name(self):
        """What to call its mask."""
        return ", ".join(self.masks) or "The mask"


class DecodedImage(NamedTuple):
    """An image that was read: `pixels` `[h, w, c]` as stored, or None and the reason why it can't be read."""

    name: str
    pixels: np.ndarray | None
    reason: str = ""


def is_image_name(file):
    """Whether a file is taken for an image, or many, or a picture that can't be read here: by its name, or how it begins."""
    name = Path(file).name
    if name.startswith(".") or name == "DICOMDIR":  # which lists others
        return False
    if name.lower().endswith((*SUFFIXES, *pictures.ELSEWHERE)) or arrays.is_array(name):
        return True
    return pictures.begins_as_picture(file) or (not _has_suffix(name) and medical.is_dicom(file))


def _has_suffix(name):
    return not name.rpartition(".")[2].isdigit() if "." in name else False  # a DICOM file may be called by its UID, 1.2.840


def entries_of(path, **known):
    """The entries of one file: one for each image in it. A file that can't be looked into has one, whose reading says why.

    Args:
        path: the file.
        **known: fields of `ImageRef`. Labels and splits in the file itself come before them.
    """
    path = str(path)
    kind = _kind(path)
    if reason := pictures.ELSEWHERE.get(Path(path).suffix.lower()):
        return [ImageRef(path, **{**known, "refused": reason})]
    try:
        if kind == "array":
            return [entry for part in arrays.list_parts(path) for entry in _rows_of(path, part, known)]
        if kind == "picture":
            return _pages_of(path, known)
        count = medical.count_frames(path) if kind == "dicom" else medical.count_slices(path)
        if count < 1:  # without an entry nobody would hear of the file
            raise ValueError("holds no images")
    except Exception as error:  # of many kinds, for a damaged file
        return [ImageRef(path, **{**known, "refused": _unreadable(path, kind, error)})]
    if kind == "dicom" and count == 1:
        return [ImageRef(path, **known)]
    return [ImageRef(path, row=row, **known) for row in range(count)]


def _pages_of(path, known):
    try:
        pages = pictures.list_pages(path)
    except Exception:  # reading it says why
        pages = [0]
    if len(pages) == 1:
        return [ImageRef(path, row=pages[0] or None, **known)]
    return [ImageRef(path, row=number, **known) for number in pages]


def page_count(path):
    """How many images a file of pictures has, or of frames or slices; 1 for one that can't be read."""
    return len(entries_of(path))


def _rows_of(path, part, known):
    fields = {**known, **({"split": part.split} if part.split else {})}
    for row in range(part.count):
        label = {} if part.labels is None else {"label": part.labels[row]}
        yield ImageRef(path, part.key, row, **{**fields, **label})


def read_entry(entry):
    """Read an `ImageRef`; never raises for what its file holds."""
    if entry.refused:
        return DecodedImage(entry.name, None, entry.refused)
    kind = _kind(entry.path)
    try:
        return DecodedImage(entry.name, _READERS[kind](entry))
    except Exception as error:  # of many kinds, for a damaged file
        return DecodedImage(entry.name, None, _unreadable(entry.path, kind, error))


def read_picture(file):
    """Read one file of one image, or the first of several; never raises for what the file holds."""
    first, *others = entries_of(file)
    if others:
        remark(f"{file}: the first of {len(others) + 1} pages, frames or images is taken.")
    return read_entry(first)


def info_of(entry):
    """The `ImageInfo` of an `ImageRef`, or None where it can't be read."""
    if entry.refused:
        return None
    try:
        return _INFOS[_kind(entry.path)](entry)
    except Exception:  # reading it says why
        return None


def _kind(path):
    name = Path(path).name.lower()
    if arrays.is_array(name):
        return "array"
    if name.endswith(medical.NIFTI_SUFFIXES):
        return "nifti"
    if name.endswith(medical.DICOM_SUFFIXES) or (not _has_suffix(name) and medical.is_dicom(path)):
        return "dicom"
    return "picture"


_READERS = {
    "array": lambda entry: arrays.read_row(entry.path, entry.key, entry.row or 0),
    "dicom": lambda entry: medical.read_dicom(entry.path, entry.row or 0),
    "nifti": lambda entry: medical.read_slice(entry.path, entry.row or 0),
    "picture": lambda entry: pictures.read_pixels(entry.path, entry.row or 0),
}
_INFOS = {
    "array": lambda entry: arrays.array_info(entry.path, entry.key),
    "dicom": lambda entry: medical.dicom_info(entry.path, entry.row or 0),
    "nifti": lambda entry: ImageInfo(1, deep=True),
    "picture": lambda entry: pictures.read_info(entry.path, entry.row or 0),
}


def _unreadable(path, kind, error):
    if isinstance(error, ImportError):
        return str(error)
    # Pillow's "cannot identify image file" repeats the path.
    reason = "unknown format" if type(error).__name__ == "UnidentifiedImageError" else str(error) or type(error).__name__
    if path.lower().endswith(".avif") and not features.check("avif"):
        reason = "AVIF needs Pillow 11.3 or later"
    reason = " ".join(reason.encode("utf-8", "backslashreplace").decode().split())
    return f"not a readable {'array' if kind == 'array' else 'image'} ({reason})"


def absolute_name(entry):
    """An entry's name by which it is known from any folder, on one line."""
    path = entry.path if entry.path.startswith("tfds:") else str(Path(entry.path).resolve())
    return "\\n".join(entry._replace(path=path).name.splitlines())
