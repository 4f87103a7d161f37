"""What counts as valid pixels: dtypes and their ranges, shapes, channels; errors that name the remedy."""

import os

import numpy as np

MIN_SIDE = 4


# The dtype says the range: the largest value of each dtype that pixels may have.
_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}


def check_input(x, name="x"):
    """Raise a ValueError, naming the remedy, for what is no array, list or dataset of pixels but often given in place of one."""
    if hasattr(x, "element_spec"):
        _check_dataset(x.element_spec, name)
        return
    first = x[0] if isinstance(x, (list, tuple)) and len(x) else x
    if isinstance(first, (str, bytes, os.PathLike)):
        raise ValueError(f"{name} holds the path {first!r}, not pixels: load_images({first!r}).pixels reads them.")
    if hasattr(x, "pixels") and hasattr(x, "entries"):
        raise ValueError(f"{name} is what load_images gives, with names and all; pass {name}.pixels.")
    if isinstance(first, dict):
        raise ValueError(
            f"{name} holds a dict with {', '.join(map(str, first))}; pass the images alone, such as {name}['image']."
        )
    if hasattr(x, "iloc"):
        raise ValueError(f"{name} is a {type(x).__name__}; pass its images as a list of arrays: list({name}).")


def _check_dataset(spec, name):
    images = spec[0] if isinstance(spec, tuple) and spec else spec
    if isinstance(images, dict):
        image = "image" if "image" in images else next(iter(images))
        raise ValueError(f"{name} is a dataset of dicts; take the images out: {name}.map(lambda row: row[{image!r}]).")
    shape = getattr(images, "shape", None)
    if shape is not None and shape.rank is not None and (shape.rank < 3 or (shape.rank == 3 and shape[-1] in (1, 3))):
        raise ValueError(f"{name} is a dataset of single images {tuple(shape)}; batch it: {name}.batch(16).")


def check_pixels(pixels, name="pixels", bounded=True):
    """Check an array of images on its way in.

    Args:
        pixels: array `[N, h, w]` or `[N, h, w, c]`; uint8, uint16 or float in [0, 1].
        name: what to call it in an error.
        bounded: whether floats must lie in [0, 1], or only be finite.

    Returns:
        A NumPy array `[N, h, w, c]`.

    Raises:
        ValueError: naming the array, what is wrong with it and the remedy.
    """
    check_input(pixels, name)
    if not hasattr(pixels, "__array__") and not isinstance(pixels, (list, tuple)):
        raise ValueError(f"{name} is a {type(pixels).__name__}; expected an array of pixels or a batched tf.data.Dataset.")
    try:
        pixels = np.asarray(pixels)
    except ValueError:  # NumPy's word for it is "inhomogeneous"
        raise ValueError(f"{name}: the images differ in size; pass them to `predict` or `fit`, as a list.") from None
    if pixels.dtype == object:
        raise ValueError(f"{name}: the images differ in size; pass them as a list.")
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (1, 3)):
        raise ValueError(f"{name} has shape {pixels.shape}, a single image; add the batch axis: {name}[None].")
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4:
        raise ValueError(f"{name} has shape {pixels.shape}; expected [N, height, width] or [N, height, width, channels].")
    if not len(pixels):
        raise ValueError(f"{name} holds no images.")
    try:
        _check_kind(pixels.dtype.name, pixels.shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if pixels.dtype.kind == "f":
        _check_floats(pixels, name, bounded)
    return pixels


def _check_floats(pixels, name, bounded):
    low, high = float(pixels.min()), float(pixels.max())
    if np.isnan(low) or (not bounded and not np.isfinite([low, high]).all()):
        row = int(np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))[0])
        raise ValueError(f"{name}: image {row} holds NaN or infinity; remove it or fill its gaps first.")
    if not bounded:
        return
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{name}: float pixels must lie in [0, 1], these span [{low:g}, {high:g}]. Divide by the largest possible value "
            "(255 for 8-bit images), or pass the original uint8 or uint16 pixels."
        )


def _check_kind(dtype, shape):
    """Raise a ValueError unless dtype, channels and sides are ones a network input can be made of."""
    if dtype not in _FULL_SCALE:
        raise ValueError(f"pixels of dtype {dtype}; expected uint8 (0-255), uint16 (0-65535) or float in [0, 1].")
    if len(shape) == 4 and shape[1] in (1, 3) and shape[-1] not in (1, 3, None):
        raise ValueError(f"images of shape {tuple(shape[1:])}, with their channels first; expected [N, height, width, channels].")
    if shape[-1] not in (1, 3, None):
        raise ValueError(f"images with {shape[-1]} channels; expected 1 (grey) or 3 (RGB).")
    if any(side is not None and side < MIN_SIDE for side in shape[1:3]):
        raise ValueError(f"images of {shape[1]}x{shape[2]} pixels; each side must have at least {MIN_SIDE}.")
