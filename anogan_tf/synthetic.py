"""Defects with exact masks, drawn on normal images: how good a detector is where nobody has an anomaly to show it.

What it finds of these says little of what it finds of real ones, which may be subtler; what it misses of these is a warning.
"""

import numpy as np
import tensorflow as tf
from scipy import ndimage

from anogan_tf.data.entries import Picture

NORMAL = "normal"
TRIES = 8  # places that are looked at; the one where the defect changes most is taken
LEAST_CHANGE = 0.05  # of the image's range, that a pixel must change by to be of the defect


def draw_defect(kind, pixels, rng):
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
    values = pixels.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    drawn = [_apply(DEFECTS[kind], values, low, high, rng) for _ in range(TRIES)]
    changed, mask = max(drawn, key=lambda pair: np.abs(pair[0] - values).sum())
    if pixels.dtype.kind in "ui":
        changed = np.round(changed)
    return np.where(mask[..., np.newaxis], changed, values).astype(pixels.dtype), mask


def _apply(defect, values, low, high, rng):
    """One try: the image with the defect, and where that changed enough to be seen."""
    region, tone = defect(values, low, high, rng)
    changed = np.where(region[..., np.newaxis], tone, values)
    least = max(LEAST_CHANGE * (high - low), np.finfo(np.float32).tiny)
    seen = (np.abs(changed - values) >= least).any(axis=-1)
    # Pixels that happen to be alike within the defect are of it.
    closed = ndimage.binary_closing(seen, iterations=max(1, round(min(seen.shape) / 64)))
    mask = region & (seen | ndimage.binary_fill_holes(closed))
    return np.where(mask[..., np.newaxis], changed, values), mask


def _scratch(values, low, high, rng):
    """A line of one or a few pixels' width, slightly bent."""
    height, width = values.shape[:2]
    side = min(height, width)
    length, angle, bend = rng.uniform(0.3, 0.7) * side, rng.uniform(0.0, np.pi), rng.uniform(-0.5, 0.5)
    along = np.linspace(-0.5, 0.5, 4 * int(length) + 2)
    turn = angle + bend * along
    centre = rng.uniform(0.25, 0.75, 2) * (height, width)
    rows, columns = centre[0] + length * along * np.sin(turn), centre[1] + length * along * np.cos(turn)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    line = np.zeros((height, width), bool)
    line[rows[inside].astype(int), columns[inside].astype(int)] = True
    thick = max(1, round(side / 64))
    line = ndimage.binary_dilation(line, iterations=thick // 2) if thick > 1 else line
    return line, _contrasting(values, line, low, high, rng)


def _blot(values, low, high, rng):
    region = _blob(values, rng.uniform(0.05, 0.12), rng)
    return region, _contrasting(values, region, low, high, rng)


def _missing_piece(values, low, high, rng):
    """What shows through the hole is what the image has along its border."""
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return _blob(values, rng.uniform(0.08, 0.18), rng), np.median(border, axis=0)


def _texture_swap(values, low, high, rng):
    turned = np.rot90(values, 2) if rng.random() < 0.5 else values[:, ::-1]
    moved = np.roll(turned, rng.integers(1, np.array(values.shape[:2])), axis=(0, 1))
    return _blob(values, rng.uniform(0.1, 0.2), rng), moved


DEFECTS = {"scratch": _scratch, "blot": _blot, "missing piece": _missing_piece, "texture swap": _texture_swap}


def _contrasting(values, region, low, high, rng):
    """A tone that lies away from what it covers by at least a third of the image's range."""
    covered = values[region].mean() if region.any() else low
    span = high - low
    tones = (covered - rng.uniform(0.35, 0.8) * span, covered + rng.uniform(0.35, 0.8) * span)
    inside = [tone for tone in tones if low <= tone <= high]
    return rng.choice(inside) if inside else (high if covered - low < high - covered else low)


def _blob(values, radius, rng):
    """A rounded shape of about that radius, as a share of the shorter side; at least two pixels across."""
    height, width = values.shape[:2]
    radius = max(1.0, radius * min(height, width))
    centre = rng.uniform(0.2, 0.8, 2) * (height, width)
    rows, columns = np.mgrid[:height, :width]
    angle = np.arctan2(rows - centre[0], columns - centre[1])
    waves = np.arange(2, 5)
    shape = (rng.uniform(0.0, 0.2, 3) * np.cos(angle[..., np.newaxis] * waves + rng.uniform(0.0, 2 * np.pi, 3))).sum(axis=-1)
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius * (1.0 + shape)


class SyntheticSource:
    """Normal images of a source, each as it is and once more with a defect; kinds of defects take turns.

    Attributes:
        entries: list of `Entry`, a normal and its defective twin in turns; masks come from `masks`.

    Args:
        source: a `FileSource` or `TfdsSource`.
        rows: of its normal images, ascending.
        seed: of the defects.
    """

    def __init__(self, source, rows, seed=0):
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
        """The `Picture` of an element."""
        picture = self._source.read(*element)
        if picture.pixels is None or row % 2 == 0:
            return picture
        return Picture(picture.name, self._draw(row // 2, picture.pixels)[0])

    def masks(self, rows):
        """Yield the mask of each of some rows, `[h, w]` bool, or None for a normal one or one that can't be read."""
        defective = [row for row in rows if row % 2]
        elements = iter(self.elements(defective).as_numpy_iterator()) if defective else iter(())
        for row in rows:
            picture = self._source.read(*next(elements)[1:]) if row % 2 else None
            yield None if picture is None or picture.pixels is None else self._draw(row // 2, picture.pixels)[1]

    def head(self, row):
        """The `Head` of a row."""
        return self._source.head(self._rows[row // 2])

    def _kind(self, number):
        return list(DEFECTS)[number % len(DEFECTS)]

    def _draw(self, number, pixels):
        return draw_defect(self._kind(number), pixels, np.random.default_rng((self._seed, number)))
