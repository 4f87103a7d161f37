"""Images of differing sizes to batches and back, in NumPy and in a graph."""

import numpy as np
import tensorflow as tf

from anogan_tf.data.pixel_checks import check_input
from anogan_tf.data.preprocessing import to_network

PIXELS_AT_ONCE = 2**22  # of a batch of images that are cut into tiles; all their tiles are in memory together


def batch_by_pixels(items, max_items, image=lambda item: item, pixels=PIXELS_AT_ONCE):
    """Yield lists of `max_items` items, fewer where their images `[h, w, C]` would fill up to more than so many pixels."""
    group: list = []
    larger = np.zeros(2, int)
    for item in items:
        with_it = np.maximum(larger, image(item).shape[:2])
        if group and (len(group) == max_items or (len(group) + 1) * with_it.prod() > pixels):
            yield group
            group, with_it = [], np.array(image(item).shape[:2])
        group.append(item)
        larger = with_it
    if group:
        yield group


def pad_and_stack(images):
    """`(images [N, H, W, C], sizes [N, 2])` of images `[h, w, C]`, filled up with 0 to the largest height and width."""
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    filled = np.zeros((len(images), *sizes.max(axis=0), images[0].shape[-1]), np.float32)
    for into, image in zip(filled, images):
        into[: image.shape[0], : image.shape[1]] = image
    return filled, sizes


def unpad(filled, sizes):
    """The images or maps `[h, w, ...]` that `pad_and_stack` made a batch of, as a list."""
    return [image[:height, :width] for image, (height, width) in zip(filled, np.asarray(sizes))]


def within(sizes, shape):
    """Which pixels of a batch are of its images, `[N, H, W]` bool; `sizes` `[N, 2]`, `shape` as of the batch."""
    down, across = tf.range(shape[1])[:, tf.newaxis], tf.range(shape[2])
    return (down < sizes[:, :1, tf.newaxis]) & (across < sizes[:, 1:, tf.newaxis])


def map_to_images(function, rows, channels, outputs):
    """`tf.map_fn` where the rows give images of differing sizes: it fills them up. There may be no rows.

    Args:
        function: from a row to `(image [h, w, channels], its size [2], ...)`.
        rows: tensors `[N, ...]`.
        channels: an integer.
        outputs: the `tf.TensorSpec`s of what follows the image.

    Returns:
        `(images [N, H, W, channels], sizes [N, 2], ...)`.
    """

    def flatten(row):
        image, *others = function(row)
        return tf.reshape(image, (-1, channels)), *others

    spec = tf.RaggedTensorSpec((None, channels), tf.float32, ragged_rank=0)
    flat, sizes, *others = tf.map_fn(flatten, rows, fn_output_signature=(spec, *outputs))
    pixels = tf.reshape(flat.values, (-1, channels))  # of no rows its shape would be none
    height, width = tf.unstack(tf.reduce_max(tf.pad(sizes, [(0, 1), (0, 0)]), axis=0))
    down, right, widths = tf.range(height)[:, tf.newaxis], tf.range(width), sizes[:, 1:, tf.newaxis]
    first = tf.cumsum(sizes[:, 0] * sizes[:, 1], exclusive=True)[:, tf.newaxis, tf.newaxis]
    places = tf.where(within(sizes, (0, height, width)), first + down * widths + right, tf.shape(pixels)[0])
    return tf.gather(tf.pad(pixels, [(0, 1), (0, 0)]), places), sizes, *others  # beyond an image the row of 0 after the last


def with_sizes(images, sizes=None):
    """`(images, sizes [N, 2])` of a batch `[N, H, W, C]`; without sizes its images are whole."""
    if sizes is not None:
        return images, tf.cast(sizes, tf.int32)
    count, height, width = tf.unstack(tf.shape(images)[:3])
    return images, tf.tile([[height, width]], (count, 1))


def prepared_batches(x, preprocessing, batch_size, name, tiled):
    """Yield `(images [N, H, W, C] in [-1, 1], sizes [N, 2])` of pixels as `AnoGAN.predict` takes them.

    Args:
        x: an array, a list of images of any sizes, or a batched `tf.data.Dataset`.
        preprocessing: a `Preprocessing`.
        batch_size: images in a batch; of images that are cut into tiles fewer where they are large.
        name: what errors call x.
        tiled: whether images are cut into tiles.

    Raises:
        ValueError: for pixels that can't be used.
    """
    check_input(x, name)
    if isinstance(x, tf.data.Dataset):
        for batch in x:
            batch = batch[0] if isinstance(batch, tuple) else batch
            yield with_sizes(preprocessing(preprocessing.check(batch, name)))
        return
    listed = isinstance(x, (list, tuple))
    if not listed:
        x = preprocessing.check(x, name)
    if not tiled and not listed:
        for first in range(0, len(x), batch_size):
            yield with_sizes(preprocessing(x[first : first + batch_size]))
        return
    if not len(x):
        raise ValueError(f"{name} holds no images.")
    prepared = (to_network(preprocessing.read(image, f"{name}[{row}]")) for row, image in enumerate(x))
    yield from map(pad_and_stack, batch_by_pixels(prepared, batch_size))


def join_outputs(outputs, of_image_size, as_list):
    """The outputs of some batches as those of one.

    Args:
        outputs: dicts of arrays with a row for each image; of `of_image_size` lists of `[h, w, C]`.
        of_image_size: names of outputs that have an image's size.
        as_list: whether these stay lists where all are of one size.

    Returns:
        A dict.
    """
    joined = {name: np.concatenate([out[name] for out in outputs]) for name in outputs[0] if name not in of_image_size}
    lists = {name: [image for out in outputs for image in out[name]] for name in of_image_size}
    stacked = not as_list and len({image.shape[:2] for images in lists.values() for image in images}) == 1
    return {**joined, **{name: np.stack(images) if stacked else images for name, images in lists.items()}}
