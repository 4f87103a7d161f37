"""Defects drawn on normal images for a comparator to learn from, and changes of normal images that are no defects.

A defect is a shape, alpha in [0, 1], and what fills it. The idea of learning from drawn defects is DRAEM's (Zavrtanik et al.
2021, arXiv 2108.07610). Defects on which a detector is measured are `synthetic.py`'s, whose scratches and blots resemble some of
these.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

SMALLEST = 16  # pixels of the sides of what is drawn on
PLAIN = 0.2  # of the examples have no defect
DEVIATION = 1.0 / 6.0  # of an image on which strengths are taken as they stand; on less contrast they are less
LEAST_GAIN = 0.3
EDGE = 0.2  # where alpha is less, nothing changes
TRIES = 4  # places and strengths that a defect is drawn with until one can be seen
MIN_PIXELS, MIN_CHANGE = 3, 0.03  # what can be seen: so many pixels, changed by so much in the mean at full gain


class _Scene(NamedTuple):
    """What a defect is drawn on."""

    x: np.ndarray  # [h, w, c] in [0, 1]
    other: np.ndarray  # [h', w', c], another normal image
    gain: float  # of strengths


def draw_defects(
    image: np.ndarray,
    others: Sequence[np.ndarray] | np.ndarray,
    rng: np.random.Generator,
    families: Sequence[str] | None = None,
    fillings: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one to three defects on a normal image.

    >>> changed, mask = draw_defects(image, normals, np.random.default_rng(0))
    >>> changed, mask = draw_defects(image, normals, rng, families=[name for name in FAMILIES if name != "line"])

    Args:
        image: float32 `[h, w, c]` in [0, 1]; sides of 16 pixels or more, 1 or 3 channels.
        others: normal images `[h', w', c]` of any sizes, pieces of which are put in; without any, pieces of the image itself.
        rng: a NumPy generator; the same state draws the same.
        families: which of `defects.FAMILIES` to draw, None for all: "line" (short to crossing the image, straight, bent, jagged
            or broken), "spot", "stain" (soft), "blob" (hills of smooth noise), "area" (a side or a box of another surface) and
            "bite" (at the border).
        fillings: which of `defects.FILLINGS` blobs, areas and bites may have, None for all: "tone", "flat" (matt), "grain",
            "streaks", "other" and "own" (pieces of another or this image), "blur", "contrast" and "deep" (nearly black or white).

    Returns:
        `(image [h, w, c], mask [h, w])`: float32 in [0, 1], and true where a defect is. Nothing differs from what was given
        outside the mask. The mask is empty where none could be seen.

    Raises:
        ValueError: for an image of another shape, or a family or a filling that isn't there.
    """
    x = np.asarray(image, np.float32)
    if x.ndim != 3 or min(x.shape[:2]) < SMALLEST or x.shape[2] not in (1, 3):
        raise ValueError(
            f"An image of shape {x.shape} can't be drawn on; it must be [h, w, 1 or 3] with sides of {SMALLEST} or more."
        )
    family = _chooser(_FAMILIES, families, "families")
    filling = _chooser(_FILLINGS, fillings, "fillings")
    mask = np.zeros(x.shape[:2], bool)
    gain = float(np.clip(x.std() / DEVIATION, LEAST_GAIN, 1.0))
    for _ in range(1 + int(rng.random() < 0.35) + int(rng.random() < 0.15)):
        other = np.asarray(others[int(rng.integers(len(others)))], np.float32) if len(others) else x
        x, one = _draw_one(_Scene(x, other, gain), family(rng), filling, rng)
        mask |= one
    return x, mask


def draw_example(image, others, rng, families=None, fillings=None):
    """A normal image as it may look as well, in four of five cases with defects: `(image [h, w, c], mask [h, w])`.

    One that is too small to be drawn on stays as it is.

    Args:
        image, others, rng, families, fillings: as for `draw_defects`.
    """
    if min(image.shape[:2]) < SMALLEST:
        return image, np.zeros(image.shape[:2], bool)
    x = vary_normal(image, rng)
    if rng.random() < PLAIN:
        return x, np.zeros(x.shape[:2], bool)
    return draw_defects(x, others, rng, families, fillings)


def vary_normal(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A normal image as it may look as well: lit otherwise, grainier, with dark curved margins or glare.

    Args:
        image: float32 `[h, w, c]` in [0, 1].
        rng: a NumPy generator; the same state changes it in the same way.

    Returns:
        float32 `[h, w, c]` in [0, 1].
    """
    x = np.asarray(image, np.float32)
    shape, gain = x.shape[:2], float(np.clip(x.std() / DEVIATION, LEAST_GAIN, 1.0))
    if rng.random() < 0.5:  # the lamp
        x = x + gain * rng.uniform(0, 0.15) * _smooth_noise(shape, _between(30, 200, rng), rng)
    if rng.random() < 0.3:  # stripes all over
        x = x + gain * rng.uniform(0, 0.08) * _smooth_noise(shape, (400, _between(1.0, 3.0, rng)), rng)
    if rng.random() < 0.25:
        x = x + gain * rng.uniform(0, 0.05) * _grain(shape, rng)
    often = rng.choice([0.0, 0.3, 0.7])
    for side in range(4):
        if rng.random() < often:
            x = _with_margin(x, side, rng)
    if rng.random() < 0.15:
        x = x + gain * _glare(shape, rng)
    return np.clip(x, 0, 1).astype(np.float32)


def check_chosen(families, fillings):
    """Raise a ValueError for a family or a filling that isn't there, as `draw_defects` takes them."""
    _chooser(_FAMILIES, families, "families")
    _chooser(_FILLINGS, fillings, "fillings")


def _chooser(known, names, what):
    """A function from a generator to one of some known entries, by their weights."""
    names = list(known) if names is None else list(names)
    if not names or not set(names) <= set(known):
        raise ValueError(f"{what}={names!r} must be one or more of {list(known)}.")
    weights = np.array([known[name][1] for name in names])
    return lambda rng: known[names[rng.choice(len(names), p=weights / weights.sum())]][0]


def _draw_one(scene, family, filling, rng):
    """One defect that can be seen, `(changed [h, w, c], mask [h, w])`; what was given and an empty mask where none can."""
    for _ in range(TRIES):
        changed, mask = family(scene, filling, rng)
        changed = np.where(mask[..., np.newaxis], np.clip(changed, 0, 1), scene.x)
        change = np.abs(changed - scene.x).max(-1)[mask]
        if change.size >= MIN_PIXELS and change.mean() > MIN_CHANGE * scene.gain:
            return changed.astype(np.float32), mask
    return scene.x, np.zeros(scene.x.shape[:2], bool)


# ---------------------------------------------------------------- noise, numbers, edges


@lru_cache(maxsize=4096)
def _interpolation(length, knots):
    """`[length, knots]`: smooth interpolation from knots to pixels."""
    at = np.linspace(0, knots - 1, length)
    low = np.minimum(at.astype(int), knots - 2)
    part = at - low
    part = part * part * (3 - 2 * part)
    matrix = np.zeros((length, knots), np.float32)
    matrix[np.arange(length), low] = 1 - part
    matrix[np.arange(length), low + 1] = part
    matrix.setflags(write=False)  # shared by all who ask
    return matrix


def _waves(shape, scale, rng):
    """Noise `[h, w]` of deviation about 1 whose bumps are `scale` pixels wide (a number or one for each axis)."""
    scales = np.broadcast_to(scale, 2)
    knots = [int(max(2, round(side / one) + 1)) for side, one in zip(shape, scales)]
    small = rng.standard_normal(knots).astype(np.float32)
    return 1.3 * (_interpolation(shape[0], knots[0]) @ small @ _interpolation(shape[1], knots[1]).T)


def _smooth_noise(shape, scale, rng):
    """`_waves` as `[h, w, 1]`."""
    return _waves(shape, scale, rng)[..., np.newaxis]


def _grain(shape, rng):
    return rng.standard_normal((*shape, 1)).astype(np.float32)


def _between(low, high, rng):
    """A number between two, even on the logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))


def _low_pass(x, size):
    """`[h, w, c]` or `[h, w]` blurred by about `size` pixels."""
    sizes = (size, size, 1)[: x.ndim]
    return ndimage.uniform_filter(ndimage.uniform_filter(x, sizes), sizes)


def _step(values, softness):
    """0 to 1 around 0, over about `softness` pixels if the values' slope is 1."""
    return np.clip(values / max(softness, 0.5) + 0.5, 0, 1)


def _fade(alpha):
    """Alpha that is 0 up to `EDGE` and rises from there, so that where a mask ends no step shows."""
    return np.clip((alpha - EDGE) / (1 - EDGE), 0, 1)[..., np.newaxis]


def _tone(scene, rng, dark=0.65, low=0.06, high=0.6):
    """What a dark or bright defect adds, `[c]`; in colour often not the same to each channel."""
    amount = scene.gain * _between(low, high, rng) * (-1 if rng.random() < dark else 1)
    channels = scene.x.shape[2]
    if channels == 1 or rng.random() < 0.5:
        return np.full(channels, amount, np.float32)
    shares = rng.uniform(-0.3, 1.0, channels)
    return (amount * shares / np.abs(shares).max()).astype(np.float32)


# ---------------------------------------------------------------- shapes: alpha [h, w]


def _ellipse(shape, radius, rng):
    """Anywhere, turned and flattened at random; a large one is wavy."""
    centre, turn, flat = rng.uniform(0, 1, 2) * shape, rng.uniform(0, np.pi), _between(1.0, 2.2, rng)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    rows, columns = (rows - centre[0]).astype(np.float32), (columns - centre[1]).astype(np.float32)
    first, second = rows * np.cos(turn) + columns * np.sin(turn), -rows * np.sin(turn) + columns * np.cos(turn)
    distance = np.sqrt((first / flat) ** 2 + (second * flat) ** 2)
    if radius > 3:
        distance = distance + 0.25 * radius * _waves(shape, radius, rng)
    return _step(radius - distance, rng.uniform(0.7, 1.0 + 0.5 * radius))


def _noise_blob(shape, rng):
    """Hills of smooth noise of any size, around one place."""
    scale, stretch = _between(4, 0.8 * max(shape), rng), _between(0.4, 2.5, rng)
    values = _waves(shape, (scale * stretch, scale / stretch), rng)
    if rng.random() < 0.6:
        values = values + 0.4 * _waves(shape, scale / 4, rng)
    row, column = rng.integers(shape[0]), rng.integers(shape[1])
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    values = values - np.hypot(rows - row, columns - column).astype(np.float32) / (scale if scale > 12 else 2.5 * scale)
    share = max(_between(0.002, 0.2, rng) * min(1.0, scale / 12), 6 / values.size)
    return _step((values - np.quantile(values[::2, ::2], 1 - share)) * scale / 1.5, rng.uniform(0.7, min(6.0, 1 + scale / 6)))


def _half_plane(shape, rng):
    """All on one side of a wavy line through the image."""
    turn = rng.choice([0, 0.5, 1, 1.5], p=[0.35, 0.15, 0.35, 0.15]) * np.pi + rng.normal(0, 0.15)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    along = (rows * np.cos(turn) + columns * np.sin(turn)).astype(np.float32)
    reach = (along.max() - along.min()) * rng.uniform(0.08, 0.5) + along.min()
    wave = _waves(shape, _between(10, 80, rng), rng) * rng.uniform(0, 4)
    return _step(reach - along + wave, rng.uniform(0.7, 4.0))


def _rounded_box(shape, rng):
    """A box with round corners and wavy sides, anywhere, often cut off by the border."""
    centre, half = rng.uniform(0, 1, 2) * shape, [side * _between(0.06, 0.45, rng) for side in shape]
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    power = rng.uniform(2, 8)
    distance = (np.abs((rows - centre[0]) / half[0]) ** power + np.abs((columns - centre[1]) / half[1]) ** power) ** (1 / power)
    values = (1 - distance).astype(np.float32) * min(half) + rng.uniform(0, 2.5) * _waves(shape, _between(8, 50, rng), rng)
    return _step(values, rng.uniform(0.7, 5.0))


def _bite(shape, rng):
    """A piece at the border or in a corner: a chord, a wedge or a flake along a side."""
    side = int(rng.integers(4))
    length, depth = shape if side % 2 else shape[::-1]
    along = np.arange(length, dtype=np.float32)
    centre = rng.choice([0.0, length - 1.0]) if rng.random() < 0.4 else rng.uniform(0, length)
    width = _between(3, 0.5 * length, rng)
    low, high = (2, min(14, 0.4 * depth)) if rng.random() < 0.75 else (6, 0.4 * depth)
    height = _between(low, high, rng)
    profile = height * np.maximum(0, 1 - (np.abs(along - centre) / width) ** rng.uniform(0.7, 3.0))
    profile = profile * (1 + 0.3 * _waves((length, 1), _between(2, 15, rng), rng)[:, 0])
    beyond = profile[:, np.newaxis] - np.arange(depth, dtype=np.float32)
    alpha = _step(beyond * min(1.0, width / height), rng.uniform(0.5, 2.0)) * (profile[:, np.newaxis] > 0.5)
    alpha = alpha.T if side % 2 == 0 else alpha
    return alpha[::-1] if side == 2 else alpha[:, ::-1] if side == 3 else alpha


def _line(shape, rng):
    """A line: short to crossing the image, straight, bent, jagged or broken, one to several pixels wide."""
    rows, columns, strength = _path(shape, rng)
    inside = (rows >= 0) & (rows < shape[0] - 1) & (columns >= 0) & (columns < shape[1] - 1)
    rows, columns, strength = rows[inside], columns[inside], strength[inside]
    alpha = np.zeros(shape, np.float32)
    top, left = rows.astype(int), columns.astype(int)
    low, right = rows - top, columns - left
    for down in (0, 1):  # each point to the four pixels around it
        for across in (0, 1):
            weight = (low if down else 1 - low) * (right if across else 1 - right)
            np.add.at(alpha, (top + down, left + across), (strength * weight).astype(np.float32))
    alpha = np.minimum(alpha / POINTS, 1.5)
    width = rng.choice([0.35, 0.5, 0.7, 1.0, 1.6], p=[0.3, 0.3, 0.2, 0.12, 0.08])
    if width > 0.4:
        alpha = ndimage.gaussian_filter(alpha, width, truncate=3) * (2.2 * width)
    return np.clip(alpha, 0, 1)


POINTS = 3  # of a line's path for each pixel of its length


def _path(shape, rng):
    """`(rows, columns, strength)` of the points of a line, some of them outside the image."""
    length = _between(5, 1.2 * max(shape), rng)
    count = int(POINTS * length) + 2
    turn = rng.choice([0.0, np.pi]) + rng.normal(0, 0.25) if rng.random() < 0.45 else rng.uniform(0, 2 * np.pi)
    knots = max(2, int(length / _between(4, 60, rng)) + 1)
    wander = _interpolation(count, knots) @ rng.standard_normal(knots)
    turn = turn + rng.normal(0, 0.8) * np.linspace(-0.5, 0.5, count) + rng.choice([0.1, 0.4, 0.8]) * wander
    rows, columns = np.cumsum(np.cos(turn)) / POINTS, np.cumsum(np.sin(turn)) / POINTS
    start = rng.uniform(0, 1, 2) * shape
    if rng.random() < 0.4:  # from a border inwards
        axis = int(rng.random() < 0.3)
        start[axis] = rng.choice([0, shape[axis] - 1])
        inward = 1 if start[axis] == 0 else -1
        if inward * (rows, columns)[axis][-1] < 0:
            rows, columns = -rows, -columns
    elif length > 40:
        rows, columns = rows - rows.mean(), columns - columns.mean()
    strength = np.clip(1 + 0.5 * _interpolation(count, knots) @ rng.standard_normal(knots), 0.15, 1.5)
    if rng.random() < 0.3:  # broken
        gaps = max(2, int(length / _between(3, 20, rng)))
        strength = strength * (_interpolation(count, gaps) @ rng.standard_normal(gaps) > -0.6)
    return rows + start[0], columns + start[1], strength


# ---------------------------------------------------------------- fillings: what a region becomes, [h, w, c]


def _fill_tone(scene, rng):
    return scene.x + _tone(scene, rng)


def _fill_flat(scene, rng):
    """Matt: what the surface had is gone, another grain, often darker."""
    base = _low_pass(scene.x, int(rng.integers(5, 16)))
    grain = _grain(scene.x.shape[:2], rng)
    if rng.random() < 0.6:
        grain = ndimage.uniform_filter(grain, (3, 3, 1)) * 3
    keep = rng.uniform(0, 0.5)
    if rng.random() < 0.3:
        base = base * 0.3 + 0.7 * base.mean((0, 1))
    return base + keep * (scene.x - base) + scene.gain * (_between(0.005, 0.12, rng) * grain + rng.normal(-0.05, 0.12))


def _fill_grain(scene, rng):
    """The same grain, weaker or stronger."""
    base = _low_pass(scene.x, int(rng.integers(3, 14)))
    share = _between(1.5, 4, rng) if rng.random() < 0.6 else rng.uniform(0, 0.55)
    return base + (scene.x - base) * share + scene.gain * rng.normal(0, 0.06)


def _fill_streaks(scene, rng):
    """Stripes along the columns or rows, as of another grinding; often brighter."""
    scale = (_between(20, 400, rng), _between(1.0, 4.0, rng))
    stripes = _smooth_noise(scene.x.shape[:2], scale if rng.random() < 0.85 else scale[::-1], rng)
    base = _low_pass(scene.x, int(rng.integers(5, 14))) if rng.random() < 0.4 else scene.x
    return base + scene.gain * (_between(0.03, 0.25, rng) * stripes + rng.normal(0.04, 0.1))


def _fill_other(scene, rng):
    """A piece of another normal image, often at this image's brightness."""
    x, piece = scene.x, scene.other
    if piece is x:
        return _fill_own(scene, rng)
    if rng.random() < 0.3:
        piece = piece[::-1]
    times = [-(-side // have) for side, have in zip(x.shape, piece.shape[:2])]
    piece = np.tile(piece, (*times, 1)) if max(times) > 1 else piece
    top, left = (rng.integers(0, have - side + 1) for side, have in zip(x.shape, piece.shape[:2]))
    piece = piece[top : top + x.shape[0], left : left + x.shape[1]]
    return piece - _low_pass(piece, 31) + _low_pass(x, 31) if rng.random() < 0.5 else piece


def _fill_own(scene, rng):
    """A piece of the same image, from elsewhere, perhaps turned upside down."""
    least = [max(1, min(8, side // 4)) for side in scene.x.shape[:2]]
    moved = np.roll(scene.x, [int(rng.integers(low, side - low)) for low, side in zip(least, scene.x.shape)], (0, 1))
    return moved[::-1] if rng.random() < 0.5 else moved


def _fill_blur(scene, rng):
    return _low_pass(scene.x, int(rng.integers(2, 8)))


def _fill_contrast(scene, rng):
    mean = scene.x.mean((0, 1))
    return mean + (scene.x - mean) * _between(0.3, 2.5, rng) + scene.gain * rng.normal(0, 0.08)


def _fill_deep(scene, rng):
    """Nearly black or (seldom) nearly white, with a little grain: a hole or a missing piece."""
    tone = rng.uniform(0.0, 0.25) if rng.random() < 0.75 else rng.uniform(0.75, 1.0)
    grain = rng.uniform(0, 0.1) * _smooth_noise(scene.x.shape[:2], _between(1.5, 8, rng), rng)
    return tone + rng.uniform(0, 0.35) * (scene.x - scene.x.mean()) + grain


# Each with how often it is taken. "deep" is what most bites and a quarter of the spots have anyway.
_FILLINGS: dict[str, tuple[Callable, float]] = {
    "tone": (_fill_tone, 0.13),
    "flat": (_fill_flat, 0.28),
    "grain": (_fill_grain, 0.14),
    "streaks": (_fill_streaks, 0.18),
    "other": (_fill_other, 0.11),
    "own": (_fill_own, 0.05),
    "blur": (_fill_blur, 0.05),
    "contrast": (_fill_contrast, 0.06),
    "deep": (_fill_deep, 0.05),
}
FILLINGS = tuple(_FILLINGS)


# ---------------------------------------------------------------- families: (changed [h, w, c], mask [h, w])


def _put(scene, alpha, filling, rng):
    """The filling where alpha says, sometimes with an outline: a crack around a flake, a step between two surfaces."""
    filled = filling(rng)(scene, rng)
    if rng.random() < 0.3:
        filled = filled + scene.gain * rng.normal(0, 0.1)
    changed, mask = scene.x + _fade(alpha) * (filled - scene.x), alpha > EDGE
    if rng.random() < 0.25:
        rim = ndimage.maximum_filter(alpha, 3) - ndimage.minimum_filter(alpha, 3)
        rim = rim * np.clip(0.7 + 0.6 * _waves(alpha.shape, _between(4, 40, rng), rng), 0, 1.2)
        changed = changed + _fade(rim) * _tone(scene, rng, dark=0.8, low=0.08, high=0.5)
        mask |= rim > EDGE
    return changed, mask


def _draw_line(scene, filling, rng):
    alpha = _line(scene.x.shape[:2], rng)
    return scene.x + _fade(alpha) * _tone(scene, rng, dark=0.75, low=0.08, high=0.7), alpha > EDGE


def _draw_spot(scene, filling, rng):
    """One ellipse or a few, from a few pixels to a tenth of the image."""
    shape = scene.x.shape[:2]
    count = 1 + (int(rng.integers(0, 3)) if rng.random() < 0.3 else 0)
    spots = [_ellipse(shape, _between(1.0, 0.05 * min(shape) + 2.0, rng), rng) for _ in range(count)]
    alpha = np.max(spots, axis=0)
    filled = _fill_deep(scene, rng) if rng.random() < 0.25 else scene.x + _tone(scene, rng, dark=0.8, low=0.12, high=0.8)
    return scene.x + _fade(alpha) * (filled - scene.x), alpha > EDGE


def _draw_stain(scene, filling, rng):
    """A soft, broad change of tone."""
    radius = _between(3, 0.18 * min(scene.x.shape[:2]), rng)
    alpha = _low_pass(_ellipse(scene.x.shape[:2], radius, rng), max(2, int(radius * rng.uniform(0.2, 0.6))))
    return scene.x + _fade(alpha) * _tone(scene, rng, low=0.07, high=0.35), alpha > EDGE


def _draw_blob(scene, filling, rng):
    return _put(scene, _noise_blob(scene.x.shape[:2], rng), filling, rng)


def _draw_area(scene, filling, rng):
    """A side, a box or a large patch of another surface."""
    return _put(scene, (_half_plane if rng.random() < 0.55 else _rounded_box)(scene.x.shape[:2], rng), filling, rng)


def _draw_bite(scene, filling, rng):
    alpha = _bite(scene.x.shape[:2], rng)
    return _put(scene, alpha, (lambda rng: _fill_deep) if rng.random() < 0.6 else filling, rng)


_FAMILIES: dict[str, tuple[Callable, float]] = {
    "line": (_draw_line, 0.24),
    "spot": (_draw_spot, 0.18),
    "stain": (_draw_stain, 0.04),
    "blob": (_draw_blob, 0.16),
    "area": (_draw_area, 0.22),
    "bite": (_draw_bite, 0.16),
}
FAMILIES = tuple(_FAMILIES)


# ---------------------------------------------------------------- changes that are no defects


def _with_margin(x, side, rng):
    """Beyond a smooth curve along a side it is dark (seldom bright): the object ends there."""
    turned = np.rot90(x, side)
    deep, width = turned.shape[:2]
    at = np.linspace(-1, 1, width, dtype=np.float32)
    depth = (_between(1, 9, rng) - 2 + rng.uniform(-6, 6) * at**2 + rng.uniform(-3, 3) * at) * min(1.0, deep / 64)
    depth = np.minimum(depth, min(14, 0.2 * deep))
    alpha = _step(depth - np.arange(deep, dtype=np.float32)[:, np.newaxis], rng.uniform(0.7, 3))[..., np.newaxis]
    tone = rng.uniform(0, 0.3) if rng.random() < 0.85 else rng.uniform(0.7, 1.0)
    return np.rot90(turned + alpha * (tone - turned) * rng.uniform(0.4, 1), -side)


def _glare(shape, rng):
    """Soft light near the left or the right border, drawn out along it: `[h, w, 1]`, what it adds."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    centre = (rng.uniform(-0.1, 1.1) * shape[0], rng.choice([0.0, 1.0]) * shape[1] + rng.normal(0, 6))
    tall, wide = _between(10, 80, rng), _between(3, 25, rng)
    shine = np.exp(-(((rows - centre[0]) / tall) ** 2) - ((columns - centre[1]) / wide) ** 2).astype(np.float32)
    return rng.uniform(0.1, 0.5) * shine[..., np.newaxis]
