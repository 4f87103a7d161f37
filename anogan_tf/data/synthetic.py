"""Defects with exact masks, drawn on normal images: how good a detector is where nobody has an anomaly to show it.

What it finds of these says little of what it finds of real ones, which may be subtler; what it misses of these is a warning.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from scipy import ndimage

from anogan_tf.data.entries import DecodedImage
from anogan_tf.runtime.types import Source

NORMAL = "normal"
TRIES = 8  # places that are looked at; the one where the defect changes most is taken
MIN_CHANGE = 0.05  # of the image's range, that a pixel must change by to be of the defect


def draw_defect(kind: str, pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a defect on an image.

    Args:
        kind: of `DEFECTS`: "scratch" (a thin line, lighter or darker), "blot" (a stain of one tone), "missing piece" (a hole of
            the background's tone) or "texture swap" (a part of the same image, from elsewhere and turned).
        pixels: `[h, w, c]` of any dtype; sides of 16 pixels or more.
        rng: a NumPy generator.

    Returns:
        `(pixels [h, w, c], mask [h, w])`: of the same dtype, and true where the defect is. Nothing differs from what was given
        outside the mask; where a defect would have changed nothing to speak of, such as a hole beside the object, there is none.
    """
    if kind not in DEFECTS:
        raise ValueError(f"kind={kind!r} is not one of {list(DEFECTS)}.")
    span = (float(pixels.min()), float(pixels.max()))
    best = max((_try(DEFECTS[kind], pixels, span, rng) for _ in range(TRIES)), key=lambda one: one[0])
    _, window, changed, part = best
    drawn, mask = pixels.copy(), np.zeros(pixels.shape[:2], bool)
    mask[window] = part
    if pixels.dtype.kind in "ui":
        changed = np.round(changed)
    drawn[window] = np.where(part[..., np.newaxis], changed, drawn[window]).astype(pixels.dtype)
    return drawn, mask


def draw_disc(pixels: np.ndarray, diameter: float, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a disc of one size and strength, to find out what is still seen: where it is, and whether dark or bright, is random.

    Args:
        pixels: `[h, w, c]` of any dtype.
        diameter: as a share of the shorter side, at least two pixels.
        contrast: by how much of the image's range it differs from what it covers, in the mean; less where the range ends.
        rng: a NumPy generator.

    Returns:
        Pixels `[h, w, c]` of the same dtype.
    """
    height, width = pixels.shape[:2]
    low, high = float(pixels.min()), float(pixels.max())
    radius = max(1.0, diameter * min(height, width) / 2)
    centre = rng.uniform(0.2, 0.8, 2) * (height, width)
    distance = np.hypot(*(np.mgrid[:height, :width] - centre[:, np.newaxis, np.newaxis]))
    alpha = np.clip(radius + 0.5 - distance, 0.0, 1.0)[..., np.newaxis]
    values = pixels.astype(np.float32)
    covered = float((alpha * values).sum() / max(alpha.sum() * values.shape[2], 1e-6))
    room = np.array([covered - low, high - covered])
    darker = rng.random() < 0.5 if min(room) >= contrast * (high - low) else room[0] > room[1]
    drawn = np.clip(values + alpha * contrast * (high - low) * (-1.0 if darker else 1.0), low, high)
    return (np.round(drawn) if pixels.dtype.kind in "ui" else drawn).astype(pixels.dtype)


def _try(defect, pixels, span, rng):
    """`(how much changes, window, pixels and mask of the window)`: one place for a defect, and where it can be seen there."""
    window, region, tone = defect(pixels, span, rng)
    values = pixels[window].astype(np.float32)
    changed = np.where(region[..., np.newaxis], tone, values)
    least = max(MIN_CHANGE * (span[1] - span[0]), np.finfo(np.float32).tiny)
    change = np.abs(changed - values)
    seen = (change >= least).any(axis=-1)
    # Pixels that happen to be alike within the defect are of it.
    closed = ndimage.binary_closing(seen, iterations=max(1, round(min(pixels.shape[:2]) / 64)))
    mask = region & (seen | ndimage.binary_fill_holes(closed))
    return change[mask].sum(), window, changed, mask


# Each gives a window of the image, `[p, q]` bool where the defect is in it, and the pixels there, or one tone for all.


def _scratch(pixels, span, rng):
    """A line of one or a few pixels' width, slightly bent."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    length, angle, bend = rng.uniform(0.3, 0.7) * side, rng.uniform(0.0, np.pi), rng.uniform(-0.5, 0.5)
    along = np.linspace(-0.5, 0.5, 4 * int(length) + 2)
    turn = angle + bend * along
    centre = rng.uniform(0.25, 0.75, 2) * (height, width)
    rows, columns = centre[0] + length * along * np.sin(turn), centre[1] + length * along * np.cos(turn)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows[inside].astype(int), columns[inside].astype(int)
    reach = max(1, round(side / 64)) // 2
    window = tuple(slice(max(0, places.min() - reach), places.max() + reach + 1) for places in (rows, columns))
    line = np.zeros(pixels[window].shape[:2], bool)
    line[rows - window[0].start, columns - window[1].start] = True
    line = ndimage.binary_dilation(line, iterations=reach) if reach else line
    return window, line, _contrasting(pixels[window][line].mean(), span, rng)


def _blot(pixels, span, rng):
    window, region = _blob(pixels.shape[:2], rng.uniform(0.05, 0.12), rng)
    return window, region, _contrasting(pixels[window][region].mean(), span, rng)


def _missing_piece(pixels, span, rng):
    """What shows through the hole is what the image has along its border."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return *_blob(pixels.shape[:2], rng.uniform(0.08, 0.18), rng), np.median(border, axis=0)


def _texture_swap(pixels, span, rng):
    window, region = _blob(pixels.shape[:2], rng.uniform(0.1, 0.2), rng)
    height, width = region.shape
    row, column = (rng.integers(0, side - part + 1) for side, part in zip(pixels.shape, (height, width)))
    other = pixels[row : row + height, column : column + width].astype(np.float32)
    return window, region, np.rot90(other, 2) if rng.random() < 0.5 else other[:, ::-1]


DEFECTS = {"scratch": _scratch, "blot": _blot, "missing piece": _missing_piece, "texture swap": _texture_swap}


def _contrasting(covered, span, rng):
    """A tone that lies away from the mean that it covers by at least a third of the image's range."""
    low, high = span
    tones = (covered - rng.uniform(0.35, 0.8) * (high - low), covered + rng.uniform(0.35, 0.8) * (high - low))
    inside = [tone for tone in tones if low <= tone <= high]
    return rng.choice(inside) if inside else (high if covered - low < high - covered else low)


def _blob(shape, radius, rng):
    """`(window, region)`: a rounded shape of about that radius, as a share of the shorter side; at least two pixels across."""
    radius = max(1.0, radius * min(shape))
    centre, waves, heights = rng.uniform(0.2, 0.8, 2) * shape, np.arange(2, 5), rng.uniform(0.0, 0.2, 3)
    phases, reach = rng.uniform(0.0, 2 * np.pi, 3), radius * (1.0 + heights.sum())
    window = tuple(slice(max(0, int(middle - reach)), min(side, int(middle + reach) + 2)) for middle, side in zip(centre, shape))
    rows, columns = np.mgrid[window].astype(np.float32)
    rows, columns = rows - centre[0], columns - centre[1]
    bumps = sum(size * np.cos(np.arctan2(rows, columns) * wave + phase) for size, wave, phase in zip(heights, waves, phases))
    return window, np.hypot(rows, columns) <= radius * (1.0 + bumps)


class SyntheticSource:
    """Normal images of a source, each as it is and once more with a defect; kinds of defects take turns.

    Attributes:
        entries: list of `ImageRef`, a normal and its defective twin in turns; masks come from `masks`.

    Args:
        source: a `FileSource` or `TfdsSource`.
        rows: of its normal images, ascending.
        seed: of the defects.
    """

    def __init__(self, source: Source, rows: Sequence[int] | np.ndarray, seed: int = 0) -> None:
        self._source, self._rows, self._seed = source, np.sort(np.asarray(rows, np.int64)), seed
        self.entries = []
        for number, row in enumerate(self._rows):
            entry = source.entries[row]
            kind = self._kind(number)
            self.entries += [entry._replace(label=NORMAL, normal=True), entry._replace(label=kind, normal=False)]

    def elements(self, rows):
        """What `read` needs for each of some rows, ascending, as a `tf.data.Dataset` of tuples that begin with the row."""
        wanted = np.zeros(len(self.entries), bool)
        wanted[np.asarray(rows, np.int64)] = True
        used, wanted = np.flatnonzero(wanted.reshape(-1, 2).any(axis=1)), tf.constant(wanted)
        numbers = tf.data.Dataset.from_tensor_slices(used.astype(np.int64))

        def twins(number, element):
            pair = tf.data.Dataset.from_tensor_slices(2 * number + tf.constant([0, 1], tf.int64))
            return pair.filter(lambda row: wanted[row]).map(lambda row: (row, *element))

        def as_tuple(*element):
            return (element,)

        elements = self._source.elements(self._rows[used]).map(as_tuple)
        return tf.data.Dataset.zip(numbers, elements).flat_map(lambda number, element: twins(number, element[0]))

    def read(self, row, *element):
        """The `DecodedImage` of an element."""
        picture = self._source.read(*element)
        if picture.pixels is None or row % 2 == 0:
            return picture
        drawn, mask = self._draw(row // 2, picture.pixels)
        return DecodedImage(picture.name, drawn) if mask.any() else DecodedImage(picture.name, None, "no defect would show on it")

    def masks(self, rows):
        """Yield the mask of each of some rows, `[h, w]` bool; None for a normal one or one that can't be read."""
        defective = [row for row in rows if row % 2]
        elements = iter(self.elements(defective).as_numpy_iterator()) if defective else iter(())
        for row in rows:
            picture = self._source.read(*next(elements)[1:]) if row % 2 else None
            yield None if picture is None or picture.pixels is None else self._draw(row // 2, picture.pixels)[1]

    def info(self, row):
        """The `ImageInfo` of a row."""
        return self._source.info(self._rows[row // 2])

    def _kind(self, number):
        return list(DEFECTS)[number % len(DEFECTS)]

    def _draw(self, number, pixels):
        return draw_defect(self._kind(number), pixels, np.random.default_rng((self._seed, number)))
