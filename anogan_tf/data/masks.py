"""Masks, which show where an anomaly is: which files are masks, which image each belongs to, and what its values mean."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from PIL import Image, ImageOps

from anogan_tf.data.entries import ImageRef, page_count, read_entry
from anogan_tf.data.pictures import FORMATS
from anogan_tf.runtime.remarks import remark

_WORD = r"(masks?|ground[ _-]?truths?|gts?|labels?|annotations?|segmentations?|segs?)"
_FOLDER = re.compile(
    rf"((train|test|val|validation|pixel|binary|defect|anomaly|bad|images?)[ _-])?{_WORD}([ _-]?(dir|folder|images?|png))?"
)
_FILE = re.compile(rf"(.+?)[ _.-]{_WORD}", re.DOTALL | re.IGNORECASE)
FEW, LABELS = 5, 64  # so few values, or none above that, are labels
BRIGHT = 0.9  # of the range: many values that reach this are white with soft edges
EDGES = 0.05  # the share of its pixels that a mask may have between black and white, where only its values say that it is one
EXACT, SOFT, MANY = "exact", "soft", "many"  # what a mask's values are
_said: set[str] = set()
LOOKED_AT = 10  # pairs of files of one name


def is_mask_folder(name):
    """Whether a folder's name says that it holds masks."""
    return _FOLDER.fullmatch(name.strip().casefold()) is not None


def _stem(name):
    return PurePath(name).stem


def _base(stem):
    """The stem of the image that a file named like a mask belongs to, such as 7 for 7_mask, or its own."""
    found = _FILE.fullmatch(stem)
    return found[1] if found else stem


def separate(files, root):
    """Which of the files below a folder are masks: by their folder's name, by their own beside another's, or by their values.

    Args:
        files: tuples of the parts of their paths below the folder.
        root: the folder.

    Returns:
        `(images, masks)`, two lists of such tuples.
    """
    inside = [any(map(is_mask_folder, parts[:-1])) for parts in files]
    places = defaultdict(list)  # of files of one folder and one stem
    for parts, in_folder in zip(files, inside):
        if not in_folder:
            places[parts[:-1], _stem(parts[-1])].append(parts)
    masks = {parts for parts, in_folder in zip(files, inside) if in_folder}
    for (folder, stem), group in places.items():
        if _base(stem) != stem and (folder, _base(stem)) in places:
            masks.update(group)
    masks |= _masks_by_value(places, root)
    return [parts for parts in files if parts not in masks], [parts for parts in files if parts in masks]


def _masks_by_value(places, root):
    """Of pairs such as 7.jpg and 7.png in one folder, all of the one suffix whose files, the first of them, look like masks."""
    pairs: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for (folder, _), group in places.items():
        if len(group) == 2:
            suffixes = tuple(PurePath(parts[-1]).suffix.lower() for parts in group)
            for suffix, parts in zip(suffixes, group):
                pairs[folder, frozenset(suffixes)][suffix].append(parts)
    found = set()
    for by_suffix in pairs.values():
        alike = [group for group in by_suffix.values() if all(_looks_like_mask(root.joinpath(*one)) for one in group[:LOOKED_AT])]
        if len(alike) == 1 and len(by_suffix) == 2:
            found.update(alike[0])
    return found


def _looks_like_mask(file):
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.mode == "P":
                return image.getcolors(FEW) is not None
        values = _values(str(file)).max(axis=-1)
        between = ((values > (1.0 - BRIGHT) * _full_scale(values)) & (values < BRIGHT * _full_scale(values))).mean()
        return _kind_of(values) == EXACT or between < EDGES
    except (ValueError, OSError):
        return False


def match(images, masks, normal):
    """Which masks belong to each image.

    A mask is called like its image, perhaps with `_mask`, `_gt` or the like behind; or lies in a folder that is. The folders that
    it lies in, but for those named for masks, are folders of the image; where several images would do, those known to be normal
    don't.

    Args:
        images, masks: tuples of the parts of paths, as of `separate`.
        normal: bool for each image, whether it is known to be normal.

    Returns:
        `(list of tuples of masks, for each image; list of masks that belong to none)`.
    """
    by_stem = defaultdict(list)
    for number, parts in enumerate(images):
        by_stem[_stem(parts[-1])].append(number)
    found: list[list] = [[] for _ in images]
    alone = []
    for mask in masks:
        *folders, name = mask
        folders = [folder for folder in folders if not is_mask_folder(folder)]
        ways = [(stem, folders) for stem in dict.fromkeys((_stem(name), _base(_stem(name))))]
        ways += [(folders[-1], folders[:-1])] if folders else []
        for stem, below in ways:
            fitting = [number for number in by_stem[stem] if _is_within(below, images[number][:-1])]
            if len(fitting) > 1:
                fitting = [number for number in fitting if not normal[number]]
            if len(fitting) == 1:
                found[fitting[0]].append(mask)
                break
        else:
            alone.append(mask)
    return [tuple(sorted(group)) for group in found], alone


def _is_within(some, folders):
    """Whether some folders are among others, in their order."""
    left = iter(folders)
    return all(folder in left for folder in some)


def read_mask(entry: ImageRef) -> np.ndarray | None:
    """The mask of an `ImageRef`, `[h, w]` bool, all of its files joined; None where it has none.

    Raises:
        ValueError: if one can't be read, naming it.
    """
    if not entry.masks:
        return None
    joined: np.ndarray | None = None
    for file in entry.masks:
        try:
            for values in _pages(file, entry):
                mask = as_mask(values, file)
                if joined is not None and joined.shape != mask.shape:
                    raise ValueError(
                        f"{mask.shape[0]}x{mask.shape[1]} pixels, another mask of it {joined.shape[0]}x{joined.shape[1]}"
                    )
                joined = mask if joined is None else joined | mask
        except (ValueError, OSError) as error:
            raise ValueError(f"{file}, the mask of {entry.name}: {error}") from None
    return joined


def _pages(file, entry):
    """The values of the pages of a mask file that are of an image: of a stack's page the page of that number."""
    count = page_count(file)
    if count > 1 and entry.row is not None and count == page_count(entry.path):
        yield _values(file, entry.row)
        return
    for number in range(count):
        yield _values(file, number)


def _values(file, number=None):
    """What the pixels of a mask file say, `[h, w, c]`: of a palette its indices, of a shape in transparency that."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            image.seek(number or 0)
            if image.mode in ("P", "LA", "RGBA"):
                return _of_palette(image) if image.mode == "P" else _of_alpha(np.asarray(ImageOps.exif_transpose(image)))
    except Exception:  # of many kinds; reading it as an image says why
        pass
    picture = read_entry(ImageRef(file, row=number))
    if picture.pixels is None:
        raise ValueError(picture.reason)
    return picture.pixels


def _of_palette(image):
    """Indices are labels, 0 the background; but where black is among the colours it is that."""
    image = ImageOps.exif_transpose(image)
    indices, colours = np.asarray(image), np.asarray(image.convert("RGB"))
    black = (colours == 0).all(axis=-1)
    return (~black if black.any() else indices != 0)[..., np.newaxis]


def _of_alpha(pixels):
    alpha = pixels[..., -1:]
    return alpha if alpha.min() != alpha.max() else pixels[..., :-1]


def as_mask(pixels: np.ndarray, file: str = "") -> np.ndarray:
    """What the values of a mask mean: whatever isn't 0 is of the anomaly, such as labels 1 to n, 100 or 255.

    Only where there are many values up to the largest of the dtype, as JPEG and soft edges leave them, it is what lies above
    half of that.

    Args:
        pixels: `[h, w, c]` of any dtype; what any channel shows counts.
        file: its name, for the line that says what was found in the second case.

    Returns:
        `[h, w]` bool.
    """
    values = pixels.max(axis=-1)
    kind, whole = _kind_of(values), _full_scale(values)
    if kind == MANY and file:
        _say(file, values, "whatever isn't 0")
    if kind != SOFT:
        return values != 0
    if file:
        _say(file, values, f"what lies above {whole / 2:g}")
    return values > whole / 2


def _full_scale(values):
    bounds = (1.0, 255.0, 65535.0)
    return next((bound for bound in bounds[values.dtype.kind != "f" :] if values.max() <= bound), bounds[-1])


def _kind_of(values):
    found, whole = np.unique(values), _full_scale(values)
    if len(found) <= FEW or (found[-1] <= LABELS and (found == np.round(found)).all()):
        return EXACT
    return SOFT if found[-1] >= BRIGHT * whole else MANY


def _say(file, values, what):
    """Once for the masks of a folder."""
    folder = str(PurePath(file).parent)
    if folder not in _said:
        _said.add(folder)
        some = ", ".join(f"{value:g}" for value in np.unique(values)[[0, 1, 2, -2, -1]])
        remark(
            f"{file}, a mask, holds {len(np.unique(values))} values ({some}); here and in its neighbours {what} is the anomaly."
        )


def say_unmatched(folder, alone, without, count):
    """Say how many masks belong to no image, and how many of `count` anomalous images have none."""
    said = []
    if alone:
        said.append(f"{len(alone)} masks belong to no image, the first {'/'.join(alone[0])}")
    if without:
        said.append(f"{len(without)} of {count} anomalous images have no mask, the first {without[0]}")
    if said:
        remark(f"{folder}: {'; '.join(said)}.")


def empty_masks(entries: Sequence[ImageRef]) -> list[bool]:
    """For each of some images whether its mask shows no anomaly; of a mask that can't be read that isn't known, so not."""

    def is_empty(entry):
        try:
            mask = read_mask(entry)
        except ValueError:
            return False
        return mask is None or not mask.any()

    return [is_empty(entry) for entry in entries]
