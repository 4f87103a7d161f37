"""What a set of normal images asks for where nobody says: whole images of which size, or patches at which scale; contrast."""

import dataclasses

import numpy as np
import tensorflow as tf

from anogan_tf.data.sources import none_readable, normal_rows
from anogan_tf.networks.architectures import MULTIPLE, SMALLEST
from anogan_tf.workflows.options import DEFAULTS

LOOKED_AT, MAX_VALUES = 48, 2**26  # images, spread over the set; fewer of large ones, by what they hold together
KEPT = 64  # images with no longer side are left as they are
SIDES = (28, 48, 64, 96, 128)  # longest sides that others are shrunk to whole; where that is too small they are cut into patches
SCALES = (0.125, 0.25, 0.5, 1.0)  # that images are shrunk by before patches are cut
LOST, GRAIN = 0.05, 0.06  # of an image's variance, that shrinking whole images may cost, and images that patches are cut from
MAX_ASPECT, MAX_SPREAD = 2.0, 1.5  # of an image, and between the images of a set: no one size suits them then
LARGEST = 1024  # pixels of the longer side that patches are cut from, so that one image has some thousands of them at most
PATCH = 32
UNEVEN = 0.25  # deviation of the brightness at the images' edges, in deviations within an image, beyond which each is normalized


def choose_form(source, options):
    """Options with a size or a patch, a scale, and whether images are normalized, taken from the images where they aren't given.

    Args:
        source: a `FileSource`, an `ArraySource` or a `TfdsSource`.
        options: `TrainingOptions`.

    Returns:
        `(TrainingOptions, line)`; the line says what was chosen and why, "" where nothing was to be chosen.
    """
    if (options.size or options.patch) and options.normalize is not None:
        return dataclasses.replace(options, scale=options.scale or 1.0), ""
    images = _some_images(source)
    chosen, reasons = {"scale": options.scale or 1.0}, []
    if not options.size and not options.patch:
        form, reason = choose_shape(images, options)
        chosen |= form
        reasons.append(reason)
    if options.normalize is None:
        spread = edge_spread(images)
        chosen["normalize"] = spread > UNEVEN
        if chosen["normalize"]:
            reasons.append(f"each image is normalized, since their light differs, by {spread:.1f} of the contrast within one")
    return dataclasses.replace(options, **chosen), "; ".join(reasons)


def choose_shape(images, options=DEFAULTS):
    """`(chosen, reason)`: whole images of a size, or patches at a scale.

    Args:
        images: a list of `[h, w, c]` in [0, 1].
        options: `TrainingOptions`; what is for patches alone, or for whole images, decides it.
    """
    sizes = np.array([image.shape[:2] for image in images])
    height, width = (int(side) for side in np.median(sizes, axis=0))
    given = f"images of {'' if len(np.unique(sizes, axis=0)) == 1 else 'about '}{height}x{width}"
    why, side, lost = _why_patches(sizes, height, width, options), 0, 0.0
    if not why:
        side, lost = _smallest_whole(images, max(height, width))
        if lost > LOST and options.fit == "stretch":
            why = f"whole, at {side} pixels, they would lose {lost:.0%} of what they show"
    if not why:
        size = tuple(max(SMALLEST, MULTIPLE * round(length * side / max(height, width) / MULTIPLE)) for length in (height, width))
        kept = "as they are" if lost == 0.0 else f"which loses {lost:.1%} of what they show"
        return {"size": size}, f"{given}: whole, at {size[0]}x{size[1]}, {kept}"
    scale = options.scale or _smallest_scale(images, height, width)
    at = "as they are" if scale == 1.0 else f"at {scale:g} of their size"
    return {"patch": PATCH, "scale": scale}, f"{given}: patches of {PATCH}x{PATCH}, {at}, since {why}"


def _why_patches(sizes, height, width, options):
    """Why patches are cut, whatever the images show; "" where what they show is to be looked at."""
    if options.for_patches:
        return "they were asked for"
    aspects = sizes[:, 1] / sizes[:, 0]
    aspect, spread = max(height / width, width / height), float(np.quantile(aspects, 0.9) / np.quantile(aspects, 0.1))
    if options.fit != "stretch":  # which is for whole images
        return ""
    if aspect > MAX_ASPECT:
        return f"one side is {aspect:.1f} times the other"
    return f"their shapes differ by a factor of {spread:.1f}" if spread > MAX_SPREAD else ""


def _smallest_whole(images, longest):
    """`(longest side, loss)` of the smallest whole images that show enough, or of the largest that there may be."""
    lost = 0.0
    if longest <= KEPT:
        return longest, 0.0
    for side in SIDES:
        if side >= longest:
            return longest, 0.0
        lost = lost_detail(images, side / longest)
        if lost <= LOST:
            return side, lost
    return SIDES[-1], lost


def _smallest_scale(images, height, width):
    """The smallest scale that shows enough, at which an image holds some patches and isn't too large to be searched."""
    scales = [scale for scale in SCALES if scale * min(height, width) >= 2 * PATCH] or [SCALES[-1]]
    for scale in scales[:-1]:
        if 2 * scale * max(height, width) > LARGEST or lost_detail(images, scale) <= GRAIN:
            return scale
    return scales[-1]


def lost_detail(images, ratio):
    """The share of an image's variance that is gone when its sides are shrunk to `ratio` and enlarged again, the median."""
    return float(np.median([_lost(image, ratio) for image in images]))


def _lost(image, ratio):
    size = [max(1, round(side * ratio)) for side in image.shape[:2]]
    again = tf.image.resize(tf.image.resize(image, size, antialias=True), image.shape[:2])
    return float(np.mean(np.square(image - again)) / max(float(image.var()), 1e-6))


def edge_spread(images):
    """How much the brightness at the images' edges differs from image to image, in deviations within an image.

    Objects on a ground have edges that are alike, whatever they are themselves. Where a frame is filled, its light shows.
    """
    rings = [np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]) for image in images]
    within = np.mean([image.std() for image in images])
    return float(np.std([np.median(ring) for ring in rings]) / max(float(within), 1e-6))


def _some_images(source):
    """Some normal images of a source, `[h, w, c]` in [0, 1]; of those with more than 8 bits the largest value of all is 1."""
    rows = normal_rows(source)
    if not rows:
        raise ValueError("There are no normal images to train on.")
    rows = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int))]
    pictures, held = [], 0
    for element in source.elements(rows).as_numpy_iterator():
        pictures.append(source.read(*element))
        held += 0 if pictures[-1].pixels is None else pictures[-1].pixels.size
        if held > MAX_VALUES:
            break
    pixels = [one.pixels for one in pictures if one.pixels is not None and np.isfinite(one.pixels).all()]
    if not pixels:
        raise ValueError(none_readable([one._replace(reason=one.reason or "its values are not finite") for one in pictures]))
    top = max((float(picture.max()) for picture in pixels if picture.dtype != np.uint8), default=1.0)
    return [np.asarray(picture, np.float32) / (255.0 if picture.dtype == np.uint8 else max(top, 1e-6)) for picture in pixels]
